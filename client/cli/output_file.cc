#include "client/cli/output_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

// As many as the kernel follows.
constexpr int kMostLinks = 40;

struct Target {
  // Written straight to; else a regular file, or nothing yet.
  bool straight = false;
  std::string path;
  std::optional<mode_t> mode;  // of the file that is replaced
};

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent;
}

// Links below /proc lead to open files, not to names.
bool IsInProc(const std::string& path) {
  struct statfs facts {};
  return statfs(ParentOf(path).c_str(), &facts) == 0 &&
         facts.f_type == PROC_SUPER_MAGIC;
}

absl::StatusOr<Target> FindTarget(const std::string& path) {
  Target target;
  target.path = path;
  if (path.empty()) {
    return absl::InvalidArgumentError("-o wants the name of a file");
  }
  struct stat facts {};
  if (stat(path.c_str(), &facts) == 0) {
    if (S_ISDIR(facts.st_mode)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " is a directory: name a file in it, such as -o ",
                       path, path.back() == '/' ? "" : "/", "disk.img"));
    }
    if (!S_ISREG(facts.st_mode)) {
      target.straight = true;
      return target;
    }
    target.mode = facts.st_mode & 07777;
  } else if (errno != ENOENT) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
  }
  for (int i = 0; i < kMostLinks; ++i) {
    if (IsInProc(target.path)) {
      target.straight = true;
      return target;
    }
    std::error_code error;
    const std::filesystem::path next =
        std::filesystem::read_symlink(target.path, error);
    if (error) {  // not a link: here it is
      return target;
    }
    target.path = next.is_absolute()
                      ? next.string()
                      : absl::StrCat(ParentOf(target.path), "/", next.string());
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, " is a symbolic link that leads nowhere"));
}

// A descriptor of this process by its name, with its position and flags, as
// /dev/stdout is meant; -1 for anything else.
int DuplicateOwn(const std::string& path) {
  std::error_code error;
  const auto own = std::filesystem::canonical("/proc/self/fd", error);
  const auto parent = std::filesystem::canonical(ParentOf(path), error);
  int number = -1;
  if (error || own != parent ||
      !absl::SimpleAtoi(std::filesystem::path(path).filename().string(),
                        &number)) {
    return -1;
  }
  return fcntl(number, F_DUPFD_CLOEXEC, 0);
}

mode_t Umask() {
  const mode_t mask = umask(0);
  umask(mask);
  return mask;
}

}  // namespace

absl::Status OutputFile::Failed(absl::string_view what, int error) const {
  const std::string name = path_ == "-" ? "standard output" : path_;
  std::string message =
      absl::StrCat(what, " ", name, " failed: ", std::strerror(error));
  if (written_ > 0) {
    absl::StrAppend(&message, " after ", FormatSize(written_));
  }
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(absl::StrCat(
        message, "; make room there, or give another place with -o"));
  }
  if (error == EPIPE) {
    return absl::UnknownError(
        absl::StrCat(message, "; whoever read it has ended"));
  }
  return absl::UnknownError(message);
}

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Open(
    const std::string& path, int64_t size) {
  std::unique_ptr<OutputFile> file(new OutputFile(path));
  if (path == "-") {
    file->fd_ = STDOUT_FILENO;
    return file;
  }
  ASSIGN_OR_RETURN(const Target target, FindTarget(path));
  if (!target.straight) {
    RETURN_IF_ERROR(file->CreateBeside(target.path, size, target.mode));
    return file;
  }
  file->fd_ = DuplicateOwn(target.path);
  if (file->fd_ < 0) {
    file->fd_ = open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
  }
  if (file->fd_ < 0) {
    return errno == ENXIO ? absl::InvalidArgumentError(absl::StrCat(
                                path,
                                " is a socket: nothing can be written to it by "
                                "name"))
                          : file->Failed("opening", errno);
  }
  file->owned_ = true;
  return file;
}

absl::Status OutputFile::CreateBeside(const std::string& target, int64_t size,
                                      std::optional<mode_t> mode) {
  target_ = target;
  if (mode.has_value() && access(target.c_str(), W_OK) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, " is there and may not be written"));
  }
  temporary_ = absl::StrCat(target, ".partial.XXXXXX");
  // Before the file: mkostemp puts the name there first.
  guard_.emplace(temporary_.c_str());
  fd_ = mkostemp(temporary_.data(), O_CLOEXEC);
  if (fd_ < 0) {
    const int error = errno;
    temporary_.clear();
    guard_.reset();
    return error == ENOENT ? absl::InvalidArgumentError(
                                 absl::StrCat("there is no directory ",
                                              ParentOf(target), " for ", path_))
                           : absl::UnknownError(absl::StrCat(
                                 "no file can be made in ", ParentOf(target),
                                 ": ", std::strerror(error)));
  }
  owned_ = true;
  if (fchmod(fd_, mode.value_or(0666 & ~Umask())) != 0) {
    return Failed("setting the mode of", errno);
  }
  struct statvfs space {};
  const int64_t free = fstatvfs(fd_, &space) == 0
                           ? static_cast<int64_t>(space.f_bavail) *
                                 static_cast<int64_t>(space.f_frsize)
                           : size;
  if (free < size) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "there is no room for ", path_, ": ", FormatSize(size), " are needed, ",
        FormatSize(free), " are free in ", ParentOf(target),
        "; make room there, or give another place with -o"));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Write(absl::string_view data) {
  while (!data.empty()) {
    const ssize_t n = write(fd_, data.data(), data.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return Failed("writing", errno);
    }
    written_ += n;
    data.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Finish() {
  // EINVAL, EROFS: a pipe or a terminal, which has nothing to sync.
  if (owned_ && fsync(fd_) != 0 && errno != EINVAL && errno != EROFS) {
    return Failed("syncing", errno);
  }
  if (temporary_.empty()) {
    return absl::OkStatus();
  }
  if (std::rename(temporary_.c_str(), target_.c_str()) != 0) {
    return Failed("renaming to", errno);
  }
  temporary_.clear();
  return absl::OkStatus();
}

OutputFile::~OutputFile() {
  if (!temporary_.empty()) {
    unlink(temporary_.c_str());
  }
  if (owned_) {
    close(fd_);
  }
}

}  // namespace predella::cli
