// One call of AgentSessionService.Session, from dial to end.
#ifndef PREDELLA_AGENT_SERVICE_SESSION_CALL_H_
#define PREDELLA_AGENT_SERVICE_SESSION_CALL_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "agent/control/agent_core.h"
#include "agent/control/coordinator_link.h"
#include "agent/service/inventory_call.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.grpc.pb.h"

namespace predella::agent {

// Keeps itself alive from Dial to OnDone. Thread-safe; calls from disk threads
// are handed over (agent/service/network.h).
class SessionCall final
    : public grpc::ClientBidiReactor<control::v1::AgentMessage,
                                     control::v1::CoordinatorMessage>,
      public CoordinatorLink,
      public std::enable_shared_from_this<SessionCall> {
 public:
  // `core` must outlive the call.
  static std::shared_ptr<SessionCall> Dial(AgentCore* core,
                                           const std::string& address);

  void Send(control::v1::AgentMessage message) override;
  std::shared_ptr<InventoryStream> OpenInventory() override;
  void Disconnect(absl::string_view why) override;

  // Blocks until the call is over; the status it ended with. `heard` tells
  // whether the coordinator ever said anything.
  absl::Status Wait(bool* heard);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  explicit SessionCall(AgentCore* core) : core_(core) {}
  void CancelInventory();
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  AgentCore* const core_;
  std::shared_ptr<grpc::Channel> channel_;  // shared as gRPC wants it
  std::unique_ptr<control::v1::AgentSessionService::Stub> stub_;
  grpc::ClientContext context_;
  // Owned by the read that is under way, else by the reaction to it.
  control::v1::CoordinatorMessage incoming_;
  uint64_t session_ = 0;  // set before the call starts to read

  Mutex mu_;
  CondVar cv_;
  std::shared_ptr<SessionCall> self_ ABSL_GUARDED_BY(mu_);
  std::deque<control::v1::AgentMessage> out_ ABSL_GUARDED_BY(mu_);
  std::weak_ptr<InventoryCall> inventory_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  bool heard_ ABSL_GUARDED_BY(mu_) = false;
  bool over_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_SESSION_CALL_H_
