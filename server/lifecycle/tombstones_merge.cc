// Tombstones that mounts bring, and what they rule over.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/tombstones.h"

namespace predella::server {

absl::Status Tombstones::Merge(
    const Uuid& mount_uid, const std::vector<storage::v1::Tombstone>& copies) {
  for (const storage::v1::Tombstone& copy : copies) {
    RETURN_IF_ERROR(MergeOne(mount_uid, copy));
  }
  return absl::OkStatus();
}

absl::Status Tombstones::AddPending(const Uuid& image_id,
                                    const storage::v1::Generation& generation,
                                    const Uuid& mount_uid) {
  const Generation wanted = Generation::FromProto(generation);
  for (const TombstoneEntry& entry : OfImage(image_id)) {
    if (Generation::FromProto(entry.row.generation()) != wanted) {
      continue;
    }
    return Update(image_id, generation, [&](storage::v1::TombstoneRow* row) {
      for (const std::string& uid : row->pending_mount_uids()) {
        if (uid == mount_uid.bytes()) {
          return false;
        }
      }
      row->add_pending_mount_uids(mount_uid.bytes());
      row->clear_settle_time_us();
      return true;
    });
  }
  // Removals are by exact generation: a lower one gets a tombstone of its own.
  const storage::v1::TombstoneRow row = Make(image_id, generation, {mount_uid});
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  txn.PutTombstone(row);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  Committed(row, pair, /*written_here=*/false);
  return absl::OkStatus();
}

std::vector<Uuid> Tombstones::AllMounts() const {
  std::vector<Uuid> out;
  for (const MountInfo& info : deps_.registry->List()) {
    if (info.row.admin_state() != storage::v1::ADMIN_STATE_RETIRED) {
      out.push_back(Uuid::FromBytesOrNone(info.row.mount_uid()));
    }
  }
  return out;
}

absl::StatusOr<Tombstones::Ruled> Tombstones::WhatItRules(
    const storage::v1::Tombstone& copy) const {
  const Uuid image_id = Uuid::FromBytesOrNone(copy.image_id());
  const Generation generation = Generation::FromProto(copy.generation());
  Ruled ruled;
  for (const TombstoneEntry& entry : OfImage(image_id)) {
    ruled.known = ruled.known ||
                  Generation::FromProto(entry.row.generation()) == generation;
  }
  ASSIGN_OR_RETURN(std::optional<storage::v1::ImageRow> image,
                   deps_.index->GetImage(image_id));
  if (image.has_value() &&
      !Generation::FromProto(image->generation()).After(generation)) {
    ruled.image = std::move(image);
  }
  ASSIGN_OR_RETURN(std::vector<storage::v1::ConflictRow> conflicts,
                   deps_.index->ConflictsOf(image_id));
  for (storage::v1::ConflictRow& row : conflicts) {
    const Generation own = Generation::FromProto(row.image().generation());
    if (!own.After(generation)) {
      ruled.conflicts.push_back(std::move(row));
    } else if (!ruled.successor.has_value() ||
               own.After(Generation::FromProto(
                   ruled.successor->image().generation()))) {
      ruled.successor = std::move(row);
    }
  }
  for (const UploadEntry& entry : uploads_->OfImage(image_id)) {
    if (entry.open() &&
        !Generation::FromProto(entry.row.generation()).After(generation)) {
      ruled.uploads.push_back(entry.row);
    }
  }
  return ruled;
}

absl::Status Tombstones::CommitMerge(const Uuid& mount_uid,
                                     const storage::v1::Tombstone& copy,
                                     Ruled ruled) {
  const Uuid image_id = Uuid::FromBytesOrNone(copy.image_id());
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  std::vector<storage::v1::TombstoneRow> written;
  bool same_file = false;
  // Removals are by exact generation, so a file of a lower one than the copy's
  // gets a tombstone of its own.
  const auto bury = [&](const storage::v1::ImageRow& image) {
    std::vector<Uuid> holders;
    for (const storage::v1::CopyRow& held : image.copies()) {
      holders.push_back(Uuid::FromBytesOrNone(held.mount_uid()));
    }
    same_file = same_file || Generation::FromProto(image.generation()) ==
                                 Generation::FromProto(copy.generation());
    written.push_back(Make(image_id, image.generation(), holders));
  };
  std::vector<storage::v1::ImageRow> images;
  if (ruled.image.has_value()) {
    bury(*ruled.image);
    images.push_back(*ruled.image);
    txn.RequireImage(*ruled.image);
    txn.DeleteImage(*ruled.image);
  }
  std::vector<storage::v1::UploadRow> ended;
  if (ruled.image.has_value() && ruled.successor.has_value()) {
    // Nothing is left to choose from, or the others stay beside it.
    txn.RequireConflict(*ruled.successor);
    txn.DeleteConflict(*ruled.successor);
    txn.PutImage(ruled.successor->image());
    images.push_back(ruled.successor->image());
    ASSIGN_OR_RETURN(std::optional<storage::v1::UploadRow> winner,
                     deps_.index->GetUpload(Uuid::FromBytesOrNone(
                         ruled.successor->image().upload_id())));
    if (winner.has_value() &&
        Generation::FromProto(winner->generation()) ==
            Generation::FromProto(ruled.successor->image().generation())) {
      txn.RequireUpload(*winner);
      winner->set_outcome(storage::v1::UPLOAD_OUTCOME_COMMITTED);
      winner->clear_outcome_reason();
      winner->clear_outcome_detail();
      txn.PutUpload(*winner);
      ended.push_back(*std::move(winner));
    }
  }
  for (const storage::v1::ConflictRow& conflict : ruled.conflicts) {
    bury(conflict.image());
    txn.RequireConflict(conflict);
    txn.DeleteConflict(conflict);
  }
  if (!ruled.known && !same_file) {
    // The index knows nothing of this delete: any mount may hold the file.
    written.push_back(Make(image_id, copy.generation(), AllMounts()));
  }
  for (storage::v1::TombstoneRow& row : written) {
    if (Generation::FromProto(row.generation()) ==
        Generation::FromProto(copy.generation())) {
      row.set_create_time_us(copy.create_time_us());
      row.add_copy_mount_uids(mount_uid.bytes());
    }
    txn.PutTombstone(row);
  }
  for (storage::v1::UploadRow& upload : ruled.uploads) {
    txn.RequireUpload(upload);
    upload.set_outcome(storage::v1::UPLOAD_OUTCOME_ABORTED);
    upload.set_outcome_time_us(deps_.clock->NowMicros());
    upload.set_outcome_detail(absl::StrCat(
        ImageName(image_id), " was deleted: a mount brought the tombstone"));
    upload.set_outcome_reason(std::string(reason::kUploadDeleted));
    txn.PutUpload(upload);
    ended.push_back(upload);
  }
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  for (const storage::v1::TombstoneRow& row : written) {
    Committed(row, pair, /*written_here=*/false);
  }
  for (const storage::v1::UploadRow& upload : ended) {
    uploads_->Put(upload, pair, deps_.clock->Boot());
  }
  for (const storage::v1::ImageRow& touched : images) {
    for (const storage::v1::CopyRow& held : touched.copies()) {
      const Uuid uid = Uuid::FromBytesOrNone(held.mount_uid());
      deps_.registry->SetImageBytes(uid, deps_.index->mount_totals(uid).bytes);
    }
  }
  changed_->Notify();
  LogInfo("tombstone_merged",
          {{"image", image_id.ToString()},
           {"generation", Generation::FromProto(copy.generation()).ToString()},
           {"row_deleted", ruled.image.has_value() ? 1 : 0}});
  return absl::OkStatus();
}

absl::Status Tombstones::MergeOne(const Uuid& mount_uid,
                                  const storage::v1::Tombstone& copy) {
  const Uuid image_id = Uuid::FromBytesOrNone(copy.image_id());
  if (image_id.none() || Generation::FromProto(copy.generation()).none()) {
    return absl::OkStatus();
  }
  // Most are known, and what they cover was refused since.
  ASSIGN_OR_RETURN(const Ruled before, WhatItRules(copy));
  if (before.known && before.nothing()) {
    return RecordCopy(copy, mount_uid);
  }
  // What it rules over is looked up and committed while no listing takes
  // anything in.
  const MountGate::Counting alone(&adopting_, Uuid());
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(Ruled ruled, WhatItRules(copy));
    if (ruled.known && ruled.nothing()) {
      return RecordCopy(copy, mount_uid);
    }
    const absl::Status status = CommitMerge(mount_uid, copy, std::move(ruled));
    if (!absl::IsAborted(status)) {
      return status;
    }
  }
  return TooManyConflicts(ImageName(image_id));
}

}  // namespace predella::server
