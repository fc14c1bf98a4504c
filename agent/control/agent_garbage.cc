// Inflight bytes of uploads that nobody named: a part of AgentCore.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"

#include "agent/control/agent_core.h"
#include "common/errors.h"
#include "common/ids.h"

namespace predella::agent {

void AgentCore::CollectLocked(uint64_t session,
                              const std::shared_ptr<ImageStore>& store,
                              bool may_collect) {
  may_collect_ = may_collect;
  if (!may_collect) {
    // What is not named now is kept, and judged once the mount is trusted.
    return;
  }
  Collect(session, store, {}, [](const absl::Status& status) {
    LogIfError(status, "garbage is looked for again at the next registration");
  });
}

void AgentCore::Collect(uint64_t session,
                        const std::shared_ptr<ImageStore>& store,
                        absl::flat_hash_set<Uuid> open,
                        std::function<void(const absl::Status&)> done) {
  seams_.disk->Post(
      [this, session, store, open = std::move(open), done = std::move(done)] {
        const bool held_before = table_.held().uploads > 0;
        table_.CollectGarbage(
            store, open, [this, session] { return session_.Is(session); },
            [this, held_before, done](const absl::Status& status) {
              if (held_before || table_.held().uploads > 0) {
                TellGarbage();
              }
              done(status);
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
  const control::v1::CollectGarbage& collect = command.collect_garbage();
  std::shared_ptr<ImageStore> store;
  {
    MutexLock lock(&mu_);
    if (collect.judge() && session_.Is(session) && store_ != nullptr) {
      may_collect_ = true;
    }
    // As the coordinator said last; nothing is garbage otherwise.
    store = may_collect_ ? store_ : nullptr;
  }
  if (store == nullptr) {
    AnswerStatus(session, number,
                 MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                           "the mount is not open, or is not trusted yet: what "
                           "is garbage shows when it is"));
    return;
  }
  if (collect.judge()) {
    absl::flat_hash_set<Uuid> open;
    for (const std::string& id : collect.open_upload_ids()) {
      open.insert(Uuid::FromBytesOrNone(id));
    }
    Collect(session, store, std::move(open),
            [this, session, number](const absl::Status& status) {
              AnswerStatus(session, number, status);
            });
    return;
  }
  seams_.disk->Post([this, session, number, uploads = collect.uploads(),
                     store = std::move(store)] {
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
