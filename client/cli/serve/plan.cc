#include "client/cli/serve/plan.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "client/cli/serve/process_runner.h"
#include "common/errors.h"
#include "common/rpc/listen.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

// The kernel takes 107 bytes; ours stay below a round number.
constexpr size_t kMostSocketPath = 99;
constexpr int kMostPort = 65535;

absl::StatusOr<std::string> SocketAddress(const ServeOptions& options,
                                          const std::string& file) {
  const std::string path = absl::StrCat(options.state_dir, "/run/", file);
  if (path.size() > kMostSocketPath) {
    return InvalidArgument(absl::StrCat(
        "the socket path ", path, " has ", path.size(),
        " bytes, more than the kernel takes (", kMostSocketPath,
        " here); give a shorter --state-dir or a shorter name: NAME=PATH"));
  }
  return absl::StrCat("unix:", path);
}

absl::StatusOr<std::map<std::string, std::string>> ParseReserves(
    const ServeOptions& options, const std::vector<Datadir>& datadirs) {
  std::map<std::string, std::string> reserves;
  for (const std::string& text : options.reserve) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(text, absl::MaxSplits('=', 1));
    const absl::StatusOr<int64_t> size = ParseSize(parts.second);
    if (!size.ok()) {
      return InvalidArgument(absl::StrCat(
          "--reserve ", text, ": write NAME=SIZE, such as store-1=10GiB"));
    }
    bool known = false;
    for (const Datadir& datadir : datadirs) {
      known = known || datadir.name == parts.first;
    }
    if (!known) {
      return InvalidArgument(absl::StrCat("--reserve ", text,
                                          ": there is no directory named \"",
                                          parts.first, "\""));
    }
    reserves[parts.first] = absl::StrCat(*size);
  }
  return reserves;
}

absl::StatusOr<absl::Duration> DrainOf(
    const std::vector<PassedOption>& agents) {
  for (const PassedOption& option : agents) {
    if (option.name == "drain-timeout" && !option.value.empty()) {
      const absl::StatusOr<absl::Duration> drain = ParseDuration(option.value);
      if (!drain.ok()) {
        return InvalidArgument(
            absl::StrCat("--drain-timeout: ", drain.status().message()));
      }
      return *drain;
    }
  }
  return Supervisor::kDrain;
}

std::vector<std::string> CommonArguments(const ServeOptions& options) {
  std::vector<std::string> out = {
      "--die-with-parent", absl::StrCat("--parent-watch-fd=", kParentWatchFd)};
  if (options.insecure_plaintext_on_network) {
    out.push_back("--insecure-plaintext-on-network");
  }
  return out;
}

bool IsWildcard(const Address& address) {
  return address.host == "0.0.0.0" || address.host == "::";
}

// Where the agent with this offset listens beside the coordinator.
Address Beside(Address coordinator, int offset) {
  if (!coordinator.unix_socket && coordinator.port != 0) {
    coordinator.port += kAgentPortDistance + offset;
  }
  return coordinator;
}

// A port alone, on the network: for what asks whether a process is well.
absl::StatusOr<std::vector<Address>> HealthAddresses(
    const ServeOptions& options) {
  std::vector<Address> addresses;
  for (const std::string& text : options.health_listen) {
    ASSIGN_OR_RETURN(const Address address, ParseAddress(text));
    if (address.unix_socket || address.port == 0) {
      return InvalidArgument(absl::StrCat(
          "--health-listen ", text,
          ": write HOST:PORT; the agents' ports follow from PORT + ",
          kAgentPortDistance, " on"));
    }
    addresses.push_back(address);
  }
  return addresses;
}

// Every address on the network once: agents of --listen and --health-listen
// may fall together.
class Ports {
 public:
  absl::Status Take(const Address& address, const std::string& child) {
    if (!address.unix_socket && address.port > kMostPort) {
      return InvalidArgument(absl::StrCat(
          "the port of ", child, " would be ", address.port, ", and ",
          kMostPort, " is the last one: name a lower port"));
    }
    for (const auto& [taken, by] : taken_) {
      if (!address.unix_socket && !taken.unix_socket && address.port != 0 &&
          taken.port == address.port &&
          (taken.host == address.host || IsWildcard(taken) ||
           IsWildcard(address))) {
        return InvalidArgument(absl::StrCat(
            address.ToString(), " would be that of ", by, " and of ", child,
            ": agents listen from PORT + ", kAgentPortDistance,
            " on; take --listen and --health-listen further apart, such as "
            "7400 and 8400"));
      }
    }
    taken_.emplace_back(address, child);
    return absl::OkStatus();
  }

