// Waiting for what another thread brings, for some time at most.
#ifndef PREDELLA_COMMON_WAIT_H_
#define PREDELLA_COMMON_WAIT_H_

#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"

namespace predella {

// Until when somebody waits, over several waits.
class Deadline {
 public:
  Deadline(Clock* clock, absl::Duration timeout)
      : clock_(clock), end_(clock->Steady() + timeout) {}

  // Not above zero: it has passed.
  absl::Duration left() const { return end_ - clock_->Steady(); }
  // Waits for `cv`; wakes may be spurious. False: it has passed.
  bool WaitOn(CondVar* cv, Mutex* mu) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const absl::Duration timeout = left();
    if (timeout <= absl::ZeroDuration()) {
      return false;
    }
    clock_->WaitFor(cv, mu, timeout);
    return true;
  }

 private:
  Clock* const clock_;
  const absl::Duration end_;
};

// What a callback brings to whoever waits for it. Shared between the two, of
// which each may be gone before the other. Thread-safe.
template <typename T>
class Answer {
 public:
  void Set(T value) {
    MutexLock lock(&mu_);
    value_ = std::move(value);
    set_.SignalAll();
  }
  // Absent when `timeout` passed first. Takes the value: once.
  std::optional<T> Await(Clock* clock, absl::Duration timeout) {
    const Deadline deadline(clock, timeout);
    MutexLock lock(&mu_);
    while (!value_.has_value() && deadline.WaitOn(&set_, &mu_)) {
    }
    return std::exchange(value_, std::nullopt);
  }

 private:
  Mutex mu_;
  CondVar set_;
  std::optional<T> value_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella

#endif  // PREDELLA_COMMON_WAIT_H_
