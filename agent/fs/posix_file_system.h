// FileSystem over the kernel's, below one pinned directory.
#ifndef PREDELLA_AGENT_FS_POSIX_FILE_SYSTEM_H_
#define PREDELLA_AGENT_FS_POSIX_FILE_SYSTEM_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"

namespace predella::agent {

// Every path is resolved by openat2 from the descriptor of the root, never
// through a symbolic link, a magic link or into another mount. Descriptors
// are opened and closed on the calling threads only, so callers may share a
// descriptor table of their own; then this and every File of it are to be
// destroyed on those threads too.
class PosixFileSystem final : public FileSystem {
 public:
  // `root` must be a directory; it stays pinned, also when something is
  // mounted over it later.
  static absl::StatusOr<std::unique_ptr<FileSystem>> Open(
      const std::string& root);

  ~PosixFileSystem() override;
  PosixFileSystem(const PosixFileSystem&) = delete;
  PosixFileSystem& operator=(const PosixFileSystem&) = delete;

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
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(
      absl::string_view path, absl::string_view holder) override;
  absl::StatusOr<SpaceInfo> Space() override;
  absl::Status CheckRoot() override;
  std::optional<int64_t> MountId() override;
  bool PassesDescriptors() const override { return passes_descriptors_; }
  std::string root() const override { return root_; }

 private:
  PosixFileSystem(std::string root, int fd, bool passes_descriptors)
      : root_(std::move(root)),
        fd_(fd),
        passes_descriptors_(passes_descriptors) {}

  // "read .predella/lock in /srv/store-1".
  std::string What(absl::string_view verb, absl::string_view path) const;
  // A descriptor, the caller's to close.
  absl::StatusOr<int> OpenAt(absl::string_view path, uint64_t flags,
                             absl::string_view verb);
  absl::Status LinkAndUnlink(int from_dir, const std::string& from_name,
                             int to_dir, const std::string& to_name,
                             const std::string& what);

  const std::string root_;
  const int fd_;
  const bool passes_descriptors_;
  // Set once the file system refused RENAME_NOREPLACE (NFS does).
  std::atomic<bool> no_replace_refused_{false};
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_POSIX_FILE_SYSTEM_H_
