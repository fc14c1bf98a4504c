#include "client/cli/aside.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string>

#include "client/cli/read_pipe.h"
#include "common/clock.h"

namespace predella::cli {
namespace {

constexpr int kPipe = STDIN_FILENO;

[[noreturn]] void LookInChild(absl::FunctionRef<void()> look, int pipe,
                              const void* found, size_t size) {
  // Whoever waits for the end of an output, or for a lock, shall not wait for
  // this one.
  if (dup2(pipe, kPipe) < 0 || close_range(kPipe + 1, UINT_MAX, 0) != 0) {
    _exit(1);
  }
  look();
  const char* at = static_cast<const char*>(found);
  while (size > 0) {
    const ssize_t n = write(kPipe, at, size);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      _exit(1);
    }
    at += n;
    size -= static_cast<size_t>(n);
  }
  _exit(0);
}

}  // namespace

Aside LookAside(absl::FunctionRef<void()> look, void* found, size_t size,
                absl::Duration timeout) {
  Aside aside;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return aside;
  }
  const pid_t pid = fork();
  if (pid == 0) {
    LookInChild(look, ends[1], found, size);
  }
  close(ends[1]);
  std::string bytes;
  if (pid > 0) {
    // A child that fails closes it before all is there.
    aside.answered =
        ReadPipe(ends[0], RealClock()->Boot() + timeout, size, &bytes) &&
        bytes.size() == size;
  }
  close(ends[0]);
  if (pid < 0) {
    return aside;
  }
  if (aside.answered) {
    bytes.copy(static_cast<char*>(found), size);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return aside;
  }
  kill(pid, SIGKILL);
  // What can be killed is gone at once, or nearly.
  for (int i = 0; i < 20; ++i) {
    if (waitpid(pid, nullptr, WNOHANG) != 0) {
      return aside;
    }
    poll(nullptr, 0, 5);
  }
  aside.left = pid;
  return aside;
}

}  // namespace predella::cli
