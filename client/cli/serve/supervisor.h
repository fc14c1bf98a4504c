// Keeps one coordinator and its agents running.
#ifndef PREDELLA_CLIENT_CLI_SERVE_SUPERVISOR_H_
#define PREDELLA_CLIENT_CLI_SERVE_SUPERVISOR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "client/cli/serve/process_runner.h"
#include "common/backoff.h"
#include "common/clock.h"
#include "common/ids.h"

namespace predella::cli {

// Exit code by which a child says that starting it again is of no use.
inline constexpr int kExitConfiguration = 2;

struct ChildSpec {
  std::string name;  // for the log
  std::vector<std::string> argv;
  // Stopped after the others are gone: agents that drain need it.
  bool stops_last = false;
};

// Driven by Tick() every 200 ms or so. Not safe for concurrent use.
class Supervisor {
 public:
  static constexpr absl::Duration kFirstBackoff = absl::Milliseconds(500);
  static constexpr absl::Duration kMostBackoff = absl::Seconds(30);
  // So often the child that stops last may end before MarkReady.
  static constexpr int kMostVainStarts = 5;
  static constexpr absl::Duration kResetAfter = absl::Seconds(60);
  // How long daemons let open streams and calls go on, where nothing else is
  // said, and what they may take beyond it.
  static constexpr absl::Duration kDrain = absl::Seconds(30);
  static constexpr absl::Duration kPastDrain = absl::Seconds(5);
  // What has not ended so long after SIGKILL, or after its first thread, is in
  // a system call that the kernel does not give up: it is left behind.
  static constexpr absl::Duration kLetGo = absl::Seconds(5);

  // `runner`, `clock` and `ids` must outlive this. `drain`: how long children
  // that do not stop last may go on after SIGTERM.
  Supervisor(std::vector<ChildSpec> specs, ProcessRunner* runner, Clock* clock,
             IdGenerator* ids, absl::Duration drain = kDrain);

  // Takes note of children that ended, starts those that are due, and takes
  // stopping forward.
  void Tick();
  // SIGTERM to all but the last, then to that; SIGKILL to what is left when the
  // drain and kPastDrain are over. Again: SIGKILL at once.
  void RequestStop();
  // Asked to stop, or a child said that it cannot run, and nothing is left but
  // what SIGKILL does not end.
  bool stopped() const;
  // Why it stopped by itself, with the child's name: INVALID_ARGUMENT when it
  // cannot run as it is configured, FAILED_PRECONDITION when it never began to
  // serve. INTERNAL names the children that were left behind.
  const absl::Status& status() const { return status_; }
  // What all others need has served: from now on it is started again for ever.
  void MarkReady() { ready_ = true; }
  // How a child ended last ("exited with code 1"); empty for one that never
  // did, or has run for kResetAfter since.
  std::string LastEnd(absl::string_view name) const;

 private:
  struct Child {
    ChildSpec spec;
    Backoff backoff;
    int64_t pid = 0;  // 0: not running
    std::string last_end;
    absl::Duration started;
    absl::Duration due;  // when to start it
    // Since when its first thread is known to be gone, and it is not.
    std::optional<absl::Duration> hollow_since;
  };
  void Ended(Child* child, const ChildExit& exit);
  void Start(Child* child);
  void Retry(Child* child, const std::string& why);
  void ContinueStop();
  // SIGKILL to what is late, and then without it.
  void Press(bool last, absl::Duration limit);
  void Leave(Child* child);
  bool AnyRunning(bool last) const;
  void SignalAll(bool last, int signal);

  ProcessRunner* const runner_;
  Clock* const clock_;
  const absl::Duration drain_;
  std::vector<Child> children_;
  bool ready_ = false;
  int vain_starts_ = 0;
  bool stopping_ = false;
  bool last_stopping_ = false;
  bool impatient_ = false;  // asked twice
  std::optional<absl::Duration> killed_;
  absl::Duration stop_begun_;
  std::vector<std::string> left_;
  absl::Status status_;
};

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_SUPERVISOR_H_
