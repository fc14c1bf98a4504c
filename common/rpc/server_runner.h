// One gRPC server as every daemon of ours runs it: Unix sockets and TCP,
// health, reflection, limits and keepalive of docs/api.md.
#ifndef PREDELLA_COMMON_RPC_SERVER_RUNNER_H_
#define PREDELLA_COMMON_RPC_SERVER_RUNNER_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/rpc/listen.h"

namespace predella {

struct ServerOptions {
  std::vector<Address> listen;
  // Health alone, plaintext, for probes; absent: none.
  std::vector<Address> health_listen;
  bool reflection = true;
};

class ServerRunner {
 public:
  // Starts serving. `services` must outlive it. UNAVAILABLE names an address
  // that is in use: two servers never share a port (SO_REUSEPORT is off). A
  // Unix socket file that nobody answers on is replaced.
  static absl::StatusOr<std::unique_ptr<ServerRunner>> Start(
      const ServerOptions& options,
      const std::vector<grpc::Service*>& services);
  ~ServerRunner();

  // The addresses with the ports that were really taken.
  const std::vector<Address>& addresses() const { return addresses_; }
  const std::vector<Address>& health_addresses() const {
    return health_addresses_;
  }

  // Health of one service by its full name; "" is the whole process.
  // "liveness" serves as long as the process answers.
  void SetServing(const std::string& service, bool serving);

  // Refuses new calls, gives those that run `grace`, then cancels them.
  void Shutdown(absl::Duration grace);

 private:
  ServerRunner() = default;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::Server> health_server_;
  std::vector<Address> addresses_;
  std::vector<Address> health_addresses_;
};

// A channel as every client of ours dials it: keepalive, message limits, and
// retries of UNAVAILABLE for the calls that may be repeated. Channels to one
// address are not shared by hidden global state.
std::shared_ptr<grpc::Channel> DialChannel(const std::string& address);

// Blocks until SIGINT or SIGTERM, which the caller's process must not handle
// otherwise. BlockStopSignals() must have run before any thread was started.
void BlockStopSignals();
int WaitForStopSignal();

}  // namespace predella

#endif  // PREDELLA_COMMON_RPC_SERVER_RUNNER_H_
