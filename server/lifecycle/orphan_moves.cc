// Images that somebody moved from one mount to another: a part of Orphans.
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/orphans.h"

namespace predella::server {
namespace {

constexpr int64_t kOrphanPage = 1000;

// What lies at another mount stands for the row, byte for byte.
storage::v1::ReplicaRecord RecordOfRow(const storage::v1::ImageRow& row) {
  storage::v1::ReplicaRecord record;
  record.set_image_id(row.image_id());
  *record.mutable_generation() = row.generation();
  record.set_upload_id(row.upload_id());
  record.set_location_key(row.location_key());
  record.set_size_bytes(row.size_bytes());
  record.set_crc32c(row.crc32c());
  *record.mutable_hashes() = row.hashes();
  record.set_create_time_us(row.create_time_us());
  record.set_publish_time_us(row.create_time_us());
  *record.mutable_decision() = row.decision();
  return record;
}

}  // namespace

std::optional<storage::v1::ImageRow> Orphans::MovedRow(const Orphan& orphan,
                                                       Uuid* source) const {
  const auto row = deps_.index->GetImage(orphan.image_id);
  if (!row.ok() || !row->has_value() || !MayBe(orphan, **row)) {
    return std::nullopt;
  }
  bool here = false;
  *source = Uuid();
  for (const storage::v1::CopyRow& copy : (*row)->copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    here = here || uid == orphan.mount_uid;
    const auto fault = deps_.index->FaultOf(**row, uid);
    if (fault.has_value() &&
        fault->fault() == storage::v1::COPY_FAULT_MISSING) {
      *source = uid;
    }
  }
  return here || source->none() ? std::nullopt : *row;
}

void Orphans::FollowMoves() {
  for (const MountInfo& info : deps_.registry->List()) {
    FollowMovesTo(Uuid::FromBytesOrNone(info.row.mount_uid()));
  }
}

void Orphans::FollowMovesTo(const Uuid& target) {
  const std::optional<MountInfo> info = deps_.registry->Find(target);
  if (trust_->recovering() || !deps_.index->write_error().empty() ||
      !info.has_value() || !info->trusted || IsRetired(*info)) {
    return;
  }
  Uuid after;
  while (true) {
    const std::vector<Orphan> page =
        inventory_->ListOrphans(target, after, kOrphanPage);
    for (const Orphan& orphan : page) {
      Uuid source;
      const auto row = MovedRow(orphan, &source);
      if (row.has_value() && !orphan.refused) {
        AskToAdopt(orphan, *row);
        return;
      }
    }
    if (static_cast<int64_t>(page.size()) < kOrphanPage) {
      return;
    }
    after = page.back().image_id;
  }
}

void Orphans::AskToAdopt(const Orphan& orphan,
                         const storage::v1::ImageRow& row) {
  const Uuid image_id = orphan.image_id;
  const Uuid target = orphan.mount_uid;
  const auto work = std::make_shared<const Work>(this, image_id);
  {
    MutexLock lock(&mu_);
    if (!work->held() || !asking_.insert(target).second) {
      return;
    }
  }
  control::v1::Command command;
  *command.mutable_adopt_file()->mutable_record() =
      orphan.record.has_value() ? *orphan.record : RecordOfRow(row);
  *command.mutable_adopt_file()->mutable_heard() =
      deps_.index->synced_pair().ToProto();
  commands_->CallAsync(
      target, std::move(command),
      [this, image_id, target,
       work](const absl::StatusOr<control::v1::CommandResult>& result) {
        const absl::Status status = result.status();
        deps_.pool->Post([this, image_id, target, status, work] {
          // Without one of these the same file would be the next one again.
          bool settled = true;
          if (status.ok()) {
            settled = CommitMove(image_id, target);
          } else if (absl::IsDataLoss(status)) {
            inventory_->RefuseOrphan(
                target, image_id,
                absl::StrCat("a file under the name of an image that is "
                             "missing elsewhere, with other bytes: ",
                             status.message()));
          } else if (absl::IsUnavailable(status)) {
            settled = false;
            LogIfError(status,
                       "the moved file is looked at again after the "
                       "next listing");
          } else {
            inventory_->RefuseOrphan(
                target, image_id,
                absl::StrCat("a file under the name of an image that is "
                             "missing elsewhere, which can not be taken in: ",
                             status.message()));
          }
          {
            MutexLock lock(&mu_);
            asking_.erase(target);
          }
          if (settled) {
            FollowMovesTo(target);
          }
        });
      });
}

bool Orphans::CommitMove(const Uuid& image_id, const Uuid& target) {
  const MountGate::Adding adding(gate_, target);
  const std::optional<MountInfo> to = deps_.registry->Find(target);
  for (int i = 0; i < kMaxCommitTries; ++i) {
    const std::optional<Orphan> orphan =
        inventory_->FindOrphan(target, image_id);
    Uuid source;
    const auto row = orphan.has_value() && !trust_->recovering()
                         ? MovedRow(*orphan, &source)
                         : std::nullopt;
    if (!row.has_value() || !to.has_value() ||
        to->row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
      return false;  // deleted, or found again: the next listing says which
    }
    const std::optional<MountInfo> from = deps_.registry->Find(source);
    storage::v1::ImageRow moved = *row;
    for (storage::v1::CopyRow& copy : *moved.mutable_copies()) {
      if (copy.mount_uid() == source.bytes()) {
        copy.set_mount_uid(target.bytes());
      }
    }
    storage::v1::EventRow event;
    event.set_time_us(deps_.clock->NowMicros());
    event.set_kind("copy_moved");
    event.set_mount_name(to->row.mount_name());
    event.set_image_id(image_id.bytes());
    event.set_affected_images(1);
    event.set_detail(
        absl::StrCat("it was moved here by hand from ",
                     MountName(from.has_value() ? from->row.mount_name()
                                                : source.ToString())));
    IndexTxn txn = deps_.index->Begin();
    txn.RequireImage(*row);
    txn.PutImage(moved);
    txn.PutEvent(event);
    const absl::Status status = deps_.index->Commit(std::move(txn));
    if (absl::IsAborted(status)) {
      continue;
    }
    if (!status.ok()) {
      LogIfError(status, "the row follows after the next listing");
      return false;
    }
    inventory_->ForgetOrphan(target, image_id);
    for (const Uuid& uid : {source, target}) {
      deps_.registry->SetImageBytes(uid, deps_.index->mount_totals(uid).bytes);
    }
    LogInfo("copy_moved", {{"image", image_id.ToString()},
                           {"from", source.ToString()},
                           {"to", to->row.mount_name()}});
    changed_->Notify();
    return true;
  }
  return false;
}

}  // namespace predella::server
