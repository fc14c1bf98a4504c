// From options to command lines.
#ifndef PREDELLA_CLIENT_CLI_SERVE_PLAN_H_
#define PREDELLA_CLIENT_CLI_SERVE_PLAN_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "client/cli/serve/datadirs.h"
#include "client/cli/serve/serve_state.h"
#include "client/cli/serve/supervisor.h"

namespace predella::cli {

// An option that serve hands on to its children as it was given. What values
// it takes is the daemon's to say: CheckChildren asks it.
struct PassedOption {
  std::string name;  // without dashes, here and there
  std::string help;
  std::string value;  // empty: the daemon's default
};
std::vector<PassedOption> CoordinatorOptions();
std::vector<PassedOption> AgentOptions();

struct ServeOptions {
  std::string datadirs;
  std::string glance_conf;
  bool init = false;
  std::string state_dir;
  std::vector<std::string> listen;
  std::vector<std::string> health_listen;
  std::string advertise_host;
  std::vector<std::string> reserve;  // NAME=SIZE
  std::vector<PassedOption> coordinator = CoordinatorOptions();
  std::vector<PassedOption> agents = AgentOptions();  // the same for all
  bool require_mountpoint = false;
  bool thin = false;
  bool insecure_plaintext_on_network = false;
  std::string endpoint_file;
};

struct Plan {
  std::string endpoint;           // "unix:<state-dir>/run/coordinator.sock"
  std::vector<std::string> also;  // the addresses of --listen
  std::vector<ChildSpec> children;
  // How long an agent lets open streams go on when it is stopped.
  absl::Duration drain = Supervisor::kDrain;
};

// Distance between the coordinator's port and that of the first agent:
// 7400 and 7410.
inline constexpr int kAgentPortDistance = 10;

// The name of the child that serves a mount.
std::string AgentChild(absl::string_view mount);

// INVALID_ARGUMENT with a sentence: a socket path that is too long for the
// kernel, a wrong address, plaintext on the network without leave, a reserve
// for a mount that is not there. Gives new mounts their port in `state`.
// `host` is this machine's name.
absl::StatusOr<Plan> MakePlan(const ServeOptions& options,
                              const std::vector<Datadir>& datadirs,
                              const std::string& coordinator_binary,
                              const std::string& agent_binary,
                              const std::string& host, ServeState* state);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_PLAN_H_
