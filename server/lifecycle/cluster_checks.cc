// The checks of ClusterView that are about the index and the agents.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

#include "common/errors.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/units.h"
#include "server/lifecycle/cluster_check.h"
#include "server/lifecycle/cluster_view.h"

namespace predella::server {
namespace {

// Named in the text of a check; the rest is counted.
constexpr size_t kMostNames = 5;

// Of a mount's file of deletes. What is settled makes room long before.
constexpr double kNearlyFull = 0.9;

// The first copy of a delete is written while its client waits.
constexpr absl::Duration kCopiesTake = absl::Seconds(30);

}  // namespace

void ClusterView::CheckIndex(v1::Cluster* cluster) const {
  const std::string error = deps_.index->write_error();
  cluster->set_index_read_only(!error.empty());
  if (!error.empty()) {
    AddCheck(
        cluster, "INDEX_READ_ONLY", v1::CLUSTER_HEALTH_ERROR,
        absl::StrCat("the index takes no writes: ", error),
        deps_.index->read_only()
            ? "free space where the state directory lies, then restart the "
              "coordinator, which started without; reads go on"
            : "free space where the state directory lies; reads go on");
  }
}

void ClusterView::CheckRecovery(v1::Cluster* cluster) const {
  cluster->set_recovering(trust_->recovering());
  if (trust_->recovering()) {
    const std::vector<std::string> awaited = inventory_->Awaited();
    AddCheck(
        cluster, "RECOVERING", v1::CLUSTER_HEALTH_ERROR,
        absl::StrCat(
            trust_->why(),
            "; every mount is listed, and nothing is removed meanwhile; "
            "waiting for ",
            awaited.empty() ? "nobody any more" : absl::StrJoin(awaited, ", ")),
        "start the agents of these mounts (MAINTENANCE does not excuse one "
        "here); one that never comes back is given up by predella mount retire "
        "NAME --accept-unlisted (--dry-run, then --yes)");
  }
}

void ClusterView::CheckUnadopted(v1::Cluster* cluster) const {
  const std::vector<Inventory::Unadopted> files = inventory_->ListUnadopted();
  if (!files.empty()) {
    const std::optional<MountInfo> info =
        deps_.registry->Find(files[0].mount_uid);
    AddCheck(
        cluster, "FILES_NOT_ADOPTED", v1::CLUSTER_HEALTH_ERROR,
        absl::StrCat(files.size(),
                     " files that the index does not know have no record that "
                     "vouches for them, such as ",
                     files[0].image_id.ToString(), " with ",
                     FormatSize(files[0].size_bytes), " on ",
                     MountName(info.has_value() ? info->row.mount_name()
                                                : "a mount that is gone")),
        "the coordinator's log names all (image_not_adopted); one whose record "
        "can be read again is taken in by the next listing, or after a start "
        "of anything by predella orphan adopt; where it never can, predella "
        "orphan adopt --read FILE "
        "takes the file in as it is, and predella orphan rm puts it away");
  }
}

void ClusterView::CheckDeletes(v1::Cluster* cluster) const {
  std::vector<std::string> full;
  for (const Tombstones::Fullness& mount : tombstones_->Fullest()) {
    const std::optional<MountInfo> info = deps_.registry->Find(mount.mount_uid);
    if (mount.share >= kNearlyFull && info.has_value()) {
      full.push_back(absl::StrCat(MountName(info->row.mount_name()), " (",
                                  static_cast<int>(mount.share * 100), "%)"));
    }
  }
  const int64_t unnoted = tombstones_->CountWithoutCopy(kCopiesTake);
  if (full.empty() && unnoted == 0) {
    return;
  }
  std::vector<std::string> awaited;
  for (const auto& [uid, count] : tombstones_->Awaited()) {
    const std::optional<MountInfo> info = deps_.registry->Find(uid);
    if (info.has_value()) {
      awaited.push_back(
          absl::StrCat(MountName(info->row.mount_name()), " (", count, ")"));
    }
  }
  if (unnoted > 0) {
    AddCheck(cluster, "DELETES_NOT_COPIED", v1::CLUSTER_HEALTH_WARNING,
             absl::StrCat(unnoted,
                          " deletes are known to the index, and noted on no "
                          "mount: if it were lost before they are carried out "
                          "on ",
                          absl::StrJoin(awaited, ", "),
                          ", their images would be there again"),
             "start an agent of any mount: they are noted on it by themselves");
  }
  if (full.empty()) {
    return;
  }
  AddCheck(cluster, "DELETES_NEARLY_FULL", v1::CLUSTER_HEALTH_WARNING,
           absl::StrCat("the files that keep deletes fill up on ",
                        absl::StrJoin(full, ", "), ": deletes wait for ",
                        absl::StrJoin(awaited, ", "),
                        "; where they are full on every mount no image can be "
                        "deleted"),
           "start the agents of the mounts that are waited for; one that never "
           "comes back is given up by predella mount retire NAME (--dry-run, "
           "then --yes)");
}

void ClusterView::CheckConflicts(v1::Cluster* cluster) const {
  std::vector<std::string> names;
  int64_t conflicts = 0;
  LogIfError(
      deps_.index->ScanConflicts([&](const storage::v1::ConflictRow& row) {
        ++conflicts;
        if (names.size() < kMostNames) {
          names.push_back(
              Uuid::FromBytesOrNone(row.image().image_id()).ToString());
        }
      }),
      "conflicts are counted at the next look");
  if (conflicts > 0) {
    AddCheck(
        cluster, "IMAGE_CONFLICT", v1::CLUSTER_HEALTH_WARNING,
        absl::StrCat("two generations are kept of ", absl::StrJoin(names, ", "),
                     conflicts > static_cast<int64_t>(names.size())
                         ? absl::StrCat(" and others (", conflicts, " in all)")
                         : ""),
        "predella image stat ID shows both; predella image choose ID "
        "GENERATION --yes keeps one and removes the other");
  }
}

void ClusterView::CheckAgents(v1::Cluster* cluster) const {
  for (const AgentWatch::Agent& agent : watch_->List(deps_.clock->Boot())) {
    const control::v1::Hello& hello = agent.hello;
    const std::string who =
        absl::StrCat("the agent of ", MountName(hello.mount_name()), " on ",
                     hello.host(), " (", hello.path(), ")");
    if (agent.refusal.ok()) {
      const auto health = static_cast<v1::Health>(agent.health.health());
      AddCheck(
          cluster, "AGENT_WITHOUT_MOUNT", v1::CLUSTER_HEALTH_WARNING,
          absl::StrCat(who, " has not found its mount: ",
                       absl::StripPrefix(v1::Health_Name(health), "HEALTH_"),
                       agent.health.detail().empty() ? "" : ", ",
                       agent.health.detail()),
          absl::StrCat("mount what belongs there, or start the agent with the "
                       "name on the label; a new directory is made a mount by "
                       "predella mount init ",
                       hello.path(), " --name ", hello.mount_name()));
      continue;
    }
    const std::string reason = ReasonOf(agent.refusal);
    AddCheck(
        cluster, reason.empty() ? "AGENT_REFUSED" : reason,
        // Whatever it would serve was given up.
        reason == reason::kMountRetired ? v1::CLUSTER_HEALTH_WARNING
                                        : v1::CLUSTER_HEALTH_ERROR,
        absl::StrCat(who, " is refused: ", agent.refusal.message()),
        reason == reason::kClusterMismatch
            ? std::string(
                  "this is the wrong state directory, or a new one in the "
                  "place "
                  "of one that was lost: nothing was changed on the mount")
        : reason == reason::kMountIdentityMismatch
            ? absl::StrCat("start it on the right directory; a new disk in the "
                           "place of the old one: predella mount replace ",
                           hello.mount_name(), " --dry-run")
        : reason == reason::kMountStale
            ? absl::StrCat("put the newest directory back; if this one is all "
                           "there is: predella mount confirm ",
                           hello.mount_name(),
                           ", and what it lacks is named as missing")
        : reason == reason::kMountRetired
            ? std::string("nothing is read or written there any more; its "
                          "files stay as they are")
            : "put right what the message says; the agent tries again by "
              "itself");
  }
}

}  // namespace predella::server
