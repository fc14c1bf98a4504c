// Time as a seam. Logic asks a Clock and is driven by Tick() calls; only
// adapters sleep, and only callers wait for an answer (wait.h).
#ifndef PREDELLA_COMMON_CLOCK_H_
#define PREDELLA_COMMON_CLOCK_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/mutex.h"

namespace predella {

// Safe for concurrent use.
class Clock {
 public:
  virtual ~Clock() = default;
  // Wall time: for records and people, never for deadlines.
  virtual absl::Time Now() = 0;
  // Time since an arbitrary start that never jumps and goes on while the
  // machine is suspended (CLOCK_BOOTTIME).
  virtual absl::Duration Boot() = 0;
  // For whoever waits for an answer: time since an arbitrary start that never
  // jumps, and stands still while the machine is suspended (CLOCK_MONOTONIC).
  virtual absl::Duration Steady() = 0;
  // Waits for `cv` until at most `timeout` of Steady() has passed; also
  // shorter.
  virtual void WaitFor(CondVar* cv, Mutex* mu, absl::Duration timeout)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) = 0;

  int64_t NowMicros() { return absl::ToUnixMicros(Now()); }
};

// The machine's clocks; lives for ever.
Clock* RealClock();

}  // namespace predella

#endif  // PREDELLA_COMMON_CLOCK_H_
