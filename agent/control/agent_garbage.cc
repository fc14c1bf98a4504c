// Inflight bytes of uploads that nobody named: a part of AgentCore.
#include <memory>
#include <utility>

#include "agent/control/agent_core.h"
#include "common/errors.h"

namespace predella::agent {

void AgentCore::CollectLocked(uint64_t session,
                              const std::shared_ptr<ImageStore>& store,
                              bool may_collect) {
  may_collect_ = may_collect;
  if (!may_collect) {
    // What is not named now is kept, and is garbage once the mount is trusted.
    return;
  }
  seams_.disk->Post([this, session, store] {
    table_.CollectGarbage(
        store, [this, session] { return session_.Is(session); },
        [this](const absl::Status& status) {
          LogIfError(status,
                     "garbage is looked for again at the next registration");
          if (table_.held().uploads > 0) {
            TellGarbage();
          }
        });
  });
}

void AgentCore::TellGarbage() {
  MutexLock lock(&mu_);
  next_heartbeat_ = seams_.clock->Boot();
  HeartbeatLocked();
}

void AgentCore::PostGarbageCommand(uint64_t session,
                                   const control::v1::Command& command) {
  const int64_t number = command.number();
  std::shared_ptr<ImageStore> store;
  {
    MutexLock lock(&mu_);
    // As the last registration said; nothing is garbage otherwise.
    store = may_collect_ ? store_ : nullptr;
  }
  if (store == nullptr) {
    AnswerStatus(session, number,
                 MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                           "the mount is not open, or was not trusted when it "
                           "registered last: what is garbage shows when it "
                           "registers anew"));
    return;
  }
  const int64_t uploads = command.collect_garbage().uploads();
  seams_.disk->Post([this, session, number, uploads, store = std::move(store)] {
    table_.CollectHeld(
        store, uploads, [this, session] { return session_.Is(session); },
        [this, session, number](const absl::Status& status) {
          // Whoever waits for the answer sees the numbers as they are then.
          MeasureSpace();
          TellGarbage();
          AnswerStatus(session, number, status);
        });
  });
}

}  // namespace predella::agent
