#include "agent/scrub/idle_io.h"

#include <linux/ioprio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "common/logging.h"

namespace predella::agent {

void SetIdleIo(bool idle) {
  static std::atomic<bool> refused = false;
  if (refused) {
    return;
  }
  // Class "none" follows the thread's nice value, as it was before.
  const int priority = idle ? IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)
                            : IOPRIO_PRIO_VALUE(IOPRIO_CLASS_NONE, 0);
  if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) != 0 &&
      !refused.exchange(true)) {
    LogWarning("idle_io_refused", {{"error", std::strerror(errno)}});
  }
}

}  // namespace predella::agent
