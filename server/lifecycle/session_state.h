// One session as SessionManager keeps it; private to it.
#ifndef PREDELLA_SERVER_LIFECYCLE_SESSION_STATE_H_
#define PREDELLA_SERVER_LIFECYCLE_SESSION_STATE_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"

#include "common/executor.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "server/lifecycle/session_manager.h"

namespace predella::server {

struct SessionManager::Session {
  Session(std::shared_ptr<AgentSession> s, Executor* pool)
      : session(std::move(s)), control(pool), findings(pool) {
    for (std::unique_ptr<Strand>& strand : reports) {
      strand = std::make_unique<Strand>(pool);
    }
  }

  // The strand that keeps the order of one upload's reports.
  Strand* StrandOf(const std::string& upload_id) {
    const size_t key =
        upload_id.empty() ? 0 : static_cast<unsigned char>(upload_id.back());
    return reports[key % reports.size()].get();
  }

  int64_t number() const { return session->number(); }

  const std::shared_ptr<AgentSession> session;  // shared with the service
  Strand control;
  Strand findings;  // of copies, and the progress behind them
  std::array<std::unique_ptr<Strand>, 16> reports;

  // Taken for numbering and sending a command, so that numbers rise on the
  // wire. Never taken while `mu` is held.
  Mutex send_mu;
  int64_t next_command ABSL_GUARDED_BY(send_mu) = 1;

  Mutex mu;
  State state ABSL_GUARDED_BY(mu) = State::kNew;
  control::v1::Hello hello ABSL_GUARDED_BY(mu);
  Uuid mount_uid ABSL_GUARDED_BY(mu);
  // Whether it was told, in Attach or later, that its mount is trusted.
  bool may_collect ABSL_GUARDED_BY(mu) = false;
  // The StoreRoster it was told last, serialised.
  std::string roster ABSL_GUARDED_BY(mu);
  // The mount's own, as it registered: read when RECOVERING begins.
  std::vector<storage::v1::RosterEntry> remembered ABSL_GUARDED_BY(mu);
  std::map<int64_t, Done> pending ABSL_GUARDED_BY(mu);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_SESSION_STATE_H_
