// Every mount ever seen: identity, what its agent said last, and what was
// promised of its space. In memory but for the identity and admin state, which
// come from the index. Never forgets a mount.
#ifndef PREDELLA_SERVER_PLACEMENT_MOUNT_REGISTRY_H_
#define PREDELLA_SERVER_PLACEMENT_MOUNT_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/mount_service.pb.h"
#include "server/placement/placement_policy.h"

namespace predella::server {

class MountRegistry;

// Space promised to an upload on a mount, until the agent's own ledger shows
// it. Given back when destroyed before that. Move-only.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();

  bool held() const { return registry_ != nullptr; }
  const Uuid& mount_uid() const { return mount_uid_; }
  int64_t bytes() const { return bytes_; }
  // The agent was told with this command: the promise ends with the first
  // space snapshot that has done it, whatever happens to this object.
  void HandOver(int64_t command_number);

 private:
  friend class MountRegistry;
  MountRegistry* registry_ = nullptr;
  Uuid mount_uid_;
  int64_t bytes_ = 0;
  int64_t id_ = 0;
};

struct RegistryOptions {
  PlacementOptions placement;
  absl::Duration unreachable_after = absl::Seconds(15);
  absl::Duration unknown_for = absl::Seconds(30);
};

// What the registry knows of one mount.
struct MountInfo {
  storage::v1::MountRow row;
  // The agent's last Hello; absent since the start: never seen.
  std::optional<control::v1::Hello> hello;
  control::v1::Space space;
  bool has_space = false;
  control::v1::MountHealth reported_health;
  v1::Health health = v1::HEALTH_UNKNOWN;  // as derived now
  std::string health_detail;
  bool session_open = false;  // a session lives
  bool attached = false;      // ... and its open uploads were answered
  bool trusted = false;       // ... and it knows no more than the index
  std::vector<storage::v1::FenceEntry> known;
  int64_t heartbeat_time_us = 0;
  MountView view;
};

// Thread-safe; no call blocks on anything but its lock. `clock`, `ids` must
// outlive it.
class MountRegistry {
 public:
  MountRegistry(Clock* clock, IdGenerator* ids, const RegistryOptions& options);

  // From the index: at the start, and after every change of a row.
  void SetRow(const storage::v1::MountRow& row);
  // Bytes of ours on it, for ties; from the index's totals.
  void SetImageBytes(const Uuid& mount_uid, int64_t bytes);

  // A session's life. `session` numbers are the caller's and never come twice;
  // calls of any but the newest session of a mount are ignored.
  void SessionOpened(const Uuid& mount_uid, int64_t session,
                     const control::v1::Hello& hello);
  void Reported(const Uuid& mount_uid, int64_t session,
                const control::v1::MountReport& report);
  void Attached(const Uuid& mount_uid, int64_t session, bool trusted);
  void SetTrusted(const Uuid& mount_uid, bool trusted);
  void Heard(const Uuid& mount_uid, int64_t session,
             const control::v1::Heartbeat& heartbeat);
  // A snapshot that came with a command's result.
  void SpaceSeen(const Uuid& mount_uid, int64_t session,
                 const control::v1::Space& space);
  void SessionClosed(const Uuid& mount_uid, int64_t session);

  // Chooses a mount and promises the space, in one step: any number of calls
  // started together never promise the same byte twice.
  struct Placed {
    Reservation reservation;
    std::string mount_name;
    storage::v1::Decision decision;
  };
  // RESOURCE_EXHAUSTED, NO_SPACE_IN_CLUSTER with the numbers when every mount
  // that could take images is too full; UNAVAILABLE, MOUNTS_MISSING names the
  // mounts that are not there when those might have had room; UNAVAILABLE,
  // LEFTOVER_PENDING when only leftovers are in the way.
  absl::StatusOr<Placed> Reserve(const PlacementRequest& request);
  v1::PlacementDecision Explain(const PlacementRequest& request) const;

  std::optional<MountInfo> Find(const Uuid& mount_uid) const;
  std::optional<MountInfo> FindByName(absl::string_view name) const;
  // In the order of their names.
  std::vector<MountInfo> List() const;
  // Names of mounts that are neither attached nor excused (MAINTENANCE,
  // RETIRED): what a NOT_FOUND would have to wait for.
  std::vector<std::string> Missing() const;
  // Whether the sessions of all mounts in this list are attached and trusted.
  bool AllSettled() const;

  // Health that follows from time alone (UNKNOWN, UNREACHABLE, an ended
  // MAINTENANCE) is derived at each look; nothing ticks.

 private:
  friend class Reservation;
  struct Promise {
    Uuid mount_uid;
    int64_t bytes = 0;
    int64_t command_number = 0;  // 0: not yet handed over
  };
  struct Entry {
    MountInfo info;
    int64_t session = 0;
    absl::Duration last_heard;
    absl::Duration closed_at;
  };

  void Release(int64_t reservation_id);
  void HandOver(int64_t reservation_id, int64_t command_number);
  Entry* FindLocked(const Uuid& mount_uid) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropDonePromisesLocked(const Uuid& mount_uid, int64_t command_number)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RefreshLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Clock* const clock_;
  IdGenerator* const ids_;
  const RegistryOptions options_;
  const absl::Duration start_;

  mutable Mutex mu_;
  // Entry i and view i belong together; the order is that of arrival.
  mutable std::vector<Entry> entries_ ABSL_GUARDED_BY(mu_);
  mutable std::vector<MountView> views_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, size_t> by_uid_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<int64_t, Promise> promises_ ABSL_GUARDED_BY(mu_);
  int64_t next_reservation_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_PLACEMENT_MOUNT_REGISTRY_H_
