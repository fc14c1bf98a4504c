#include "server/lifecycle/image_conflict.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::server {

absl::Status CheckNoConflict(const PlacementIndex& index,
                             const Uuid& image_id) {
  ASSIGN_OR_RETURN(const std::vector<storage::v1::ConflictRow> conflicts,
                   index.ConflictsOf(image_id));
  if (conflicts.empty()) {
    return absl::OkStatus();
  }
  const std::string name = ImageName(image_id);
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kImageConflict,
      absl::StrCat(
          "several generations of ", name,
          " are kept since the index was put back from an older "
          "copy: predella image choose ",
          image_id.ToString(), " ",
          Generation::FromProto(conflicts[0].image().generation()).ToString(),
          " --yes, or another, keeps one of them"),
      {{"image", name}});
}

storage::v1::EventRow ConflictEvent(const storage::v1::ConflictRow& row) {
  const std::string image =
      ImageName(Uuid::FromBytesOrNone(row.image().image_id()));
  const std::string generation =
      Generation::FromProto(row.image().generation()).ToString();
  LogWarning("image_conflict", {{"image", image}, {"generation", generation}});
  storage::v1::EventRow event;
  event.set_time_us(row.found_time_us());
  event.set_kind("image_conflict");
  event.set_detail(absl::StrCat(image, " generation ", generation,
                                " lies beside the one of the index"));
  event.set_affected_images(1);
  return event;
}

absl::Status KeepAsConflict(const LifecycleDeps& deps,
                            const storage::v1::ImageRow& image,
                            const std::optional<storage::v1::UploadRow>& upload,
                            UploadTable* uploads) {
  storage::v1::ConflictRow row;
  *row.mutable_image() = image;
  row.set_found_time_us(deps.clock->NowMicros());
  IndexTxn txn = deps.index->Begin();
  const Generation pair = txn.pair();
  txn.PutConflict(row);
  txn.PutEvent(ConflictEvent(row));
  std::optional<storage::v1::UploadRow> ended = upload;
  if (upload.has_value()) {
    ended->set_outcome(storage::v1::UPLOAD_OUTCOME_SUPERSEDED);
    ended->set_outcome_time_us(row.found_time_us());
    ended->set_outcome_reason(std::string(reason::kUploadSuperseded));
    ended->set_outcome_detail(
        "another upload of the image was committed after the index was put "
        "back from an older copy; both are kept");
    for (storage::v1::UploadTargetRow& target : *ended->mutable_targets()) {
      target.set_clean(true);
    }
    txn.RequireUpload(*upload);
    txn.PutUpload(*ended);
  }
  RETURN_IF_ERROR(deps.index->Commit(std::move(txn)));
  if (ended.has_value()) {
    uploads->Put(*ended, pair, deps.clock->Boot());
  }
  return absl::OkStatus();
}

}  // namespace predella::server
