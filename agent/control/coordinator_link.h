// The way to the coordinator, as the logic sees it.
#ifndef PREDELLA_AGENT_CONTROL_COORDINATOR_LINK_H_
#define PREDELLA_AGENT_CONTROL_COORDINATOR_LINK_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "predella/control/v1/agent_session_service.pb.h"

namespace predella::agent {

// One listing on its way, used by one disk thread.
class InventoryStream {
 public:
  virtual ~InventoryStream() = default;
  // Queues a part; waits while too many are. False: the call has ended, and
  // Finish says why.
  virtual bool Send(control::v1::InventoryPart part) = 0;
  // Ends the listing and waits until the coordinator has taken it in.
  virtual absl::Status Finish() = 0;
};

// One session's sending side. Thread-safe. Never blocks, and never calls back
// into the logic from within a call.
class CoordinatorLink {
 public:
  virtual ~CoordinatorLink() = default;
  // Queued in order; dropped when the session has ended.
  virtual void Send(control::v1::AgentMessage message) = 0;
  // A call of its own beside the session, which ends with it. Shared with the
  // network, which lets go of it when the call is over.
  virtual std::shared_ptr<InventoryStream> OpenInventory() = 0;
  // Ends the session; the adapter dials again later. `why` is for the log.
  virtual void Disconnect(absl::string_view why) = 0;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_COORDINATOR_LINK_H_
