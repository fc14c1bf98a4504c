#include "agent/fs/guarded_file_system.h"

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::agent {

absl::Status GuardedFileSystem::Check(absl::string_view verb,
                                      absl::string_view path) const {
  if (writes()) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountReadOnly,
      absl::StrCat(verb, " ", path, " in ", root(),
                   ": it is open for reading only, since its file system took "
                   "no writes when it was opened and gave no exclusive lock; "
                   "it is opened anew when it takes them"));
}

absl::StatusOr<std::unique_ptr<File>> GuardedFileSystem::Open(
    absl::string_view path, OpenMode mode) {
  if (mode != OpenMode::kRead) {
    RETURN_IF_ERROR(Check("write", path));
  }
  return base_->Open(path, mode);
}

absl::StatusOr<FileInfo> GuardedFileSystem::Stat(absl::string_view path) {
  return base_->Stat(path);
}

absl::Status GuardedFileSystem::Mkdir(absl::string_view path, uint32_t mode) {
  RETURN_IF_ERROR(Check("make the directory", path));
  return base_->Mkdir(path, mode);
}

absl::Status GuardedFileSystem::Unlink(absl::string_view path) {
  RETURN_IF_ERROR(Check("unlink", path));
  return base_->Unlink(path);
}

absl::Status GuardedFileSystem::Rename(absl::string_view from,
                                       absl::string_view to) {
  RETURN_IF_ERROR(Check("rename", from));
  return base_->Rename(from, to);
}

absl::Status GuardedFileSystem::RenameNoReplace(absl::string_view from,
                                                absl::string_view to) {
  RETURN_IF_ERROR(Check("rename", from));
  return base_->RenameNoReplace(from, to);
}

absl::Status GuardedFileSystem::SyncDir(absl::string_view path) {
  return base_->SyncDir(path);
}

absl::Status GuardedFileSystem::List(
    absl::string_view path,
    const std::function<void(absl::string_view name)>& entry) {
  return base_->List(path, entry);
}

absl::StatusOr<std::unique_ptr<FileLock>> GuardedFileSystem::Lock(
    absl::string_view path, absl::string_view holder) {
  return base_->Lock(path, holder);
}

}  // namespace predella::agent
