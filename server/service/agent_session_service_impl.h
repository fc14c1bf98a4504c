// predella.control.v1.AgentSessionService: one stream, one session.
#ifndef PREDELLA_SERVER_SERVICE_AGENT_SESSION_SERVICE_IMPL_H_
#define PREDELLA_SERVER_SERVICE_AGENT_SESSION_SERVICE_IMPL_H_

#include <grpcpp/grpcpp.h>

#include "predella/control/v1/agent_session_service.grpc.pb.h"
#include "server/lifecycle/session_manager.h"
#include "server/service/call_runner.h"

namespace predella::server {

class AgentSessionServiceImpl final
    : public control::v1::AgentSessionService::CallbackService {
 public:
  // All must outlive the server this is registered with. `runner` tells
  // whether the coordinator is stopping; `pool` takes listings in.
  AgentSessionServiceImpl(CallRunner* runner, SessionManager* sessions,
                          Executor* pool)
      : runner_(runner), sessions_(sessions), pool_(pool) {}

  grpc::ServerBidiReactor<control::v1::AgentMessage,
                          control::v1::CoordinatorMessage>*
  Session(grpc::CallbackServerContext* context) override;
  grpc::ServerReadReactor<control::v1::InventoryPart>* ReportInventory(
      grpc::CallbackServerContext* context,
      control::v1::InventoryReceipt* receipt) override;

 private:
  CallRunner* const runner_;
  SessionManager* const sessions_;
  Executor* const pool_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_SERVICE_AGENT_SESSION_SERVICE_IMPL_H_
