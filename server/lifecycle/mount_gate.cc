#include "server/lifecycle/mount_gate.h"

namespace predella::server {

MountGate::Adding::Adding(MountGate* gate, const Uuid& mount_uid)
    : gate_(gate), mount_uid_(mount_uid) {
  MutexLock lock(&gate_->mu_);
  while (gate_->mounts_[mount_uid_].counting) {
    gate_->cv_.Wait(&gate_->mu_);
  }
  ++gate_->mounts_[mount_uid_].adding;
}

MountGate::Adding::~Adding() {
  MutexLock lock(&gate_->mu_);
  --gate_->mounts_[mount_uid_].adding;
  gate_->DropIfIdleLocked(mount_uid_);
  gate_->cv_.SignalAll();
}

MountGate::Counting::Counting(MountGate* gate, const Uuid& mount_uid)
    : gate_(gate), mount_uid_(mount_uid) {
  MutexLock lock(&gate_->mu_);
  while (gate_->mounts_[mount_uid_].counting) {
    gate_->cv_.Wait(&gate_->mu_);
  }
  gate_->mounts_[mount_uid_].counting = true;
  while (gate_->mounts_[mount_uid_].adding > 0) {
    gate_->cv_.Wait(&gate_->mu_);
  }
}

MountGate::Counting::~Counting() {
  MutexLock lock(&gate_->mu_);
  gate_->mounts_[mount_uid_].counting = false;
  gate_->DropIfIdleLocked(mount_uid_);
  gate_->cv_.SignalAll();
}

void MountGate::DropIfIdleLocked(const Uuid& mount_uid) {
  const auto it = mounts_.find(mount_uid);
  if (it != mounts_.end() && it->second.adding == 0 && !it->second.counting) {
    mounts_.erase(it);
  }
}

}  // namespace predella::server
