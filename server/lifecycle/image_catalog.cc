#include "server/lifecycle/image_catalog.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/api_convert.h"
#include "server/lifecycle/image_conflict.h"
#include "server/lifecycle/image_health.h"

namespace predella::server {
namespace {

absl::Status NotFound(const Uuid& image_id) {
  return MakeError(absl::StatusCode::kNotFound, reason::kImageNotFound,
                   absl::StrCat("there is no ", ImageName(image_id)),
                   {{"image", ImageName(image_id)}});
}

absl::Status Unsure(const Uuid& image_id, absl::string_view reason,
                    const std::vector<std::string>& mounts,
                    absl::string_view why) {
  const std::string names = absl::StrJoin(mounts, ", ");
  return MakeError(
      absl::StatusCode::kUnavailable, reason,
      absl::StrCat(ImageName(image_id), " is not in the index, but ", why,
                   mounts.empty() ? "" : ": ", names),
      {{"image", ImageName(image_id)}, {"mounts", names}});
}

}  // namespace

ImageCatalog::ImageCatalog(const LifecycleDeps& deps, TrustKeeper* trust,
                           UploadTable* uploads, UploadManager* upload_manager,
                           Tombstones* tombstones, Inventory* inventory,
                           CopyVerifier* verifier)
    : deps_(deps),
      trust_(trust),
      uploads_(uploads),
      upload_manager_(upload_manager),
      tombstones_(tombstones),
      inventory_(inventory),
      verifier_(verifier) {}

void ImageCatalog::OnDeleted(std::function<void()> deleted) {
  deleted_ = std::move(deleted);
}

absl::StatusOr<v1::Image> ImageCatalog::Get(const Uuid& image_id) {
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                   deps_.index->GetImage(image_id));
  if (!row.has_value()) {
    RETURN_IF_ERROR(CheckNoConflict(*deps_.index, image_id));
    return WhyMissing(image_id);
  }
  const KnownMounts mounts(*deps_.registry, *row);
  v1::Image image;
  ToApiImage(*row, DeriveImage(*row, *deps_.index, mounts), deps_, mounts,
             /*brief=*/false, &image);
  ASSIGN_OR_RETURN(const std::vector<storage::v1::ConflictRow> conflicts,
                   deps_.index->ConflictsOf(image_id));
  for (const storage::v1::ConflictRow& conflict : conflicts) {
    *image.add_conflicts() = ToApiConflict(conflict, *deps_.registry);
  }
  return image;
}

// Glance turns a NOT_FOUND into an image without bytes, so it is said only
// when the index is all there is to know (docs/architecture.md, Trust).
absl::Status ImageCatalog::WhyMissing(const Uuid& image_id) {
  for (const TombstoneEntry& entry : tombstones_->OfImage(image_id)) {
    // One of this epoch covers whatever a lost history stored: that was told
    // of no such epoch. An earlier one answers where nothing is left to learn.
    if (entry.written_here &&
        (entry.row.generation().epoch() >= deps_.index->epoch() ||
         KnowsAll())) {
      return NotFound(image_id);
    }
  }
  if (const auto file = inventory_->FindUnadopted(image_id); file.has_value()) {
    const std::optional<MountInfo> info = deps_.registry->Find(file->mount_uid);
    const std::string mount = MountName(
        info.has_value() ? info->row.mount_name() : file->mount_uid.ToString());
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kReplicaMissing,
        absl::StrCat("the index does not know ", ImageName(image_id), ", ",
                     mount, " holds a file of it with ", file->size_bytes,
                     " bytes, and no record vouches for that file"),
        {{"image", ImageName(image_id)}, {"mount", mount}});
  }
  if (trust_->recovering()) {
    std::vector<std::string> names;
    for (const MountInfo& info : deps_.registry->List()) {
      if (info.row.admin_state() != storage::v1::ADMIN_STATE_RETIRED) {
        names.push_back(info.row.mount_name());
      }
    }
    return Unsure(
        image_id, reason::kRecovering, names,
        absl::StrCat(trust_->why(), ", and any of these may hold it"));
  }
  const std::vector<MountInfo> mounts = deps_.registry->List();
  if (mounts.empty()) {
    return Unsure(image_id, reason::kMountsMissing, {},
                  "no mount has ever registered here");
  }
  std::vector<std::string> unconfirmed;
  for (const MountInfo& info : mounts) {
    if (info.row.unconfirmed()) {
      unconfirmed.push_back(info.row.mount_name());
    }
  }
  if (!unconfirmed.empty()) {
    return Unsure(image_id, reason::kMountsMissing, unconfirmed,
                  "these mounts were away when the index was rebuilt, and are "
                  "UNCONFIRMED: no maintenance excuses them, they are taken "
                  "in (predella mount confirm NAME) or retired");
  }
  for (const UploadEntry& entry : uploads_->OfImage(image_id)) {
    if (entry.open() && entry.waiting) {
      const std::optional<MountInfo> info =
          deps_.registry->Find(entry.target());
      return Unsure(
          image_id, reason::kMountsMissing,
          {info.has_value() ? info->row.mount_name()
                            : entry.target().ToString()},
          "an upload of it may have been published on a mount that is missing");
    }
  }
  if (trust_->clean_start_counts()) {
    return NotFound(image_id);
  }
  const std::vector<std::string> missing = deps_.registry->Missing();
  if (!missing.empty()) {
    return Unsure(image_id, reason::kMountsMissing, missing,
                  "these mounts have not registered since the coordinator "
                  "started");
  }
  return NotFound(image_id);
}

