// What a mount has promised to its open uploads.
#ifndef PREDELLA_AGENT_CONTROL_SPACE_LEDGER_H_
#define PREDELLA_AGENT_CONTROL_SPACE_LEDGER_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

#include "agent/fs/file_system.h"
#include "common/ids.h"
#include "common/mutex.h"

namespace predella::agent {

// min(max(1 %, 1 GiB), 5 %) of the file system.
int64_t DefaultReserve(int64_t size_bytes);

// available = f_bavail - reserve - sum of max(0, promised - allocated - holes).
// Promises live in memory: at a registration the coordinator names them all
// again. Thread-safe; never touches the disk.
class SpaceLedger {
 public:
  // Absent: the default reserve of the file system's size.
  explicit SpaceLedger(std::optional<int64_t> reserve_bytes);

  struct Snapshot {
    SpaceInfo space;
    int64_t reserve_bytes = 0;
    int64_t promised_bytes = 0;  // promised and not allocated
    int64_t available_bytes = 0;
  };

  // What was allocated when a look at the file system began: of what comes
  // between it and the answer nobody knows whether the answer counts it.
  struct Reading {
    int64_t number = 0;
    absl::flat_hash_map<Uuid, int64_t> allocated;
  };
  Reading StartReading();
  // The answer; one that began before the last one taken in is dropped.
  void SetSpace(const SpaceInfo& space, const Reading& reading);
  // Of this very moment.
  void SetSpace(const SpaceInfo& space) { SetSpace(space, StartReading()); }
  // False until the first SetSpace.
  bool known();
  Snapshot Take();

  // Promises `size`, or, where it is absent, `start` bytes and a first step
  // (less where less is left, but a MiB at least). RESOURCE_EXHAUSTED,
  // MOUNT_FULL with the numbers when it does not fit, or too few inodes are
  // left for its files and those of the uploads that are open. Again for one
  // upload: replaces its promise.
  // `on_disk`: bytes of it that lay there before the space was read, as those
  // that an earlier process left: f_bavail counts them.
  absl::Status Promise(const Uuid& upload_id, std::optional<int64_t> size,
                       int64_t start, int64_t on_disk = 0);
  // The same for an upload that began before: never refused.
  void PromiseAgain(const Uuid& upload_id, std::optional<int64_t> size,
                    int64_t start, int64_t on_disk = 0);
  // Before bytes up to `needed` are written: lets the promise of an upload of
  // unknown size grow by whole steps. MOUNT_FULL when there is no room.
  absl::Status Grow(const Uuid& upload_id, int64_t needed);
  // Counts from the next SetSpace on: before that f_bavail does not know of
  // these bytes either. `holes`: what came besides and needs no room, which
  // counts at once.
  void SetAllocated(const Uuid& upload_id, int64_t bytes, int64_t holes = 0);
  void Release(const Uuid& upload_id);

 private:
  struct Entry {
    int64_t promised = 0;
    int64_t allocated = 0;  // when f_bavail was read
    int64_t allocated_now = 0;
    int64_t holes = 0;
    // What may yet be written that f_bavail does not know of.
    int64_t Outstanding() const {
      return std::max<int64_t>(0, promised - allocated - holes);
    }
    bool grows = false;
    bool is_new = false;  // since f_bavail was read
  };
  int64_t ReserveLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t OutstandingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t AvailableLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t InodesLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t StepLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status FullLocked(int64_t wanted) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::optional<int64_t> reserve_bytes_;
  Mutex mu_;
  int64_t readings_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t read_ ABSL_GUARDED_BY(mu_) = 0;  // the last one taken in
  std::optional<SpaceInfo> space_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, Entry> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_SPACE_LEDGER_H_
