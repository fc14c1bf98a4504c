#include "agent/store/image_store_impl.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/files.h"
#include "agent/store/image_reader.h"
#include "agent/store/image_store.h"
#include "agent/store/label.h"
#include "agent/store/layout.h"
#include "agent/store/publication.h"
#include "agent/store/record_codec.h"
#include "agent/store/staged_image.h"
#include "agent/store/store_core.h"
#include "common/errors.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

using storage::v1::MountLabel;
using storage::v1::RosterEntry;
using storage::v1::Tombstone;

namespace {

constexpr absl::string_view kFenceTurn = "the fence";

}  // namespace

MountLabel ImageStoreImpl::label() {
  const MutexLock lock(&label_mu_);
  return label_;
}

absl::Status ImageStoreImpl::ClaimLabel(absl::string_view cluster_uid) {
  const DiskLock turn(&core_.locks, "the label");
  RETURN_IF_ERROR(turn.status());
  MountLabel claimed = label();
  if (claimed.cluster_uid() == cluster_uid) {
    return absl::OkStatus();
  }
  if (!claimed.cluster_uid().empty()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kClusterMismatch,
        absl::StrCat(core_.fs->root(), " belongs to cluster ",
                     Uuid::FromBytesOrNone(claimed.cluster_uid()).ToString(),
                     ", not ", Uuid::FromBytesOrNone(cluster_uid).ToString()));
  }
  claimed.set_cluster_uid(std::string(cluster_uid));
  RETURN_IF_ERROR(WriteLabel(core_.fs, claimed));
  // As it is on disk, checksum included.
  ASSIGN_OR_RETURN(MountLabel written, DecodeLabel(EncodeLabel(claimed)));
  const MutexLock lock(&label_mu_);
  label_ = std::move(written);
  return absl::OkStatus();
}

std::vector<storage::v1::FenceEntry> ImageStoreImpl::Known() {
  return core_.registry.Known();
}

absl::Status ImageStoreImpl::Hear(const Generation& pair) {
  const DiskLock turn(&core_.locks, std::string(kFenceTurn));
  RETURN_IF_ERROR(turn.status());
  const MutexLock lock(&fence_mu_);
  RETURN_IF_ERROR(fence_->Hear(pair));
  core_.registry.Know(pair);
  return absl::OkStatus();
}

absl::Status ImageStoreImpl::SyncFence() {
  const DiskLock turn(&core_.locks, std::string(kFenceTurn));
  RETURN_IF_ERROR(turn.status());
  const MutexLock lock(&fence_mu_);
  return fence_->Sync();
}

absl::Status ImageStoreImpl::ChangeTombstones(
    const std::function<absl::Status(TombstoneFile*)>& change) {
  const DiskLock turn(&core_.locks, "the tombstones' file");
  RETURN_IF_ERROR(turn.status());
  const MutexLock lock(&tombstone_mu_);
  const absl::Status changed = change(tombstones_.get());
  const MutexLock told(&told_mu_);
  told_ = tombstones_->content();
  return changed;
}

std::vector<Tombstone> ImageStoreImpl::Tombstones() {
  const MutexLock lock(&told_mu_);
  return {told_.tombstones().begin(), told_.tombstones().end()};
}

absl::Status ImageStoreImpl::StoreTombstone(const Tombstone& tombstone) {
  return ChangeTombstones(
      [&](TombstoneFile* file) { return file->Store(tombstone); });
}

absl::Status ImageStoreImpl::DropTombstones(
    absl::Span<const Tombstone> tombstones) {
  return ChangeTombstones(
      [&](TombstoneFile* file) { return file->Drop(tombstones); });
}

std::vector<RosterEntry> ImageStoreImpl::Roster() {
  const MutexLock lock(&told_mu_);
  return {told_.roster().begin(), told_.roster().end()};
}

