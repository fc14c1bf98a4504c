// predella-coordinator.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "common/config/service_manager.h"
#include "common/process_tuning.h"
#include "common/rpc/listen.h"
#include "common/rpc/server_runner.h"
#include "server/coordinator.h"
#include "server/coordinator_flags.h"
#include "server/index_commands.h"

namespace {

// A supervisor does not start again what says this.
constexpr int kExitConfiguration = 2;

int Fail(const absl::Status& status, int code = EXIT_FAILURE) {
  std::fprintf(stderr, "predella-coordinator: %s\n",
               std::string(status.message()).c_str());
  return code;
}

std::string StatusLine(const predella::server::Coordinator& coordinator) {
  std::string line = "serving at";
  for (const predella::Address& address : coordinator.addresses()) {
    absl::StrAppend(&line, " ", address.ToString());
  }
  return line;
}

}  // namespace

int main(int argc, char** argv) {
  predella::TuneProcess();
  if (const std::optional<int> code =
          predella::server::RunSubCommand(argc, argv)) {
    return *code;
  }
  predella::BlockStopSignals();
  predella::server::CoordinatorFlags flags;
  auto outcome = predella::server::ParseCoordinatorFlags(argc, argv, &flags);
  if (!outcome.ok()) {
    return Fail(outcome.status(), kExitConfiguration);
  }
  if (!outcome->run) {
    return outcome->exit_code;
  }
  const absl::Status valid =
      predella::server::Coordinator::Validate(flags.options);
  if (!valid.ok()) {
    return Fail(valid, kExitConfiguration);
  }
  if (outcome->check_only) {
    std::printf("the configuration is good: state directory %s\n",
                flags.options.state_dir.c_str());
    return 0;
  }
  if (const absl::Status watched =
          predella::WatchParent(flags.die_with_parent, flags.parent_watch_fd);
      !watched.ok()) {
    return Fail(watched, kExitConfiguration);
  }
  static std::atomic<bool> failed{false};
  auto coordinator = predella::server::Coordinator::Start(flags.options, [] {
    failed = true;
    kill(getpid(), SIGTERM);
  });
  if (!coordinator.ok()) {
    return Fail(coordinator.status());
  }
  predella::NotifyReady(StatusLine(**coordinator));
  predella::WaitForStopSignal();
  predella::NotifyStopping("letting open calls end");
  (*coordinator)->Stop();
  coordinator->reset();
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
