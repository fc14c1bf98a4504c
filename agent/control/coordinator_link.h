// The way to the coordinator, as the logic sees it.
#ifndef PREDELLA_AGENT_CONTROL_COORDINATOR_LINK_H_
#define PREDELLA_AGENT_CONTROL_COORDINATOR_LINK_H_

#include "absl/strings/string_view.h"

#include "predella/control/v1/agent_session_service.pb.h"

namespace predella::agent {

// One session's sending side. Thread-safe. Never blocks, and never calls back
// into the logic from within a call.
class CoordinatorLink {
 public:
  virtual ~CoordinatorLink() = default;
  // Queued in order; dropped when the session has ended.
  virtual void Send(control::v1::AgentMessage message) = 0;
  // Ends the session; the adapter dials again later. `why` is for the log.
  virtual void Disconnect(absl::string_view why) = 0;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_COORDINATOR_LINK_H_
