// What agents report of uploads: published, full, and the answers to Attach.
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
#include "common/rpc_status.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "server/lifecycle/api_convert.h"
#include "server/lifecycle/image_conflict.h"
#include "server/lifecycle/upload_manager.h"

namespace predella::server {
namespace {

// How much more than what it has an upload of unknown size must find at its
// next mount. Small: the alternative is to refuse it.
constexpr int64_t kMoveHeadroomBytes = 4 * kMiB;

// `report`: Published or UploadLost.
template <typename Report>
control::v1::PublishedAck Refused(const Report& report,
                                  storage::v1::UploadOutcome outcome,
                                  absl::string_view reason,
                                  absl::string_view detail) {
  control::v1::PublishedAck ack;
  ack.set_upload_id(report.upload_id());
  *ack.mutable_generation() = report.generation();
  ack.set_outcome(outcome);
  ack.set_reason(std::string(reason));
  ack.set_detail(std::string(detail));
  return ack;
}

}  // namespace

storage::v1::ImageRow UploadManager::ImageOf(
    const storage::v1::UploadRow& row,
    const control::v1::Published& published) const {
  storage::v1::ImageRow image;
  image.set_image_id(row.image_id());
  *image.mutable_generation() = row.generation();
  image.set_location_key(row.location_key());
  image.set_size_bytes(published.size_bytes());
  image.set_crc32c(published.crc32c());
  *image.mutable_hashes() = published.hashes();
  image.add_copies()->set_mount_uid(
      row.targets(row.targets_size() - 1).mount_uid());
  image.set_upload_id(row.upload_id());
  // As the record has it, so that a rebuilt index says the same.
  image.set_create_time_us(published.publish_time_us() != 0
                               ? published.publish_time_us()
                               : deps_.clock->NowMicros());
  *image.mutable_decision() = row.decision();
  return image;
}

absl::Status UploadManager::CommitPublished(
    const storage::v1::UploadRow& row, const storage::v1::MountRow& mount,
    const control::v1::Published& published) {
  const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
  const storage::v1::ImageRow image = ImageOf(row, published);
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  storage::v1::UploadRow ended = row;
  ended.set_outcome(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  ended.set_outcome_time_us(deps_.clock->NowMicros());
  txn.RequireUpload(row);
  txn.RequireNoImage(image_id);
  txn.RequireMount(mount);
  txn.PutImage(image);
  txn.PutUpload(ended);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  uploads_->Put(ended, pair, deps_.clock->Boot());
  const Uuid mount_uid = Uuid::FromBytesOrNone(image.copies(0).mount_uid());
  deps_.registry->SetImageBytes(mount_uid,
                                deps_.index->mount_totals(mount_uid).bytes);
  LogInfo("upload_committed",
          {{"image", image_id.ToString()},
           {"upload", Uuid::FromBytesOrNone(row.upload_id()).ToString()},
           {"bytes", published.size_bytes()}});
  changed_->Notify();
  return absl::OkStatus();
}

control::v1::PublishedAck UploadManager::OnPublished(
    const Uuid& mount_uid, const control::v1::Published& published) {
  const Uuid upload_id = Uuid::FromBytesOrNone(published.upload_id());
  const Uuid image_id = Uuid::FromBytesOrNone(published.image_id());
  const Generation generation = Generation::FromProto(published.generation());
  absl::Status last;
  for (int i = 0; i < kMaxCommitTries; ++i) {
    const auto row = deps_.index->GetUpload(upload_id);
    if (!row.ok()) {
      last = row.status();
      break;
    }
    if (!row->has_value() ||
        Generation::FromProto((*row)->generation()) != generation ||
        (*row)->image_id() != published.image_id()) {
      // Nothing is unlinked for this: the file stays and is listed as an
      // orphan.
      return Refused(
          published, storage::v1::UPLOAD_OUTCOME_ABORTED,
          reason::kUploadNotFound,
          absl::StrCat(UploadName(upload_id), " generation ",
                       generation.ToString(), " is not known to the index"));
    }
    const storage::v1::UploadRow& upload = **row;
    UploadEntry entry;
    entry.row = upload;
    if (!entry.open()) {
      control::v1::PublishedAck ack =
          Refused(published, upload.outcome(), upload.outcome_reason(),
                  upload.outcome_detail());
      *ack.mutable_heard() = deps_.index->synced_pair().ToProto();
      return ack;
    }
    if (entry.target() != mount_uid) {
      return Refused(published, storage::v1::UPLOAD_OUTCOME_UNSPECIFIED,
                     reason::kUploadInProgress,
                     absl::StrCat(UploadName(upload_id),
                                  " has moved on to another mount"));
    }
    // A delete that covers more than the index has sees this image, or this
    // sees the delete. Before the mount's gate, as everywhere.
    const MountGate::Adding published_here(tombstones_->adopting(), Uuid());
    // Before the mount's row is read: who counts for a retirement sees this
    // image, or this sees the retirement.
    const MountGate::Adding adding(gate_, mount_uid);
    const std::optional<MountInfo> mount = deps_.registry->Find(mount_uid);
    if (!mount.has_value() ||
        mount->row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
      // An image there would be acknowledged and lost.
      last = End(upload_id, storage::v1::UPLOAD_OUTCOME_ABORTED,
                 reason::kUploadAborted,
                 "its mount was retired while it was uploaded: start again");
    } else if (tombstones_->Covers(image_id, generation)) {
      last = End(upload_id, storage::v1::UPLOAD_OUTCOME_ABORTED,
                 reason::kUploadDeleted,
                 absl::StrCat(ImageName(image_id), " was deleted"));
    } else {
      const auto image = deps_.index->GetImage(image_id);
      if (!image.ok()) {
        last = image.status();
        break;
      }
      // Begun before this start, and the index went back: whether a client was
      // told that it was stored nobody knows.
      const bool unsure =
          trust_->recovering() && generation.epoch < deps_.index->epoch();
      last = image->has_value() && unsure
                 ? KeepAsConflict(deps_, ImageOf(upload, published), upload,
                                  uploads_)
             : image->has_value()
                 ? End(upload_id, storage::v1::UPLOAD_OUTCOME_SUPERSEDED,
                       reason::kUploadSuperseded,
                       absl::StrCat(ImageName(image_id),
                                    " was committed by another upload: ",
                                    UploadName(Uuid::FromBytesOrNone(
                                        (*image)->upload_id()))))
                 : CommitPublished(upload, mount->row, published);
    }
    // Written or changed by somebody else: the row tells, next time round.
    if (!last.ok() && !absl::IsAborted(last)) {
      break;
    }
  }
  LogError("publish_not_decided",
           {{"upload", upload_id.ToString()}, {"error", last.ToString()}});
  return Refused(published, storage::v1::UPLOAD_OUTCOME_UNSPECIFIED,
                 ReasonOf(last), last.message());
}

control::v1::PublishedAck UploadManager::OnUploadLost(
    const Uuid& mount_uid, const control::v1::UploadLost& lost) {
  const Uuid upload_id = Uuid::FromBytesOrNone(lost.upload_id());
  const Generation generation = Generation::FromProto(lost.generation());
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  const std::string mount = MountName(info.has_value() ? info->row.mount_name()
                                                       : mount_uid.ToString());
  absl::Status last;
  // The round after the one that ended it reads the outcome: whoever wrote it.
  for (int i = 0; i < kMaxCommitTries && last.ok(); ++i) {
    const auto row = deps_.index->GetUpload(upload_id);
    if (!row.ok()) {
      last = row.status();
      break;
    }
    const bool ours =
        row->has_value() &&
        Generation::FromProto((*row)->generation()) == generation &&
        std::any_of((*row)->targets().begin(), (*row)->targets().end(),
                    [&](const storage::v1::UploadTargetRow& target) {
                      return target.mount_uid() == mount_uid.bytes();
                    });
    if (!ours) {
      return Refused(lost, storage::v1::UPLOAD_OUTCOME_ABORTED,
                     reason::kUploadNotFound,
                     absl::StrCat(UploadName(upload_id), " generation ",
                                  generation.ToString(),
                                  " is not known to the index for ", mount));
    }
    if ((*row)->outcome() != storage::v1::UPLOAD_OUTCOME_UNSPECIFIED) {
      return Refused(lost, (*row)->outcome(), (*row)->outcome_reason(),
                     (*row)->outcome_detail());
    }
    last = End(upload_id, storage::v1::UPLOAD_OUTCOME_ABORTED,
               lost.reason() == reason::kMountFull ? reason::kMountFull
                                                   : reason::kUploadBytesLost,
               absl::StrCat(mount, " lost bytes of it: ", lost.detail()));
  }
  LogError("loss_not_decided",
           {{"upload", upload_id.ToString()}, {"error", last.ToString()}});
  return Refused(lost, storage::v1::UPLOAD_OUTCOME_UNSPECIFIED, ReasonOf(last),
                 last.message());
}

control::v1::RedirectTarget UploadManager::RedirectTo(
    const storage::v1::UploadRow& row, const Uuid& from) {
  int next = row.targets_size() - 1;
  for (int i = next - 1; i >= 0; --i) {
    if (row.targets(i).mount_uid() == from.bytes()) {
      break;
    }
    // A clean one refused, or was emptied since.
    next = row.targets(i).clean() ? next : i;
  }
  const storage::v1::UploadTargetRow& to = row.targets(next);
  const Uuid mount_uid = Uuid::FromBytesOrNone(to.mount_uid());
  control::v1::RedirectTarget target;
  target.set_mount_uid(mount_uid.bytes());
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  if (info.has_value()) {
    target.set_mount_name(info->row.mount_name());
    CopyAddresses(*info, target.mutable_addresses());
  }
  target.set_capability(WriteCapability(row, mount_uid));
  target.set_segment_boundary(to.segment_boundary());
  return target;
}

absl::StatusOr<std::optional<control::v1::RedirectTarget>>
UploadManager::MoveOn(const storage::v1::UploadRow& first,
                      const control::v1::UploadFull& full) {
  const Uuid upload_id = Uuid::FromBytesOrNone(first.upload_id());
  const Uuid image_id = Uuid::FromBytesOrNone(first.image_id());
  const Uuid from = Uuid::FromBytesOrNone(
      first.targets(first.targets_size() - 1).mount_uid());
  const int64_t boundary =
      std::max(full.received_bytes() / kMiB * kMiB,
               first.targets(first.targets_size() - 1).segment_boundary());
  // The next mount gets everything in the end, the prefix too.
  const int64_t needed = first.has_size_bytes()
                             ? first.size_bytes()
                             : full.received_bytes() + kMoveHeadroomBytes;
  storage::v1::UploadRow row = first;
  bool refused = false;
  absl::Status refusal;
  TriedMounts tried_mounts;
  for (int i = 0; i < deps_.options.mounts_per_start; ++i) {
    storage::v1::Decision decision;
    PlacementRequest placement =
        PlacementFor(image_id, upload_id, needed, &row);
    tried_mounts.Explain(&placement);
    auto reservation = NextMount(placement, &decision);
    if (!reservation.ok()) {
      refusal = MakeError(
          reservation.status().code(), ReasonOf(reservation.status()),
          absl::StrCat("the mount could take no more after ",
                       full.received_bytes(), " bytes (", full.detail(),
                       ") and no other can take the image: ",
                       reservation.status().message()),
          MetadataOf(reservation.status()));
      break;
    }
    ASSIGN_OR_RETURN(row, AddTarget(row, reservation->mount_uid(), refused,
                                    boundary, &decision));
    const absl::Status prepared = Prepare(row, &*reservation);
    if (prepared.ok()) {
      LogInfo("upload_moved", {{"upload", upload_id.ToString()},
                               {"to", reservation->mount_uid().ToString()},
                               {"boundary", boundary}});
      return std::make_optional(RedirectTo(row, from));
    }
    tried_mounts.Add(reservation->mount_uid(), prepared);
    refused = !HasReason(prepared, reason::kAgentUnreachable);
    refusal = prepared;
  }
  if (absl::IsUnavailable(refusal) && MayWait(upload_id)) {
    LogWarning("move_waits",
               {{"upload", upload_id.ToString()}, {"for", refusal.message()}});
    return std::optional<control::v1::RedirectTarget>();
  }
  RETURN_IF_ERROR(End(upload_id, storage::v1::UPLOAD_OUTCOME_ABORTED,
                      ReasonOf(refusal), refusal.message()));
  return MakeError(OutcomeCode(ReasonOf(refusal)), ReasonOf(refusal),
                   refusal.message(), MetadataOf(refusal));
}

bool UploadManager::MayWait(const Uuid& upload_id) {
  const absl::Duration now = deps_.clock->Boot();
  MutexLock lock(&mu_);
  const auto [it, first] = moves_waiting_.try_emplace(upload_id, now);
  return now - it->second < deps_.options.move_wait;
}

std::optional<control::v1::UploadFullAck> UploadManager::OnUploadFull(
    const Uuid& mount_uid, const control::v1::UploadFull& full) {
  const Uuid upload_id = Uuid::FromBytesOrNone(full.upload_id());
  control::v1::UploadFullAck ack;
  ack.set_upload_id(full.upload_id());
  *ack.mutable_generation() = full.generation();
  absl::Status error;
  for (int i = 0; i < kMaxCommitTries; ++i) {
    const auto row = deps_.index->GetUpload(upload_id);
    error = row.status();
    if (!error.ok()) {
      break;
    }
    if (!row->has_value() || Generation::FromProto((*row)->generation()) !=
                                 Generation::FromProto(full.generation())) {
      error = MakeError(absl::StatusCode::kNotFound, reason::kUploadNotFound,
                        absl::StrCat(UploadName(upload_id), " is not known"));
      break;
    }
    UploadEntry entry;
    entry.row = **row;
    if (!entry.open()) {
      error = OutcomeStatus(entry.row);
      break;
    }
    OnLive(upload_id);
    if (entry.target() != mount_uid) {
      // Asked before: the answer was lost. The list at the target's
      // registration holds if it is not there now.
      LogIfError(Prepare(entry.row, nullptr), "it is told when it registers");
      *ack.mutable_target() = RedirectTo(entry.row, mount_uid);
      break;
    }
    auto target = MoveOn(entry.row, full);
    if (target.ok() && !target->has_value()) {
      return std::nullopt;
    }
    if (target.ok()) {
      *ack.mutable_target() = **std::move(target);
      break;
    }
    error = target.status();
    if (!HasReason(error, reason::kCommitConflict)) {
      break;
    }
  }
  if (!error.ok()) {
    *ack.mutable_error() = ToRpcStatus(error);
  }
  *ack.mutable_heard() = deps_.index->synced_pair().ToProto();
  return ack;
}

std::vector<control::v1::OpenUpload> UploadManager::OpenUploadsOn(
    const Uuid& mount_uid) {
  std::vector<control::v1::OpenUpload> out;
  for (const UploadEntry& entry : uploads_->LeftoversOn(mount_uid)) {
    if (!entry.open()) {
      continue;
    }
    out.push_back(ToOpenUpload(entry.row, mount_uid));
  }
  return out;
}

void UploadManager::OnStatus(const Uuid& mount_uid,
                             const control::v1::UploadStatus& status) {
  const Uuid upload_id = Uuid::FromBytesOrNone(status.upload_id());
  const std::optional<UploadEntry> entry = uploads_->Find(upload_id);
  if (!entry.has_value() || entry->target() != mount_uid) {
    return;
  }
  uploads_->Decided(upload_id, deps_.clock->Boot());
  const Uuid image_id = Uuid::FromBytesOrNone(entry->row.image_id());
  const Generation generation = Generation::FromProto(entry->row.generation());
  const auto image = deps_.index->GetImage(image_id);
  bool newer = image.ok() && image->has_value();
  for (const UploadEntry& other : uploads_->OfImage(image_id)) {
    newer = newer ||
            (other.open() &&
             Generation::FromProto(other.row.generation()).After(generation));
  }
  if (entry->waiting && entry->open() && newer) {
    deps_.pool->Post([this, row = entry->row] { SupersedeIfIdle(row); });
  }
}

// What superseded it provisionally did so before its mount could say that
// nothing was published.
void UploadManager::SupersedeIfIdle(const storage::v1::UploadRow& row) {
  const auto closed = CloseIfIdle(row, /*force=*/false);
  if (!closed.ok() || *closed != Closed::kClosed) {
    LogIfError(closed.status(), "the first of the two to publish wins");
    return;
  }
  LogIfError(
      End(Uuid::FromBytesOrNone(row.upload_id()),
          storage::v1::UPLOAD_OUTCOME_SUPERSEDED, reason::kUploadSuperseded,
          "a newer upload of the image took over"),
      "its publish is refused by the image row, and it expires");
}

}  // namespace predella::server
