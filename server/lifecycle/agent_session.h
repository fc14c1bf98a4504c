// An agent's session as the lifecycle sees it, and commands over it.
#ifndef PREDELLA_SERVER_LIFECYCLE_AGENT_SESSION_H_
#define PREDELLA_SERVER_LIFECYCLE_AGENT_SESSION_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/ids.h"
#include "predella/control/v1/agent_session_service.pb.h"

namespace predella::server {

// Implemented by the service over gRPC, in tests by a FakeAgent. Thread-safe;
// no call blocks.
class AgentSession {
 public:
  virtual ~AgentSession() = default;
  // Given by SessionManager::NextSessionNumber; never comes twice.
  virtual int64_t number() const = 0;
  // Queues a message; order is kept. Dropped once the session is closed.
  virtual void Send(control::v1::CoordinatorMessage message) = 0;
  // Ends the session with what the agent shall be told. Idempotent.
  virtual void Close(absl::Status status) = 0;
};

// Commands to the agents of attached mounts. Thread-safe.
class AgentCommands {
 public:
  using Done = std::function<void(absl::StatusOr<control::v1::CommandResult>)>;
  using Sent = std::function<void(int64_t number)>;

  virtual ~AgentCommands() = default;
  // Sends and waits. The agent's own refusal comes back as it is; UNAVAILABLE,
  // AGENT_UNREACHABLE when the mount has no attached session, lost it before
  // it answered, or did not answer in time (it may still do it). `sent` is
  // called with the command's number before it goes out. Never call it on a
  // thread that delivers sessions' messages.
  virtual absl::StatusOr<control::v1::CommandResult> Call(
      const Uuid& mount_uid, control::v1::Command command,
      absl::Duration timeout, const Sent& sent) = 0;
  // As Call without a limit of time: `done` is called exactly once, possibly
  // on a thread that delivers messages, so it must not block.
  virtual void CallAsync(const Uuid& mount_uid, control::v1::Command command,
                         Done done) = 0;
  // Number of the attached session; 0: none.
  virtual int64_t AttachedSession(const Uuid& mount_uid) = 0;
  // Ends the attached session, where there is one, with what its agent is told.
  virtual void LetGo(const Uuid& mount_uid, const absl::Status& status) = 0;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_AGENT_SESSION_H_
