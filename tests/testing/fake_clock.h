// A clock that moves only by hand.
#ifndef PREDELLA_TESTS_TESTING_FAKE_CLOCK_H_
#define PREDELLA_TESTS_TESTING_FAKE_CLOCK_H_

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
  // Both clocks go on.
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
  Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_) = absl::FromUnixSeconds(1'800'000'000);
  absl::Duration boot_ ABSL_GUARDED_BY(mu_) = absl::Hours(1);
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_TESTING_FAKE_CLOCK_H_
