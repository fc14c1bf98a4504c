// Time as a seam. Logic asks a Clock and is driven by Tick() calls; only
// adapters sleep.
#ifndef PREDELLA_COMMON_CLOCK_H_
#define PREDELLA_COMMON_CLOCK_H_

#include <cstdint>

#include "absl/time/time.h"

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

  int64_t NowMicros() { return absl::ToUnixMicros(Now()); }
};

// The machine's clocks; lives for ever.
Clock* RealClock();

}  // namespace predella

#endif  // PREDELLA_COMMON_CLOCK_H_
