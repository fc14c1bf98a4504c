#include "agent/fs/posix_file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/file_system.h"
#include "agent/fs/posix_file.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

// EAGAIN: something was renamed or mounted while the path was resolved.
constexpr int kResolveTries = 64;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) {
      CloseDescriptor(fd_, "a directory");
    }
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.Release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

class PosixLock final : public FileLock {
 public:
  explicit PosixLock(int fd) : fd_(fd) {}
  bool exclusive() const override { return exclusive_; }
  void SetShared() { exclusive_ = false; }
  ~PosixLock() override { CloseDescriptor(fd_, "the lock"); }
  PosixLock(const PosixLock&) = delete;
  PosixLock& operator=(const PosixLock&) = delete;

 private:
  const int fd_;
  bool exclusive_ = true;
};

// File systems on a device of this host or in its memory. Those are named that
// are known to be it: one may lie over NFS (overlayfs), or ask a process
// (FUSE).
bool IsLocal(uint32_t type) {
  constexpr uint32_t kXfs = 0x58465342;  // not in linux/magic.h
  return type == EXT4_SUPER_MAGIC ||     // and ext2, ext3
         type == kXfs || type == BTRFS_SUPER_MAGIC ||
         type == F2FS_SUPER_MAGIC || type == TMPFS_MAGIC;
}

// "a/b/c" -> "a/b" and "c".
struct SplitPath {
  std::string directory;
  std::string name;
};
absl::StatusOr<SplitPath> Split(absl::string_view path) {
  SplitPath out;
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) {
    out.name = std::string(path);
  } else {
    out.directory = std::string(path.substr(0, slash));
    out.name = std::string(path.substr(slash + 1));
  }
  if (out.name.empty() || out.name == "." || out.name == "..") {
    return MakeError(absl::StatusCode::kPermissionDenied,
                     reason::kMountPermission,
                     absl::StrCat("\"", path, "\" does not name a file"));
  }
  return out;
}

// The mode says so without another call for nearly every file; else the kernel
// knows of groups, access control lists and an NFS server's own mind. What it
// can not say is left to who opens the file.
bool MayBeRead(int fd, const struct stat& st) {
  const uint32_t mode = st.st_mode;
  const bool by_mode = st.st_uid == ::geteuid()   ? (mode & S_IRUSR) != 0
                       : st.st_gid == ::getegid() ? (mode & S_IRGRP) != 0
                                                  : (mode & S_IROTH) != 0;
  return by_mode ||
         ::faccessat(fd, "", R_OK, AT_EACCESS | AT_EMPTY_PATH) == 0 ||
         errno != EACCES;
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileSystem>> PosixFileSystem::Open(
    const std::string& root) {
  const int fd = ::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    return ErrnoStatus(errno, absl::StrCat("open directory ", root));
  }
  struct statfs fs {};
  const bool local =
      ::fstatfs(fd, &fs) == 0 && IsLocal(static_cast<uint32_t>(fs.f_type));
  return std::unique_ptr<FileSystem>(new PosixFileSystem(root, fd, local));
}

PosixFileSystem::~PosixFileSystem() { CloseDescriptor(fd_, root_); }

std::string PosixFileSystem::What(absl::string_view verb,
                                  absl::string_view path) const {
  return path.empty() ? absl::StrCat(verb, " ", root_)
                      : absl::StrCat(verb, " ", path, " in ", root_);
}

absl::StatusOr<int> PosixFileSystem::OpenAt(absl::string_view path,
                                            uint64_t flags,
                                            absl::string_view verb) {
  const std::string name = path.empty() ? "." : std::string(path);
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.mode = (flags & O_CREAT) != 0 ? 0600 : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
                RESOLVE_NO_XDEV;
  for (int tries = 0;; ++tries) {
    // A descriptor fits an int.
    const int fd = static_cast<int>(
        ::syscall(SYS_openat2, fd_, name.c_str(), &how, sizeof(how)));
    if (fd >= 0) {
      return fd;
    }
    if ((errno == EINTR || errno == EAGAIN) && tries < kResolveTries) {
      continue;
    }
    return ErrnoStatus(errno, What(verb, path));
  }
}

