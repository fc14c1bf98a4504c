#include "agent/fs/disk_locks.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/mutex.h"

namespace predella::agent {

DiskLocks::DiskLocks(DiskCalls* calls) : calls_(calls) {
  if (calls_ != nullptr) {
    listener_ = calls_->Listen([this] {
      MutexLock lock(&mu_);
      changed_.SignalAll();
    });
  }
}

DiskLocks::~DiskLocks() {
  if (calls_ != nullptr) {
    calls_->Unlisten(listener_);
  }
}

absl::Status DiskLocks::Lock(const std::string& name) {
  const void* const self = DiskCalls::ThisThread();
  MutexLock lock(&mu_);
  for (;;) {
    const auto [it, free] = held_.emplace(name, self);
    if (free) {
      return absl::OkStatus();
    }
    // Under the lock: a call that gets stuck after this look wakes the wait.
    const absl::Status stuck =
        calls_ == nullptr ? absl::OkStatus() : calls_->StuckCallOf(it->second);
    if (!stuck.ok()) {
      return Annotate(stuck, absl::StrCat(name, " is in use"));
    }
    ++waiting_;
    changed_.Wait(&mu_);
    --waiting_;
  }
}

void DiskLocks::Unlock(const std::string& name) {
  MutexLock lock(&mu_);
  held_.erase(name);
  changed_.SignalAll();
}

int DiskLocks::waiting() {
  MutexLock lock(&mu_);
  return waiting_;
}

DiskLock::DiskLock(DiskLocks* locks, std::string name)
    : locks_(locks), name_(std::move(name)), status_(locks_->Lock(name_)) {}

DiskLock::~DiskLock() {
  if (status_.ok()) {
    locks_->Unlock(name_);
  }
}

}  // namespace predella::agent
