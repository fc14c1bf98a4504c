// An index from the mounts alone: cluster, mounts and tombstones. The images
// come with RECOVERING, which the rebuilt index begins in: every mount is
// listed, and what lies there is taken in from its records.
#ifndef PREDELLA_SERVER_INDEX_REBUILD_H_
#define PREDELLA_SERVER_INDEX_REBUILD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/mount_description.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/index/kv_store.h"
#include "server/index/placement_index.h"

namespace predella::server {

struct RebuildInput {
  std::vector<MountDescription> mounts;
  // Said by hand; the labels must agree.
  std::optional<Uuid> cluster_uid;
  int64_t above_epoch = 0;
  // What stands beside the index that was lost.
  std::optional<storage::v1::EpochTable> epoch_file;
};

struct RebuildPlan {
  struct Mount {
    storage::v1::RosterEntry identity;
    // Of one that was given; else it is only named by the others, and
    // UNCONFIRMED.
    std::optional<MountDescription> given;
  };
  Uuid cluster_uid;
  // Highest that anybody has heard of, and the rebuilt index's own.
  int64_t highest_epoch = 0;
  int64_t epoch = 0;
  std::vector<Mount> mounts;  // in the order of their names
  std::vector<storage::v1::TombstoneRow> tombstones;
  // What is passed over, and why, as sentences.
  std::vector<std::string> notes;
};

// Reads no file. FAILED_PRECONDITION, CLUSTER_MISMATCH when the labels are of
// several clusters (names both) or of another than was said, or of none;
// MOUNT_IDENTITY_MISMATCH when two directories bear one name or one identity.
absl::StatusOr<RebuildPlan> PlanRebuild(const RebuildInput& input);

// Writes the plan into an empty store, in one commit, with a new key of the
// cluster. Returns the epochs for the file beside the index.
absl::StatusOr<storage::v1::EpochTable> WriteRebuiltIndex(
    const RebuildPlan& plan, KvStore* kv, Clock* clock, IdGenerator* ids);

// A copy of the index that is put back: it begins RECOVERING, and its clean
// close, if it had one, says nothing any more.
absl::Status MarkRestored(KvStore* kv, Clock* clock);

// The highest epoch in a table, or in what mounts know; 0: none.
int64_t HighestEpoch(const storage::v1::EpochTable& table);
int64_t HighestEpoch(const std::vector<MountDescription>& mounts);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_REBUILD_H_
