// A FileSystem as NFS gives one to several hosts: it may be mounted read-only,
// and then a lock is shared.
#ifndef PREDELLA_TESTS_TESTING_NFS_FILE_SYSTEM_H_
#define PREDELLA_TESTS_TESTING_NFS_FILE_SYSTEM_H_

#include <cerrno>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/file_system.h"
#include "common/errors.h"
#include "tests/testing/fault_file_system.h"

namespace predella::testing {

// What the server knows of the lock. One thread at a time.
struct NfsLock {
  int readers = 0;
  bool writer = false;
};

class NfsFileSystem final : public FaultFileSystem {
 public:
  // Both must outlive this, and it its locks.
  NfsFileSystem(agent::FileSystem* base, NfsLock* lock)
      : FaultFileSystem(base), lock_(lock) {}

  bool read_only = false;

  absl::StatusOr<std::unique_ptr<agent::File>> Open(
      absl::string_view path, agent::OpenMode mode) override {
    return mode != agent::OpenMode::kRead && read_only
               ? agent::ErrnoStatus(EROFS, "open")
               : FaultFileSystem::Open(path, mode);
  }
  absl::Status Mkdir(absl::string_view path, uint32_t mode) override {
    return read_only ? agent::ErrnoStatus(EROFS, "mkdir")
                     : FaultFileSystem::Mkdir(path, mode);
  }
  absl::Status Unlink(absl::string_view path) override {
    return read_only ? agent::ErrnoStatus(EROFS, "unlink")
                     : FaultFileSystem::Unlink(path);
  }
  absl::Status Rename(absl::string_view from, absl::string_view to) override {
    return read_only ? agent::ErrnoStatus(EROFS, "rename")
                     : FaultFileSystem::Rename(from, to);
  }
  absl::Status RenameNoReplace(absl::string_view from,
                               absl::string_view to) override {
    return read_only ? agent::ErrnoStatus(EROFS, "rename")
                     : FaultFileSystem::RenameNoReplace(from, to);
  }
  absl::StatusOr<std::unique_ptr<agent::FileLock>> Lock(
      absl::string_view, absl::string_view) override {
    if (lock_->writer || (!read_only && lock_->readers > 0)) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       reason::kMountInUse, "in use by another host");
    }
    lock_->writer = !read_only;
    lock_->readers += read_only ? 1 : 0;
    return std::unique_ptr<agent::FileLock>(
        std::make_unique<Held>(lock_, !read_only));
  }

 private:
  class Held final : public agent::FileLock {
   public:
    Held(NfsLock* lock, bool exclusive) : lock_(lock), exclusive_(exclusive) {}
    ~Held() override {
      if (exclusive_) {
        lock_->writer = false;
      } else {
        --lock_->readers;
      }
    }
    bool exclusive() const override { return exclusive_; }

   private:
    NfsLock* const lock_;
    const bool exclusive_;
  };

  NfsLock* const lock_;
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_TESTING_NFS_FILE_SYSTEM_H_
