// StartUpload: clearing the way, the row, the agent.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/wait.h"
#include "server/lifecycle/api_convert.h"
#include "server/lifecycle/image_conflict.h"
#include "server/lifecycle/upload_manager.h"

namespace predella::server {
namespace {

constexpr size_t kLocationKeyBytes = 16;

absl::Status InProgress(const Uuid& image_id, const Uuid& other) {
  return MakeError(
      absl::StatusCode::kAborted, reason::kUploadInProgress,
      absl::StrCat(ImageName(image_id), " is being uploaded by ",
                   UploadName(other),
                   ", whose stream is open: wait for it or abort it"),
      {{"image", ImageName(image_id)}, {"upload", UploadName(other)}});
}

absl::Status Exists(const Uuid& image_id,
                    const storage::v1::Generation& generation) {
  const std::string text = Generation::FromProto(generation).ToString();
  return MakeError(absl::StatusCode::kAlreadyExists, reason::kImageExists,
                   absl::StrCat(ImageName(image_id), " exists, generation ",
                                text, ": delete it first"),
                   {{"image", ImageName(image_id)}, {"generation", text}});
}

// The row's outcome has been forgotten, the image has not.
v1::Upload FromImage(const storage::v1::ImageRow& row) {
  v1::Upload upload;
  upload.set_name(UploadName(Uuid::FromBytesOrNone(row.upload_id())));
  upload.set_image(ImageName(Uuid::FromBytesOrNone(row.image_id())));
  upload.set_generation(Generation::FromProto(row.generation()).ToString());
  upload.set_size_bytes(row.size_bytes());
  upload.set_state(v1::UPLOAD_STATE_COMMITTED);
  *upload.mutable_create_time() = ToTimestamp(row.create_time_us());
  *upload.mutable_placement() = ToApi(row.decision());
  return upload;
}

}  // namespace

// One Start at a time for an image; others of the same upload wait for it.
class UploadManager::StartTurn {
 public:
  StartTurn(UploadManager* manager, const StartRequest& request)
      : manager_(manager), image_id_(request.image_id) {}
  ~StartTurn() {
    if (taken_) {
      MutexLock lock(&manager_->mu_);
      manager_->starting_.erase(image_id_);
      manager_->turn_over_.SignalAll();
    }
  }
  StartTurn(const StartTurn&) = delete;
  StartTurn& operator=(const StartTurn&) = delete;

  absl::Status Take(const Uuid& upload_id) {
    MutexLock lock(&manager_->mu_);
    while (true) {
      const auto [it, inserted] =
          manager_->starting_.try_emplace(image_id_, upload_id);
      if (inserted) {
        taken_ = true;
        return absl::OkStatus();
      }
      if (it->second != upload_id) {
        return InProgress(image_id_, it->second);
      }
      manager_->turn_over_.Wait(&manager_->mu_);
    }
  }

