// Where an agent stands with its coordinator: what may be sent, whether it
// was answered lately, and what time it is there.
#ifndef PREDELLA_AGENT_CONTROL_SESSION_STATE_H_
#define PREDELLA_AGENT_CONTROL_SESSION_STATE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "agent/control/coordinator_link.h"
#include "common/clock.h"
#include "common/mutex.h"

namespace predella::agent {

// Nothing is published unless the session was answered within this.
inline constexpr absl::Duration kPublishLease = absl::Seconds(10);

// Thread-safe. Its lock is a leaf: it is taken with others held and takes
// none but the link's.
class SessionState {
 public:
  // `clock` must outlive this.
  explicit SessionState(Clock* clock);

  // A new session; returns its number, which is never 0. `link` is shared
  // with the adapter that made it.
  uint64_t Begin(std::shared_ptr<CoordinatorLink> link);
  // Forgets the session if it is still that one.
  void End(uint64_t session);
  void Disconnect(uint64_t session, absl::string_view why);

  // Present session; 0: none.
  uint64_t current();
  bool Is(uint64_t session) { return current() == session; }

  // From here on the session has named its open uploads and was answered.
  void SetAttached(uint64_t session);
  bool attached();

  // Sends within a session; false if it is no longer that one.
  bool Send(uint64_t session, control::v1::AgentMessage message);
  // A listing beside the session; null if it is no longer that one.
  std::shared_ptr<InventoryStream> OpenInventory(uint64_t session);
  // Sends if some session is attached.
  bool SendAttached(control::v1::AgentMessage message);

  // A heartbeat that an answer will name; Hello is number 0.
  void NoteAsked(int64_t sequence);
  void NoteAnswered(int64_t sequence, int64_t coordinator_time_us);

  // Whether an answer came for something asked within the last 10 s: counted
  // from the question, since the coordinator counts from there too.
  bool MayPublish();
  // The coordinator's clock, carried on by ours. Absent before any answer.
  std::optional<int64_t> CoordinatorTimeUs();

 private:
  struct Asked {
    int64_t sequence;
    absl::Duration at;
  };

  Clock* const clock_;
  Mutex mu_;
  std::shared_ptr<CoordinatorLink> link_ ABSL_GUARDED_BY(mu_);
  uint64_t session_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t last_session_ ABSL_GUARDED_BY(mu_) = 0;
  bool attached_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Asked> asked_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Duration> answered_ ABSL_GUARDED_BY(mu_);
  int64_t coordinator_time_us_ ABSL_GUARDED_BY(mu_) = 0;
  std::optional<absl::Duration> coordinator_time_at_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_SESSION_STATE_H_
