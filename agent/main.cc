// predella-agent: serves one mounted directory.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "agent/agent.h"
#include "agent/commands.h"
#include "agent/options.h"
#include "common/logging.h"
#include "common/malloc_tuning.h"

namespace {

int Complain(const absl::Status& status, int code) {
  std::fprintf(stderr, "predella-agent: %s\n",
               std::string(status.message()).c_str());
  return code;
}

void WatchParent(const predella::agent::AgentOptions& options) {
  if (options.die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
  }
  if (options.parent_watch_fd >= 0) {
    std::thread([fd = options.parent_watch_fd] {
      char byte = 0;
      while (read(fd, &byte, 1) > 0) {
      }
      kill(getpid(), SIGTERM);
    }).detach();
  }
}

}  // namespace

int main(int argc, char** argv) {
  using predella::agent::Agent;
  predella::TuneMalloc();
  if (const std::optional<int> code =
          predella::agent::RunSubCommand(argc, argv)) {
    return *code;
  }
  predella::agent::AgentOptions options;
  predella::Config config("predella-agent",
                          "Serves one mounted directory as a store of images. "
                          "Sub-commands: init, label.",
                          "/etc/predella/agent.yaml");
  options.AddTo(&config);
  const absl::StatusOr<predella::Config::Outcome> parsed =
      config.Parse(argc, argv);
  if (!parsed.ok()) {
    return Complain(parsed.status(), 2);
  }
  if (!parsed->run) {
    return parsed->exit_code;
  }
  if (absl::Status valid = options.Validate(); !valid.ok()) {
    return Complain(valid, 2);
  }
  if (parsed->check_only) {
    return 0;
  }
  predella::BlockStopSignals();
  // Before gRPC or any socket: see agent/control/disk_executor.h.
  auto disk = predella::agent::DiskThreads::Start(options.disk_threads);
  if (!disk.ok()) {
    return Complain(disk.status(), 1);
  }
  WatchParent(options);
  auto agent = Agent::Start(options, std::move(*disk));
  if (!agent.ok()) {
    return Complain(agent.status(), 1);
  }
  const int signal_number = predella::WaitForStopSignal();
  predella::LogInfo("stopping", {{"signal", signal_number}});
  if (!(*agent)->Stop()) {
    predella::LogWarning("disk_thread_hangs", {});
    std::_Exit(0);
  }
  return 0;
}
