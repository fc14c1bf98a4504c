#include "server/lifecycle/cluster_view.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/strings/substitute.h"
#include "absl/time/time.h"

#include "common/errors.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "server/lifecycle/api_convert.h"

namespace predella::server {
namespace {

// Every code has its section in docs/operations.md (tests/house looks).
v1::HealthCheck* Add(v1::Cluster* cluster, absl::string_view code,
                     v1::ClusterHealth severity, absl::string_view detail,
                     absl::string_view next_step) {
  v1::HealthCheck* check = cluster->add_checks();
  check->set_code(std::string(code));
  check->set_severity(severity);
  check->set_detail(std::string(detail));
  check->set_next_step(std::string(next_step));
  cluster->set_health(std::max(cluster->health(), severity));
  return check;
}

void About(const MountInfo& info, int64_t images, v1::HealthCheck* check) {
  check->set_mount(MountName(info.row.mount_name()));
  check->set_affected_image_count(images);
}

// Named in the text of a check; the rest is counted.
constexpr size_t kMostNames = 5;
// Looked at for an example.
constexpr int64_t kMostFaults = 1000;

struct HealthText {
  v1::Health health;
  const char* code;
  const char* what;
  const char* next_step;  // $0: the mount's name
};

constexpr HealthText kHealthTexts[] = {
    {v1::HEALTH_UNREACHABLE, "MOUNT_UNREACHABLE", "its agent is silent",
     "see whether the agent runs and reaches the coordinator; what is on it: "
     "predella mount impact $0"},
    {v1::HEALTH_ABSENT, "MOUNT_ABSENT",
     "the directory does not bear its identity file",
     "mount the file system that belongs there, the agent goes on by itself; "
     "a new disk in its place: predella mount replace $0 --dry-run"},
    {v1::HEALTH_FAILED, "MOUNT_FAILED", "reads of the probe fail",
     "look at the kernel log of its host; what is on it: predella mount "
     "impact $0"},
    {v1::HEALTH_HUNG, "MOUNT_HUNG", "calls to the file system do not return",
     "look at the device or the NFS server; what is on it: predella mount "
     "impact $0"},
    {v1::HEALTH_SUSPECT, "MOUNT_SUSPECT", "an error of the disk was seen",
     "look at the kernel log of its host; what is at risk: predella mount "
     "impact $0"},
    {v1::HEALTH_READ_ONLY, "MOUNT_READ_ONLY", "it takes no writes",
     "see why the file system became read-only, repair it and mount it again; "
     "what is at risk: predella mount impact $0"},
    {v1::HEALTH_SLOW, "MOUNT_SLOW", "it is slower than its limit",
     "look at the load of the device; predella mount stat $0 says since "
     "when"},
    {v1::HEALTH_UNKNOWN, "MOUNT_UNKNOWN",
     "its agent has not been heard since the coordinator started",
     "wait half a minute, then start its agent; predella mount stat $0"},
};

}  // namespace

ClusterView::ClusterView(const LifecycleDeps& deps,
                         const PlacementOptions& placement, TrustKeeper* trust,
                         UploadTable* uploads, Tombstones* tombstones,
                         Inventory* inventory, AgentWatch* watch)
    : deps_(deps),
      placement_(placement),
      trust_(trust),
      uploads_(uploads),
      tombstones_(tombstones),
      inventory_(inventory),
      watch_(watch),
      start_time_us_(deps.clock->NowMicros()) {}

void ClusterView::CheckMount(const MountInfo& info,
                             v1::Cluster* cluster) const {
  const std::string name = MountName(info.row.mount_name());
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const ImageTotals totals = deps_.index->mount_totals(uid);
  for (const HealthText& text : kHealthTexts) {
    if (info.health != text.health) {
      continue;
    }
    const bool unreadable = CountsAsDegraded(info.health) && totals.count > 0;
    About(
        info, totals.count,
        Add(cluster, text.code,
            unreadable ? v1::CLUSTER_HEALTH_ERROR : v1::CLUSTER_HEALTH_WARNING,
            absl::StrCat(
                name, ": ", text.what, info.health_detail.empty() ? "" : " (",
                info.health_detail, info.health_detail.empty() ? "" : ")", "; ",
                totals.count, " images with ", FormatSize(totals.bytes),
                " lie there", unreadable ? " and are DEGRADED" : ""),
            absl::Substitute(text.next_step, info.row.mount_name())));
  }
  CheckCopies(info, cluster);
  if (info.row.unconfirmed()) {
    Add(cluster, "MOUNT_UNCONFIRMED", v1::CLUSTER_HEALTH_WARNING,
        absl::StrCat(name, " was away when the index was rebuilt: ",
                     info.attached ? "it is there now, and " : "",
                     "its images are not in the index; until it is taken in "
                     "or given up no image is said to be missing"),
        absl::StrCat(info.attached ? "" : "start its agent, then ",
                     "predella mount confirm ", info.row.mount_name(),
                     "; if it never comes back: predella mount retire ",
                     info.row.mount_name(),
                     " --accept-unlisted (--dry-run, then --yes)"));
  } else if (info.attached && !info.trusted && !trust_->recovering()) {
    Add(cluster, "MOUNT_UNTRUSTED", v1::CLUSTER_HEALTH_WARNING,
        absl::StrCat(name, " is not trusted: nothing on it is removed"),
        "it is compared again when its agent registers anew");
  }
  if (!info.has_space || info.space.size_bytes() <= 0) {
    return;
  }
  const double used = 100.0 * static_cast<double>(info.view.used_bytes) /
                      static_cast<double>(info.space.size_bytes());
  const std::string numbers =
      absl::StrCat(name, ": ", absl::StrFormat("%.1f %%", used), " in use, ",
                   FormatSize(std::max<int64_t>(0, info.view.available_bytes)),
                   " of ", FormatSize(info.space.size_bytes()), " available");
  if (info.view.available_inodes < placement_.needed_inodes) {
    Add(cluster, "MOUNT_OUT_OF_INODES", v1::CLUSTER_HEALTH_WARNING,
        absl::StrCat(name, ": ",
                     std::max<int64_t>(0, info.view.available_inodes),
                     " inodes left, an image needs ", placement_.needed_inodes),
        "delete images or other files, or make the file system anew with more "
        "inodes");
  }
  if (info.fullness == v1::FULLNESS_FULL) {
    About(info, totals.count,
          Add(cluster, "MOUNT_FULL", v1::CLUSTER_HEALTH_WARNING, numbers,
              "delete images (predella image rm), or add a mount; what is on "
              "it stays readable"));
  } else if (info.fullness == v1::FULLNESS_NEAR) {
    About(info, totals.count,
          Add(cluster, "MOUNT_NEAR_FULL", v1::CLUSTER_HEALTH_WARNING, numbers,
              "plan for more space: other mounts are taken first from now on "
              "(predella placement explain)"));
  }
}

// An excuse is for the mount: the images on it are as they are.
void ClusterView::CheckExcused(const MountInfo& info,
                               v1::Cluster* cluster) const {
  const ImageTotals totals =
      deps_.index->mount_totals(Uuid::FromBytesOrNone(info.row.mount_uid()));
  if (CountsAsDegraded(info.health) && totals.count > 0) {
    const std::string& name = info.row.mount_name();
    About(info, totals.count,
          Add(cluster, "MOUNT_EXCUSED", v1::CLUSTER_HEALTH_WARNING,
              absl::StrCat(
                  MountName(name), " is ", HealthName(info.health),
                  ", and excused by its maintenance until ",
                  absl::FormatTime(
                      "%Y-%m-%dT%H:%M:%SZ",
                      absl::FromUnixMicros(info.row.maintenance_until_us()),
                      absl::UTCTimeZone()),
                  info.row.admin_reason().empty() ? "" : " (",
                  info.row.admin_reason(),
                  info.row.admin_reason().empty() ? "; " : "); ", totals.count,
                  " images with ", FormatSize(totals.bytes),
                  " lie there and are DEGRADED"),
              absl::StrCat("predella image ls --degraded --mount ", name,
                           " names them; when the work is done: predella mount "
                           "uncordon ",
                           name)));
  }
  CheckCopies(info, cluster);
}

void ClusterView::CheckCopies(const MountInfo& info,
                              v1::Cluster* cluster) const {
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const FaultCounts faults = deps_.index->fault_counts(uid);
  const auto add = [&](absl::string_view code, int64_t count,
                       storage::v1::CopyFault fault, absl::string_view what,
                       absl::string_view help) {
    if (count == 0) {
      return;
    }
    std::string first;
    for (const storage::v1::FaultRow& row :
         deps_.index->ListFaults(uid, Uuid(), kMostFaults)) {
      if (row.fault() == fault) {
        first = absl::StrCat(", such as ",
                             Uuid::FromBytesOrNone(row.image_id()).ToString(),
                             row.detail().empty() ? "" : " (", row.detail(),
                             row.detail().empty() ? "" : ")");
        break;
      }
    }
    About(info, count,
          Add(cluster, code, v1::CLUSTER_HEALTH_ERROR,
              absl::StrCat(MountName(info.row.mount_name()), ": ", count, " ",
                           what, first),
              absl::StrCat("predella image ls --degraded --mount ",
                           info.row.mount_name(), " -o wide names them; ",
                           help)));
  };
  add("COPIES_MISSING", faults.missing, storage::v1::COPY_FAULT_MISSING,
      "copies that the index names are not there",
      "put the files back, or delete the images (predella image rm)");
  add("COPIES_DAMAGED", faults.damaged, storage::v1::COPY_FAULT_DAMAGED,
      "copies do not agree with their checksums",
      absl::StrCat("put good copies back and read them (predella mount scrub ",
                   info.row.mount_name(),
                   "), or delete the images and store them again"));
}

void ClusterView::CheckLost(const MountInfo& info, v1::Cluster* cluster) const {
  const ImageTotals totals =
      deps_.index->mount_totals(Uuid::FromBytesOrNone(info.row.mount_uid()));
  if (totals.count > 0) {
    About(info, totals.count,
          Add(cluster, "IMAGES_LOST", v1::CLUSTER_HEALTH_WARNING,
              absl::StrCat(totals.count, " images with ",
                           FormatSize(totals.bytes), " were given up with ",
                           MountName(info.row.mount_name())),
              absl::StrCat(
                  "predella image ls --lost --mount ", info.row.mount_name(),
                  " names them; delete those that Glance has no use for")));
  }
}

void ClusterView::CheckIndex(v1::Cluster* cluster) const {
  const std::string error = deps_.index->write_error();
  cluster->set_index_read_only(!error.empty());
  if (!error.empty()) {
    Add(cluster, "INDEX_READ_ONLY", v1::CLUSTER_HEALTH_ERROR,
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
    Add(cluster, "RECOVERING", v1::CLUSTER_HEALTH_ERROR,
        absl::StrCat(
            trust_->why(),
            "; every mount is listed, and nothing is removed meanwhile; "
            "waiting for ",
            awaited.empty() ? "nobody any more" : absl::StrJoin(awaited, ", ")),
        "start the agents of these mounts (MAINTENANCE does not excuse one "
        "here); one that never comes back is given up by predella mount retire "
        "NAME --accept-unlisted (--dry-run, then --yes)");
  }
  const std::vector<Inventory::Unadopted> files = inventory_->ListUnadopted();
  if (!files.empty()) {
    const std::optional<MountInfo> info =
        deps_.registry->Find(files[0].mount_uid);
    Add(cluster, "FILES_NOT_ADOPTED", v1::CLUSTER_HEALTH_ERROR,
        absl::StrCat(files.size(),
                     " files that the index does not know have no record that "
                     "vouches for them, such as ",
                     files[0].image_id.ToString(), " with ",
                     FormatSize(files[0].size_bytes), " on ",
                     MountName(info.has_value() ? info->row.mount_name()
                                                : "a mount that is gone")),
        "the coordinator's log names all (image_not_adopted); put a good copy "
        "of the record back, or keep the file, remove it from the mount and "
        "store it again");
  }
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
    Add(cluster, "IMAGE_CONFLICT", v1::CLUSTER_HEALTH_WARNING,
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
      Add(cluster, "AGENT_WITHOUT_MOUNT", v1::CLUSTER_HEALTH_WARNING,
          absl::StrCat(who, " has not found its mount: ",
                       absl::StripPrefix(v1::Health_Name(health), "HEALTH_"),
                       agent.health.detail().empty() ? "" : ", ",
                       agent.health.detail()),
          absl::StrCat("mount what belongs there; a new directory is made a "
                       "mount by predella mount init ",
                       hello.path(), " --name ", hello.mount_name()));
      continue;
    }
    const std::string reason = ReasonOf(agent.refusal);
    Add(cluster, reason.empty() ? "AGENT_REFUSED" : reason,
        v1::CLUSTER_HEALTH_ERROR,
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
            : "put right what the message says; the agent tries again by "
              "itself");
  }
}

void ClusterView::CheckGarbage(const MountInfo& info,
                               v1::Cluster* cluster) const {
  if (!info.held_garbage.has_value() || info.held_garbage->uploads() == 0) {
    return;
  }
  const int64_t uploads = info.held_garbage->uploads();
  const std::string& name = info.row.mount_name();
  Add(cluster, "GARBAGE_HELD", v1::CLUSTER_HEALTH_WARNING,
      absl::StrCat(MountName(name), ": ", uploads, " uploads with ",
                   FormatSize(info.held_garbage->bytes()),
                   " are not open by the index; so many at once look like a "
                   "mistake of it, and their bytes are kept"),
      absl::StrCat("see in predella events whether the index was put back from "
                   "an older copy; if these uploads are wanted no more: "
                   "predella mount collect-garbage ",
                   name))
      ->set_mount(MountName(name));
}

void ClusterView::CheckInventory(const MountInfo& info,
                                 v1::Cluster* cluster) const {
  const std::string name = MountName(info.row.mount_name());
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const auto suspicion = inventory_->SuspicionOf(uid);
  if (suspicion.has_value()) {
    About(info, suspicion->missing,
          Add(cluster, "INVENTORY_SUSPICIOUS", v1::CLUSTER_HEALTH_ERROR,
              absl::StrCat(
                  name, ": a listing lacks ", suspicion->missing, " of ",
                  suspicion->expected, " images; nothing is removed for that",
                  suspicion->missing > ListingAudit::kMostFaults
                      ? absl::StrCat(", and ", ListingAudit::kMostFaults,
                                     " of them are marked")
                      : ""),
              "see whether the right file system is mounted whole, and put the "
              "files back; the mount is listed again when its agent registers "
              "anew"));
  }
  const int64_t orphans = inventory_->OrphanCount(uid);
  if (orphans > 0) {
    About(info, orphans,
          Add(cluster, "ORPHANS", v1::CLUSTER_HEALTH_WARNING,
              absl::StrCat(name, ": ", orphans,
                           " files bear the name of an image and no row of "
                           "the index names them"),
              absl::StrCat("predella orphan ls ", info.row.mount_name(),
                           " says what they are; nothing touches them by "
                           "itself")));
  }
}

v1::Cluster ClusterView::Get() const {
  v1::Cluster cluster;
  cluster.set_health(v1::CLUSTER_HEALTH_OK);
  cluster.set_uid(
      Uuid::FromBytesOrNone(deps_.index->cluster().cluster_uid()).ToString());
  cluster.set_coordinator_version(deps_.options.version);
  cluster.set_epoch(deps_.index->epoch());
  *cluster.mutable_start_time() = ToTimestamp(start_time_us_);
  const ImageTotals totals = deps_.index->totals();
  cluster.set_image_count(totals.count);
  cluster.set_image_bytes(totals.bytes);
  cluster.set_open_upload_count(uploads_->open_count());
  cluster.set_tombstone_count(tombstones_->count());
  CheckIndex(&cluster);
  CheckRecovery(&cluster);
  CheckAgents(&cluster);
  int writable = 0;
  std::set<int> groups;  // mounts of one space are counted once
  std::set<int> usable_groups;
  for (const MountInfo& info : deps_.registry->List()) {
    if (info.row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
      CheckLost(info, &cluster);
      continue;
    }
    cluster.set_mount_count(cluster.mount_count() + 1);
    const bool online =
        info.health == v1::HEALTH_ONLINE || info.health == v1::HEALTH_SLOW;
    cluster.set_mounts_online(cluster.mounts_online() + (online ? 1 : 0));
    const bool takes_images =
        online && info.view.admin_state == storage::v1::ADMIN_STATE_ACTIVE;
    writable += takes_images && info.view.available_bytes > 0 &&
                        info.view.available_inodes >= placement_.needed_inodes
                    ? 1
                    : 0;
    const bool first_of_space = info.view.space_group < 0 ||
                                groups.insert(info.view.space_group).second;
    if (info.has_space && first_of_space) {
      cluster.set_size_bytes(cluster.size_bytes() + info.space.size_bytes());
    }
    if (info.has_space && takes_images &&
        (info.view.space_group < 0 ||
         usable_groups.insert(info.view.space_group).second)) {
      cluster.set_available_bytes(
          cluster.available_bytes() +
          std::max<int64_t>(0, info.view.available_bytes));
    }
    const bool excused =
        info.view.admin_state == storage::v1::ADMIN_STATE_MAINTENANCE;
    if (excused) {
      CheckExcused(info, &cluster);
    } else {
      CheckMount(info, &cluster);
      CheckGarbage(info, &cluster);
      CheckInventory(info, &cluster);
    }
  }
  if (writable == 0) {
    Add(&cluster, "NO_WRITABLE_MOUNT", v1::CLUSTER_HEALTH_ERROR,
        absl::StrCat("none of ", cluster.mount_count(),
                     " mounts takes new images"),
        cluster.mount_count() == 0 && cluster.checks().empty()
            ? "start an agent on a directory prepared by predella mount init"
            : "see the other checks; uncordon a mount, start its agent, or "
              "make "
              "room (predella placement explain has the numbers)");
  }
  return cluster;
}

absl::StatusOr<v1::PlacementDecision> ClusterView::Explain(
    const v1::ExplainPlacementRequest& request) const {
  PlacementRequest placement;
  if (request.has_size_bytes()) {
    if (request.size_bytes() < 0) {
      return MakeError(absl::StatusCode::kInvalidArgument,
                       reason::kInvalidArgument,
                       absl::StrCat("size_bytes is ", request.size_bytes(),
                                    ": it cannot be negative"));
    }
    placement.size_bytes = request.size_bytes();
  }
  if (!request.image().empty()) {
    ASSIGN_OR_RETURN(const Uuid image_id, ParseImageName(request.image()));
    for (const Uuid& uid : tombstones_->Leftovers(image_id)) {
      placement.excluded.push_back({uid, "leftover"});
    }
    for (const UploadEntry& entry : uploads_->OfImage(image_id)) {
      for (const storage::v1::UploadTargetRow& target : entry.row.targets()) {
        const Uuid uid = Uuid::FromBytesOrNone(target.mount_uid());
        if (!entry.open() && entry.LeftoverOn(uid)) {
          placement.excluded.push_back({uid, "leftover"});
        }
      }
    }
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                     deps_.index->GetImage(image_id));
    if (row.has_value()) {
      for (const storage::v1::CopyRow& copy : row->copies()) {
        placement.excluded.push_back(
            {Uuid::FromBytesOrNone(copy.mount_uid()), "holds_copy"});
      }
    }
  }
  return deps_.registry->Explain(placement);
}

}  // namespace predella::server
