#include "server/lifecycle/cluster_view.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/api_convert.h"
#include "server/lifecycle/cluster_check.h"

namespace predella::server {

v1::HealthCheck* AddCheck(v1::Cluster* cluster, absl::string_view code,
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

void AboutMount(const MountInfo& info, int64_t images, v1::HealthCheck* check) {
  check->set_mount(MountName(info.row.mount_name()));
  check->set_affected_image_count(images);
}

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

void ClusterView::CountMount(const MountInfo& info, Counted* counted,
                             v1::Cluster* cluster) const {
  cluster->set_mount_count(cluster->mount_count() + 1);
  const bool online =
      info.health == v1::HEALTH_ONLINE || info.health == v1::HEALTH_SLOW;
  cluster->set_mounts_online(cluster->mounts_online() + (online ? 1 : 0));
  const bool takes_images =
      online && info.view.admin_state == storage::v1::ADMIN_STATE_ACTIVE;
  counted->writable +=
      takes_images && info.view.available_bytes > 0 &&
              info.view.available_inodes >= placement_.needed_inodes
          ? 1
          : 0;
  const bool first_of_space =
      info.view.space_group < 0 ||
      counted->groups.insert(info.view.space_group).second;
  if (info.has_space && first_of_space) {
    cluster->set_size_bytes(cluster->size_bytes() + info.space.size_bytes());
  }
  if (info.has_space && takes_images &&
      (info.view.space_group < 0 ||
       counted->usable_groups.insert(info.view.space_group).second)) {
    cluster->set_available_bytes(
        cluster->available_bytes() +
        std::max<int64_t>(0, info.view.available_bytes));
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
  CheckUnadopted(&cluster);
  CheckDeletes(&cluster);
  CheckConflicts(&cluster);
  CheckAgents(&cluster);
  Counted counted;
  for (const MountInfo& info : deps_.registry->List()) {
    if (info.row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
      CheckLost(info, &cluster);
      continue;
    }
    CountMount(info, &counted, &cluster);
    if (info.view.admin_state == storage::v1::ADMIN_STATE_MAINTENANCE) {
      CheckExcused(info, &cluster);
      if (info.row.unconfirmed()) {
        CheckTrust(info, &cluster);  // no work on it settles that
      }
    } else {
      CheckMount(info, &cluster);
    }
  }
  if (counted.writable == 0) {
    AddCheck(
        &cluster, "NO_WRITABLE_MOUNT", v1::CLUSTER_HEALTH_ERROR,
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
