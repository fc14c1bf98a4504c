#include "agent/store/publication.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "agent/store/record_codec.h"
#include "agent/store/store_core.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

absl::Status FailedLayout(const absl::Status& status) {
  if (!absl::IsNotFound(status) || !ReasonOf(status).empty()) {
    return status;
  }
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kMountFailed,
      absl::StrCat("a directory below .predella is missing (", status.message(),
                   "): put it back, empty if need be, or restore the mount"));
}

absl::Status FailedSync(const absl::Status& status, absl::string_view what) {
  if (!ReasonOf(status).empty()) {
    return Annotate(status, what);
  }
  return MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed,
                   absl::StrCat(what, ": ", status.message()));
}

Publication::Publication(StoreCore* core, File* file,
                         const storage::v1::ReplicaRecord& record,
                         absl::Span<const uint32_t> table)
    : core_(core),
      file_(file),
      record_(record),
      table_(table),
      image_(ImageOf(record)),
      name_path_(layout::ImagePath(image_.image_id)),
      record_path_(layout::RecordPath(image_.image_id)),
      inflight_path_(layout::InflightPath(image_.upload_id)) {}

absl::StatusOr<PublishedImage> Publication::Run() {
  RETURN_IF_ERROR(CheckName());
  if (done_) {
    ASSIGN_OR_RETURN(const NameState state, Look(core_, image_.image_id));
    return ImageOf(state.header);
  }
  RETURN_IF_ERROR(CheckBytes());
  if (const absl::Status synced = file_->Datasync(); !synced.ok()) {
    return Condemn(synced, "the sync of the image's bytes failed");
  }
  RETURN_IF_ERROR(WriteRecord());
  RETURN_IF_ERROR(TakeName());
  core_->registry.DropInflight(image_.upload_id);
  core_->registry.Know(image_.generation);
  core_->registry.AddImages(1);
  LogIfError(UnlinkIfThere(core_->fs, layout::StatePath(image_.upload_id)),
             "a state without bytes is cleared at the next start");
  return image_;
}

absl::Status Publication::CheckName() {
  ASSIGN_OR_RETURN(const NameState state, Look(core_, image_.image_id));
  if (state.unsure) {
    return UnsureError(image_.image_id);
  }
  const bool same = state.record && !state.damaged &&
                    state.generation() == image_.generation &&
                    state.upload_id() == image_.upload_id;
  if (state.name) {
    done_ = state.image && same;
    return done_ ? absl::OkStatus() : NameTaken(image_.image_id, state);
  }
  if (state.record && !same && !state.damaged &&
      core_->registry.FindInflight(state.upload_id()).has_value()) {
    // Another upload is in the middle of it.
    return NameTaken(image_.image_id, state);
  }
  replace_record_ = state.record;
  return absl::OkStatus();
}

absl::Status Publication::CheckBytes() {
  ASSIGN_OR_RETURN(info_, file_->Stat());
  const auto named = core_->fs->Stat(inflight_path_);
  if (absl::IsNotFound(named.status()) ||
      (named.ok() && named->inode != info_.inode)) {
    return MakeError(
        absl::StatusCode::kAborted, reason::kUploadAborted,
        absl::StrCat("the bytes of upload ", image_.upload_id.ToString(),
                     " were removed"));
  }
  return named.status();
}

absl::Status Publication::WriteRecord() {
  ASSIGN_OR_RETURN(const std::string bytes, EncodeRecord(record_, table_));
  const std::string temp = layout::TempPath(record_path_);
  FileSystem* const fs = core_->fs;
  bool sync_failed = false;
  if (const absl::Status written =
          WriteNewFile(fs, temp, bytes, Durability::kPower, &sync_failed);
      !written.ok()) {
    return sync_failed
               ? Condemn(written, "the sync of the image's record failed")
               : Annotate(written, "the image's record could not be written");
  }
  const absl::Status renamed = replace_record_
                                   ? fs->Rename(temp, record_path_)
                                   : fs->RenameNoReplace(temp, record_path_);
  if (!renamed.ok()) {
    LogIfError(UnlinkIfThere(fs, temp), "a temporary name");
    return Annotate(renamed, "the image's record could not be put in place");
  }
  if (const absl::Status dir =
          fs->SyncDir(layout::ShardPathOf(image_.image_id));
      !dir.ok()) {
    LogIfError(UnlinkIfThere(fs, record_path_),
               "a record without a name is nobody's");
    return Condemn(dir, "the sync of the image's record failed");
  }
  return absl::OkStatus();
}

absl::Status Publication::TakeName() {
  FileSystem* const fs = core_->fs;
  const absl::Status named = fs->RenameNoReplace(inflight_path_, name_path_);
  if (absl::IsAlreadyExists(named)) {
    // Somebody put a file there since CheckName: the record is not its.
    LogIfError(RemoveRecord(core_, image_.image_id),
               "found not to be that name's at the next start");
    NameState state;
    state.name = true;
    return NameTaken(image_.image_id, state);
  }
  if (!named.ok()) {
    Undo();
    return Condemn(named, "the image could not take its name");
  }
  if (const absl::Status synced = fs->SyncDir(layout::kRoot); !synced.ok()) {
    Undo();
    return Condemn(synced, "the sync of the mount's directory failed");
  }
  return absl::OkStatus();
}

void Publication::Undo() {
  const auto named = core_->fs->Stat(name_path_);
  const bool absent = absl::IsNotFound(named.status());
  const bool ours = named.ok() && named->inode == info_.inode;
  absl::Status undone = named.status();
  if (absent) {
    undone = absl::OkStatus();
  } else if (ours) {
    undone = core_->fs->Unlink(name_path_);
  }
  if (undone.ok()) {
    // The record goes only after the name has gone for good: a name without
    // a record would be taken for a foreign file.
    undone = core_->fs->SyncDir(layout::kRoot);
    if (undone.ok()) {
      LogIfError(RemoveRecord(core_, image_.image_id),
                 "a record without a name is nobody's");
      return;
    }
    LogIfError(undone, "name and record stay a pair, whatever lasts");
    return;
  }
  LogIfError(undone, "the image is held as unsure until it is removed");
  core_->registry.SetUnsure(image_.image_id, true);
}

absl::Status Publication::Condemn(const absl::Status& status,
                                  absl::string_view what) {
  condemned_ = true;
  return FailedSync(status, what);
}

}  // namespace predella::agent