absl::StatusOr<std::unique_ptr<File>> PosixFileSystem::Open(
    absl::string_view path, OpenMode mode) {
  // Non-blocking: a FIFO in the way must not hold a disk thread.
  uint64_t flags = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  switch (mode) {
    case OpenMode::kRead:
      flags |= O_RDONLY;
      break;
    case OpenMode::kReadWrite:
      flags |= O_RDWR;
      break;
    case OpenMode::kCreateNew:
      flags |= O_RDWR | O_CREAT | O_EXCL;
      break;
  }
  ASSIGN_OR_RETURN(const int fd, OpenAt(path, flags, "open"));
  auto file = std::make_unique<PosixFile>(fd, What("file", path).substr(5));
  ASSIGN_OR_RETURN(const FileInfo info, file->Stat());
  if (!info.regular) {
    return MakeError(
        absl::StatusCode::kPermissionDenied, reason::kMountPermission,
        absl::StrCat(path, " in ", root_, " is not a regular file"),
        info.directory ? ErrorMetadata{{"errno", "EISDIR"}} : ErrorMetadata());
  }
  if (info.links != 1) {
    return SeveralNamesStatus(absl::StrCat(path, " in ", root_), info.links);
  }
  return std::unique_ptr<File>(std::move(file));
}

absl::StatusOr<FileInfo> PosixFileSystem::Stat(absl::string_view path) {
  ASSIGN_OR_RETURN(const int fd, OpenAt(path, O_PATH | O_NOFOLLOW, "stat"));
  const Descriptor descriptor(fd);
  struct stat st {};
  if (::fstat(fd, &st) != 0) {
    return ErrnoStatus(errno, What("stat", path));
  }
  FileInfo info = FileInfoOf(st);
  info.readable = !info.regular || MayBeRead(fd, st);
  return info;
}

absl::Status PosixFileSystem::Mkdir(absl::string_view path, uint32_t mode) {
  ASSIGN_OR_RETURN(const SplitPath split, Split(path));
  ASSIGN_OR_RETURN(const int fd,
                   OpenAt(split.directory, O_PATH | O_DIRECTORY, "open"));
  const Descriptor directory(fd);
  if (::mkdirat(fd, split.name.c_str(), mode) != 0) {
    return ErrnoStatus(errno, What("make directory", path));
  }
  return absl::OkStatus();
}

absl::Status PosixFileSystem::Unlink(absl::string_view path) {
  ASSIGN_OR_RETURN(const SplitPath split, Split(path));
  ASSIGN_OR_RETURN(const int fd,
                   OpenAt(split.directory, O_PATH | O_DIRECTORY, "open"));
  const Descriptor directory(fd);
  if (::unlinkat(fd, split.name.c_str(), 0) != 0) {
    return ErrnoStatus(errno, What("unlink", path));
  }
  return absl::OkStatus();
}

absl::Status PosixFileSystem::Rename(absl::string_view from,
                                     absl::string_view to) {
  ASSIGN_OR_RETURN(const SplitPath source, Split(from));
  ASSIGN_OR_RETURN(const SplitPath target, Split(to));
  ASSIGN_OR_RETURN(const int from_fd,
                   OpenAt(source.directory, O_PATH | O_DIRECTORY, "open"));
  const Descriptor from_dir(from_fd);
  ASSIGN_OR_RETURN(const int to_fd,
                   OpenAt(target.directory, O_PATH | O_DIRECTORY, "open"));
  const Descriptor to_dir(to_fd);
  if (::renameat(from_fd, source.name.c_str(), to_fd, target.name.c_str()) !=
      0) {
    return ErrnoStatus(errno, What(absl::StrCat("rename ", from, " to"), to));
  }
  return absl::OkStatus();
}

