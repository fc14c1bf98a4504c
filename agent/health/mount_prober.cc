#include "agent/health/mount_prober.h"

#include <utility>

namespace predella::agent {
namespace {

constexpr absl::Duration kIdentityEvery = absl::Seconds(1);
constexpr absl::Duration kProbeEvery = absl::Seconds(2);
constexpr int kMostSkipped = 4;

}  // namespace

MountProber::MountProber(Executor* executor, Clock* clock,
                         MountStateMachine* machine)
    : executor_(executor), clock_(clock), machine_(machine) {}

void MountProber::SetStore(std::shared_ptr<ImageStore> store) {
  MutexLock lock(&mu_);
  if (store_ != nullptr) {
    executor_->Post([old = std::move(store_)] {});
  }
  store_ = std::move(store);
  skipped_ = 0;
}

void MountProber::Tick() {
  std::shared_ptr<ImageStore> store;
  bool with_probe = false;
  {
    MutexLock lock(&mu_);
    const absl::Duration now = clock_->Boot();
    if (store_ == nullptr || running_ || now < next_identity_) {
      return;
    }
    next_identity_ = now + kIdentityEvery;
    if (now >= next_probe_) {
      next_probe_ = now + kProbeEvery;
      with_probe = skipped_ >= kMostSkipped ||
                   machine_->View().health != v1::HEALTH_ONLINE ||
                   !machine_->FreshTraffic(kProbeEvery);
      skipped_ = with_probe ? 0 : skipped_ + 1;
    }
    running_ = true;
    store = store_;
  }
  machine_->ProbeStarted();
  executor_->Post(
      [this, with_probe, store = std::move(store)] { Run(store, with_probe); });
}

void MountProber::Run(const std::shared_ptr<ImageStore>& store,
                      bool with_probe) {
  const absl::Status identity = store->CheckIdentity();
  machine_->IdentityChecked(identity);
  if (with_probe && identity.ok()) {
    machine_->ProbeDone(store->Probe());
  } else {
    machine_->CheckOnlyDone();
  }
  MutexLock lock(&mu_);
  running_ = false;
}

}  // namespace predella::agent
