// Every mount ever seen: identity, what its agent said last, and what was
// promised of its space. In memory but for the identity and admin state, which
// come from the index. Never forgets a mount.
#ifndef PREDELLA_SERVER_PLACEMENT_MOUNT_REGISTRY_H_
#define PREDELLA_SERVER_PLACEMENT_MOUNT_REGISTRY_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/mount_service.pb.h"
#include "server/placement/placement_policy.h"
#include "server/placement/placement_table.h"

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
  // The agent was told with this command of its present session: the promise
  // ends with the first space snapshot that has done it, or with the first one
  // after the mount attached anew, whatever happens to this object. Not held
  // any more afterwards.
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
  int64_t health_time_us = 0;  // since when it is seen so
  // Of the last snapshot, with hysteresis; UNSPECIFIED: none has come.
  v1::Fullness fullness = v1::FULLNESS_UNSPECIFIED;
  bool session_open = false;  // a session lives
  bool attached = false;      // ... and its open uploads were answered
  bool registered = false;    // it was so once since the start
  bool trusted = false;       // ... and it knows no more than the index
  std::vector<storage::v1::FenceEntry> known;
  int64_t heartbeat_time_us = 0;
  // As its agent said last; absent: not since the start.
  std::optional<control::v1::HeldGarbage> held_garbage;
  int64_t stuck_calls = 0;  // as its agent said last
  MountView view;
};

// Another health of a mount, or another errno of the same, at its moment.
struct SeenHealth {
  v1::Health health = v1::HEALTH_UNKNOWN;
  std::string detail;
  std::string error;  // name of the errno; empty without one
  int64_t time_us = 0;
  absl::Duration at;  // Boot()
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
  // Its agent serves another directory than the mount's: ABSENT, until another
  // report of its health comes.
  void Refused(const Uuid& mount_uid, int64_t session,
               const std::string& detail);
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
  // UNAVAILABLE, LEFTOVER_PENDING when some mount is refused for nothing but a
  // leftover; UNAVAILABLE, MOUNTS_MISSING names the mounts that are not there,
  // not healthy, or "refused" this upload, when those might have had room;
  // RESOURCE_EXHAUSTED, NO_SPACE_IN_CLUSTER with the numbers otherwise: every
  // mount that could take images is too full.
  absl::StatusOr<Placed> Reserve(const PlacementRequest& request);
  v1::PlacementDecision Explain(const PlacementRequest& request) const;

  std::optional<MountInfo> Find(const Uuid& mount_uid) const;
  std::optional<MountInfo> FindByName(absl::string_view name) const;
  // In the order of their names.
  std::vector<MountInfo> List() const;
  // How the mount's health has changed since the last call, oldest first; the
  // newest kMostSeen of it. One who asks now and then misses no state that was
  // short.
  std::vector<SeenHealth> TakeSeen(const Uuid& mount_uid);
  static constexpr size_t kMostSeen = 100;
  // Names of mounts that have not registered since the start and are not
  // excused (MAINTENANCE, RETIRED), in order: what a NOT_FOUND would have to
  // wait for. An
  // unconfirmed mount is one of them unless it is RETIRED.
  std::vector<std::string> Missing() const;
  // Whether every mount that is not excused is attached and trusted.
  bool AllSettled() const;

  // Health that follows from time alone (UNKNOWN, UNREACHABLE, an ended
  // MAINTENANCE) is derived at each look; nothing ticks.

