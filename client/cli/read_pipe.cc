#include "client/cli/read_pipe.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "common/clock.h"

namespace predella::cli {

bool ReadPipe(int fd, absl::Duration deadline, size_t most, std::string* out) {
  char buffer[4096];
  while (out->size() < most) {
    const absl::Duration left = deadline - RealClock()->Boot();
    if (left <= absl::ZeroDuration()) {
      return false;
    }
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) <=
        0) {
      continue;
    }
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return true;
    }
    out->append(buffer, static_cast<size_t>(n));
  }
  return true;
}

}  // namespace predella::cli