bool ImageCatalog::KnowsAll() const {
  const std::vector<MountInfo> mounts = deps_.registry->List();
  return !trust_->recovering() && !mounts.empty() &&
         std::none_of(
             mounts.begin(), mounts.end(),
             [](const MountInfo& info) { return info.row.unconfirmed(); }) &&
         (trust_->clean_start_counts() || deps_.registry->Missing().empty());
}

// A delete by id takes what a mount that is away may still bring; one of a
// generation takes no other, and cannot say that there is none.
ImageCatalog::Scope ImageCatalog::ScopeOf(const DeleteRequest& request) const {
  return !request.generation.has_value() && !KnowsAll() ? Scope::kAllBelow
                                                        : Scope::kKnown;
}

absl::Status ImageCatalog::CommitDelete(
    const Uuid& image_id, Scope scope,
    std::vector<storage::v1::TombstoneRow> written, IndexTxn txn) {
  const Generation pair = txn.pair();
  if (scope == Scope::kAllBelow) {
    written.push_back(
        tombstones_->Make(image_id, pair.ToProto(), tombstones_->AllMounts()));
  }
  for (const storage::v1::TombstoneRow& row : written) {
    txn.PutTombstone(row);
  }
  // Nothing that this covers is taken in or published between the commit and
  // the memory that those look into. Where the index knows all there is, the
  // row that is required says as much, and only who adopts by hand is kept out.
  std::optional<MountGate::Counting> alone;
  std::optional<MountGate::Adding> beside;
  if (scope == Scope::kAllBelow || trust_->recovering()) {
    alone.emplace(tombstones_->adopting(), Uuid());
    RETURN_IF_ERROR(CheckNoConflict(*deps_.index, image_id));
  } else {
    beside.emplace(tombstones_->adopting(), Uuid());
  }
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  for (const storage::v1::TombstoneRow& row : written) {
    tombstones_->Committed(row, pair, /*written_here=*/true);
  }
  return absl::OkStatus();
}

absl::Status ImageCatalog::CoverAllBelow(const Uuid& image_id) {
  IndexTxn txn = deps_.index->Begin();
  txn.RequireNoImage(image_id);
  return CommitDelete(image_id, Scope::kAllBelow, {}, std::move(txn));
}

