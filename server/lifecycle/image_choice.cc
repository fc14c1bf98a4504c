// The choice between generations of an image: a part of ImageCatalog.
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/image_catalog.h"
#include "server/lifecycle/image_health.h"

namespace predella::server {
namespace {

// How long a command waits for the bytes to be read.
constexpr absl::Duration kChoiceWait = absl::Seconds(7);

bool Is(const storage::v1::ImageRow& row, const Generation& generation) {
  return Generation::FromProto(row.generation()) == generation;
}

// The upload of a generation that was not chosen: a loser whose files wait for
// their removal on every mount that holds one.
storage::v1::UploadRow LoserOf(const storage::v1::ImageRow& row,
                               int64_t now_us) {
  storage::v1::UploadRow upload;
  upload.set_upload_id(row.upload_id());
  upload.set_image_id(row.image_id());
  *upload.mutable_generation() = row.generation();
  upload.set_location_key(row.location_key());
  upload.set_size_bytes(row.size_bytes());
  for (const storage::v1::CopyRow& copy : row.copies()) {
    upload.add_targets()->set_mount_uid(copy.mount_uid());
  }
  upload.set_create_time_us(row.create_time_us());
  upload.set_update_time_us(now_us);
  upload.set_outcome(storage::v1::UPLOAD_OUTCOME_SUPERSEDED);
  upload.set_outcome_time_us(now_us);
  upload.set_outcome_reason(std::string(reason::kUploadSuperseded));
  upload.set_outcome_detail("another generation of the image was chosen");
  return upload;
}

}  // namespace

absl::StatusOr<v1::Image> ImageCatalog::Choose(const Uuid& image_id,
                                               const Generation& generation,
                                               bool validate_only) {
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  const std::string name = ImageName(image_id);
  if (trust_->recovering()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kRecovering,
                     absl::StrCat("mounts are still being listed, and may hold "
                                  "more generations of ",
                                  name, ": see predella cluster status"),
                     {{"image", name}});
  }
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                     deps_.index->GetImage(image_id));
    ASSIGN_OR_RETURN(const std::vector<storage::v1::ConflictRow> conflicts,
                     deps_.index->ConflictsOf(image_id));
    std::optional<storage::v1::ImageRow> keep;
    if (row.has_value() && Is(*row, generation)) {
      keep = row;
    }
    for (const storage::v1::ConflictRow& conflict : conflicts) {
      if (Is(conflict.image(), generation)) {
        keep = conflict.image();
      }
    }
    if (!row.has_value() && conflicts.empty()) {
      return WhyMissing(image_id);
    }
    if (!keep.has_value()) {
      return MakeError(
          absl::StatusCode::kNotFound, reason::kGenerationMismatch,
          absl::StrCat(name, " has no generation ", generation.ToString(),
                       ": predella image stat ", image_id.ToString(),
                       " shows those there are"),
          {{"image", name}});
    }
    RETURN_IF_ERROR(CheckChoosable(*keep));
    if (validate_only || conflicts.empty()) {
      return Get(image_id);
    }
    RETURN_IF_ERROR(VerifyKept(*keep));
    const absl::Status status = CommitChoice(row, conflicts, *keep);
    if (status.ok()) {
      LogInfo("image_chosen", {{"image", image_id.ToString()},
                               {"generation", generation.ToString()}});
      if (deleted_) {
        deleted_();
      }
      return Get(image_id);
    }
    if (!absl::IsAborted(status)) {
      return status;
    }
  }
  return TooManyConflicts(name);
}

absl::Status ImageCatalog::CheckChoosable(
    const storage::v1::ImageRow& keep) const {
  // The others are removed for good: what is kept instead must be there.
  std::string against;
  bool retired = !keep.copies().empty();
  for (const storage::v1::CopyRow& copy : keep.copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    const std::optional<MountInfo> info = deps_.registry->Find(uid);
    const std::string name =
        MountName(info.has_value() ? info->row.mount_name() : uid.ToString());
    const auto fault = deps_.index->FaultOf(keep, uid);
    const bool gone = info.has_value() && IsRetired(*info);
    retired = retired && gone;
    if (gone) {
      absl::StrAppend(&against, "; ", name, " was retired");
    } else if (fault.has_value()) {
      absl::StrAppend(&against, "; the copy on ", name,
                      fault->fault() == storage::v1::COPY_FAULT_MISSING
                          ? " is missing"
                          : " is damaged");
    } else if (!info.has_value() || !Readable(*info)) {
      absl::StrAppend(&against, "; ", name, " can not be read now");
    } else {
      return absl::OkStatus();
    }
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      retired ? reason::kMountRetired : reason::kReplicaMissing,
      absl::StrCat("generation ",
                   Generation::FromProto(keep.generation()).ToString(),
                   " has no copy that can be read", against,
                   ": the others would be removed for it; ",
                   retired ? "choose another"
                           : "bring its copy back, or choose another"),
      {{"image", ImageName(Uuid::FromBytesOrNone(keep.image_id()))}});
}

