#include "server/index/rebuild.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/index/index_keys.h"
#include "server/index/replaced_name.h"

namespace predella::server {
namespace {

absl::Status Mismatch(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

// Whose all of them are.
absl::Status FindCluster(const RebuildInput& input, RebuildPlan* plan) {
  std::string from = "--cluster-uid";
  plan->cluster_uid = input.cluster_uid.value_or(Uuid());
  for (const MountDescription& mount : input.mounts) {
    if (mount.label.cluster_uid().empty()) {
      plan->notes.push_back(absl::StrCat(
          mount.path, " (", mount.label.mount_name(),
          ") was never part of a cluster: it registers like a new mount"));
      continue;
    }
    ASSIGN_OR_RETURN(const Uuid uid,
                     Uuid::FromBytes(mount.label.cluster_uid()));
    if (!plan->cluster_uid.none() && plan->cluster_uid != uid) {
      return Mismatch(
          reason::kClusterMismatch,
          absl::StrCat(from, " says cluster ", plan->cluster_uid.ToString(),
                       ", ", mount.path, " belongs to ", uid.ToString(),
                       ": one index is one cluster; give the directories of "
                       "one only"));
    }
    plan->cluster_uid = uid;
    from = mount.path;
  }
  if (plan->cluster_uid.none()) {
    return Mismatch(
        reason::kClusterMismatch,
        "none of the directories bears the label of a cluster: there is "
        "nothing to rebuild an index from; a new cluster needs no rebuild, it "
        "begins when the coordinator starts");
  }
  return absl::OkStatus();
}

absl::Status TakeGiven(const RebuildInput& input,
                       std::map<std::string, RebuildPlan::Mount>* by_name) {
  std::map<std::string, std::string> path_of;  // by uid
  for (const MountDescription& mount : input.mounts) {
    if (mount.label.cluster_uid().empty()) {
      continue;
    }
    const auto [seen, fresh] =
        path_of.emplace(mount.label.mount_uid(), mount.path);
    if (!fresh) {
      return Mismatch(
          reason::kMountIdentityMismatch,
          absl::StrCat(seen->second, " and ", mount.path,
                       " bear the label of one mount (",
                       mount.label.mount_name(),
                       "): one of them is a copy; give the other only"));
    }
    RebuildPlan::Mount entry;
    entry.identity.set_mount_uid(mount.label.mount_uid());
    entry.identity.set_mount_name(mount.label.mount_name());
    entry.given = mount;
    const auto [named, added] =
        by_name->emplace(mount.label.mount_name(), std::move(entry));
    if (!added) {
      return Mismatch(
          reason::kMountIdentityMismatch,
          absl::StrCat(named->second.given->path, " and ", mount.path,
                       " both bear the name ", mount.label.mount_name(),
                       ": give the one that was served last"));
    }
  }
  return absl::OkStatus();
}

// Mounts that only others remember.
void TakeRosters(const RebuildInput& input, RebuildPlan* plan,
                 std::map<std::string, RebuildPlan::Mount>* by_name) {
  std::map<std::string, std::string> name_of;  // by uid
  for (const auto& [name, mount] : *by_name) {
    name_of.emplace(mount.identity.mount_uid(), name);
  }
  for (const MountDescription& mount : input.mounts) {
    for (const storage::v1::RosterEntry& entry : mount.deletes.roster()) {
      const Uuid uid = Uuid::FromBytesOrNone(entry.mount_uid());
      if (uid.none() || !ValidateMountName(entry.mount_name()).ok() ||
          name_of.count(entry.mount_uid()) > 0) {
        continue;
      }
      RebuildPlan::Mount absent;
      absent.identity = entry;
      const auto there = by_name->find(entry.mount_name());
      if (there != by_name->end()) {
        // Replaced by the other, or the other by it: who remembers it does not
        // know, and what is on it may be nowhere else.
        absent.identity.set_mount_name(ReplacedName(entry.mount_name(), uid));
        plan->notes.push_back(absl::StrCat(
            mount.path, " remembers another mount, ", uid.ToString(),
            ", under the name ", entry.mount_name(), ", which is bound to ",
            Uuid::FromBytesOrNone(there->second.identity.mount_uid())
                .ToString(),
            ": it is waited for as ", absent.identity.mount_name(),
            "; if it was replaced, retire it; if it is the newer one, give it "
            "the name by predella mount replace ",
            entry.mount_name()));
      }
      name_of.emplace(entry.mount_uid(), absent.identity.mount_name());
      by_name->emplace(absent.identity.mount_name(), std::move(absent));
    }
  }
}

void TakeTombstones(const RebuildInput& input, RebuildPlan* plan) {
  std::map<std::string, storage::v1::TombstoneRow> all;
  for (const MountDescription& mount : input.mounts) {
    for (const storage::v1::Tombstone& one : mount.deletes.tombstones()) {
      const Uuid image = Uuid::FromBytesOrNone(one.image_id());
      const Generation generation = Generation::FromProto(one.generation());
      if (image.none() || generation.none()) {
        continue;
      }
      storage::v1::TombstoneRow& row = all[keys::Tombstone(image, generation)];
      row.set_image_id(one.image_id());
      *row.mutable_generation() = one.generation();
      row.set_create_time_us(one.create_time_us());
      if (!mount.label.cluster_uid().empty()) {
        row.add_copy_mount_uids(mount.label.mount_uid());
      }
    }
  }
  for (auto& [key, row] : all) {
    // Any mount may hold the file still; each says so once it is trusted.
    for (const RebuildPlan::Mount& mount : plan->mounts) {
      row.add_pending_mount_uids(mount.identity.mount_uid());
    }
    plan->tombstones.push_back(std::move(row));
  }
}

}  // namespace

int64_t HighestEpoch(const storage::v1::EpochTable& table) {
  int64_t highest = table.current_epoch();
  for (const storage::v1::FenceEntry& entry : table.past()) {
    highest = std::max(highest, entry.epoch());
  }
  return highest;
}

int64_t HighestEpoch(const std::vector<MountDescription>& mounts) {
  int64_t highest = 0;
  for (const MountDescription& mount : mounts) {
    for (const storage::v1::FenceEntry& entry : mount.known.entries()) {
      highest = std::max(highest, entry.epoch());
    }
  }
  return highest;
}

absl::StatusOr<RebuildPlan> PlanRebuild(const RebuildInput& input) {
  RebuildPlan plan;
  RETURN_IF_ERROR(FindCluster(input, &plan));
  std::map<std::string, RebuildPlan::Mount> by_name;
  RETURN_IF_ERROR(TakeGiven(input, &by_name));
  TakeRosters(input, &plan, &by_name);
  for (auto& [name, mount] : by_name) {
    plan.mounts.push_back(std::move(mount));
  }
  TakeTombstones(input, &plan);
  plan.highest_epoch = HighestEpoch(input.mounts);
  if (input.epoch_file.has_value()) {
    plan.highest_epoch =
        std::max(plan.highest_epoch, HighestEpoch(*input.epoch_file));
  }
  plan.epoch = std::max(plan.highest_epoch, input.above_epoch) + 1;
  return plan;
}

absl::Status MarkRestored(KvStore* kv, Clock* clock) {
  storage::v1::RecoveringRow row;
  row.set_since_us(clock->NowMicros());
  row.set_by_command(true);
  KvTransaction change;
  change.puts.emplace_back(keys::kRecovering, SerializeRow(row));
  change.deletes.emplace_back(keys::kClean);
  return kv->Commit(std::move(change));
}

absl::StatusOr<storage::v1::EpochTable> WriteRebuiltIndex(
    const RebuildPlan& plan, KvStore* kv, Clock* clock, IdGenerator* ids) {
  const int64_t now = clock->NowMicros();
  KvTransaction all;
  const auto put = [&all](std::string key,
                          const google::protobuf::MessageLite& row) {
    all.puts.emplace_back(std::move(key), SerializeRow(row));
  };
  storage::v1::ClusterRow cluster;
  cluster.set_cluster_uid(plan.cluster_uid.bytes());
  cluster.set_cluster_key(ids->RandomBytes(32));
  cluster.set_create_time_us(now);
  cluster.set_format_version(kIndexFormatVersion);
  // Not over an index that is there.
  all.conditions.push_back({std::string(keys::kCluster), std::nullopt});
  put(std::string(keys::kCluster), cluster);

  storage::v1::EpochTable epochs;
  epochs.set_current_epoch(plan.epoch);
  epochs.set_current_nonce(static_cast<uint32_t>(ids->NextUint64()));
  put(std::string(keys::kEpochs), epochs);
  const Generation first{plan.epoch, 1, epochs.current_nonce()};
  put(keys::Sequence(first.n), first.ToProto());

  storage::v1::RecoveringRow recovering;
  recovering.set_since_us(now);
  recovering.set_by_command(true);
  put(std::string(keys::kRecovering), recovering);
  put(std::string(keys::kRebuilt), recovering);

  int absent = 0;
  for (const RebuildPlan::Mount& mount : plan.mounts) {
    storage::v1::MountRow row;
    row.set_mount_uid(mount.identity.mount_uid());
    row.set_mount_name(mount.identity.mount_name());
    row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
    row.set_create_time_us(now);
    row.set_update_time_us(now);
    row.set_unconfirmed(!mount.given.has_value());
    absent += mount.given.has_value() ? 0 : 1;
    put(keys::Mount(Uuid::FromBytesOrNone(row.mount_uid())), row);
  }
  for (const storage::v1::TombstoneRow& row : plan.tombstones) {
    put(keys::Tombstone(Uuid::FromBytesOrNone(row.image_id()),
                        Generation::FromProto(row.generation())),
        row);
  }
  storage::v1::EventRow event;
  event.set_time_us(now);
  event.set_kind("index_rebuilt");
  event.set_detail(
      absl::StrCat("from ", plan.mounts.size() - static_cast<size_t>(absent),
                   " directories; ", absent, " mounts are known by name only, ",
                   plan.tombstones.size(), " deletes are remembered"));
  put(keys::Event(first, 0), event);
  RETURN_IF_ERROR(kv->Commit(std::move(all)));
  return epochs;
}

}  // namespace predella::server
