// Locks that are held over calls to the mount.
//
// Who waits for one waits for the call that its holder is in. When that is
// stuck the wait ends: a thread that stays is one less for the others, and
// eight readers of one image would take all there are.
#ifndef PREDELLA_AGENT_FS_DISK_LOCKS_H_
#define PREDELLA_AGENT_FS_DISK_LOCKS_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

#include "agent/fs/disk_calls.h"
#include "common/mutex.h"

namespace predella::agent {

// By name. Thread-safe; a thread that holds one may take others, but not the
// same again.
class DiskLocks {
 public:
  // Where the calls of the holders are watched; must outlive this. Null: they
  // are not, and a wait has no end of its own.
  explicit DiskLocks(DiskCalls* calls);
  ~DiskLocks();
  DiskLocks(const DiskLocks&) = delete;
  DiskLocks& operator=(const DiskLocks&) = delete;

  // UNAVAILABLE, MOUNT_STALLED, with the call that is waited for, once that is
  // over its limit, and at once when it is already; then it is not held.
  absl::Status Lock(const std::string& name);
  void Unlock(const std::string& name);
  // Threads that wait for one, for tests.
  int waiting();

 private:
  DiskCalls* const calls_;
  uint64_t listener_ = 0;
  Mutex mu_;
  CondVar changed_;
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;
  // The thread that holds it, as DiskCalls knows it.
  absl::flat_hash_map<std::string, const void*> held_ ABSL_GUARDED_BY(mu_);
};

// While it lives, if status() is OK.
class DiskLock {
 public:
  DiskLock(DiskLocks* locks, std::string name);
  ~DiskLock();
  DiskLock(const DiskLock&) = delete;
  DiskLock& operator=(const DiskLock&) = delete;

  const absl::Status& status() const { return status_; }

 private:
  DiskLocks* const locks_;
  const std::string name_;
  const absl::Status status_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_DISK_LOCKS_H_
