#include "server/state_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/logging.h"
#include "common/status_macros.h"

namespace predella::server {
namespace {

absl::Status SystemError(absl::string_view what, const std::string& path) {
  return absl::FailedPreconditionError(
      absl::StrCat(what, " ", path, ": ", std::strerror(errno)));
}

}  // namespace

std::string DefaultStateDir() {
  const char* const home = std::getenv("HOME");
  return geteuid() == 0 || home == nullptr
             ? "/var/lib/predella"
             : absl::StrCat(home, "/.local/state/predella");
}

absl::Status MakeDirectories(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string parent = path.substr(0, slash);
    if (mkdir(parent.c_str(), 0755) != 0 && errno != EEXIST) {
      return SystemError("cannot make the directory", parent);
    }
  }
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return SystemError("cannot make the state directory", path);
  }
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return SystemError("cannot open", path);
  }
  const bool synced = fsync(fd) == 0;
  const absl::Status status =
      synced ? absl::OkStatus() : SystemError("cannot sync", path);
  close(fd);
  return status;
}

absl::Status SyncFiles(const std::string& path) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(path, error), end;
       !error && it != end; it.increment(error)) {
    RETURN_IF_ERROR(SyncDirectory(it->path().string()));
  }
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot list ", path, ": ", error.message()));
  }
  return SyncDirectory(path);
}

absl::StatusOr<std::unique_ptr<StateLock>> StateLock::Take(
    const std::string& state_dir) {
  const std::string path = absl::StrCat(state_dir, "/lock");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return SystemError("cannot open", path);
  }
  // Owned from here on.
  std::unique_ptr<StateLock> lock(new StateLock(fd));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t got = pread(fd, holder, sizeof(holder) - 1, 0);
    return absl::FailedPreconditionError(
        absl::StrCat("the state directory ", state_dir,
                     " is in use by the coordinator with pid ",
                     got > 0 ? absl::StripAsciiWhitespace(holder)
                             : absl::string_view("(unknown)"),
                     ": two coordinators never share one"));
  }
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) !=
                                   static_cast<ssize_t>(pid.size())) {
    // Only the other's sentence would lack the pid.
    LogWarning("lock_file_not_written", {{"path", path}});
  }
  return lock;
}

StateLock::~StateLock() { close(fd_); }

}  // namespace predella::server
