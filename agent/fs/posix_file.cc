#include "agent/fs/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/file_system.h"
#include "common/errors.h"

namespace predella::agent {
namespace {

// A larger write can't be interrupted for seconds on a slow disk, and holds
// the inode's lock against readers.
constexpr size_t kWriteSlice = size_t{256} << 10;

}  // namespace

FileInfo FileInfoOf(const struct stat& st) {
  FileInfo info;
  info.regular = S_ISREG(st.st_mode);
  info.directory = S_ISDIR(st.st_mode);
  info.size_bytes = st.st_size;
  info.allocated_bytes = int64_t{st.st_blocks} * 512;
  info.inode = st.st_ino;
  info.links = static_cast<int64_t>(st.st_nlink);
  info.mode = st.st_mode & 07777;
  info.gid = st.st_gid;
  info.modify_time_us =
      int64_t{st.st_mtim.tv_sec} * 1000000 + st.st_mtim.tv_nsec / 1000;
  return info;
}

void CloseDescriptor(int fd, absl::string_view what) {
  // EINTR: Linux has closed it all the same.
  if (::close(fd) != 0 && errno != EINTR) {
    LogIfError(ErrnoStatus(errno, absl::StrCat("close ", what)),
               "what had to last was synced before");
  }
}

absl::StatusOr<size_t> PosixFile::Pread(int64_t offset, size_t size,
                                        char* out) {
  size_t done = 0;
  while (done < size) {
    const ssize_t n = ::pread(fd_, out + done, size - done,
                              offset + static_cast<int64_t>(done));
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoStatus(errno, absl::StrCat("read ", size, " bytes at ",
                                             offset, " of ", name_));
    }
    if (n == 0) {
      break;
    }
    done += static_cast<size_t>(n);
  }
  return done;
}

absl::Status PosixFile::Pwrite(int64_t offset, absl::string_view data) {
  const int64_t start = offset;
  const size_t size = data.size();
  while (!data.empty()) {
    const ssize_t n =
        ::pwrite(fd_, data.data(), std::min(data.size(), kWriteSlice), offset);
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return ErrnoStatus(errno, absl::StrCat("write ", size, " bytes at ",
                                             start, " of ", name_));
    }
    if (n == 0) {
      return ErrnoStatus(EIO, absl::StrCat("write at ", offset, " of ", name_));
    }
    data.remove_prefix(static_cast<size_t>(n));
    offset += n;
  }
  return absl::OkStatus();
}

absl::Status PosixFile::Datasync() {
  while (::fdatasync(fd_) != 0) {
    if (errno != EINTR) {
      return ErrnoStatus(errno, absl::StrCat("sync ", name_));
    }
  }
  return absl::OkStatus();
}

absl::Status PosixFile::Truncate(int64_t size) {
  while (::ftruncate(fd_, size) != 0) {
    if (errno != EINTR) {
      return ErrnoStatus(errno,
                         absl::StrCat("cut ", name_, " to ", size, " bytes"));
    }
  }
  return absl::OkStatus();
}

absl::Status PosixFile::Allocate(int64_t offset, int64_t length) {
  while (::fallocate(fd_, FALLOC_FL_KEEP_SIZE, offset, length) != 0) {
    const int error = errno;
    if (error == EINTR) {
      continue;
    }
    // A failed one keeps the blocks it got: give them back at once.
    struct stat st {};
    if (::fstat(fd_, &st) == 0) {
      LogIfError(Truncate(st.st_size), "the allocation failed anyway");
    }
    return ErrnoStatus(error,
                       absl::StrCat("allocate ", length, " bytes for ", name_));
  }
  return absl::OkStatus();
}

absl::Status PosixFile::StartWriteback(int64_t offset, int64_t length) {
  while (::sync_file_range(fd_, offset, length, SYNC_FILE_RANGE_WRITE) != 0) {
    if (errno != EINTR) {
      return ErrnoStatus(
          errno, absl::StrCat("write back ", length, " bytes at ", offset,
                              " of ", name_));
    }
  }
  return absl::OkStatus();
}

absl::Status PosixFile::WaitWriteback(int64_t offset, int64_t length) {
  constexpr unsigned kFlags = SYNC_FILE_RANGE_WAIT_BEFORE |
                              SYNC_FILE_RANGE_WRITE |
                              SYNC_FILE_RANGE_WAIT_AFTER;
  while (::sync_file_range(fd_, offset, length, kFlags) != 0) {
    if (errno != EINTR) {
      return ErrnoStatus(
          errno, absl::StrCat("write back ", length, " bytes at ", offset,
                              " of ", name_));
    }
  }
  return absl::OkStatus();
}

absl::Status PosixFile::DropCache(int64_t offset, int64_t length) {
  // Returns the error, and leaves errno alone.
  const int error = ::posix_fadvise(fd_, offset, length, POSIX_FADV_DONTNEED);
  if (error != 0) {
    return ErrnoStatus(error, absl::StrCat("drop the cache of ", name_));
  }
  return absl::OkStatus();
}

absl::StatusOr<FileInfo> PosixFile::Stat() {
  struct stat st {};
  if (::fstat(fd_, &st) != 0) {
    return ErrnoStatus(errno, absl::StrCat("stat ", name_));
  }
  return FileInfoOf(st);
}

std::optional<int> PosixFile::ReadDescriptor() {
  const int flags = ::fcntl(fd_, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) != O_RDONLY) {
    return std::nullopt;
  }
  // A read that waits for a page ends when its process is killed; one that has
  // to write the time of access into the journal of a disk that hangs does not.
  // Refused to who does not own the file, and then it is as it was.
  static_cast<void>(::fcntl(fd_, F_SETFL, flags | O_NOATIME));
  return fd_;
}

absl::Status PosixFile::SetOwnership(uint32_t mode,
                                     std::optional<uint32_t> gid) {
  struct stat st {};
  if (::fstat(fd_, &st) != 0) {
    return ErrnoStatus(errno, absl::StrCat("stat ", name_));
  }
  // Only where it differs: some file systems refuse every chown.
  if (gid.has_value() && st.st_gid != *gid &&
      ::fchown(fd_, static_cast<uid_t>(-1), *gid) != 0) {
    return ErrnoStatus(errno, absl::StrCat("give ", name_, " to group ", *gid));
  }
  if ((st.st_mode & 07777) != mode && ::fchmod(fd_, mode) != 0) {
    return ErrnoStatus(errno, absl::StrCat("set the mode of ", name_));
  }
  return absl::OkStatus();
}

}  // namespace predella::agent