absl::Status ImageStoreImpl::StoreRoster(absl::Span<const RosterEntry> roster) {
  return ChangeTombstones(
      [&](TombstoneFile* file) { return file->StoreRoster(roster); });
}

absl::StatusOr<std::unique_ptr<StagedImage>> ImageStoreImpl::OpenStaged(
    const UploadSpec& spec) {
  const IdLock lock(&core_.locks, spec.image_id);
  RETURN_IF_ERROR(lock.status());
  auto staged = OpenStagedImage(&core_, spec);
  if (!staged.ok()) {
    return FailedLayout(staged.status());
  }
  return staged;
}

std::optional<int64_t> ImageStoreImpl::InflightBytes(const Uuid& upload_id) {
  const auto inflight = core_.registry.FindInflight(upload_id);
  if (!inflight.has_value()) {
    return std::nullopt;
  }
  return inflight->bytes;
}

int64_t ImageStoreImpl::InflightAllocated(const Uuid& upload_id) {
  const auto inflight = core_.registry.FindInflight(upload_id);
  return inflight.has_value() ? std::max(inflight->allocated, inflight->bytes)
                              : 0;
}

absl::Status ImageStoreImpl::Discard(const Uuid& upload_id) {
  const auto inflight = core_.registry.FindInflight(upload_id);
  // Of an upload without a state nobody can say which image it belongs to.
  const IdLock lock(&core_.locks,
                    inflight.has_value() ? inflight->image_id : Uuid());
  RETURN_IF_ERROR(lock.status());
  return DiscardLocked(upload_id);
}

absl::Status ImageStoreImpl::DiscardLocked(const Uuid& upload_id) {
  const auto inflight = core_.registry.FindInflight(upload_id);
  if (inflight.has_value() && !inflight->image_id.none()) {
    // The record of a publication that stopped half-way: without the bytes
    // beside it, it would claim whatever bears the name.
    ASSIGN_OR_RETURN(const NameState state, Look(&core_, inflight->image_id));
    if (state.record && !state.damaged && !state.image &&
        state.upload_id() == upload_id) {
      RETURN_IF_ERROR(RemoveRecord(&core_, inflight->image_id));
    }
  }
  RETURN_IF_ERROR(UnlinkIfThere(core_.fs, layout::StatePath(upload_id)));
  RETURN_IF_ERROR(UnlinkIfThere(core_.fs, layout::InflightPath(upload_id)));
  core_.registry.DropInflight(upload_id);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<PublishedImage>> ImageStoreImpl::Find(
    const Uuid& image_id) {
  const IdLock lock(&core_.locks, image_id);
  RETURN_IF_ERROR(lock.status());
  ASSIGN_OR_RETURN(const NameState state, Look(&core_, image_id));
  if (state.unsure) {
    return UnsureError(image_id);
  }
  if (state.image) {
    return std::optional<PublishedImage>(ImageOf(state.header));
  }
  if (state.name && state.damaged) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                     absl::StrCat("the record of image ", image_id.ToString(),
                                  " is damaged"));
  }
  if (state.name) {
    return NameTaken(image_id, state);
  }
  return std::optional<PublishedImage>();
}