 private:
  UploadManager* const manager_;
  const Uuid image_id_;
  bool taken_ = false;
};

absl::StatusOr<v1::Upload> UploadManager::Start(const StartRequest& request) {
  StartTurn turn(this, request);
  RETURN_IF_ERROR(turn.Take(request.upload_id));
  for (int i = 0; i < kMaxCommitTries; ++i) {
    auto upload = StartInTurn(request);
    if (upload.ok() || !HasReason(upload.status(), reason::kCommitConflict)) {
      return upload;
    }
  }
  return TooManyConflicts(UploadName(request.upload_id));
}

absl::StatusOr<std::optional<v1::Upload>> UploadManager::AnswerKnown(
    const StartRequest& request,
    const std::optional<storage::v1::UploadRow>& row) {
  if (!row.has_value()) {
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                     deps_.index->GetImage(request.image_id));
    if (!image.has_value()) {
      RETURN_IF_ERROR(CheckNoConflict(*deps_.index, request.image_id));
      return std::optional<v1::Upload>();
    }
    if (Uuid::FromBytesOrNone(image->upload_id()) == request.upload_id) {
      return std::optional<v1::Upload>(FromImage(*image));
    }
    return Exists(request.image_id, image->generation());
  }
  const bool same_size =
      row->adopted()
          ? row->size_bytes() == request.size_bytes.value_or(row->size_bytes())
          : row->has_size_bytes() == request.size_bytes.has_value() &&
                (!row->has_size_bytes() ||
                 row->size_bytes() == *request.size_bytes);
  const Uuid image_id = Uuid::FromBytesOrNone(row->image_id());
  if (image_id != request.image_id || !same_size) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat(UploadName(request.upload_id), " was started for ",
                     ImageName(image_id), " with ",
                     row->has_size_bytes()
                         ? absl::StrCat(row->size_bytes(), " bytes")
                         : "an unknown size",
                     ": a new upload needs a new id"),
        {{"upload", UploadName(request.upload_id)},
         {"image", ImageName(image_id)}});
  }
  if (row->outcome() == storage::v1::UPLOAD_OUTCOME_UNSPECIFIED) {
    return std::optional<v1::Upload>();
  }
  return std::optional<v1::Upload>(ToApi(*row, /*with_capability=*/false));
}

absl::StatusOr<v1::Upload> UploadManager::StartInTurn(
    const StartRequest& request) {
  ASSIGN_OR_RETURN(std::optional<storage::v1::UploadRow> row,
                   deps_.index->GetUpload(request.upload_id));
  ASSIGN_OR_RETURN(std::optional<v1::Upload> answer, AnswerKnown(request, row));
  if (answer.has_value()) {
    return *std::move(answer);
  }
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  absl::Status refusal;
  if (row.has_value()) {
    UploadEntry entry;
    entry.row = *row;
    OnLive(request.upload_id);
    // Without a session the agent still takes bytes of an upload it was told
    // of, and is told again when it registers.
    if (commands_->AttachedSession(entry.target()) == 0) {
      return ToApi(*row, /*with_capability=*/true);
    }
    const absl::Status prepared = Prepare(*row, nullptr);
    if (prepared.ok()) {
      return ToApi(*row, /*with_capability=*/true);
    }
    if (HasReason(prepared, reason::kAgentUnreachable)) {
      return prepared;
    }
    refusal = prepared;
  } else {
    RETURN_IF_ERROR(CheckRoom(request));
    RETURN_IF_ERROR(ClearTheWay(request));
  }
  ASSIGN_OR_RETURN(const storage::v1::UploadRow placed,
                   PlaceAndPrepare(request, std::move(row), refusal));
  return ToApi(placed, /*with_capability=*/true);
}

absl::Status UploadManager::ClearTheWay(const StartRequest& request) {
  for (const UploadEntry& entry : uploads_->OfImage(request.image_id)) {
    const Uuid other = Uuid::FromBytesOrNone(entry.row.upload_id());
    if (!entry.open() || other == request.upload_id) {
      continue;
    }
    if (entry.waiting) {
      // Undecided until its mount registers: if it was published there it is
      // committed then, and this newer one loses.
      continue;
    }
    ASSIGN_OR_RETURN(const Closed closed,
                     CloseIfIdle(entry.row, /*force=*/false));
    switch (closed) {
      case Closed::kOpen:
        return InProgress(request.image_id, other);
      case Closed::kPublished:
        return Exists(request.image_id, entry.row.generation());
      case Closed::kClosed:
        RETURN_IF_ERROR(End(other, storage::v1::UPLOAD_OUTCOME_SUPERSEDED,
                            reason::kUploadSuperseded,
                            absl::StrCat("a newer upload of the image took "
                                         "over: ",
                                         UploadName(request.upload_id))));
    }
  }
  return absl::OkStatus();
}

