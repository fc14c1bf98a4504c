#include "agent/store/files.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"
#include "agent/store/layout.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

absl::Status Fill(File* file, absl::string_view content, Durability durability,
                  bool* sync_failed) {
  RETURN_IF_ERROR(file->Pwrite(0, content));
  if (durability == Durability::kPower) {
    const absl::Status synced = file->Datasync();
    if (sync_failed != nullptr) {
      *sync_failed = !synced.ok();
    }
    return synced;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadFile(FileSystem* fs, absl::string_view path,
                                     int64_t limit) {
  ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                   fs->Open(path, OpenMode::kRead));
  ASSIGN_OR_RETURN(const FileInfo info, file->Stat());
  std::string out(static_cast<size_t>(std::min(info.size_bytes, limit)), '\0');
  ASSIGN_OR_RETURN(const size_t got, file->Pread(0, out.size(), out.data()));
  out.resize(got);
  return out;
}

absl::Status WriteNewFile(FileSystem* fs, absl::string_view path,
                          absl::string_view content, Durability durability,
                          bool* sync_failed) {
  auto created = fs->Open(path, OpenMode::kCreateNew);
  if (absl::IsAlreadyExists(created.status())) {
    RETURN_IF_ERROR(UnlinkIfThere(fs, path));
    created = fs->Open(path, OpenMode::kCreateNew);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<File> file, std::move(created));
  const absl::Status filled =
      Fill(file.get(), content, durability, sync_failed);
  if (!filled.ok()) {
    LogIfError(UnlinkIfThere(fs, path), "a temporary name; cleared at start");
  }
  return filled;
}

absl::Status ReplaceFile(FileSystem* fs, absl::string_view path,
                         absl::string_view content, Durability durability) {
  const std::string temp = layout::TempPath(path);
  RETURN_IF_ERROR(WriteNewFile(fs, temp, content, durability));
  const absl::Status renamed = fs->Rename(temp, path);
  if (!renamed.ok()) {
    LogIfError(UnlinkIfThere(fs, temp), "a temporary name; cleared at start");
  }
  return renamed;
}

absl::Status UnlinkIfThere(FileSystem* fs, absl::string_view path) {
  const absl::Status unlinked = fs->Unlink(path);
  return absl::IsNotFound(unlinked) ? absl::OkStatus() : unlinked;
}

}  // namespace predella::agent
