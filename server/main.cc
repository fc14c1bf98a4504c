// predella-coordinator.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"

#include "common/config/config.h"
#include "common/malloc_tuning.h"
#include "common/rpc/server_runner.h"
#include "server/coordinator.h"
#include "server/coordinator_flags.h"

namespace {

// Stops this process when the other end of a pipe is closed: its parent ended,
// however it did.
void WatchParent(int fd) {
  std::thread([fd] {
    pollfd entry{fd, POLLIN, 0};
    char byte = 0;
    do {
      poll(&entry, 1, -1);
    } while (read(fd, &byte, 1) > 0);
    kill(getpid(), SIGTERM);
  }).detach();
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "predella-coordinator: %s\n",
               std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  predella::TuneMalloc();
  predella::BlockStopSignals();
  predella::server::CoordinatorFlags flags;
  auto outcome = predella::server::ParseCoordinatorFlags(argc, argv, &flags);
  if (!outcome.ok()) {
    return Fail(outcome.status());
  }
  if (!outcome->run) {
    return outcome->exit_code;
  }
  const absl::Status valid =
      predella::server::Coordinator::Validate(flags.options);
  if (!valid.ok() || outcome->check_only) {
    return valid.ok() ? 0 : Fail(valid);
  }
  if (flags.die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
  }
  if (flags.parent_watch_fd >= 0) {
    WatchParent(flags.parent_watch_fd);
  }
  static std::atomic<bool> failed{false};
  auto coordinator = predella::server::Coordinator::Start(flags.options, [] {
    failed = true;
    kill(getpid(), SIGTERM);
  });
  if (!coordinator.ok()) {
    return Fail(coordinator.status());
  }
  predella::WaitForStopSignal();
  (*coordinator)->Stop();
  coordinator->reset();
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