 private:
  std::vector<std::pair<Address, std::string>> taken_;
};

void AddHealthListen(const std::vector<Address>& addresses, ChildSpec* child) {
  for (const Address& address : addresses) {
    child->argv.push_back(absl::StrCat("--health-listen=", address.ToString()));
  }
}

void AddPassed(const std::vector<PassedOption>& options, ChildSpec* child) {
  for (const PassedOption& option : options) {
    if (!option.value.empty()) {
      child->argv.push_back(absl::StrCat("--", option.name, "=", option.value));
    }
  }
}

// Addresses of an agent beside each of the coordinator's on the network.
void AddNetworkListen(const ServeOptions& options,
                      const std::vector<Address>& coordinator, int offset,
                      const std::string& host, ChildSpec* agent,
                      std::vector<std::string>* advertise) {
  for (Address address : coordinator) {
    if (address.unix_socket) {
      continue;
    }
    address = Beside(address, offset);
    agent->argv.push_back(absl::StrCat("--listen=", address.ToString()));
    if (!options.advertise_host.empty() || IsWildcard(address)) {
      address.host =
          options.advertise_host.empty() ? host : options.advertise_host;
    }
    advertise->push_back(address.ToString());
  }
}

// A directory for images fills up, and fails with its disk.
absl::Status CheckStateDir(const ServeOptions& options,
                           const std::vector<Datadir>& datadirs) {
  for (const Datadir& datadir : datadirs) {
    if (options.state_dir == datadir.path ||
        IsInside(options.state_dir, datadir.path)) {
      return InvalidArgument(absl::StrCat(
          "the state directory ", options.state_dir, " lies in ", datadir.path,
          ", which is for images: it would fill up and fail with it; name "
          "another --state-dir"));
    }
  }
  return absl::OkStatus();
}

// What the children have in common, and what is taken while they are made.
struct Planning {
  const ServeOptions& options;
  std::map<std::string, std::string> reserves;
  std::vector<Address> health;
  std::vector<std::string> common;
  std::vector<Address> network;  // the coordinator's, beside its socket
  Ports ports;
};

absl::StatusOr<ChildSpec> PlanCoordinator(const std::string& binary,
                                          Planning* planning, Plan* plan) {
  const ServeOptions& options = planning->options;
  ChildSpec coordinator;
  coordinator.name = "coordinator";
  coordinator.stops_last = true;
  coordinator.argv = {binary, absl::StrCat("--state-dir=", options.state_dir),
                      absl::StrCat("--listen=", plan->endpoint)};
  for (const Address& address : planning->health) {
    RETURN_IF_ERROR(planning->ports.Take(address, "the coordinator's health"));
  }
  for (const std::string& text : options.listen) {
    ASSIGN_OR_RETURN(const Address address, ParseAddress(text));
    RETURN_IF_ERROR(
        CheckPlaintextAllowed(address, options.insecure_plaintext_on_network));
    if (!address.unix_socket && address.port == 0) {
      return InvalidArgument(
          absl::StrCat("--listen ", text,
                       ": name a port; 0 would be another one at "
                       "each start, which nobody could know"));
    }
    RETURN_IF_ERROR(planning->ports.Take(address, "the coordinator"));
    planning->network.push_back(address);
    plan->also.push_back(address.ToString());
    coordinator.argv.push_back(absl::StrCat("--listen=", address.ToString()));
  }
  AddPassed(options.coordinator, &coordinator);
  AddHealthListen(planning->health, &coordinator);
  coordinator.argv.insert(coordinator.argv.end(), planning->common.begin(),
                          planning->common.end());
  return coordinator;
}

// Where the agent listens, and what it tells clients of that.
absl::Status AddAddresses(const std::string& socket, int offset,
                          const std::string& host, Planning* planning,
                          ChildSpec* agent) {
  std::vector<std::string> advertise = {socket};
  AddNetworkListen(planning->options, planning->network, offset, host, agent,
                   &advertise);
  for (const Address& address : planning->network) {
    RETURN_IF_ERROR(planning->ports.Take(Beside(address, offset), agent->name));
  }
  for (const Address& address : planning->health) {
    RETURN_IF_ERROR(planning->ports.Take(
        Beside(address, offset), absl::StrCat(agent->name, "'s health")));
    AddHealthListen({Beside(address, offset)}, agent);
  }
  for (const std::string& address : advertise) {
    agent->argv.push_back(absl::StrCat("--advertise=", address));
  }
  return absl::OkStatus();
}