PlacementRequest UploadManager::PlacementFor(
    const Uuid& image_id, const Uuid& upload_id,
    std::optional<int64_t> size_bytes, const storage::v1::UploadRow* row) {
  PlacementRequest request;
  request.size_bytes = size_bytes;
  if (row != nullptr) {
    for (const storage::v1::UploadTargetRow& target : row->targets()) {
      request.excluded.push_back({Uuid::FromBytesOrNone(target.mount_uid()),
                                  target.clean() ? "refused" : "filled_up"});
    }
  }
  for (const Uuid& uid : tombstones_->Leftovers(image_id)) {
    request.excluded.push_back({uid, "leftover"});
  }
  for (const UploadEntry& entry : uploads_->OfImage(image_id)) {
    if (Uuid::FromBytesOrNone(entry.row.upload_id()) == upload_id) {
      continue;
    }
    for (const storage::v1::UploadTargetRow& target : entry.row.targets()) {
      const Uuid uid = Uuid::FromBytesOrNone(target.mount_uid());
      if (entry.LeftoverOn(uid)) {
        request.excluded.push_back({uid, "leftover"});
      }
    }
  }
  return request;
}

absl::StatusOr<storage::v1::UploadRow> UploadManager::CommitNewRow(
    const StartRequest& request, const Uuid& mount_uid,
    const storage::v1::Decision& decision) {
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  storage::v1::UploadRow row;
  row.set_upload_id(request.upload_id.bytes());
  row.set_image_id(request.image_id.bytes());
  *row.mutable_generation() = pair.ToProto();
  row.set_location_key(deps_.ids->RandomBytes(kLocationKeyBytes));
  if (request.size_bytes.has_value()) {
    row.set_size_bytes(*request.size_bytes);
  }
  row.add_targets()->set_mount_uid(mount_uid.bytes());
  row.set_create_time_us(deps_.clock->NowMicros());
  row.set_update_time_us(row.create_time_us());
  *row.mutable_decision() = decision;
  txn.RequireNoImage(request.image_id);
  txn.RequireNoUpload(request.upload_id);
  txn.PutUpload(row);
  const absl::Status status = deps_.index->Commit(std::move(txn));
  if (absl::IsAborted(status)) {
    return TooManyConflicts(UploadName(request.upload_id));
  }
  RETURN_IF_ERROR(status);
  uploads_->Put(row, pair, deps_.clock->Boot());
  return row;
}

absl::StatusOr<storage::v1::UploadRow> UploadManager::AddTarget(
    const storage::v1::UploadRow& row, const Uuid& mount_uid,
    bool last_is_clean, int64_t segment_boundary,
    const storage::v1::Decision* decision) {
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  storage::v1::UploadRow next = row;
  if (last_is_clean && next.targets_size() > 0) {
    next.mutable_targets(next.targets_size() - 1)->set_clean(true);
  }
  storage::v1::UploadTargetRow* target = next.add_targets();
  target->set_mount_uid(mount_uid.bytes());
  target->set_segment_boundary(segment_boundary);
  next.set_update_time_us(deps_.clock->NowMicros());
  if (decision != nullptr) {
    *next.mutable_decision() = *decision;
  }
  txn.RequireUpload(row);
  txn.PutUpload(next);
  const absl::Status status = deps_.index->Commit(std::move(txn));
  if (absl::IsAborted(status)) {
    return TooManyConflicts(UploadName(Uuid::FromBytesOrNone(row.upload_id())));
  }
  RETURN_IF_ERROR(status);
  uploads_->Put(next, pair, deps_.clock->Boot());
  return next;
}

absl::StatusOr<Reservation> UploadManager::NextMount(
    const PlacementRequest& request, storage::v1::Decision* decision) {
  auto placed = deps_.registry->Reserve(request);
  RETURN_IF_ERROR(placed.status());
  *decision = std::move(placed->decision);
  return std::move(placed->reservation);
}

