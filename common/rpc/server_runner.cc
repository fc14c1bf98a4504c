#include "common/rpc/server_runner.h"

#include <errno.h>
#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"

#include "common/errors.h"
#include "common/logging.h"

namespace predella {
namespace {

constexpr int kMessageLimit = 4 << 20;
constexpr int kStreamsPerConnection = 100;
constexpr int kKeepaliveTimeMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;
constexpr int kMinPingIntervalMs = 10'000;
constexpr int kHandshakeTimeoutMs = 5'000;

// Reads and calls that carry an id may be repeated; nothing else is.
constexpr char kServiceConfig[] = R"({
  "methodConfig": [{
    "name": [
      {"service": "predella.v1.ImageService", "method": "GetImage"},
      {"service": "predella.v1.ImageService", "method": "ListImages"},
      {"service": "predella.v1.ImageService", "method": "GetUpload"},
      {"service": "predella.v1.ImageService", "method": "ListUploads"},
      {"service": "predella.v1.MountService", "method": "GetMount"},
      {"service": "predella.v1.MountService", "method": "ListMounts"},
      {"service": "predella.v1.MountService", "method": "ExplainImpact"},
      {"service": "predella.v1.ClusterService"}
    ],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.1s",
      "maxBackoff": "1s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
})";

absl::Status InUse(const Address& address, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kNotReady,
      absl::StrCat("cannot listen on ", address.ToString(), ": ", why),
      {{"address", address.ToString()}});
}

// Removes a socket file that a dead process left; refuses a living one.
absl::Status ClearStaleSocket(const Address& address) {
  struct stat st {};
  if (lstat(address.path.c_str(), &st) != 0) {
    return absl::OkStatus();
  }
  if (!S_ISSOCK(st.st_mode)) {
    return InUse(address, "the path exists and is not a socket");
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un sun{};
  sun.sun_family = AF_UNIX;
  std::strncpy(sun.sun_path, address.path.c_str(), sizeof(sun.sun_path) - 1);
  const bool alive =
      fd >= 0 &&
      connect(fd, reinterpret_cast<const sockaddr*>(&sun), sizeof(sun)) == 0;
  if (fd >= 0) {
    close(fd);
  }
  if (alive) {
    return InUse(address, "another process answers there");
  }
  unlink(address.path.c_str());
  return absl::OkStatus();
}

void SetLimits(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMessageLimit);
  builder->SetMaxSendMessageSize(kMessageLimit);
  // Two servers on one port would share its clients at random.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              kStreamsPerConnection);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              kKeepaliveTimeoutMs);
  builder->AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      kMinPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                              kHandshakeTimeoutMs);
}

// gRPC shuts itself down with its last object, and 1.51 then waits up to 10 s
// for a poller: a process that has once used it keeps it.
void KeepGrpc() {
  static const bool kept = [] {
    grpc_init();
    return true;
  }();
  static_cast<void>(kept);
}

struct Built {
  std::unique_ptr<grpc::Server> server;
  std::vector<Address> addresses;
};

absl::StatusOr<Built> Build(const std::vector<Address>& listen,
                            const std::vector<grpc::Service*>& services) {
  grpc::ServerBuilder builder;
  SetLimits(&builder);
  std::vector<int> ports(listen.size(), 0);
  for (size_t i = 0; i < listen.size(); ++i) {
    if (listen[i].unix_socket) {
      if (absl::Status s = ClearStaleSocket(listen[i]); !s.ok()) {
        return s;
      }
    }
    builder.AddListeningPort(listen[i].ToString(),
                             grpc::InsecureServerCredentials(), &ports[i]);
  }
  for (grpc::Service* service : services) {
    builder.RegisterService(service);
  }
  Built built;
  built.server = builder.BuildAndStart();
  for (size_t i = 0; i < listen.size(); ++i) {
    if (built.server == nullptr || ports[i] == 0) {
      if (ports[i] == 0) {
        return InUse(listen[i],
                     "the address is in use, not of this host, or not "
                     "permitted (for a Unix socket: does its directory "
                     "exist?)");
      }
      continue;
    }
    built.addresses.push_back(listen[i]);
    if (!listen[i].unix_socket) {
      built.addresses.back().port = ports[i];
    }
  }
  if (built.server == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "the gRPC server did not start");
  }
  return built;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerRunner>> ServerRunner::Start(
    const ServerOptions& options, const std::vector<grpc::Service*>& services) {
  KeepGrpc();
  // Referenced so that reflection can describe health checks.
  grpc::health::v1::HealthCheckRequest::descriptor();
  grpc::EnableDefaultHealthCheckService(true);
  if (options.reflection) {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  }
  auto runner = std::unique_ptr<ServerRunner>(new ServerRunner());
  auto main = Build(options.listen, services);
  if (!main.ok()) {
    return main.status();
  }
  runner->server_ = std::move(main->server);
  runner->addresses_ = std::move(main->addresses);
  if (!options.health_listen.empty()) {
    auto health = Build(options.health_listen, {});
    if (!health.ok()) {
      runner->Shutdown(absl::ZeroDuration());
      return health.status();
    }
    runner->health_server_ = std::move(health->server);
    runner->health_addresses_ = std::move(health->addresses);
  }
  runner->SetServing("", true);
  runner->SetServing("liveness", true);
  return runner;
}

ServerRunner::~ServerRunner() { Shutdown(absl::ZeroDuration()); }

void ServerRunner::SetServing(const std::string& service, bool serving) {
  for (grpc::Server* server : {server_.get(), health_server_.get()}) {
    if (server != nullptr) {
      server->GetHealthCheckService()->SetServingStatus(service, serving);
    }
  }
}

void ServerRunner::Shutdown(absl::Duration grace) {
  const auto deadline =
      std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace);
  for (auto* server : {&server_, &health_server_}) {
    if (*server != nullptr) {
      (*server)->Shutdown(deadline);
      (*server)->Wait();
      server->reset();
    }
  }
  for (const Address& address : addresses_) {
    if (address.unix_socket) {
      unlink(address.path.c_str());
    }
  }
  addresses_.clear();
}

std::shared_ptr<grpc::Channel> DialChannel(const std::string& address) {
  KeepGrpc();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageLimit);
  arguments.SetMaxSendMessageSize(kMessageLimit);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // A proxy of the environment is for the web, not for the storage network.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetServiceConfigJSON(kServiceConfig);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

namespace {
sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}
}  // namespace

void BlockStopSignals() {
  const sigset_t set = StopSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // A client that goes away and a full disk quota are errors of calls.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

int WaitForStopSignal() {
  const sigset_t set = StopSignals();
  int got = 0;
  while (sigwait(&set, &got) != 0) {
  }
  LogInfo("stop_signal", {{"signal", got}});
  return got;
}

}  // namespace predella