// Where a file of this very generation lies, or did when it was last seen: the
// image shall not rise from there, whenever the mount comes back. What no
// listing has shown yet is waited for by Tombstones.
std::vector<Uuid> ImageCatalog::MayHold(
    const storage::v1::ImageRow& row) const {
  std::set<std::string> uids(row.left_mount_uids().begin(),
                             row.left_mount_uids().end());
  for (const storage::v1::CopyRow& copy : row.copies()) {
    uids.insert(copy.mount_uid());
  }
  for (const Orphan& orphan :
       inventory_->WholeOrphansOf(Uuid::FromBytesOrNone(row.image_id()))) {
    if (Generation::FromProto(orphan.record->generation()) ==
        Generation::FromProto(row.generation())) {
      uids.insert(orphan.mount_uid.bytes());
    }
  }
  std::vector<Uuid> out;
  out.reserve(uids.size());
  for (const std::string& uid : uids) {
    out.push_back(Uuid::FromBytesOrNone(uid));
  }
  return out;
}

absl::Status ImageCatalog::DeleteRow(const storage::v1::ImageRow& row,
                                     Scope scope) {
  const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
  const Uuid upload_id = Uuid::FromBytesOrNone(row.upload_id());
  ASSIGN_OR_RETURN(std::optional<storage::v1::UploadRow> upload,
                   deps_.index->GetUpload(upload_id));
  std::vector<Uuid> holders;
  for (const storage::v1::CopyRow& copy : row.copies()) {
    holders.push_back(Uuid::FromBytesOrNone(copy.mount_uid()));
  }
  const std::vector<Uuid> pending = MayHold(row);
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  txn.RequireImage(row);
  txn.DeleteImage(row);
  const bool had_upload =
      upload.has_value() &&
      upload->outcome() == storage::v1::UPLOAD_OUTCOME_COMMITTED;
  if (had_upload) {
    txn.RequireUpload(*upload);
    upload->set_outcome(storage::v1::UPLOAD_OUTCOME_DELETED);
    upload->set_outcome_reason(std::string(reason::kUploadDeleted));
    upload->set_outcome_detail("it was committed, and the image deleted since");
    txn.PutUpload(*upload);
  }
  RETURN_IF_ERROR(CommitDelete(
      image_id, scope, {tombstones_->Make(image_id, row.generation(), pending)},
      std::move(txn)));
  if (had_upload) {
    uploads_->Put(*upload, pair, deps_.clock->Boot());
  }
  for (const Uuid& uid : holders) {
    deps_.registry->SetImageBytes(uid, deps_.index->mount_totals(uid).bytes);
  }
  LogInfo("image_deleted",
          {{"image", image_id.ToString()},
           {"generation", Generation::FromProto(row.generation()).ToString()}});
  return absl::OkStatus();
}

absl::Status ImageCatalog::AbortWithTombstone(const storage::v1::UploadRow& row,
                                              Scope scope) {
  const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
  std::vector<Uuid> holders;
  for (const storage::v1::UploadTargetRow& target : row.targets()) {
    if (!target.clean()) {
      holders.push_back(Uuid::FromBytesOrNone(target.mount_uid()));
    }
  }
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  storage::v1::UploadRow ended = row;
  ended.set_outcome(storage::v1::UPLOAD_OUTCOME_ABORTED);
  ended.set_outcome_time_us(deps_.clock->NowMicros());
  ended.set_outcome_reason(std::string(reason::kUploadDeleted));
  ended.set_outcome_detail(
      absl::StrCat(ImageName(image_id), " was deleted during the upload"));
  txn.RequireUpload(row);
  txn.PutUpload(ended);
  RETURN_IF_ERROR(CommitDelete(
      image_id, scope, {tombstones_->Make(image_id, row.generation(), holders)},
      std::move(txn)));
  uploads_->Put(ended, pair, deps_.clock->Boot());
  return absl::OkStatus();
}

