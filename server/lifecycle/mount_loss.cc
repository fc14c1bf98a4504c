// MountAdmin: a mount is given up, and what is lost with it accepted: exactly
// those images that somebody looked at.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/image_scan.h"
#include "server/lifecycle/mount_admin.h"

namespace predella::server {
namespace {

constexpr int64_t kMostUnnamed = std::numeric_limits<int64_t>::max();

}  // namespace

absl::StatusOr<v1::Mount> MountAdmin::Retire(
    const v1::RetireMountRequest& request) {
  auto mount = [&]() -> absl::StatusOr<v1::Mount> {
    ASSIGN_OR_RETURN(const MountInfo info, Find(request.name()));
    // An image that comes meanwhile would be given up unseen. A dry run changes
    // nothing, and no upload waits for it.
    std::optional<MountGate::Counting> counting;
    if (!request.validate_only()) {
      counting.emplace(gate_, Uuid::FromBytesOrNone(info.row.mount_uid()));
    }
    return RetireCounted(request);
  }();
  if (mount.ok() && !request.validate_only()) {
    reaper_->Tick();
  }
  return mount;
}

void MountAdmin::Loss::Add(const Uuid& image_id, const Generation& generation,
                           int64_t bytes) {
  ++totals.count;
  totals.bytes += bytes;
  digest.Add(image_id, generation);
}

absl::StatusOr<MountAdmin::Loss> MountAdmin::CountLoss(
    const Uuid& mount_uid) const {
  Loss loss;
  const auto add = [&loss](const storage::v1::ImageRow& image) {
    loss.Add(Uuid::FromBytesOrNone(image.image_id()),
             Generation::FromProto(image.generation()), image.size_bytes());
  };
  // Not the counters: what is counted and what is in the digest has to be one.
  ImageScan scan(deps_.index, Uuid(), /*want=*/1000);
  scan.AddMount(mount_uid);
  RETURN_IF_ERROR(scan.Run([&](const storage::v1::ImageRow& row) {
    if (HoldsCopy(row, mount_uid)) {
      add(row);
    }
    return true;
  }));
  RETURN_IF_ERROR(
      deps_.index->ScanConflicts([&](const storage::v1::ConflictRow& conflict) {
        if (HoldsCopy(conflict.image(), mount_uid)) {
          add(conflict.image());
        }
      }));
  RETURN_IF_ERROR(CountUnnamed(mount_uid, &loss));
  return loss;
}

// Each may be an image that clients were told of: the mount was away when the
// index was made, or the index is an older one, or a record was lost.
absl::Status MountAdmin::CountUnnamed(const Uuid& mount_uid, Loss* loss) const {
  struct File {
    Generation generation;
    int64_t size_bytes = 0;
    bool refused = false;
  };
  std::map<Uuid, File> files;
  for (const Inventory::Unadopted& file : inventory_->ListUnadopted()) {
    if (file.mount_uid == mount_uid) {
      files[file.image_id] = {Generation(), file.size_bytes};
    }
  }
  for (const Orphan& orphan :
       inventory_->ListOrphans(mount_uid, Uuid(), kMostUnnamed)) {
    files[orphan.image_id] = {
        orphan.record.has_value()
            ? Generation::FromProto(orphan.record->generation())
            : Generation(),
        orphan.size_bytes, orphan.refused};
  }
  for (const auto& [image_id, file] : files) {
    ASSIGN_OR_RETURN(const bool safe,
                     HasElsewhere(image_id, file.generation, file.refused));
    if (!safe) {
      loss->Add(image_id, file.generation, file.size_bytes);
      ++loss->unnamed.count;
      loss->unnamed.bytes += file.size_bytes;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> MountAdmin::HasElsewhere(const Uuid& image_id,
                                              const Generation& generation,
                                              bool refused) const {
  const auto same = [&](const storage::v1::ImageRow& row) {
    return generation.none() ||
           Generation::FromProto(row.generation()) == generation;
  };
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                   deps_.index->GetImage(image_id));
  ASSIGN_OR_RETURN(const std::vector<storage::v1::ConflictRow> conflicts,
                   deps_.index->ConflictsOf(image_id));
  // What is not the image's bytes is not missed; else this may be the only
  // whole copy.
  return (row.has_value() && same(*row) &&
          (refused || HasReadableCopy(*row, *deps_.index, *deps_.registry))) ||
         std::any_of(conflicts.begin(), conflicts.end(),
                     [&](const storage::v1::ConflictRow& conflict) {
                       return same(conflict.image());
                     });
}

absl::Status MountAdmin::CheckLossAccepted(const storage::v1::MountRow& row,
                                           int64_t accepted_count,
                                           const std::string& accepted_digest,
                                           bool accept_unlisted) const {
  const Uuid mount_uid = Uuid::FromBytesOrNone(row.mount_uid());
  const std::string name = MountName(row.mount_name());
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  if (row.unconfirmed() && !accept_unlisted) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kRecovering,
        absl::StrCat(
            name,
            " was away when the index was rebuilt: what is on it is not "
            "known, and would be lost without a name; take it in "
            "(ConfirmMount) first, or accept that (accept_unlisted of "
            "RetireMount)"),
        {{"mount", name}});
  }
  if (info.has_value() && !row.unconfirmed() && !inventory_->Listed(*info) &&
      !accept_unlisted) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kRecovering,
        absl::StrCat(
            name,
            " was not listed since the index was put back from an older "
            "copy: what was stored on it after that copy is not known, "
            "and would be lost without a name; start its agent, or "
            "accept that (accept_unlisted of RetireMount)"),
        {{"mount", name}});
  }
  ASSIGN_OR_RETURN(const Loss loss, CountLoss(mount_uid));
  const std::string digest = loss.digest.ToString();
  if (loss.totals.count == 0 && accepted_count == 0) {
    return absl::OkStatus();
  }
  // No digest could be made: nothing is equal to it.
  if (!digest.empty() && accepted_count == loss.totals.count &&
      accepted_digest == digest) {
    return absl::OkStatus();
  }
  const bool others = accepted_count == loss.totals.count;
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountNotEmpty,
      absl::StrCat(name, " holds ", loss.totals.count, " images with ",
                   FormatSize(loss.totals.bytes), ", which would be lost",
                   loss.unnamed.count == 0
                       ? ""
                       : absl::StrCat(" (", loss.unnamed.count, " with ",
                                      FormatSize(loss.unnamed.bytes),
                                      " are files that the index does not "
                                      "name: ListOrphans)"),
                   "; to accept that, look at them (ExplainImpact) and say ",
                   "accept_lost_image_count ", loss.totals.count,
                   " and accept_lost_digest \"", digest, "\" (it was ",
                   accepted_count, " and \"", accepted_digest, "\"",
                   others && !accepted_digest.empty()
                       ? ": as many, but not the same images"
                       : "",
                   ")"),
      {{"mount", name},
       {"image_count", absl::StrCat(loss.totals.count)},
       {"image_bytes", absl::StrCat(loss.totals.bytes)},
       {"unnamed_count", absl::StrCat(loss.unnamed.count)},
       {"lost_digest", digest}});
}

absl::StatusOr<v1::Mount> MountAdmin::RetireCounted(
    const v1::RetireMountRequest& request) {
  return Change(request.name(), request.validate_only(), "mount_retired",
                [this, &request](storage::v1::MountRow* row) {
                  if (row->admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
                    return absl::OkStatus();
                  }
                  RETURN_IF_ERROR(CheckLossAccepted(
                      *row, request.accept_lost_image_count(),
                      request.accept_lost_digest(), request.accept_unlisted()));
                  row->set_admin_state(storage::v1::ADMIN_STATE_RETIRED);
                  row->clear_unconfirmed();
                  row->clear_maintenance_until_us();
                  row->set_admin_reason(request.reason());
                  return absl::OkStatus();
                });
}

}  // namespace predella::server