// Nobody may have read it since RECOVERING: a scrub names what rows name.
absl::Status ImageCatalog::VerifyKept(const storage::v1::ImageRow& keep) {
  const Generation generation = Generation::FromProto(keep.generation());
  absl::Status verified;
  for (const storage::v1::CopyRow& copy : keep.copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    const std::optional<MountInfo> info = deps_.registry->Find(uid);
    if (!info.has_value() || IsRetired(*info) || !Readable(*info) ||
        deps_.index->FaultOf(keep, uid).has_value()) {
      continue;
    }
    verified = verifier_->Verify(uid, Uuid::FromBytesOrNone(keep.image_id()),
                                 generation, kChoiceWait);
    if (verified.ok()) {
      return verified;
    }
  }
  if (absl::IsAborted(verified)) {
    return verified;
  }
  return Annotate(
      verified,
      absl::StrCat("generation ", generation.ToString(),
                   absl::IsDataLoss(verified)
                       ? " is not whole, and the others would be removed for "
                         "it: choose another"
                       : " could not be read to its end, so nothing was "
                         "removed for it: choose it again when its mount is "
                         "well"));
}

absl::Status ImageCatalog::CommitChoice(
    const std::optional<storage::v1::ImageRow>& row,
    const std::vector<storage::v1::ConflictRow>& others,
    const storage::v1::ImageRow& keep) {
  const Uuid image_id = Uuid::FromBytesOrNone(keep.image_id());
  const Generation chosen = Generation::FromProto(keep.generation());
  const int64_t now_us = deps_.clock->NowMicros();
  std::vector<storage::v1::ImageRow> losers;
  if (row.has_value() && !Is(*row, chosen)) {
    losers.push_back(*row);
  }
  for (const storage::v1::ConflictRow& other : others) {
    if (!Is(other.image(), chosen)) {
      losers.push_back(other.image());
    }
  }
  std::vector<storage::v1::UploadRow> uploads;
  std::vector<std::optional<storage::v1::UploadRow>> before;
  for (const storage::v1::ImageRow& loser : losers) {
    ASSIGN_OR_RETURN(
        std::optional<storage::v1::UploadRow> known,
        deps_.index->GetUpload(Uuid::FromBytesOrNone(loser.upload_id())));
    before.push_back(std::move(known));
    uploads.push_back(LoserOf(loser, now_us));
  }
  // The upload of the one that is kept may have been called SUPERSEDED by it.
  ASSIGN_OR_RETURN(
      const std::optional<storage::v1::UploadRow> winner,
      deps_.index->GetUpload(Uuid::FromBytesOrNone(keep.upload_id())));
  if (winner.has_value() &&
      Generation::FromProto(winner->generation()) == chosen) {
    before.push_back(winner);
    uploads.push_back(*winner);
    uploads.back().set_outcome(storage::v1::UPLOAD_OUTCOME_COMMITTED);
    uploads.back().clear_outcome_reason();
    uploads.back().clear_outcome_detail();
  }
  storage::v1::EventRow event;
  event.set_time_us(now_us);
  event.set_kind("image_chosen");
  event.set_detail(absl::StrCat(ImageName(image_id), " generation ",
                                chosen.ToString(), " is kept, ", losers.size(),
                                " removed"));
  event.set_affected_images(1);
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  if (row.has_value()) {
    txn.RequireImage(*row);
  } else {
    txn.RequireNoImage(image_id);
  }
  txn.PutImage(keep);
  for (const storage::v1::ConflictRow& other : others) {
    txn.RequireConflict(other);
    txn.DeleteConflict(other);
  }
  for (size_t i = 0; i < uploads.size(); ++i) {
    if (before[i].has_value()) {
      txn.RequireUpload(*before[i]);
    } else {
      txn.RequireNoUpload(Uuid::FromBytesOrNone(uploads[i].upload_id()));
    }
    txn.PutUpload(uploads[i]);
  }
  txn.PutEvent(event);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  for (const storage::v1::UploadRow& upload : uploads) {
    uploads_->Put(upload, pair, deps_.clock->Boot());
  }
  losers.push_back(keep);
  for (const storage::v1::ImageRow& touched : losers) {
    for (const storage::v1::CopyRow& copy : touched.copies()) {
      const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
      deps_.registry->SetImageBytes(uid, deps_.index->mount_totals(uid).bytes);
    }
  }
  return absl::OkStatus();
}

}  // namespace predella::server
