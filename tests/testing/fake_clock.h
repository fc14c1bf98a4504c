// A clock that moves only by hand. Steady() goes on by itself, since nobody
// else could wake who waits for an answer that never comes; but a machine that
// stood still for a while has not waited: it counts what the process saw of it.
#ifndef PREDELLA_TESTS_TESTING_FAKE_CLOCK_H_
#define PREDELLA_TESTS_TESTING_FAKE_CLOCK_H_

#include <algorithm>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"

namespace predella::testing {

class FakeClock final : public Clock {
 public:
  absl::Time Now() override {
    MutexLock lock(&mu_);
    return now_;
  }
  absl::Duration Boot() override {
    MutexLock lock(&mu_);
    return boot_;
  }
  absl::Duration Steady() override {
    MutexLock lock(&mu_);
    const absl::Duration now = RealClock()->Steady();
    steady_ += std::min(now - seen_, 2 * kLook);
    seen_ = now;
    return steady_;
  }
  void WaitFor(CondVar* cv, Mutex* mu, absl::Duration timeout) override
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    RealClock()->WaitFor(cv, mu, std::min(timeout, kLook));
  }
  // Now() and Boot() go on.
  void Advance(absl::Duration by) {
    MutexLock lock(&mu_);
    now_ += by;
    boot_ += by;
  }
  // Wall time jumps, as when somebody sets it.
  void JumpWall(absl::Duration by) {
    MutexLock lock(&mu_);
    now_ += by;
  }

 private:
  static constexpr absl::Duration kLook = absl::Milliseconds(5);

  Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_) = absl::FromUnixSeconds(1'800'000'000);
  absl::Duration boot_ ABSL_GUARDED_BY(mu_) = absl::Hours(1);
  absl::Duration steady_ ABSL_GUARDED_BY(mu_) = absl::Hours(2);
  absl::Duration seen_ ABSL_GUARDED_BY(mu_) = RealClock()->Steady();
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_TESTING_FAKE_CLOCK_H_
