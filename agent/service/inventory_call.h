// One call of AgentSessionService.ReportInventory.
#ifndef PREDELLA_AGENT_SERVICE_INVENTORY_CALL_H_
#define PREDELLA_AGENT_SERVICE_INVENTORY_CALL_H_

#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"

#include "agent/control/coordinator_link.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.grpc.pb.h"

namespace predella::agent {

// Keeps itself alive from Open to OnDone. Thread-safe; calls from disk threads
// are handed over (agent/service/network.h).
class InventoryCall final
    : public grpc::ClientWriteReactor<control::v1::InventoryPart>,
      public InventoryStream,
      public std::enable_shared_from_this<InventoryCall> {
 public:
  // On a thread of the network. The channel is shared with the session.
  static std::shared_ptr<InventoryCall> Open(
      std::shared_ptr<grpc::Channel> channel);

  bool Send(control::v1::InventoryPart part) override;
  absl::Status Finish() override;
  void Cancel();

  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  explicit InventoryCall(std::shared_ptr<grpc::Channel> channel);
  // Starts the next write if none is under way, or ends the writing.
  void Pump();

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<control::v1::AgentSessionService::Stub> stub_;
  grpc::ClientContext context_;
  control::v1::InventoryReceipt receipt_;

  Mutex mu_;
  CondVar cv_;
  std::shared_ptr<InventoryCall> self_ ABSL_GUARDED_BY(mu_);
  std::deque<control::v1::InventoryPart> out_ ABSL_GUARDED_BY(mu_);
  bool started_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;  // no more parts come
  bool closed_ ABSL_GUARDED_BY(mu_) = false;     // the hold is gone
  bool over_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_INVENTORY_CALL_H_
