// Keeps one session with a coordinator over gRPC.
#ifndef PREDELLA_AGENT_SERVICE_GRPC_COORDINATOR_SESSION_H_
#define PREDELLA_AGENT_SERVICE_GRPC_COORDINATOR_SESSION_H_

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "agent/control/agent_core.h"
#include "common/ids.h"
#include "common/mutex.h"

namespace predella::agent {

class SessionCall;

// Dials the addresses in turn, again after 100 ms to 1 s with jitter, until
// it is stopped. A thread of its own waits; messages come on gRPC's threads.
class GrpcCoordinatorSession {
 public:
  // `core` and `ids` must outlive this.
  GrpcCoordinatorSession(AgentCore* core, std::vector<std::string> addresses,
                         IdGenerator* ids);
  ~GrpcCoordinatorSession();

  void Start();
  // Ends the session and joins. Idempotent.
  void Stop();

 private:
  void Run();
  // True when it was told to stop meanwhile.
  bool Pause(absl::Duration delay);

  AgentCore* const core_;
  const std::vector<std::string> addresses_;
  IdGenerator* const ids_;
  Mutex mu_;
  CondVar cv_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Shared with gRPC while the call lives.
  std::shared_ptr<SessionCall> call_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_GRPC_COORDINATOR_SESSION_H_