absl::Status PosixFileSystem::RenameNoReplace(absl::string_view from,
                                              absl::string_view to) {
  ASSIGN_OR_RETURN(const SplitPath source, Split(from));
  ASSIGN_OR_RETURN(const SplitPath target, Split(to));
  ASSIGN_OR_RETURN(const int from_fd,
                   OpenAt(source.directory, O_PATH | O_DIRECTORY, "open"));
  const Descriptor from_dir(from_fd);
  ASSIGN_OR_RETURN(const int to_fd,
                   OpenAt(target.directory, O_PATH | O_DIRECTORY, "open"));
  const Descriptor to_dir(to_fd);
  const std::string what = What(absl::StrCat("rename ", from, " to"), to);
  if (no_replace_refused_.load(std::memory_order_relaxed)) {
    return LinkAndUnlink(from_fd, source.name, to_fd, target.name, what);
  }
  struct stat before {};
  if (::fstatat(from_fd, source.name.c_str(), &before, AT_SYMLINK_NOFOLLOW) !=
      0) {
    return ErrnoStatus(errno, what);
  }
  if (::renameat2(from_fd, source.name.c_str(), to_fd, target.name.c_str(),
                  RENAME_NOREPLACE) == 0) {
    return absl::OkStatus();
  }
  const int error = errno;
  if (error == EINVAL || error == ENOSYS) {
    no_replace_refused_.store(true, std::memory_order_relaxed);
    return LinkAndUnlink(from_fd, source.name, to_fd, target.name, what);
  }
  // A network file system may send the request twice and hear of its own
  // success as an error.
  struct stat after {};
  struct stat source_after {};
  if ((error == EEXIST || error == ENOENT) &&
      ::fstatat(to_fd, target.name.c_str(), &after, AT_SYMLINK_NOFOLLOW) == 0 &&
      after.st_ino == before.st_ino && after.st_dev == before.st_dev &&
      ::fstatat(from_fd, source.name.c_str(), &source_after,
                AT_SYMLINK_NOFOLLOW) != 0 &&
      errno == ENOENT) {
    return absl::OkStatus();
  }
  return ErrnoStatus(error, what);
}

absl::Status PosixFileSystem::LinkAndUnlink(int from_dir,
                                            const std::string& from_name,
                                            int to_dir,
                                            const std::string& to_name,
                                            const std::string& what) {
  if (::linkat(from_dir, from_name.c_str(), to_dir, to_name.c_str(), 0) != 0) {
    const int error = errno;
    struct stat source {};
    struct stat target {};
    // EEXIST for its own success, after a retransmission: the same file.
    const bool ours =
        error == EEXIST &&
        ::fstatat(from_dir, from_name.c_str(), &source, AT_SYMLINK_NOFOLLOW) ==
            0 &&
        ::fstatat(to_dir, to_name.c_str(), &target, AT_SYMLINK_NOFOLLOW) == 0 &&
        source.st_ino == target.st_ino && source.st_dev == target.st_dev;
    if (!ours) {
      return ErrnoStatus(error, what);
    }
  }
  if (::unlinkat(from_dir, from_name.c_str(), 0) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, what);
  }
  return absl::OkStatus();
}

absl::Status PosixFileSystem::SyncDir(absl::string_view path) {
  ASSIGN_OR_RETURN(const int fd, OpenAt(path, O_RDONLY | O_DIRECTORY, "sync"));
  const Descriptor directory(fd);
  while (::fsync(fd) != 0) {
    if (errno != EINTR) {
      return ErrnoStatus(errno, What("sync directory", path));
    }
  }
  return absl::OkStatus();
}

absl::Status PosixFileSystem::List(
    absl::string_view path,
    const std::function<void(absl::string_view name)>& entry) {
  ASSIGN_OR_RETURN(const int fd, OpenAt(path, O_RDONLY | O_DIRECTORY, "list"));
  Descriptor descriptor(fd);
  DIR* const opened = ::fdopendir(fd);
  if (opened == nullptr) {
    return ErrnoStatus(errno, What("list", path));
  }
  (void)descriptor.Release();  // closedir closes it
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opened, &::closedir);
  for (;;) {
    errno = 0;
    const dirent* const found = ::readdir(directory.get());
    if (found == nullptr) {
      return errno == 0 ? absl::OkStatus()
                        : ErrnoStatus(errno, What("list", path));
    }
    const absl::string_view name(found->d_name);
    if (name != "." && name != "..") {
      entry(name);
    }
  }
}