 private:
  friend class Reservation;
  struct Promise {
    int64_t id = 0;
    int64_t bytes = 0;
    int64_t command_number = 0;  // 0: not yet handed over
    int64_t session = 0;         // in which it was handed over
  };
  static constexpr size_t kNoGroup = std::numeric_limits<size_t>::max();
  static constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
  struct Entry {
    MountInfo info;
    int64_t session = 0;
    absl::Duration last_heard;
    bool ever_heard = false;
    bool health_seen = false;     // reported since the coordinator started
    std::deque<SeenHealth> seen;  // not taken yet
    std::string seen_error;       // of the last one
    int64_t space_session = 0;    // session of the last snapshot
    int64_t index_bytes = 0;      // of images, by the index
    std::string boot_id;
    int64_t device = 0;
    size_t group = kNoGroup;
    std::vector<Promise> promises;
    int64_t promised_bytes = 0;  // sum over `promises`
  };
  // Mounts that share one space; most are alone in theirs. The numbers follow
  // every promise at once, the members' views only when they are looked at.
  struct Group {
    std::vector<size_t> members;
    // Of members whose present session told them; kUnknown: of none.
    int64_t available_bytes = kUnknown;
    int64_t available_inodes = kUnknown;
    int64_t reserve_bytes = 0;
    int64_t promised_bytes = 0;
    int64_t promises = 0;  // of ours
    bool fresh() const { return available_bytes != kUnknown; }
  };

  void Release(int64_t reservation_id);
  void HandOver(int64_t reservation_id, int64_t command_number);

  std::optional<size_t> IndexLocked(const Uuid& mount_uid) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The mount, if `session` is its present one.
  std::optional<size_t> SessionLocked(const Uuid& mount_uid,
                                      int64_t session) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t AddLocked(const Uuid& mount_uid) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void HeardLocked(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ApplySpaceLocked(size_t i, const control::v1::Space& space)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void ApplyHealth(const control::v1::MountHealth& health, Entry* entry);
  void DropPromisesLocked(size_t i,
                          const std::function<bool(const Promise&)>& done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Puts the mount into the group its hello and report tell.
  void RegroupLocked(size_t i) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Brings the views of a group, and what follows from time for them, up to
  // date.
  void UpdateGroupLocked(size_t group) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The group's numbers from those of its members.
  void SumGroupLocked(size_t group) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // After a change of the group's numbers.
  void UpdateSpaceLocked(size_t group) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Brings the numbers of a view up to date; those of others may be older.
  void ShowLocked(size_t i) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShowAllLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // A promise was made (count 1) or has ended (-1, negative bytes).
  void PromisedLocked(size_t i, int64_t bytes, int count)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t ImageBytesLocked(size_t i) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void UpdateStateLocked(size_t i, absl::Duration now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Everything that time has changed since the last look; cheap when nothing.
  void RefreshLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  MountInfo InfoLocked(size_t i) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes down how the mount's health is, where that is another than before.
  void NoteHealthLocked(v1::Health before, Entry* entry) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string HealthDetailLocked(const Entry& entry) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // MAINTENANCE or RETIRED.
  bool ExcusedLocked(size_t i) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status NowhereLocked(const PlacementRequest& request,
                             const PlacementResult& result) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Clock* const clock_;
  IdGenerator* const ids_;
  const RegistryOptions options_;
  const absl::Duration start_;

  mutable Mutex mu_;
  // Entry i and view i belong together; the order is that of arrival.
  mutable std::vector<Entry> entries_ ABSL_GUARDED_BY(mu_);
  mutable std::vector<MountView> views_ ABSL_GUARDED_BY(mu_);
  // What decisions look at: row i as view i, space i as group i.
  mutable std::vector<PlacementRow> rows_ ABSL_GUARDED_BY(mu_);
  mutable std::vector<PlacementSpace> spaces_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, size_t> by_uid_ ABSL_GUARDED_BY(mu_);
  mutable std::vector<Group> groups_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, size_t> group_by_key_ ABSL_GUARDED_BY(mu_);
  // When the next state changes by time alone.
  mutable absl::Duration next_change_ ABSL_GUARDED_BY(mu_) =
      absl::InfiniteDuration();
  mutable absl::Time next_wall_change_ ABSL_GUARDED_BY(mu_) =
      absl::InfiniteFuture();
  // Reservation -> mount, while its promise lasts.
  absl::flat_hash_map<int64_t, size_t> promises_ ABSL_GUARDED_BY(mu_);
  int64_t next_reservation_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_PLACEMENT_MOUNT_REGISTRY_H_
