#include "client/cli/serve/serve.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "client/cli/context.h"
#include "client/cli/endpoint.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "client/cli/serve/plan.h"
#include "client/cli/serve/prepare.h"
#include "client/cli/serve/process_runner.h"
#include "client/cli/serve/readiness.h"
#include "client/cli/serve/serve_state.h"
#include "client/cli/serve/supervisor.h"
#include "common/clock.h"
#include "common/config/config.h"
#include "common/config/service_manager.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/rpc/server_runner.h"
#include "common/status_macros.h"
#include "predella/client.h"

namespace predella::cli {
namespace {

constexpr absl::Duration kPollTimeout = absl::Milliseconds(500);
constexpr timespec kTick = {0, 200'000'000};

void AddOptions(Config* config, ServeOptions* o) {
  config->Add("datadirs", &o->datadirs,
              "Directories: [NAME=]PATH[:PRIORITY],... Lower is preferred.");
  config->Add("glance-conf", &o->glance_conf,
              "Take multifilesystem_store_datadir from this file instead.");
  config->Add("init", &o->init, "Make empty directories mounts.");
  config->Add("state-dir", &o->state_dir, "The coordinator's index and more.");
  config->DescribeDefault(
      "state-dir", "/var/lib/predella for root, else ~/.local/state/predella");
  config->Add("listen", &o->listen,
              "Listen here as well (HOST:PORT); agents beside it, from "
              "PORT + 10 on.");
  config->Add("health-listen", &o->health_listen,
              "Answer health checks alone here (HOST:PORT), the agents from "
              "PORT + 10 on.");
  config->Add("advertise-host", &o->advertise_host,
              "Host under which clients elsewhere reach the agents; default: "
              "that of --listen, or this machine's name.");
  config->Add("reserve", &o->reserve, "Keep free on a mount: NAME=SIZE.");
  for (auto* const passed : {&o->coordinator, &o->agents}) {
    for (PassedOption& option : *passed) {
      config->Add(option.name, &option.value, option.help);
    }
  }
  config->Add("require-mountpoint", &o->require_mountpoint,
              "Serve a directory only while something is mounted on it.");
  config->Add("thin", &o->thin,
              "Leave holes in new images where 64 KiB are zero.");
  config->Add("insecure-plaintext-on-network",
              &o->insecure_plaintext_on_network,
              "Allow --listen on the network without TLS.");
  config->Add("endpoint-file", &o->endpoint_file,
              "Where clients find this serve; default: endpoint in "
              "/run/predella, $XDG_RUNTIME_DIR/predella or "
              "~/.local/state/predella.");
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "localhost";
}

// Everything from the lock to the last child.
class Server {
 public:
  Server(ServeOptions options, std::vector<Datadir> datadirs,
         std::set<std::string> away)
      : options_(std::move(options)),
        datadirs_(std::move(datadirs)),
        away_(std::move(away)) {}
  ~Server() { RemovePointerFile(pointer_file_, plan_.endpoint); }

  absl::Status Prepare() {
    std::error_code error;
    std::filesystem::create_directories(options_.state_dir + "/run", error);
    if (error) {
      return absl::FailedPreconditionError(
          absl::StrCat("the state directory ", options_.state_dir,
                       " cannot be made: ", error.message()));
    }
    ASSIGN_OR_RETURN(lock_, ServeLock::Take(options_.state_dir));
    RETURN_IF_ERROR(AwaitOldChildren(options_, datadirs_, away_));
    ASSIGN_OR_RETURN(state_, ReadServeState(options_.state_dir));
    const std::string agent = SiblingBinary("predella-agent");
    // Before a directory is labelled: a mistake leaves nothing behind.
    ASSIGN_OR_RETURN(plan_, MakePlan(options_, datadirs_,
                                     SiblingBinary("predella-coordinator"),
                                     agent, HostName(), &state_));
    RETURN_IF_ERROR(PrepareLabels(options_, datadirs_, away_, agent, &state_));
    return WriteServeState(options_.state_dir, state_);
  }

  absl::Status Run() {
    ASSIGN_OR_RETURN(auto runner, MakeProcessRunner());
    Supervisor supervisor(plan_.children, runner.get(), RealClock(),
                          RandomIds(), plan_.drain);
    ClientOptions client_options;
    client_options.endpoint = plan_.endpoint;
    client_options.get_timeout = kPollTimeout;
    std::optional<Client> client;
    std::vector<std::string> names;
    for (const Datadir& datadir : datadirs_) {
      names.push_back(datadir.name);
    }
    Readiness readiness(std::move(names), away_);
    bool stopping = false;
    bool ready = false;
    while (true) {
      supervisor.Tick();
      if (supervisor.stopped()) {
        return supervisor.status();
      }
      if (!client.has_value()) {
        ASSIGN_OR_RETURN(client, Client::Connect(client_options));
      }
      if (!ready && !stopping) {
        ready = Announce(&*client, &supervisor, &readiness);
      }
      const int signal = WaitForSignal();
      if (signal == SIGINT || signal == SIGTERM) {
        LogInfo("stopping", {{"signal", signal}});
        stopping = true;
        NotifyStopping("stopping the agents, then the coordinator");
        RemovePointerFile(pointer_file_, plan_.endpoint);
        supervisor.RequestStop();
      }
    }
  }

 private:
  // A stop signal, SIGCHLD, or 0 after a tick.
  static int WaitForSignal() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    const int signal = sigtimedwait(&set, nullptr, &kTick);
    return signal < 0 ? 0 : signal;
  }

