#include "common/process_tuning.h"

#include <malloc.h>

#include "absl/synchronization/mutex.h"

#include "common/logging.h"

namespace predella {
namespace {

// glibc refuses a larger threshold (half of its HEAP_MAX_SIZE) and would then
// keep 128 KiB, no longer adjusting it by itself.
constexpr int kMmapThreshold = 32 << 20;
constexpr int kTrimThreshold = 256 << 20;
constexpr int kTopPad = 16 << 20;

}  // namespace

void TuneProcess() {
  if (mallopt(M_MMAP_THRESHOLD, kMmapThreshold) == 0 ||
      mallopt(M_TRIM_THRESHOLD, kTrimThreshold) == 0 ||
      mallopt(M_TOP_PAD, kTopPad) == 0) {
    LogWarning("malloc_not_tuned", {});
  }
#ifdef NDEBUG
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
}

}  // namespace predella
