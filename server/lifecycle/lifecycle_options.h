// What every part of the lifecycle shares: its seams and its limits.
#ifndef PREDELLA_SERVER_LIFECYCLE_LIFECYCLE_OPTIONS_H_
#define PREDELLA_SERVER_LIFECYCLE_LIFECYCLE_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"

#include "common/clock.h"
#include "common/executor.h"
#include "common/ids.h"
#include "server/index/placement_index.h"
#include "server/placement/mount_registry.h"

namespace predella::server {

struct LifecycleOptions {
  std::string version;
  // An upload without a sign of life for this long ends.
  absl::Duration upload_ttl = absl::Hours(24);
  // How long an ended upload answers for itself.
  absl::Duration outcome_ttl = absl::Hours(24);
  // How long a settled tombstone is kept.
  absl::Duration tombstone_ttl = absl::Hours(24);
  // Of those that are older, and wait for a mount that was not listed since the
  // delete, at most so many are kept: a mount's slot holds some 45,000 copies,
  // and where all are full no delete is acknowledged.
  int tombstones_waiting_most = 20000;
  // What a mount's file of deletes holds (agent/store/layout.h).
  int64_t tombstone_slot_bytes = int64_t{1998} << 10;
  absl::Duration read_capability_ttl = absl::Minutes(10);
  absl::Duration heartbeat_interval = absl::Seconds(2);
  // For one command to one agent while a client waits.
  absl::Duration command_timeout = absl::Seconds(1);
  // Each mount is read and checked this often; 0: never by itself. Disks lose
  // sectors that nobody reads: a month bounds how long that stays unknown, and
  // at the agents' rate costs a mount of 20 TB four days of reading.
  absl::Duration scrub_interval = absl::Hours(24 * 30);
  // Each mount is listed again this long after its last listing, or later where
  // a listing takes long; 0: only at starts.
  absl::Duration rescan_interval = absl::Minutes(10);
  int mounts_per_start = 4;
  // How long an upload whose mount is full waits for mounts that are missing:
  // longer than agents need to register after a start of everything.
  absl::Duration move_wait = absl::Minutes(2);
  // How long StartUpload waits for leftovers to go.
  absl::Duration leftover_wait = absl::Seconds(2);
  // How long DeleteImage waits for the first copy of its tombstone.
  absl::Duration tombstone_copy_wait = absl::Seconds(2);
};

// All must outlive whoever is given them.
struct LifecycleDeps {
  PlacementIndex* index = nullptr;
  MountRegistry* registry = nullptr;
  Clock* clock = nullptr;
  IdGenerator* ids = nullptr;
  // Blocking work runs here.
  Executor* pool = nullptr;
  LifecycleOptions options;
};

// Tries of a transaction whose rows were changed by somebody else meanwhile.
inline constexpr int kMaxCommitTries = 16;

// UNAVAILABLE, INDEX_READ_ONLY while the index takes no writes.
absl::Status CheckWritable(const PlacementIndex& index);

// FAILED_PRECONDITION, MOUNT_RETIRED, for the agent of a mount that was given
// up.
absl::Status RetiredError(const std::string& mount_name);

// ABORTED, COMMIT_CONFLICT: the rows changed at every try.
absl::Status TooManyConflicts(absl::string_view what);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_LIFECYCLE_OPTIONS_H_