  // " (UNKNOWN; its agent exited with code 1, ...)", or nothing.
  static std::string Explain(const Readiness::Apart& mount,
                             const Supervisor& supervisor) {
    const std::string end = supervisor.LastEnd(AgentChild(mount.name));
    if (mount.why.empty() || end.empty()) {
      return mount.why.empty() ? "" : absl::StrCat(" (", mount.why, ")");
    }
    return absl::StrCat(" (", mount.why, "; its agent ", end,
                        " and is started again; what it said stands above)");
  }

  // True once READY was printed.
  bool Announce(Client* client, Supervisor* supervisor, Readiness* readiness) {
    const absl::StatusOr<v1::ListMountsResponse> mounts = client->ListMounts();
    if (!mounts.ok()) {
      return false;
    }
    supervisor->MarkReady();
    const std::optional<Readiness::Report> report =
        readiness->Update(*mounts, RealClock()->Boot());
    if (!report.has_value()) {
      return false;
    }
    Remember(client, *mounts);
    const std::vector<std::string> files =
        options_.endpoint_file.empty()
            ? PointerFiles(RealEnvironment)
            : std::vector<std::string>{options_.endpoint_file};
    const absl::StatusOr<std::string> pointer =
        WritePointerFile(files, plan_.endpoint);
    if (pointer.ok()) {
      pointer_file_ = *pointer;
    } else {
      LogWarning("no_endpoint_file", {{"why", pointer.status().message()}});
    }
    NotifyReady(absl::StrCat(datadirs_.size() - report->apart.size(), " of ",
                             datadirs_.size(), " mounts take uploads at ",
                             plan_.endpoint));
    std::cout << "READY " << plan_.endpoint;
    for (const std::string& address : plan_.also) {
      std::cout << " " << address;
    }
    std::cout << "\n";
    for (const Readiness::Apart& mount : report->apart) {
      std::cout << mount.word << " " << mount.name
                << Explain(mount, *supervisor) << "\n";
    }
    std::cout << std::flush;
    return true;
  }

  // The coordinator's word counts: a mount may have hung at its first start, or
  // its name may have been given to another disk.
  void Remember(Client* client, const v1::ListMountsResponse& mounts) {
    const ServeState before = state_;
    const absl::StatusOr<v1::Cluster> cluster = client->GetCluster();
    if (cluster.ok()) {
      state_.cluster_uid = cluster->uid();
    }
    for (const v1::Mount& mount : mounts.mounts()) {
      const std::string name = Bare(mount.name());
      if (state_.port_offsets.count(name) > 0 && !mount.uid().empty() &&
          mount.admin_state() != v1::ADMIN_STATE_RETIRED) {
        state_.mount_uids[name] = mount.uid();
      }
    }
    if (state_.ToJson() != before.ToJson()) {
      LogIfError(WriteServeState(options_.state_dir, state_),
                 "the labels are compared with each other all the same");
    }
  }

  const ServeOptions options_;
  const std::vector<Datadir> datadirs_;
  const std::set<std::string> away_;
  std::unique_ptr<ServeLock> lock_;
  ServeState state_;
  Plan plan_;
  std::string pointer_file_;
};

absl::StatusOr<int> Serve(int argc, const char* const* argv) {
  ServeOptions options;
  options.state_dir = DefaultStateDir();
  Config config("predella serve",
                "Runs a coordinator and an agent for every directory.",
                "/etc/predella/serve.yaml");
  AddOptions(&config, &options);
  ASSIGN_OR_RETURN(const Config::Outcome outcome, config.Parse(argc, argv));
  if (!outcome.run) {
    return outcome.exit_code;
  }
  std::error_code error;
  const std::filesystem::path absolute =
      std::filesystem::absolute(options.state_dir, error);
  options.state_dir = absolute.lexically_normal().string();
  while (options.state_dir.size() > 1 && options.state_dir.back() == '/') {
    options.state_dir.pop_back();
  }
  ASSIGN_OR_RETURN(std::vector<Datadir> datadirs, ReadDatadirs(options));
  ASSIGN_OR_RETURN(const ServeState before, ReadServeState(options.state_dir));
  ASSIGN_OR_RETURN(std::set<std::string> away,
                   CheckDirectories(datadirs, before));
  // A mistake leaves nothing behind, not even a state directory.
  ServeState scratch = before;
  ASSIGN_OR_RETURN(
      const Plan plan,
      MakePlan(options, datadirs, SiblingBinary("predella-coordinator"),
               SiblingBinary("predella-agent"), HostName(), &scratch));
  RETURN_IF_ERROR(CheckChildren(plan));
  if (outcome.check_only) {
    std::cout << "the configuration is good: " << datadirs.size()
              << (datadirs.size() == 1 ? " directory\n" : " directories\n");
    return kExitDone;
  }
  Server server(std::move(options), std::move(datadirs), std::move(away));
  RETURN_IF_ERROR(server.Prepare());
  RETURN_IF_ERROR(server.Run());
  return kExitDone;
}

}  // namespace

int ServeMain(int argc, const char* const* argv) {
  BlockStopSignals();
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  pthread_sigmask(SIG_BLOCK, &child, nullptr);
  const absl::StatusOr<int> result = Serve(argc, argv);
  if (!result.ok()) {
    PrintError(result.status(), "predella serve", &std::cerr);
    return ExitCodeOf(result.status());
  }
  return *result;
}

}  // namespace predella::cli
