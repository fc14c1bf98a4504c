// What a listing in RECOVERING shows, record by record: a part of Inventory.
#include <optional>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "server/lifecycle/image_conflict.h"
#include "server/lifecycle/inventory.h"

namespace predella::server {
namespace {

// What stays when the adopted image's own upload is asked for again.
storage::v1::UploadRow OutcomeOfRecord(const storage::v1::ReplicaRecord& record,
                                       const Uuid& mount_uid, int64_t now_us) {
  storage::v1::UploadRow row;
  row.set_upload_id(record.upload_id());
  row.set_image_id(record.image_id());
  *row.mutable_generation() = record.generation();
  row.set_location_key(record.location_key());
  row.set_size_bytes(record.size_bytes());
  row.add_targets()->set_mount_uid(mount_uid.bytes());
  row.set_create_time_us(record.create_time_us());
  row.set_update_time_us(now_us);
  row.set_adopted(true);
  row.set_outcome(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  row.set_outcome_time_us(now_us);
  *row.mutable_decision() = record.decision();
  return row;
}

}  // namespace

storage::v1::ImageRow RowOfRecord(const storage::v1::ReplicaRecord& record,
                                  const Uuid& mount_uid) {
  storage::v1::ImageRow row;
  row.set_image_id(record.image_id());
  *row.mutable_generation() = record.generation();
  row.set_location_key(record.location_key());
  row.set_size_bytes(record.size_bytes());
  row.set_crc32c(record.crc32c());
  *row.mutable_hashes() = record.hashes();
  row.add_copies()->set_mount_uid(mount_uid.bytes());
  row.set_upload_id(record.upload_id());
  row.set_create_time_us(record.publish_time_us());
  *row.mutable_decision() = record.decision();
  return row;
}

absl::Status Inventory::TakeBatch(
    const Uuid& mount_uid,
    absl::Span<const storage::v1::ReplicaRecord> records) {
  absl::Status status;
  // Against deletes: those that were before are seen, later ones see the rows.
  const MountGate::Adding adding(tombstones_->adopting(), Uuid());
  for (int i = 0; i < kMaxCommitTries; ++i) {
    std::vector<storage::v1::ReplicaRecord> adopt;
    for (const storage::v1::ReplicaRecord& record : records) {
      if (!trust_->recovering()) {
        break;
      }
      ASSIGN_OR_RETURN(const Verdict verdict, Judge(mount_uid, record));
      if (verdict == Verdict::kAdopt) {
        adopt.push_back(record);
      } else if (verdict == Verdict::kDisplace) {
        RETURN_IF_ERROR(Displace(mount_uid, record));
      } else if (verdict == Verdict::kConflict) {
        RETURN_IF_ERROR(NoteConflict(mount_uid, record));
      }
    }
    status = Adopt(mount_uid, adopt);
    if (!absl::IsAborted(status)) {
      return status;
    }
  }
  return status;
}

absl::StatusOr<Inventory::Verdict> Inventory::Judge(
    const Uuid& mount_uid, const storage::v1::ReplicaRecord& record) {
  const Uuid image_id = Uuid::FromBytesOrNone(record.image_id());
  const Generation generation = Generation::FromProto(record.generation());
  if (image_id.none() || generation.none()) {
    return Verdict::kNothing;
  }
  if (tombstones_->Covers(image_id, generation)) {
    RETURN_IF_ERROR(
        tombstones_->AddPending(image_id, record.generation(), mount_uid));
    return Verdict::kNothing;
  }
  ASSIGN_OR_RETURN(
      const std::optional<storage::v1::UploadRow> upload,
      deps_.index->GetUpload(Uuid::FromBytesOrNone(record.upload_id())));
  const bool same = upload.has_value() &&
                    Generation::FromProto(upload->generation()) == generation;
  const bool open =
      same && upload->outcome() == storage::v1::UPLOAD_OUTCOME_UNSPECIFIED;
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                   deps_.index->GetImage(image_id));
  if (image.has_value() &&
      Generation::FromProto(image->generation()) == generation) {
    return Verdict::kNothing;
  }
  if (open && !image.has_value()) {
    return Verdict::kNothing;  // committed when its agent says so
  }
  ASSIGN_OR_RETURN(const std::vector<storage::v1::ConflictRow> conflicts,
                   deps_.index->ConflictsOf(image_id));
  for (const storage::v1::ConflictRow& row : conflicts) {
    if (Generation::FromProto(row.image().generation()) == generation) {
      return Verdict::kNothing;
    }
  }
  if (same && !open) {
    RETURN_IF_ERROR(RemoveAgain(mount_uid, *upload));
    return Verdict::kNothing;
  }
  if (!image.has_value()) {
    return Verdict::kAdopt;
  }
  MutexLock lock(&mu_);
  return adopted_.contains(image_id) &&
                 generation.After(Generation::FromProto(image->generation()))
             ? Verdict::kDisplace
             : Verdict::kConflict;
}

absl::Status Inventory::RemoveAgain(const Uuid& mount_uid,
                                    const storage::v1::UploadRow& row) {
  // Of a committed one without a row nothing is known but that it was deleted:
  // its tombstone was settled and forgotten.
  if (row.outcome() == storage::v1::UPLOAD_OUTCOME_COMMITTED) {
    return absl::OkStatus();
  }
  return upload_manager_->MarkLeftover(Uuid::FromBytesOrNone(row.upload_id()),
                                       mount_uid);
}

absl::Status Inventory::Adopt(
    const Uuid& mount_uid,
    absl::Span<const storage::v1::ReplicaRecord> records) {
  if (records.empty()) {
    return absl::OkStatus();
  }
  std::vector<storage::v1::UploadRow> outcomes;
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  for (const storage::v1::ReplicaRecord& record : records) {
    txn.RequireNoImage(Uuid::FromBytesOrNone(record.image_id()));
    txn.PutImage(RowOfRecord(record, mount_uid));
    txn.DeleteUnadopted(Uuid::FromBytesOrNone(record.image_id()), mount_uid);
    const Uuid upload_id = Uuid::FromBytesOrNone(record.upload_id());
    ASSIGN_OR_RETURN(const std::optional<storage::v1::UploadRow> known,
                     deps_.index->GetUpload(upload_id));
    if (!known.has_value()) {
      outcomes.push_back(
          OutcomeOfRecord(record, mount_uid, deps_.clock->NowMicros()));
      txn.RequireNoUpload(upload_id);
      txn.PutUpload(outcomes.back());
    }
  }
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  for (const storage::v1::UploadRow& row : outcomes) {
    uploads_->Put(row, pair, deps_.clock->Boot());
  }
  deps_.registry->SetImageBytes(mount_uid,
                                deps_.index->mount_totals(mount_uid).bytes);
  for (const storage::v1::ReplicaRecord& record : records) {
    LogInfo(
        "image_adopted",
        {{"image", Uuid::FromBytesOrNone(record.image_id()).ToString()},
         {"generation", Generation::FromProto(record.generation()).ToString()},
         {"mount", mount_uid.ToString()}});
  }
  {
    MutexLock lock(&mu_);
    for (const storage::v1::ReplicaRecord& record : records) {
      adopted_.insert(Uuid::FromBytesOrNone(record.image_id()));
      unadopted_.erase({Uuid::FromBytesOrNone(record.image_id()), mount_uid});
    }
  }
  changed_->Notify();
  return absl::OkStatus();
}

absl::Status Inventory::Displace(const Uuid& mount_uid,
                                 const storage::v1::ReplicaRecord& record) {
  const Uuid image_id = Uuid::FromBytesOrNone(record.image_id());
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> old,
                   deps_.index->GetImage(image_id));
  if (!old.has_value()) {
    return absl::OkStatus();  // deleted meanwhile, this generation with it
  }
  storage::v1::ConflictRow conflict;
  *conflict.mutable_image() = *old;
  conflict.set_found_time_us(deps_.clock->NowMicros());
  IndexTxn txn = deps_.index->Begin();
  txn.RequireImage(*old);
  txn.PutImage(RowOfRecord(record, mount_uid));
  txn.PutConflict(conflict);
  txn.PutEvent(ConflictEvent(conflict));
  const absl::Status status = deps_.index->Commit(std::move(txn));
  if (absl::IsAborted(status)) {
    return NoteConflict(mount_uid, record);
  }
  RETURN_IF_ERROR(status);
  for (const storage::v1::CopyRow& copy : old->copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    deps_.registry->SetImageBytes(uid, deps_.index->mount_totals(uid).bytes);
  }
  deps_.registry->SetImageBytes(mount_uid,
                                deps_.index->mount_totals(mount_uid).bytes);
  MutexLock lock(&mu_);
  ++conflicts_;
  return absl::OkStatus();
}

absl::Status Inventory::NoteConflict(const Uuid& mount_uid,
                                     const storage::v1::ReplicaRecord& record) {
  ASSIGN_OR_RETURN(
      std::optional<storage::v1::UploadRow> upload,
      deps_.index->GetUpload(Uuid::FromBytesOrNone(record.upload_id())));
  if (upload.has_value() &&
      (upload->outcome() != storage::v1::UPLOAD_OUTCOME_UNSPECIFIED ||
       Generation::FromProto(upload->generation()) !=
           Generation::FromProto(record.generation()))) {
    upload.reset();
  }
  RETURN_IF_ERROR(
      KeepAsConflict(deps_, RowOfRecord(record, mount_uid), upload, uploads_));
  MutexLock lock(&mu_);
  ++conflicts_;
  return absl::OkStatus();
}

}  // namespace predella::server
