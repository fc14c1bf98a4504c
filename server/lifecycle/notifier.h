// Wakes whoever waits for "something changed".
#ifndef PREDELLA_SERVER_LIFECYCLE_NOTIFIER_H_
#define PREDELLA_SERVER_LIFECYCLE_NOTIFIER_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/wait.h"

namespace predella::server {

// Thread-safe. Take version(), look at the state, then wait for a later one:
// no change between the two is missed.
class Notifier {
 public:
  explicit Notifier(Clock* clock) : clock_(clock) {}

  int64_t version() {
    MutexLock lock(&mu_);
    return version_;
  }
  void Notify() {
    MutexLock lock(&mu_);
    ++version_;
    cv_.SignalAll();
  }
  // False when `timeout` passed without a change since `seen`.
  bool WaitPast(int64_t seen, absl::Duration timeout) {
    const Deadline deadline(clock_, timeout);
    MutexLock lock(&mu_);
    while (version_ == seen) {
      if (!deadline.WaitOn(&cv_, &mu_)) {
        return false;
      }
    }
    return true;
  }

 private:
  Clock* const clock_;
  Mutex mu_;
  CondVar cv_;
  int64_t version_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_NOTIFIER_H_
