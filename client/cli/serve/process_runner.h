// Processes as a seam.
#ifndef PREDELLA_CLIENT_CLI_SERVE_PROCESS_RUNNER_H_
#define PREDELLA_CLIENT_CLI_SERVE_PROCESS_RUNNER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace predella::cli {

struct ChildExit {
  int64_t pid = 0;
  int code = 0;    // of a normal exit
  int signal = 0;  // 0: it exited
  std::string ToString() const;
};

// Used by one thread: the kernel ends a child with PR_SET_PDEATHSIG when the
// thread that started it ends.
class ProcessRunner {
 public:
  virtual ~ProcessRunner() = default;
  // Starts argv[0], found in PATH if it has no slash.
  virtual absl::StatusOr<int64_t> Start(
      const std::vector<std::string>& argv) = 0;
  // Children that ended since the last call.
  virtual std::vector<ChildExit> Reap() = 0;
  virtual void Signal(int64_t pid, int signal) = 0;
  // Whether the first thread of a child is gone: it ends, or it has ended but
  // for threads that the kernel does not let go.
  virtual bool Hollow(int64_t pid) = 0;
};

// The number under which children find the reading end of a pipe whose
// writing end only this process holds: it ends when this process does.
inline constexpr int kParentWatchFd = 3;

// Children run in process groups of their own, with standard output joined to
// standard error, and without PREDELLA_ variables but for the log level (what
// they need is on their command line) and without those of a service manager,
// which wants to hear of this process alone.
absl::StatusOr<std::unique_ptr<ProcessRunner>> MakeProcessRunner();

struct Captured {
  int exit_code = 0;
  std::string out;
};

// Runs a command and returns what it wrote; its standard error passes
// through, or is dropped when `quiet`. DEADLINE_EXCEEDED when it does not end
// in time; it is then killed, and not waited for: it may be stuck in the
// kernel.
absl::StatusOr<Captured> RunAndCapture(const std::vector<std::string>& argv,
                                       absl::Duration timeout,
                                       bool quiet = false);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_PROCESS_RUNNER_H_