absl::StatusOr<ChildSpec> PlanAgent(const Datadir& datadir,
                                    const std::string& binary,
                                    const std::string& endpoint, int offset,
                                    const std::string& host,
                                    Planning* planning) {
  const ServeOptions& options = planning->options;
  ASSIGN_OR_RETURN(
      const std::string socket,
      SocketAddress(options, absl::StrCat("agent-", datadir.name, ".sock")));
  ChildSpec agent;
  agent.name = AgentChild(datadir.name);
  agent.argv = {binary,
                absl::StrCat("--name=", datadir.name),
                absl::StrCat("--path=", datadir.path),
                absl::StrCat("--priority=", datadir.priority),
                absl::StrCat("--coordinator=", endpoint),
                absl::StrCat("--listen=", socket)};
  RETURN_IF_ERROR(AddAddresses(socket, offset, host, planning, &agent));
  if (const auto reserve = planning->reserves.find(datadir.name);
      reserve != planning->reserves.end()) {
    agent.argv.push_back(absl::StrCat("--reserve=", reserve->second));
  }
  AddPassed(options.agents, &agent);
  if (options.require_mountpoint) {
    agent.argv.push_back("--require-mountpoint");
  }
  if (options.thin) {
    agent.argv.push_back("--thin");
  }
  agent.argv.insert(agent.argv.end(), planning->common.begin(),
                    planning->common.end());
  return agent;
}

}  // namespace

std::vector<PassedOption> CoordinatorOptions() {
  return {
      {"spread", "most-available or weighted.", ""},
      {"priority-order", "lowest-first or highest-first.", ""},
      {"near-full", "Percentage from which a mount comes after all others.",
       ""},
      {"upload-ttl", "An upload without a sign of life for this long ends.",
       ""},
      {"outcome-ttl", "How long an ended upload answers for itself.", ""},
      {"scrub-interval", "How often each mount is read cold and checked.", ""},
      {"rescan-interval",
       "How long after its last listing each mount is listed again.", ""},
      {"unreachable-after", "An agent silent for this long is UNREACHABLE.",
       ""},
      {"backup-dir", "Directory for copies of the index.", ""},
      {"backup-interval",
       "How often the index is copied there; 0s: only when asked.", ""},
      {"backup-keep", "How many copies of the index are kept.", ""},
      {"epoch-above",
       "Begin an epoch above this one, when STALE_EPOCH says so.", ""},
  };
}

std::vector<PassedOption> AgentOptions() {
  return {
      {"file-mode", "Octal mode of image files, on every mount.", ""},
      {"file-group",
       "Group of image files, on every mount; default: the directory's.", ""},
      {"disk-threads", "Threads for each mount.", ""},
      {"scrub-rate", "Size a second that a scrub of a mount reads.", ""},
      {"slow-above",
       "A mount is SLOW when its probes take longer for a minute.", ""},
      {"drain-timeout", "How long open streams may go on after SIGTERM.", ""},
  };
}

std::string AgentChild(absl::string_view mount) {
  return absl::StrCat("agent ", mount);
}

absl::StatusOr<Plan> MakePlan(const ServeOptions& options,
                              const std::vector<Datadir>& datadirs,
                              const std::string& coordinator_binary,
                              const std::string& agent_binary,
                              const std::string& host, ServeState* state) {
  RETURN_IF_ERROR(CheckStateDir(options, datadirs));
  Plan plan;
  Planning planning{options, {}, {}, CommonArguments(options), {}, {}};
  ASSIGN_OR_RETURN(plan.endpoint, SocketAddress(options, "coordinator.sock"));
  ASSIGN_OR_RETURN(planning.reserves, ParseReserves(options, datadirs));
  ASSIGN_OR_RETURN(planning.health, HealthAddresses(options));
  ASSIGN_OR_RETURN(plan.drain, DrainOf(options.agents));
  ASSIGN_OR_RETURN(ChildSpec coordinator,
                   PlanCoordinator(coordinator_binary, &planning, &plan));
  plan.children.push_back(std::move(coordinator));
  for (const Datadir& datadir : datadirs) {
    ASSIGN_OR_RETURN(ChildSpec agent,
                     PlanAgent(datadir, agent_binary, plan.endpoint,
                               state->OffsetOf(datadir.name), host, &planning));
    plan.children.push_back(std::move(agent));
  }
  return plan;
}

}  // namespace predella::cli