absl::StatusOr<storage::v1::UploadRow> UploadManager::PlaceAndPrepare(
    const StartRequest& request, std::optional<storage::v1::UploadRow> row,
    absl::Status refusal) {
  TriedMounts tried_mounts;
  // The present mount of an upload that is started again has just said no, but
  // bytes of it may lie there: it is not clean.
  bool refused = false;
  const Deadline deadline(deps_.clock, deps_.options.leftover_wait);
  for (int tried = 0; tried < deps_.options.mounts_per_start;) {
    const int64_t seen = changed_->version();
    storage::v1::Decision decision;
    PlacementRequest placement =
        PlacementFor(request.image_id, request.upload_id, request.size_bytes,
                     row.has_value() ? &*row : nullptr);
    tried_mounts.Explain(&placement);
    auto reservation = NextMount(placement, &decision);
    if (HasReason(reservation.status(), reason::kLeftoverPending) &&
        trust_->recovering()) {
      reservation =
          NextMountInRecovering(placement, &decision, reservation.status());
    }
    if (!reservation.ok()) {
      const absl::Duration left = deadline.left();
      const bool may_change =
          HasReason(reservation.status(), reason::kLeftoverPending) ||
          (absl::IsResourceExhausted(reservation.status()) && RoomMayAppear());
      if (may_change && left > absl::ZeroDuration() &&
          changed_->WaitPast(seen, left)) {
        continue;
      }
      return EndWithoutRoom(request, row.has_value(), refusal,
                            reservation.status());
    }
    const Uuid mount_uid = reservation->mount_uid();
    auto next = row.has_value()
                    ? AddTarget(*row, mount_uid, refused, 0, &decision)
                    : CommitNewRow(request, mount_uid, decision);
    RETURN_IF_ERROR(next.status());
    row = *std::move(next);
    const absl::Status prepared = Prepare(*row, &*reservation);
    if (prepared.ok()) {
      return *std::move(row);
    }
    LogWarning("prepare_refused", {{"upload", request.upload_id.ToString()},
                                   {"mount", mount_uid.ToString()},
                                   {"error", prepared.ToString()}});
    refused = !HasReason(prepared, reason::kAgentUnreachable);
    tried_mounts.Add(mount_uid, prepared);
    refusal = prepared;
    ++tried;
  }
  return MakeError(absl::StatusCode::kUnavailable, reason::kAgentUnreachable,
                   absl::StrCat("none of ", deps_.options.mounts_per_start,
                                " mounts took the upload, the last said: ",
                                refusal.message(), "; repeat the call"),
                   {{"upload", UploadName(request.upload_id)}});
}

absl::Status UploadManager::Prepare(const storage::v1::UploadRow& row,
                                    Reservation* reservation) {
  UploadEntry entry;
  entry.row = row;
  control::v1::Command command;
  *command.mutable_prepare_upload()->mutable_upload() =
      ToOpenUpload(row, entry.target());
  *command.mutable_prepare_upload()->mutable_heard() =
      deps_.index->synced_pair().ToProto();
  const auto result =
      commands_->Call(entry.target(), std::move(command),
                      deps_.options.command_timeout, [&](int64_t number) {
                        if (reservation != nullptr) {
                          reservation->HandOver(number);
                        }
                      });
  RETURN_IF_ERROR(result.status());
  if (result->has_name_taken()) {
    const std::optional<MountInfo> info = deps_.registry->Find(entry.target());
    const std::string mount = MountName(
        info.has_value() ? info->row.mount_name() : entry.target().ToString());
    const std::string image = ImageName(Uuid::FromBytesOrNone(row.image_id()));
    return MakeError(
        absl::StatusCode::kAlreadyExists, reason::kNameTaken,
        absl::StrCat("the name of ", image, " is taken on ", mount, " by ",
                     result->name_taken().has_generation()
                         ? absl::StrCat("generation ",
                                        Generation::FromProto(
                                            result->name_taken().generation())
                                            .ToString())
                         : std::string("a file without record")),
        {{"image", image}, {"mount", mount}});
  }
  return absl::OkStatus();
}

}  // namespace predella::server
