#include "agent/scrub/idle_io.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "common/logging.h"

namespace predella::agent {
namespace {

// As in linux/ioprio.h, some versions of which are not C++.
constexpr int kWhoProcess = 1;
constexpr int kClassShift = 13;
constexpr int kClassNone = 0;
constexpr int kClassIdle = 3;

}  // namespace

void SetIdleIo(bool idle) {
  static std::atomic<bool> refused = false;
  if (refused) {
    return;
  }
  // Class "none" follows the thread's nice value, as it was before.
  const int priority = (idle ? kClassIdle : kClassNone) << kClassShift;
  if (syscall(SYS_ioprio_set, kWhoProcess, 0, priority) != 0 &&
      !refused.exchange(true)) {
    LogWarning("idle_io_refused", {{"error", std::strerror(errno)}});
  }
}

}  // namespace predella::agent
