// A FileSystem before another one, whose calls are watched.
#ifndef PREDELLA_AGENT_FS_WATCHED_FILE_SYSTEM_H_
#define PREDELLA_AGENT_FS_WATCHED_FILE_SYSTEM_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/disk_calls.h"
#include "agent/fs/file_system.h"

namespace predella::agent {

// Adds nothing but a DiskCalls::Call around each. Thread-safe.
class WatchedFileSystem final : public FileSystem {
 public:
  // Both must outlive this and its files.
  WatchedFileSystem(FileSystem* base, DiskCalls* calls)
      : base_(base), calls_(calls) {}
  // Over what `open` gives, and with it: opening touches the mount as well,
  // and is watched as one call.
  static absl::StatusOr<std::unique_ptr<WatchedFileSystem>> Open(
      DiskCalls* calls, absl::string_view path,
      const std::function<absl::StatusOr<std::unique_ptr<FileSystem>>()>& open);

  absl::StatusOr<std::unique_ptr<File>> Open(absl::string_view path,
                                             OpenMode mode) override;
  absl::StatusOr<FileInfo> Stat(absl::string_view path) override;
  absl::Status Mkdir(absl::string_view path, uint32_t mode) override;
  absl::Status Unlink(absl::string_view path) override;
  absl::Status Rename(absl::string_view from, absl::string_view to) override;
  absl::Status RenameNoReplace(absl::string_view from,
                               absl::string_view to) override;
  absl::Status SyncDir(absl::string_view path) override;
  // But for the time in `entry`, which may wait for others than the disk.
  absl::Status List(
      absl::string_view path,
      const std::function<void(absl::string_view name)>& entry) override;
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(
      absl::string_view path, absl::string_view holder) override;
  absl::StatusOr<SpaceInfo> Space() override;
  absl::Status CheckRoot() override;
  std::optional<int64_t> MountId() override { return base_->MountId(); }
  bool PassesDescriptors() const override { return base_->PassesDescriptors(); }
  std::string root() const override { return base_->root(); }

 private:
  std::unique_ptr<FileSystem> owned_;  // may be null
  FileSystem* const base_;
  DiskCalls* const calls_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_WATCHED_FILE_SYSTEM_H_
