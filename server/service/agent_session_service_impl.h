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
  // Both must outlive the server this is registered with. `runner` tells
  // whether the coordinator is stopping.
  AgentSessionServiceImpl(CallRunner* runner, SessionManager* sessions)
      : runner_(runner), sessions_(sessions) {}

  grpc::ServerBidiReactor<control::v1::AgentMessage,
                          control::v1::CoordinatorMessage>*
  Session(grpc::CallbackServerContext* context) override;

 private:
  CallRunner* const runner_;
  SessionManager* const sessions_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_SERVICE_AGENT_SESSION_SERVICE_IMPL_H_
