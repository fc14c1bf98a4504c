// Copies that are in their place and not in order: a part of Orphans.
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/wait.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/orphans.h"

namespace predella::server {

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

absl::StatusOr<v1::Orphan> Orphans::Mend(const MountInfo& info,
                                         const storage::v1::ImageRow& row,
                                         bool validate_only) {
  Orphan found;
  found.image_id = Uuid::FromBytesOrNone(row.image_id());
  found.mount_uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  found.size_bytes = row.size_bytes();
  found.detail =
      "it is an image already, of the same size and checksum; a lost record is "
      "written anew";
  if (deps_.index->FaultOf(row, found.mount_uid).has_value()) {
    // With it all of the file is read also where its record is there.
    found.record = RecordOfRow(row);
    found.detail =
        "it is the copy that the index names, read whole; its record is "
        "written anew where it was lost";
  }
  v1::Orphan answer = ToApi(found, info);
  answer.set_generation(Generation::FromProto(row.generation()).ToString());
  if (validate_only) {
    return answer;
  }
  const auto outcome = std::make_shared<Answer<absl::Status>>();
  const auto work = std::make_shared<Work>(this, found.image_id);
  if (!work->held()) {
    return Work::Refused(found.image_id);
  }
  Move move;
  move.row = row;
  move.source = found.mount_uid;
  const Generation generation = Generation::FromProto(row.generation());
  AskToAdopt(found, move,
             [this, image_id = found.image_id, mount_uid = found.mount_uid,
              generation, work, outcome](const absl::Status& looked) {
               const absl::Status mended =
                   looked.ok() ? CommitMend(image_id, mount_uid, generation)
                               : looked;
               LogIfError(mended, "the copy stays as it was called");
               // Whoever hears of it may ask again at once.
               work->Release();
               outcome->Set(mended);
             });
  RETURN_IF_ERROR(AwaitRead(outcome.get(), found,
                            "the same request again says what came of it"));
  return answer;
}

absl::Status Orphans::CommitMend(const Uuid& image_id, const Uuid& mount_uid,
                                 const Generation& generation) {
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                     deps_.index->GetImage(image_id));
    if (!row.has_value() || !HoldsCopy(*row, mount_uid) ||
        Generation::FromProto(row->generation()) != generation) {
      return MakeError(absl::StatusCode::kAborted, reason::kGenerationMismatch,
                       absl::StrCat(ImageName(image_id),
                                    " was deleted or stored anew meanwhile"));
    }
    if (!deps_.index->FaultOf(*row, mount_uid).has_value()) {
      return absl::OkStatus();
    }
    const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
    storage::v1::EventRow event;
    event.set_time_us(deps_.clock->NowMicros());
    event.set_kind("copy_whole_again");
    event.set_mount_name(info.has_value() ? info->row.mount_name() : "");
    event.set_image_id(image_id.bytes());
    event.set_affected_images(1);
    event.set_detail("it was read whole when it was adopted by hand");
    IndexTxn txn = deps_.index->Begin();
    txn.RequireImage(*row);
    txn.DeleteFault(mount_uid, image_id);
    txn.PutEvent(event);
    const absl::Status status = deps_.index->Commit(std::move(txn));
    if (absl::IsAborted(status)) {
      continue;
    }
    RETURN_IF_ERROR(status);
    changed_->Notify();
    return absl::OkStatus();
  }
  return TooManyConflicts(image_id.ToString());
}

}  // namespace predella::server
