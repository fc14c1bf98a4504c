// System calls to the mount that are under way, and what is to happen when one
// of them does not return.
//
// A thread in a call that hangs can not be taken out of it. What can be done:
// tell the client whose work it is, and give others another thread.
#ifndef PREDELLA_AGENT_FS_DISK_CALLS_H_
#define PREDELLA_AGENT_FS_DISK_CALLS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"

namespace predella::agent {

// How long one call may take; older ones are stuck. On a mount that is slow for
// all, one may take four times as long as the longest that came back within its
// limit of late, syncs left out, but not longer than a sync for that.
struct DiskCallLimits {
  absl::Duration metadata = absl::Seconds(10);  // open, stat, rename, ...
  absl::Duration data = absl::Seconds(15);      // of one block
  absl::Duration sync = absl::Seconds(30);      // and what frees or takes room
};

// Thread-safe.
class DiskCalls {
 public:
  // Called with the error that the work's client shall hear: UNAVAILABLE,
  // MOUNT_STALLED, with the call, its age and the limit. Once for each call, on
  // Tick's thread; never after the work's end, which waits for it.
  using Stalled = std::function<void(const absl::Status& why)>;
  // Called when a call that was told came back, on its own thread.
  using Returned = std::function<void()>;

  // `clock` must outlive this. `threads` are those that are there for data, of
  // which as many again may be added.
  DiskCalls(Clock* clock, int threads, DiskCallLimits limits);
  DiskCalls(Clock* clock, int threads)
      : DiskCalls(clock, threads, DiskCallLimits()) {}

  // What this thread does until it is destroyed; an inner one goes first.
  class Work {
   public:
    // `calls` null: nothing is watched. `returned` may be empty.
    Work(DiskCalls* calls, Stalled stalled, Returned returned = nullptr);
    ~Work();
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    // Ends it: what gets stuck after that is not told. Whether a call within it
    // was, and its client told.
    bool Finish();

   private:
    friend class DiskCalls;
    struct State;
    // Shared with its calls, and with Tick while it tells.
    const std::shared_ptr<State> state_;
    Work* const outer_;
  };

  enum class Kind { kMetadata, kData, kSync };
  // One call, from its construction to its destruction, on one thread.
  class Call {
   public:
    // `more` is added to the limit of its kind.
    Call(DiskCalls* calls, Kind kind, absl::string_view op,
         absl::string_view path, absl::Duration more = absl::ZeroDuration());
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    DiskCalls* const calls_;
    uint64_t number_ = 0;
  };

  // What this thread does until it is destroyed: `returned` is called on it
  // after each call that came back, in which it may make none itself.
  class Steps {
   public:
    explicit Steps(std::function<void()> returned);
    ~Steps();
    Steps(const Steps&) = delete;
    Steps& operator=(const Steps&) = delete;

   private:
    friend class DiskCalls;
    const std::function<void()> returned_;
    Steps* const outer_;
  };

  // Tells of the calls that became too old.
  void Tick();

  // Threads for data that are stuck in a call.
  int stuck();
  // Calls that are over their limit, the probe's included.
  int overdue();
  // How many threads take the place of stuck ones, at most `threads`.
  int replaced();
  // Whether all are stuck and no more may be added: what is posted now would
  // wait for as long as the mount hangs. `missing` that may be added are not to
  // be had.
  bool exhausted(int missing = 0);
  // What exhausted() means for a client.
  absl::Status WhyExhausted(int missing = 0);

  // The calling thread is not one for data: it is not replaced.
  static void MarkUnreplaced();

  // The calling thread, for StuckCallOf; another one's once it has ended.
  static const void* ThisThread();
  // As it is told; OK while no call of that thread is over its limit.
  absl::Status StuckCallOf(const void* thread);
  // `changed` is called without locks, on Tick's thread, after calls got stuck,
  // until Unlisten with the number that this returns, which waits for it.
  uint64_t Listen(std::function<void()> changed)
      ABSL_LOCKS_EXCLUDED(listeners_mu_);
  void Unlisten(uint64_t number) ABSL_LOCKS_EXCLUDED(listeners_mu_);

 private:
  struct Running {
    std::string op;
    std::string path;
    absl::Duration started;
    Kind kind = Kind::kMetadata;
    bool counts = true;  // holds a thread for data
    bool overdue = false;
    absl::Duration limit;
    const void* thread = nullptr;
    std::shared_ptr<Work::State> work;
  };
  absl::Duration LimitOf(Kind kind) const;
  static absl::Status WhyStuck(const Running& call, absl::Duration now);
  absl::Duration LimitLocked(const Running& call, absl::Duration now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetSlowLocked(absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t Begin(Running running);
  void End(uint64_t number);

  Clock* const clock_;
  const int threads_;
  const DiskCallLimits limits_;
  Mutex mu_;
  std::map<uint64_t, Running> running_ ABSL_GUARDED_BY(mu_);
  uint64_t last_ ABSL_GUARDED_BY(mu_) = 0;
  int stuck_ ABSL_GUARDED_BY(mu_) = 0;
  int overdue_ ABSL_GUARDED_BY(mu_) = 0;
  // The longest calls that came back, since then and in the time before.
  absl::Duration slow_since_ ABSL_GUARDED_BY(mu_);
  absl::Duration slowest_ ABSL_GUARDED_BY(mu_);
  absl::Duration slowest_before_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Duration> last_tick_ ABSL_GUARDED_BY(mu_);
  Mutex listeners_mu_;  // taken before all others
  std::map<uint64_t, std::function<void()>> listeners_
      ABSL_GUARDED_BY(listeners_mu_);
  uint64_t last_listener_ ABSL_GUARDED_BY(listeners_mu_) = 0;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_DISK_CALLS_H_
