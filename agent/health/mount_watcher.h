// Notices within milliseconds that something else is mounted on a path.
#ifndef PREDELLA_AGENT_HEALTH_MOUNT_WATCHER_H_
#define PREDELLA_AGENT_HEALTH_MOUNT_WATCHER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"

#include "agent/fs/mount_table.h"
#include "common/mutex.h"

namespace predella::agent {

// What lies on the path.
struct MountSighting {
  // Of the last LookAgain before the table was read.
  uint64_t ticket = 0;
  std::optional<int64_t> mount_id;  // absent: the table does not say
  std::string what;                 // "tmpfs none on /srv/store-1"
};

// Reads the table whenever the kernel says that it changed, and once a
// second. Never touches what is mounted: it goes on while every other thread
// is stuck there. Thread-safe but for Run.
class MountWatcher {
 public:
  using Seen = std::function<void(const MountSighting&)>;
  // `seen` is called on Run's thread, after every look.
  MountWatcher(std::unique_ptr<MountTable> table, std::string path, Seen seen);

  // Until Stop, on a thread of its own. One that can be left behind: should a
  // directory above the path hang, the links of the path can't be read.
  void Run();
  // `seen` is not called any more once this returned.
  void Stop();
  // What later looks see bears at least the number that is returned. Only
  // counts, so that disk threads may call it.
  uint64_t LookAgain();
  // Looks now. Uses a descriptor: only on threads that see the process's table
  // of them, never on a disk thread.
  void Wake();
  // One look, on the calling thread.
  void Look();

 private:
  const std::unique_ptr<MountTable> table_;
  const std::string path_;
  std::string canonical_;  // the last that could be resolved; Run's thread
  std::atomic<uint64_t> asked_{0};
  std::atomic<bool> stopped_{false};
  Mutex mu_;
  Seen seen_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_HEALTH_MOUNT_WATCHER_H_