absl::StatusOr<ImageCatalog::ClosedUploads> ImageCatalog::CloseUploads(
    const DeleteRequest& request) {
  const Uuid& image_id = request.image_id;
  // All are asked before one is ended: a delete that is refused ends none.
  ClosedUploads out;
  for (const UploadEntry& entry : uploads_->OfImage(image_id)) {
    if (!entry.open() || (request.generation.has_value() &&
                          Generation::FromProto(entry.row.generation()) !=
                              *request.generation)) {
      continue;
    }
    ASSIGN_OR_RETURN(const UploadManager::Closed closed,
                     upload_manager_->CloseIfIdle(entry.row, /*force=*/false));
    if (closed == UploadManager::Closed::kOpen) {
      const std::string upload =
          UploadName(Uuid::FromBytesOrNone(entry.row.upload_id()));
      return MakeError(
          absl::StatusCode::kAborted, reason::kUploadInProgress,
          absl::StrCat(ImageName(image_id), " is being uploaded by ", upload,
                       ": abort that first"),
          {{"image", ImageName(image_id)}, {"upload", upload}});
    }
    ++out.asked;
    if (closed == UploadManager::Closed::kClosed) {
      out.rows.push_back(entry.row);
    }
  }
  return out;
}

// A delete of this start that has no copy on a mount yet gets one now.
absl::Status ImageCatalog::FinishCopies(const Uuid& image_id) {
  for (const TombstoneEntry& entry : tombstones_->OfImage(image_id)) {
    if (entry.row.settle_time_us() == 0 && !tombstones_->HasCopy(entry.row)) {
      RETURN_IF_ERROR(tombstones_->EnsureCopy(
          entry.row, deps_.options.tombstone_copy_wait));
    }
  }
  if (deleted_) {
    deleted_();
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ImageCatalog::DeleteOnce(const DeleteRequest& request) {
  const Uuid& image_id = request.image_id;
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                   deps_.index->GetImage(image_id));
  if (row.has_value() && request.generation.has_value() &&
      Generation::FromProto(row->generation()) != *request.generation) {
    const std::string is = Generation::FromProto(row->generation()).ToString();
    return MakeError(absl::StatusCode::kAborted, reason::kGenerationMismatch,
                     absl::StrCat(ImageName(image_id), " is generation ", is,
                                  ", not ", request.generation->ToString()),
                     {{"image", ImageName(image_id)}, {"generation", is}});
  }
  ASSIGN_OR_RETURN(const ClosedUploads closed, CloseUploads(request));
  // Not before: what a mount was heard to know meanwhile counts too.
  const Scope scope = ScopeOf(request);
  for (const storage::v1::UploadRow& upload : closed.rows) {
    RETURN_IF_ERROR(AbortWithTombstone(upload, scope));
  }
  if (row.has_value()) {
    RETURN_IF_ERROR(DeleteRow(*row, scope));
  } else {
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> now,
                     deps_.index->GetImage(image_id));
    if (now.has_value()) {
      return absl::AbortedError("published while its uploads were asked");
    }
  }
  const bool any = row.has_value() || closed.asked > 0;
  // Nor is it acknowledged for less than what is known then.
  if (any && scope == Scope::kKnown && ScopeOf(request) == Scope::kAllBelow) {
    RETURN_IF_ERROR(CoverAllBelow(image_id));
  }
  return any;
}

absl::Status ImageCatalog::Delete(const DeleteRequest& request) {
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  RETURN_IF_ERROR(CheckNoConflict(*deps_.index, request.image_id));
  bool unfinished = false;
  for (int i = 0; i < kMaxCommitTries; ++i) {
    const absl::StatusOr<bool> any = DeleteOnce(request);
    if (absl::IsAborted(any.status()) &&
        !HasReason(any.status(), reason::kUploadInProgress) &&
        !HasReason(any.status(), reason::kGenerationMismatch)) {
      continue;  // a row was changed by somebody else: look again
    }
    RETURN_IF_ERROR(any.status());
    unfinished = unfinished || *any;
    for (const TombstoneEntry& entry : tombstones_->OfImage(request.image_id)) {
      unfinished = unfinished || (entry.row.settle_time_us() == 0 &&
                                  !tombstones_->HasCopy(entry.row));
    }
    if (unfinished) {
      return FinishCopies(request.image_id);
    }
    const absl::Status missing = WhyMissing(request.image_id);
    return request.allow_missing && absl::IsNotFound(missing) ? absl::OkStatus()
                                                              : missing;
  }
  return TooManyConflicts(ImageName(request.image_id));
}

}  // namespace predella::server
