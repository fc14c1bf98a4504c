// predella-agent: serves one mounted directory.
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "agent/agent.h"
#include "agent/commands.h"
#include "agent/options.h"
#include "common/config/config.h"
#include "common/config/service_manager.h"
#include "common/logging.h"
#include "common/process_tuning.h"
#include "common/rpc/server_runner.h"

namespace {

int Complain(const absl::Status& status, int code) {
  std::fprintf(stderr, "predella-agent: %s\n",
               std::string(status.message()).c_str());
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  using predella::agent::Agent;
  predella::TuneProcess();
  if (const std::optional<int> code =
          predella::agent::RunSubCommand(argc, argv)) {
    return *code;
  }
  predella::agent::AgentOptions options;
  predella::Config config("predella-agent",
                          "Serves one mounted directory as a store of images. "
                          "Sub-commands: init, label, describe.",
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
    std::printf("the configuration is good: %s, mount %s\n",
                options.path.c_str(), options.name.c_str());
    return 0;
  }
  predella::BlockStopSignals();
  // Before gRPC or any socket: see agent/control/disk_executor.h.
  auto disk = predella::agent::DiskThreads::Start(options.disk_threads);
  if (!disk.ok()) {
    return Complain(disk.status(), 1);
  }
  if (absl::Status watched = predella::WatchParent(options.die_with_parent,
                                                   options.parent_watch_fd);
      !watched.ok()) {
    return Complain(watched, 2);
  }
  auto agent = Agent::Start(options, std::move(*disk));
  if (!agent.ok()) {
    return Complain(agent.status(), 1);
  }
  predella::NotifyReady((*agent)->StatusLine());
  const int signal_number = predella::WaitForStopSignal();
  predella::LogInfo("stopping", {{"signal", signal_number}});
  predella::NotifyStopping("letting open streams end");
  // Without its supervisor there is no coordinator to end them with.
  const bool supervised =
      options.die_with_parent || options.parent_watch_fd >= 0;
  const bool alone = supervised && signal_number == predella::kParentGoneSignal;
  if (!(*agent)->Stop(alone ? absl::ZeroDuration() : options.drain_timeout)) {
    predella::LogWarning("disk_thread_hangs", {});
    std::_Exit(0);
  }
  return 0;
}
