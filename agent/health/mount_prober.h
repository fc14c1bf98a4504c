// Asks a mount regularly whether it is still there and well.
#ifndef PREDELLA_AGENT_HEALTH_MOUNT_PROBER_H_
#define PREDELLA_AGENT_HEALTH_MOUNT_PROBER_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "agent/health/mount_state_machine.h"
#include "agent/store/image_store.h"
#include "common/clock.h"
#include "common/executor.h"
#include "common/mutex.h"

namespace predella::agent {

// The identity every second, a real write and cold read every two; the latter
// is left out while data calls succeed, at most four times in a row, and made
// twice a second while the mount hangs and until it is back. One call
// at a time: a hung one is not followed by others. Thread-safe.
class MountProber {
 public:
  // All must outlive this; `executor` is the probe thread. `spare` has probes
  // while that one hangs in a store that was let go.
  MountProber(Executor* executor, Executor* spare, Clock* clock,
              MountStateMachine* machine);

  // Null: stops. The store is let go on the probe thread.
  void SetStore(std::shared_ptr<ImageStore> store);
  // Starts what is due. Never blocks.
  void Tick();

 private:
  void Run(const std::shared_ptr<ImageStore>& store, bool with_probe,
           uint64_t number);
  // Whether calls of that store still count; what hung in it for long may
  // come back when another one is open.
  bool CurrentLocked(uint64_t number) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Executor* const executor_;
  Executor* const spare_;
  Clock* const clock_;
  MountStateMachine* const machine_;
  Mutex mu_;
  std::shared_ptr<ImageStore> store_ ABSL_GUARDED_BY(mu_);
  uint64_t number_ ABSL_GUARDED_BY(mu_) = 0;  // of the store
  bool running_ ABSL_GUARDED_BY(mu_) = false;
  // Of stores that were let go, and have not come back.
  int left_ ABSL_GUARDED_BY(mu_) = 0;
  int skipped_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Duration next_identity_ ABSL_GUARDED_BY(mu_);
  absl::Duration next_probe_ ABSL_GUARDED_BY(mu_);
  absl::Duration probed_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_HEALTH_MOUNT_PROBER_H_