absl::StatusOr<std::unique_ptr<FileLock>> PosixFileSystem::Lock(
    absl::string_view path, absl::string_view holder) {
  auto opened = OpenAt(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK, "lock");
  const bool read_only =
      !opened.ok() && HasReason(opened.status(), reason::kMountReadOnly);
  if (read_only) {  // images there are still to be read
    opened = OpenAt(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, "lock");
  }
  ASSIGN_OR_RETURN(const int fd, std::move(opened));
  auto lock = std::make_unique<PosixLock>(fd);
  int kind = LOCK_EX;
  while (::flock(fd, kind | LOCK_NB) != 0) {
    if (errno == EINTR) {
      continue;
    }
    // NFS wants a file that is open for writing.
    if (errno == EBADF && read_only && kind == LOCK_EX) {
      kind = LOCK_SH;
      lock->SetShared();
      continue;
    }
    if (errno != EWOULDBLOCK) {
      return ErrnoStatus(errno, What("lock", path));
    }
    char buffer[256];
    const ssize_t n = ::pread(fd, buffer, sizeof(buffer), 0);
    const std::string other(buffer, n > 0 ? static_cast<size_t>(n) : 0);
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kMountInUse,
                     absl::StrCat(root_, " is in use by ",
                                  other.empty() ? "another process" : other),
                     {{"holder", other}});
  }
  // Only for the sentence above: a full disk is no reason to refuse. Synced,
  // because another host of an NFS export reads what the server has.
  if (!read_only && (::ftruncate(fd, 0) != 0 ||
                     ::pwrite(fd, holder.data(), holder.size(), 0) < 0 ||
                     ::fdatasync(fd) != 0)) {
    LogIfError(ErrnoStatus(errno, What("write the holder into", path)),
               "the lock is held all the same");
  }
  return std::unique_ptr<FileLock>(std::move(lock));
}

absl::StatusOr<SpaceInfo> PosixFileSystem::Space() {
  struct statvfs vfs {};
  struct stat st {};
  if (::fstatvfs(fd_, &vfs) != 0 || ::fstat(fd_, &st) != 0) {
    return ErrnoStatus(errno, What("ask the space of", ""));
  }
  const auto bytes = [&](uint64_t blocks) {
    return static_cast<int64_t>(blocks * vfs.f_frsize);
  };
  SpaceInfo space;
  space.size_bytes = bytes(vfs.f_blocks);
  space.free_bytes = bytes(vfs.f_bfree);
  space.available_bytes = bytes(vfs.f_bavail);
  space.size_inodes = static_cast<int64_t>(vfs.f_files);
  space.available_inodes = static_cast<int64_t>(vfs.f_favail);
  space.device = static_cast<int64_t>(st.st_dev);
  return space;
}

std::optional<int64_t> PosixFileSystem::MountId() {
  struct statx stx {};
  if (::statx(fd_, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID,
              &stx) != 0 ||
      (stx.stx_mask & STATX_MNT_ID) == 0) {
    return std::nullopt;
  }
  return static_cast<int64_t>(stx.stx_mnt_id);
}

absl::Status PosixFileSystem::CheckRoot() {
  struct stat named {};
  struct stat pinned {};
  const std::string what = What("look at", "");
  if (::fstat(fd_, &pinned) != 0) {
    return ErrnoStatus(errno, what);
  }
  if (::stat(root_.c_str(), &named) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, what);
  }
  if (named.st_dev != pinned.st_dev || named.st_ino != pinned.st_ino) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
        absl::StrCat(root_, " is not the directory any more that was opened: ",
                     "it was mounted over, unmounted or replaced"));
  }
  return absl::OkStatus();
}

}  // namespace predella::agent
