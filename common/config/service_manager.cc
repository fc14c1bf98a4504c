#include "common/config/service_manager.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "common/errors.h"
#include "common/logging.h"

namespace predella {
namespace {

// 0, or why not.
int Send(absl::string_view socket_name, absl::string_view message) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if ((socket_name[0] != '/' && socket_name[0] != '@') ||
      socket_name.size() >= sizeof(address.sun_path)) {
    return EINVAL;
  }
  std::memcpy(address.sun_path, socket_name.data(), socket_name.size());
  if (socket_name[0] == '@') {
    address.sun_path[0] = '\0';
  }
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return errno;
  }
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                             socket_name.size());
  const ssize_t sent =
      sendto(fd, message.data(), message.size(), MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&address), length);
  const int error = sent < 0 ? errno : 0;
  close(fd);
  return error;
}

void Notify(absl::string_view state, absl::string_view status) {
  const char* const socket_name = std::getenv("NOTIFY_SOCKET");
  if (socket_name == nullptr || *socket_name == '\0') {
    return;
  }
  // A newline would begin another assignment.
  const std::string message = absl::StrCat(
      state, "STATUS=", absl::StrReplaceAll(status, {{"\n", " "}}), "\n");
  if (const int error = Send(socket_name, message); error != 0) {
    LogWarning("service_manager_not_told",
               {{"socket", socket_name}, {"error", std::strerror(error)}});
  }
}

}  // namespace

void NotifyReady(absl::string_view status) { Notify("READY=1\n", status); }

void NotifyStatus(absl::string_view status) { Notify("", status); }

void NotifyStopping(absl::string_view status) {
  Notify("STOPPING=1\n", status);
}

absl::Status WatchParent(bool die_with_parent, int watch_fd) {
  if (watch_fd >= 0 && fcntl(watch_fd, F_GETFD) < 0) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     absl::StrCat("--parent-watch-fd: descriptor ", watch_fd,
                                  " is not open; a supervisor passes the "
                                  "reading end of a pipe under this number"));
  }
  if (die_with_parent) {
    prctl(PR_SET_PDEATHSIG, kParentGoneSignal);
  }
  if (watch_fd >= 0) {
    std::thread([watch_fd] {
      char byte = 0;
      ssize_t n = 0;
      do {
        n = read(watch_fd, &byte, 1);
      } while (n > 0 || (n < 0 && errno == EINTR));
      kill(getpid(), kParentGoneSignal);
    }).detach();
  }
  return absl::OkStatus();
}

}  // namespace predella