absl::StatusOr<std::unique_ptr<ImageReader>> ImageStoreImpl::OpenImage(
    const Uuid& image_id, const Generation& generation) {
  const IdLock lock(&core_.locks, image_id);
  RETURN_IF_ERROR(lock.status());
  ASSIGN_OR_RETURN(const NameState state, Look(&core_, image_id));
  const std::string what = absl::StrCat("image ", image_id.ToString());
  if (state.unsure) {
    return UnsureError(image_id);
  }
  if (!state.record_refused.ok()) {
    return RefusedError(absl::StrCat("the record of ", what),
                        state.record_refused);
  }
  if (!state.name_refused.ok()) {
    return RefusedError(absl::StrCat("the file of ", what), state.name_refused);
  }
  if (state.damaged) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                     absl::StrCat("the record of ", what, " is damaged"));
  }
  if (!state.record) {
    // Never NOT_FOUND: who asks was told by the index that it is here.
    return MakeError(absl::StatusCode::kDataLoss, reason::kReplicaMissing,
                     state.name
                         ? absl::StrCat(what, " is a file without a record")
                         : absl::StrCat(what, " is not on this mount"));
  }
  if (state.generation() != generation) {
    // Final: no waiting brings a generation whose name another one bears.
    return MakeError(absl::StatusCode::kDataLoss, reason::kReplicaMissing,
                     absl::StrCat(what, " is here in generation ",
                                  state.generation().ToString(), ", not ",
                                  generation.ToString()),
                     {{"generation", state.generation().ToString()}});
  }
  if (!state.image) {
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kReplicaMissing,
        absl::StrCat("the record of ", what, " is here and its file is not"));
  }
  PublishedImage image = ImageOf(state.header);
  if (state.info.size_bytes > image.size_bytes) {
    // Its blocks may all be whole, and it is not what was stored.
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
        absl::StrCat("the file of ", what, " has ", state.info.size_bytes,
                     " bytes; its record says ", image.size_bytes));
  }
  ASSIGN_OR_RETURN(auto table, ReadTable(&core_, image));
  auto file = core_.fs->Open(layout::ImagePath(image_id), OpenMode::kRead);
  if (absl::IsPermissionDenied(file.status())) {
    return RefusedError(absl::StrCat("the file of ", what), file.status());
  }
  RETURN_IF_ERROR(file.status());
  return std::unique_ptr<ImageReader>(std::make_unique<ImageReaderImpl>(
      std::move(image), std::move(table), *std::move(file)));
}

absl::Status ImageStoreImpl::RemoveImageLocked(const Uuid& image_id,
                                               const NameState& state,
                                               RemoveOutcome* outcome) {
  if (state.image) {
    RETURN_IF_ERROR(UnlinkIfThere(core_.fs, layout::ImagePath(image_id)));
    core_.registry.AddImages(-1);
    outcome->removed = true;
  }
  // Also when the name is gone already: an earlier try may have failed here.
  RETURN_IF_ERROR(core_.fs->SyncDir(layout::kRoot));
  RETURN_IF_ERROR(RemoveRecord(&core_, image_id));
  core_.registry.SetUnsure(image_id, false);
  return absl::OkStatus();
}

absl::StatusOr<RemoveOutcome> ImageStoreImpl::Remove(
    const Uuid& image_id, const Generation& generation, const Uuid& upload_id) {
  const IdLock lock(&core_.locks, image_id);
  RETURN_IF_ERROR(lock.status());
  RemoveOutcome outcome;
  ASSIGN_OR_RETURN(const NameState state, Look(&core_, image_id));
  const bool same =
      state.record && !state.damaged && state.generation() == generation;
  if (same) {
    RETURN_IF_ERROR(RemoveImageLocked(image_id, state, &outcome));
  }
  if (state.name && !(same && state.image)) {
    outcome.other_present = true;
    outcome.other = state.image ? state.generation() : Generation();
  }
  const auto inflight = core_.registry.FindInflight(upload_id);
  if (inflight.has_value() &&
      (inflight->generation.none() || (inflight->generation == generation &&
                                       inflight->image_id == image_id))) {
    RETURN_IF_ERROR(DiscardLocked(upload_id));
    outcome.removed = true;
  }
  // Which generation lies there is not known: it may be this one, and would
  // rise once its record can be read again.
  if (state.name && !state.record_refused.ok()) {
    return RefusedError(
        absl::StrCat("the record of image ", image_id.ToString()),
        state.record_refused);
  }
  if (state.name && !state.record) {
    RETURN_IF_ERROR(CheckThere(layout::ShardPathOf(image_id), Is::kDirectory));
  }
  return outcome;
}

}  // namespace predella::agent
