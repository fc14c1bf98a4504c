// An open file of PosixFileSystem; not for other code.
#ifndef PREDELLA_AGENT_FS_POSIX_FILE_H_
#define PREDELLA_AGENT_FS_POSIX_FILE_H_

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"

namespace predella::agent {

FileInfo FileInfoOf(const struct stat& st);

// Closes; an error is only logged: whatever matters was synced before.
void CloseDescriptor(int fd, absl::string_view what);

class PosixFile final : public File {
 public:
  // Takes `fd`. `name` is for messages.
  PosixFile(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  ~PosixFile() override { CloseDescriptor(fd_, name_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  absl::StatusOr<size_t> Pread(int64_t offset, size_t size, char* out) override;
  absl::Status Pwrite(int64_t offset, absl::string_view data) override;
  absl::Status Datasync() override;
  absl::Status Truncate(int64_t size) override;
  absl::Status Allocate(int64_t offset, int64_t length) override;
  absl::Status StartWriteback(int64_t offset, int64_t length) override;
  absl::Status WaitWriteback(int64_t offset, int64_t length) override;
  absl::Status DropCache(int64_t offset, int64_t length) override;
  absl::StatusOr<FileInfo> Stat() override;
  std::optional<int> ReadDescriptor() override;
  absl::Status SetOwnership(uint32_t mode,
                            std::optional<uint32_t> gid) override;

 private:
  const int fd_;
  const std::string name_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_POSIX_FILE_H_
