// Files of one directory, as a seam. Paths are relative to the pinned root
// ("", ".predella/inflight/…"); nothing resolves outside of it, through a
// symbolic link or into another file system.
//
// Errors bear the code and reason of style: ENOSPC and EDQUOT are
// RESOURCE_EXHAUSTED, MOUNT_FULL; EROFS is FAILED_PRECONDITION,
// MOUNT_READ_ONLY; EIO, ENODEV, ENXIO, ENOTCONN, ESTALE, EHOSTDOWN are
// UNAVAILABLE, MOUNT_FAILED; ENOENT is NOT_FOUND; EEXIST is ALREADY_EXISTS;
// EACCES and EPERM are PERMISSION_DENIED, MOUNT_PERMISSION; EMFILE, ENFILE and
// ENOMEM are RESOURCE_EXHAUSTED, AGENT_OVERLOADED; a symbolic link, an
// escape or a file for a directory on the way is PERMISSION_DENIED,
// MOUNT_PERMISSION, too; an unsupported operation is UNIMPLEMENTED.
// Messages say what was attempted on what.
#ifndef PREDELLA_AGENT_FS_FILE_SYSTEM_H_
#define PREDELLA_AGENT_FS_FILE_SYSTEM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace predella::agent {

struct SpaceInfo {
  int64_t size_bytes = 0;
  int64_t free_bytes = 0;       // f_bfree
  int64_t available_bytes = 0;  // f_bavail
  int64_t size_inodes = 0;
  int64_t available_inodes = 0;
  // Device number of the root; mounts of one host with the same share space.
  int64_t device = 0;
};

struct FileInfo {
  bool regular = false;
  // Whether it may be opened for reading, of a file that was looked at by its
  // path: false where its mode denies it to this process and the kernel, asked
  // for that reason alone, does so too.
  bool readable = true;
  bool directory = false;
  int64_t size_bytes = 0;
  int64_t allocated_bytes = 0;
  uint64_t inode = 0;
  int64_t links = 0;
  uint32_t mode = 0;
  uint32_t gid = 0;
  int64_t modify_time_us = 0;
};

// An open file. One thread at a time; Pread may run in several.
class File {
 public:
  virtual ~File() = default;
  // Fewer bytes than asked only at the end of the file.
  virtual absl::StatusOr<size_t> Pread(int64_t offset, size_t size,
                                       char* out) = 0;
  // All of `data` or an error.
  virtual absl::Status Pwrite(int64_t offset, absl::string_view data) = 0;
  // fdatasync. A failure is final for the file: never call it again.
  virtual absl::Status Datasync() = 0;
  virtual absl::Status Truncate(int64_t size) = 0;
  // fallocate(KEEP_SIZE); UNIMPLEMENTED where the file system can't.
  virtual absl::Status Allocate(int64_t offset, int64_t length) = 0;
  // Starts write-back of a range without waiting (sync_file_range). An error
  // counts as a failed sync.
  virtual absl::Status StartWriteback(int64_t offset, int64_t length) = 0;
  // Waits for the write-back of a range: bounds dirty pages.
  virtual absl::Status WaitWriteback(int64_t offset, int64_t length) = 0;
  // Drops clean pages of a range from the cache; the next read is cold.
  virtual absl::Status DropCache(int64_t offset, int64_t length) = 0;
  virtual absl::StatusOr<FileInfo> Stat() = 0;
  // Its number in the calling thread's table, where it is open for reading
  // only; this one's, for as long as it lives.
  virtual std::optional<int> ReadDescriptor() { return std::nullopt; }
  // Mode bits, and the group where given.
  virtual absl::Status SetOwnership(uint32_t mode,
                                    std::optional<uint32_t> gid) = 0;
};

// Held until destroyed.
class FileLock {
 public:
  virtual ~FileLock() = default;
  // False: others may hold it too, and none of them exclusively.
  virtual bool exclusive() const { return true; }
};

enum class OpenMode {
  kRead,       // must exist
  kReadWrite,  // must exist
  kCreateNew,  // read and write; ALREADY_EXISTS if it exists
};

// Thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // Only regular files with one link are opened.
  virtual absl::StatusOr<std::unique_ptr<File>> Open(absl::string_view path,
                                                     OpenMode mode) = 0;
  virtual absl::StatusOr<FileInfo> Stat(absl::string_view path) = 0;
  virtual absl::Status Mkdir(absl::string_view path, uint32_t mode) = 0;
  virtual absl::Status Unlink(absl::string_view path) = 0;
  // rename(2).
  virtual absl::Status Rename(absl::string_view from, absl::string_view to) = 0;
  // renameat2(RENAME_NOREPLACE), or link + unlink where that is refused:
  // ALREADY_EXISTS if `to` exists and is not the same file.
  virtual absl::Status RenameNoReplace(absl::string_view from,
                                       absl::string_view to) = 0;
  // fsync of a directory; "" is the root.
  virtual absl::Status SyncDir(absl::string_view path) = 0;
  // Names in a directory but . and .., in no particular order.
  virtual absl::Status List(
      absl::string_view path,
      const std::function<void(absl::string_view name)>& entry) = 0;
  // flock(LOCK_EX | LOCK_NB) on a file that exists. FAILED_PRECONDITION,
  // MOUNT_IN_USE when another process holds it; what it wrote into the file
  // is in the message. Writes `holder` into it otherwise. A shared lock, where
  // nothing can be written and no other is given for that reason (NFS).
  virtual absl::StatusOr<std::unique_ptr<FileLock>> Lock(
      absl::string_view path, absl::string_view holder) = 0;
  virtual absl::StatusOr<SpaceInfo> Space() = 0;
  // Whether root() still names the directory that was pinned; a mount that
  // went away or came over it is FAILED_PRECONDITION, MOUNT_IDENTITY_MISMATCH.
  virtual absl::Status CheckRoot() { return absl::OkStatus(); }
  // The kernel's number of the mount that the pinned root lies on; it is not
  // given to another one while this is open. Absent where it has none.
  virtual std::optional<int64_t> MountId() { return std::nullopt; }
  // Whether others on this host may be given open files of it: a call to one
  // waits for a local device or memory, and for no server or process, which
  // could hold whoever calls for ever. Found out when it was opened.
  virtual bool PassesDescriptors() const { return false; }
  // The directory as it was named, for messages.
  virtual std::string root() const = 0;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_FILE_SYSTEM_H_
