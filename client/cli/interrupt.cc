#include "client/cli/interrupt.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

namespace predella::cli {
namespace {

constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGHUP};

// Handlers reach nothing but these.
std::atomic<const char*> file_to_remove{nullptr};
std::atomic<int> noted_signal{0};
std::atomic<int> wake_fd{-1};

void Install(void (*handler)(int)) {
  for (const int number : kSignals) {
    struct sigaction before {};
    if (sigaction(number, nullptr, &before) == 0 &&
        before.sa_handler == SIG_IGN) {
      continue;
    }
    struct sigaction action {};
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    // The next one ends the process.
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(number, &action, nullptr);
  }
}

void Uninstall() {
  for (const int number : kSignals) {
    struct sigaction before {};
    if (sigaction(number, nullptr, &before) == 0 &&
        before.sa_handler != SIG_IGN) {
      signal(number, SIG_DFL);
    }
  }
}

void Remove(int number) {
  const char* const path = file_to_remove.exchange(nullptr);
  if (path != nullptr) {
    unlink(path);
  }
  // Delivered when this returns, to the default that ends the process.
  raise(number);
}

void Note(int number) {
  const int saved = errno;
  noted_signal = number;
  Uninstall();
  constexpr char kSaid[] =
      "\ninterrupted: giving the upload up; once more ends this at once\n";
  // Nothing can be done about a standard error that is closed.
  [[maybe_unused]] ssize_t n = write(STDERR_FILENO, kSaid, sizeof(kSaid) - 1);
  n = write(wake_fd, "", 1);
  errno = saved;
}

}  // namespace

RemoveOnSignal::RemoveOnSignal(const char* path) {
  file_to_remove = path;
  Install(Remove);
}

RemoveOnSignal::~RemoveOnSignal() {
  Uninstall();
  file_to_remove = nullptr;
}

NoteSignal::NoteSignal() : wake_{-1, -1} {
  noted_signal = 0;
  // Without a pipe a signal is seen after the next bytes.
  if (pipe2(wake_, O_CLOEXEC | O_NONBLOCK) == 0) {
    wake_fd = wake_[1];
  }
  Install(Note);
}

NoteSignal::~NoteSignal() {
  Uninstall();
  wake_fd = -1;
  if (wake_[0] >= 0) {
    close(wake_[0]);
    close(wake_[1]);
  }
}

bool NoteSignal::noted() const { return noted_signal != 0; }

void NoteSignal::AwaitReadable(int fd) const {
  std::array<pollfd, 2> wait = {
      {{fd, POLLIN, 0}, {wake_[0], POLLIN, 0}}};  // poll skips negative ones
  while (!noted() && poll(wait.data(), wait.size(), -1) < 0 && errno == EINTR) {
  }
}

void RaiseNotedSignal() {
  const int number = noted_signal;
  if (number != 0) {
    signal(number, SIG_DFL);
    raise(number);
  }
}

}  // namespace predella::cli
