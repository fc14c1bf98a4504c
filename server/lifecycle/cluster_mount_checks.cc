// The checks of ClusterView that are about one mount.
#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/substitute.h"
#include "absl/time/time.h"

#include "common/ids.h"
#include "common/resource_name.h"
#include "common/units.h"
#include "server/lifecycle/api_convert.h"
#include "server/lifecycle/cluster_check.h"
#include "server/lifecycle/cluster_view.h"

namespace predella::server {
namespace {

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
     "what is at its path is not the mount, or not all of it",
     "mount the file system that belongs there, or put back what is missing of "
     ".predella, all but mount.id and fence empty if need be; the agent goes "
     "on "
     "by "
     "itself; an older copy that is all there is: start its agent again, then "
     "predella mount confirm $0; a new disk in its place: predella mount "
     "replace $0 --dry-run"},
    {v1::HEALTH_FAILED, "MOUNT_FAILED", "reads of the probe fail",
     "look at the kernel log of its host, or, where the detail says more than "
     "one link, remove the backup made of hard links; what is on it: predella "
     "mount impact $0"},
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

void ClusterView::CheckMount(const MountInfo& info,
                             v1::Cluster* cluster) const {
  CheckHealth(info, cluster);
  CheckCopies(info, cluster);
  CheckTrust(info, cluster);
  CheckSpace(info, cluster);
  CheckGarbage(info, cluster);
  CheckInventory(info, cluster);
}

void ClusterView::CheckHealth(const MountInfo& info,
                              v1::Cluster* cluster) const {
  const std::string name = MountName(info.row.mount_name());
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const ImageTotals totals = deps_.index->mount_totals(uid);
  for (const HealthText& text : kHealthTexts) {
    if (info.health != text.health) {
      continue;
    }
    const bool unreadable = CountsAsDegraded(info.health) && totals.count > 0;
    AboutMount(
        info, totals.count,
        AddCheck(
            cluster, text.code,
            unreadable ? v1::CLUSTER_HEALTH_ERROR : v1::CLUSTER_HEALTH_WARNING,
            absl::StrCat(
                name, ": ", text.what, info.health_detail.empty() ? "" : " (",
                info.health_detail, info.health_detail.empty() ? "" : ")", "; ",
                totals.count, " images with ", FormatSize(totals.bytes),
                " lie there", unreadable ? " and are DEGRADED" : ""),
            absl::Substitute(text.next_step, info.row.mount_name())));
  }
}

void ClusterView::CheckTrust(const MountInfo& info,
                             v1::Cluster* cluster) const {
  const std::string name = MountName(info.row.mount_name());
  if (info.row.unconfirmed()) {
    AddCheck(
        cluster, "MOUNT_UNCONFIRMED", v1::CLUSTER_HEALTH_WARNING,
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
    AddCheck(cluster, "MOUNT_UNTRUSTED", v1::CLUSTER_HEALTH_WARNING,
             absl::StrCat(name, " is not trusted: nothing on it is removed"),
             "it is compared again when its agent registers anew");
  }
}

void ClusterView::CheckSpace(const MountInfo& info,
                             v1::Cluster* cluster) const {
  if (!info.has_space || info.space.size_bytes() <= 0) {
    return;
  }
  const std::string name = MountName(info.row.mount_name());
  const int64_t images =
      deps_.index->mount_totals(Uuid::FromBytesOrNone(info.row.mount_uid()))
          .count;
  const double used = 100.0 * static_cast<double>(info.view.used_bytes) /
                      static_cast<double>(info.space.size_bytes());
  const std::string numbers =
      absl::StrCat(name, ": ", absl::StrFormat("%.1f %%", used), " in use, ",
                   FormatSize(std::max<int64_t>(0, info.view.available_bytes)),
                   " of ", FormatSize(info.space.size_bytes()), " available");
  if (info.view.available_inodes < placement_.needed_inodes) {
    AddCheck(
        cluster, "MOUNT_OUT_OF_INODES", v1::CLUSTER_HEALTH_WARNING,
        absl::StrCat(name, ": ",
                     std::max<int64_t>(0, info.view.available_inodes),
                     " inodes left, an image needs ", placement_.needed_inodes),
        "delete images or other files, or make the file system anew with more "
        "inodes");
  }
  if (info.fullness == v1::FULLNESS_FULL) {
    AboutMount(
        info, images,
        AddCheck(
            cluster, "MOUNT_FULL", v1::CLUSTER_HEALTH_WARNING, numbers,
            "delete images (predella image rm), or add a mount; what is on "
            "it stays readable"));
  } else if (info.fullness == v1::FULLNESS_NEAR) {
    AboutMount(
        info, images,
        AddCheck(
            cluster, "MOUNT_NEAR_FULL", v1::CLUSTER_HEALTH_WARNING, numbers,
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
    AboutMount(
        info, totals.count,
        AddCheck(
            cluster, "MOUNT_EXCUSED", v1::CLUSTER_HEALTH_WARNING,
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
    AboutMount(info, count,
               AddCheck(cluster, code, v1::CLUSTER_HEALTH_ERROR,
                        absl::StrCat(MountName(info.row.mount_name()), ": ",
                                     count, " ", what, first),
                        absl::StrCat("predella image ls --degraded --mount ",
                                     info.row.mount_name(),
                                     " -o wide names them; ", help)));
  };
  add("COPIES_MISSING", faults.missing, storage::v1::COPY_FAULT_MISSING,
      "copies that the index names are not there, or may not be read",
      "put the files back, and let the agent's user read those that it may "
      "not; a file of one of them on another mount (predella orphan ls) may be "
      "the only whole one: predella orphan adopt. Delete only what is lost for "
      "good: predella image rm takes every file of it");
  add("COPIES_DAMAGED", faults.damaged, storage::v1::COPY_FAULT_DAMAGED,
      "copies can not be read, or do not agree with their checksums",
      absl::StrCat(
          "see to the disk where they can not be read, put good copies back "
          "where they are bad, and have them read (predella mount scrub ",
          info.row.mount_name(),
          "); a file of one of them on another mount (predella orphan ls) may "
          "be the only whole one: predella orphan adopt. Deleting an image "
          "takes every file of it, and one that can not be read now may be "
          "whole"));
}

void ClusterView::CheckLost(const MountInfo& info, v1::Cluster* cluster) const {
  const ImageTotals totals =
      deps_.index->mount_totals(Uuid::FromBytesOrNone(info.row.mount_uid()));
  if (totals.count > 0) {
    AboutMount(
        info, totals.count,
        AddCheck(cluster, "IMAGES_LOST", v1::CLUSTER_HEALTH_WARNING,
                 absl::StrCat(totals.count, " images with ",
                              FormatSize(totals.bytes), " were given up with ",
                              MountName(info.row.mount_name())),
                 absl::StrCat(
                     "predella image ls --lost --mount ", info.row.mount_name(),
                     " names them; delete those that Glance has no use for")));
  }
}

void ClusterView::CheckGarbage(const MountInfo& info,
                               v1::Cluster* cluster) const {
  if (!info.held_garbage.has_value() || info.held_garbage->uploads() == 0) {
    return;
  }
  const int64_t uploads = info.held_garbage->uploads();
  const std::string& name = info.row.mount_name();
  AddCheck(
      cluster, "GARBAGE_HELD", v1::CLUSTER_HEALTH_WARNING,
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
    AboutMount(
        info, suspicion->missing,
        AddCheck(
            cluster, "INVENTORY_SUSPICIOUS", v1::CLUSTER_HEALTH_ERROR,
            absl::StrCat(name, ": a listing lacks ", suspicion->missing, " of ",
                         suspicion->expected,
                         " images; nothing is removed for that",
                         suspicion->missing > ListingAudit::kMostFaults
                             ? absl::StrCat(", and ", ListingAudit::kMostFaults,
                                            " of them are marked")
                             : ""),
            "see whether the right file system is mounted whole, and put the "
            "files back; predella index check has the mount listed again at "
            "once, and it is within the rescan interval"));
  }
  const int64_t orphans = inventory_->OrphanCount(uid);
  if (orphans > 0) {
    AboutMount(
        info, orphans,
        AddCheck(cluster, "ORPHANS", v1::CLUSTER_HEALTH_WARNING,
                 absl::StrCat(name, ": ", orphans,
                              " files bear the name of an image and no row of "
                              "the index names them"),
                 absl::StrCat("predella orphan ls ", info.row.mount_name(),
                              " says what they are; nothing touches them by "
                              "itself, but a delete of their image")));
  }
}

}  // namespace predella::server
