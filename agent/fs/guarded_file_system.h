// A FileSystem before another one that changes nothing until it is told that
// the directory is this process's alone.
#ifndef PREDELLA_AGENT_FS_GUARDED_FILE_SYSTEM_H_
#define PREDELLA_AGENT_FS_GUARDED_FILE_SYSTEM_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"

namespace predella::agent {

// Refuses with FAILED_PRECONDITION, MOUNT_READ_ONLY, before the mount is asked.
// Thread-safe.
class GuardedFileSystem final : public FileSystem {
 public:
  // `base` must outlive this.
  explicit GuardedFileSystem(FileSystem* base) : base_(base) {}

  void AllowWrites() { writes_.store(true); }
  bool writes() const { return writes_.load(); }

  absl::StatusOr<std::unique_ptr<File>> Open(absl::string_view path,
                                             OpenMode mode) override;
  absl::StatusOr<FileInfo> Stat(absl::string_view path) override;
  absl::Status Mkdir(absl::string_view path, uint32_t mode) override;
  absl::Status Unlink(absl::string_view path) override;
  absl::Status Rename(absl::string_view from, absl::string_view to) override;
  absl::Status RenameNoReplace(absl::string_view from,
                               absl::string_view to) override;
  absl::Status SyncDir(absl::string_view path) override;
  absl::Status List(
      absl::string_view path,
      const std::function<void(absl::string_view name)>& entry) override;
  // Not refused: it is how the directory becomes this process's.
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(
      absl::string_view path, absl::string_view holder) override;
  absl::StatusOr<SpaceInfo> Space() override { return base_->Space(); }
  absl::Status CheckRoot() override { return base_->CheckRoot(); }
  std::optional<int64_t> MountId() override { return base_->MountId(); }
  bool PassesDescriptors() const override { return base_->PassesDescriptors(); }
  std::string root() const override { return base_->root(); }

 private:
  absl::Status Check(absl::string_view verb, absl::string_view path) const;

  FileSystem* const base_;
  std::atomic<bool> writes_{false};
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_GUARDED_FILE_SYSTEM_H_
