#include "client/cli/serve/process_runner.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "client/cli/read_pipe.h"
#include "common/clock.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

// Who started this process waits for its notices, not for those of children.
bool IsForChildren(absl::string_view entry) {
  for (const absl::string_view kept_back :
       {"NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID=", "LISTEN_FDS=",
        "LISTEN_PID=", "LISTEN_FDNAMES="}) {
    if (absl::StartsWith(entry, kept_back)) {
      return false;
    }
  }
  return !absl::StartsWith(entry, "PREDELLA_") ||
         absl::StartsWith(entry, "PREDELLA_LOG_LEVEL=");
}

std::vector<std::string> ChildEnvironment() {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (IsForChildren(*entry)) {
      out.emplace_back(*entry);
    }
  }
  return out;
}

std::vector<char*> Pointers(std::vector<std::string>* strings) {
  std::vector<char*> out;
  for (std::string& s : *strings) {
    out.push_back(s.data());
  }
  out.push_back(nullptr);
  return out;
}

absl::StatusOr<pid_t> Spawn(std::vector<std::string> argv,
                            posix_spawn_file_actions_t* actions) {
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  sigaddset(&defaults, SIGXFSZ);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  // Ctrl-C reaches this process alone, which then stops them in order.
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(
      &attributes,
      static_cast<short>(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                         POSIX_SPAWN_SETPGROUP));
  std::vector<std::string> environment = ChildEnvironment();
  pid_t pid = 0;
  const int error =
      posix_spawnp(&pid, argv[0].c_str(), actions, &attributes,
                   Pointers(&argv).data(), Pointers(&environment).data());
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    return absl::NotFoundError(
        absl::StrCat("cannot run ", argv[0], ": ", std::strerror(error)));
  }
  return pid;
}

class PosixProcessRunner final : public ProcessRunner {
 public:
  PosixProcessRunner(int watch_read, int watch_write)
      : watch_read_(watch_read), watch_write_(watch_write) {}
  ~PosixProcessRunner() override {
    close(watch_read_);
    close(watch_write_);
  }

  absl::StatusOr<int64_t> Start(const std::vector<std::string>& argv) override {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, watch_read_, kParentWatchFd);
    const absl::StatusOr<pid_t> pid = Spawn(argv, &actions);
    posix_spawn_file_actions_destroy(&actions);
    RETURN_IF_ERROR(pid.status());
    pids_.push_back(*pid);
    return int64_t{*pid};
  }

  std::vector<ChildExit> Reap() override {
    std::vector<ChildExit> exits;
    // One by one: waiting for any child would take those of others.
    for (size_t i = 0; i < pids_.size();) {
      int state = 0;
      if (waitpid(pids_[i], &state, WNOHANG) != pids_[i]) {
        ++i;
        continue;
      }
      ChildExit exit;
      exit.pid = pids_[i];
      exit.code = WIFEXITED(state) ? WEXITSTATUS(state) : 0;
      exit.signal = WIFSIGNALED(state) ? WTERMSIG(state) : 0;
      exits.push_back(exit);
      pids_.erase(pids_.begin() + static_cast<std::ptrdiff_t>(i));
    }
    return exits;
  }

  void Signal(int64_t pid, int signal) override {
    kill(static_cast<pid_t>(pid), signal);
  }

  bool Hollow(int64_t pid) override {
    std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
    std::string line;
    std::getline(file, line);
    // "1234 (name) S ...": the name may hold anything.
    const size_t end = line.rfind(") ");
    return end != std::string::npos && line.compare(end + 2, 1, "Z") == 0;
  }

 private:
  const int watch_read_;
  const int watch_write_;
  std::vector<pid_t> pids_;
};

}  // namespace

std::string ChildExit::ToString() const {
  return signal != 0 ? absl::StrCat("was killed by signal ", signal)
                     : absl::StrCat("exited with code ", code);
}

absl::StatusOr<std::unique_ptr<ProcessRunner>> MakeProcessRunner() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return absl::InternalError(
        absl::StrCat("cannot make a pipe: ", std::strerror(errno)));
  }
  // dup2 onto itself would leave the flag that closes it.
  if (ends[0] == kParentWatchFd) {
    const int other = fcntl(ends[0], F_DUPFD_CLOEXEC, kParentWatchFd + 1);
    close(ends[0]);
    ends[0] = other;
  }
  return std::unique_ptr<ProcessRunner>(
      std::make_unique<PosixProcessRunner>(ends[0], ends[1]));
}

absl::StatusOr<Captured> RunAndCapture(const std::vector<std::string>& argv,
                                       absl::Duration timeout, bool quiet) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return absl::InternalError(
        absl::StrCat("cannot make a pipe: ", std::strerror(errno)));
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  if (quiet) {
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null",
                                     O_WRONLY, 0);
  }
  const absl::StatusOr<pid_t> pid = Spawn(argv, &actions);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  Captured captured;
  bool finished = false;
  if (pid.ok()) {
    finished = ReadPipe(ends[0], RealClock()->Boot() + timeout,
                        std::numeric_limits<size_t>::max(), &captured.out);
  }
  close(ends[0]);
  RETURN_IF_ERROR(pid.status());
  if (!finished) {
    kill(*pid, SIGKILL);
    waitpid(*pid, nullptr, WNOHANG);
    return absl::DeadlineExceededError(absl::StrCat(
        argv[0], " did not end within ", absl::FormatDuration(timeout)));
  }
  int state = 0;
  while (waitpid(*pid, &state, 0) < 0 && errno == EINTR) {
  }
  captured.exit_code = WIFEXITED(state) ? WEXITSTATUS(state) : 128;
  return captured;
}

}  // namespace predella::cli
