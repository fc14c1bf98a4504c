#include "server/lifecycle/lifecycle.h"

#include <vector>

#include "common/status_macros.h"

namespace predella::server {

Lifecycle::Lifecycle(const LifecycleDeps& deps,
                     const PlacementOptions& placement)
    : deps_(deps),
      changed_(deps.clock),
      trust_(deps),
      stale_(deps),
      sessions_(deps, &trust_, &stale_, &watch_, &changed_),
      verifier_(&sessions_, deps_.clock),
      tombstones_(deps, &sessions_, &uploads_, &changed_),
      upload_manager_(deps, &sessions_, &uploads_, &tombstones_, &trust_,
                      &changed_, &gate_),
      reaper_(deps, &sessions_, &trust_, &uploads_, &upload_manager_,
              &tombstones_),
      inventory_(deps, &sessions_, &trust_, &uploads_, &upload_manager_,
                 &tombstones_, &changed_),
      scrubs_(deps, &sessions_, &changed_),
      orphans_(deps, &sessions_, &trust_, &uploads_, &tombstones_, &inventory_,
               &gate_, &changed_),
      index_audit_(deps, &trust_, &inventory_),
      images_(deps, &trust_, &uploads_, &upload_manager_, &tombstones_,
              &inventory_, &verifier_),
      mounts_(deps, &sessions_, &trust_, &reaper_, &inventory_, &scrubs_,
              &changed_, &gate_, &watch_, &stale_, &tombstones_),
      cluster_(deps, placement, &trust_, &uploads_, &tombstones_, &inventory_,
               &watch_),
      events_(deps.index),
      recorder_(deps, &watch_) {
  sessions_.Bind(&upload_manager_, &tombstones_, &inventory_);
  sessions_.BindScrubs(&scrubs_);
  sessions_.OnTrusted([this](const Uuid&) { reaper_.SendRemovals(); });
  inventory_.OnEnded([this] { reaper_.SendRemovals(); });
  inventory_.OnAudited([this] {
    orphans_.FollowMoves();
    scrubs_.EndPasses();
  });
  scrubs_.OnPassRead(
      [this](const Uuid& mount) { return inventory_.ListSoon(mount); },
      [this](const Uuid& mount, int64_t after) -> absl::StatusOr<bool> {
        const Inventory::Relisted listed =
            inventory_.RelistedSince(mount, after);
        RETURN_IF_ERROR(listed.error);
        return listed.compared;
      });
  tombstones_.OnListings(
      [this] { return inventory_.ListedAll(); },
      [this](const Uuid& image) { return inventory_.ShowsFileOf(image); });
  images_.OnDeleted([this] { reaper_.SendRemovals(); });
}

absl::StatusOr<std::unique_ptr<Lifecycle>> Lifecycle::Create(
    const LifecycleDeps& deps, const PlacementOptions& placement) {
  // The constructor is private: make_unique cannot reach it.
  std::unique_ptr<Lifecycle> lifecycle(new Lifecycle(deps, placement));
  RETURN_IF_ERROR(lifecycle->Load());
  return lifecycle;
}

absl::Status Lifecycle::Load() {
  ASSIGN_OR_RETURN(const std::vector<storage::v1::MountRow> mounts,
                   deps_.index->ListMounts());
  for (const storage::v1::MountRow& row : mounts) {
    deps_.registry->SetRow(row);
    const Uuid uid = Uuid::FromBytesOrNone(row.mount_uid());
    deps_.registry->SetImageBytes(uid, deps_.index->mount_totals(uid).bytes);
  }
  RETURN_IF_ERROR(recorder_.Load());
  RETURN_IF_ERROR(trust_.Load());
  RETURN_IF_ERROR(scrubs_.Load());
  RETURN_IF_ERROR(tombstones_.Load());
  RETURN_IF_ERROR(inventory_.Load());
  return upload_manager_.Load();
}

void Lifecycle::RecordEvents() {
  mounts_.Tick();
  recorder_.Tick();
  events_.WakeAll();
}

}  // namespace predella::server
