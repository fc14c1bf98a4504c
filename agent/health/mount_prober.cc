#include "agent/health/mount_prober.h"

#include <utility>

#include "agent/fs/disk_calls.h"

namespace predella::agent {
namespace {

constexpr absl::Duration kIdentityEvery = absl::Seconds(1);
constexpr absl::Duration kProbeEvery = absl::Seconds(2);
// A mount that hung is back within seconds once it answers.
constexpr absl::Duration kProbeEveryHung = absl::Milliseconds(500);
constexpr int kMostSkipped = 4;

}  // namespace

MountProber::MountProber(Executor* executor, Executor* spare, Clock* clock,
                         MountStateMachine* machine)
    : executor_(executor), spare_(spare), clock_(clock), machine_(machine) {}

void MountProber::SetStore(std::shared_ptr<ImageStore> store) {
  MutexLock lock(&mu_);
  if (store_ != nullptr) {
    executor_->Post([old = std::move(store_)] {});
  }
  store_ = std::move(store);
  ++number_;
  left_ += running_ ? 1 : 0;
  running_ = false;
  // Of a directory just opened nothing is known: it is probed at once.
  skipped_ = kMostSkipped;
  next_identity_ = next_probe_ = clock_->Boot();
}

bool MountProber::CurrentLocked(uint64_t number) const {
  return number == number_;
}

void MountProber::Tick() {
  std::shared_ptr<ImageStore> store;
  bool with_probe = false;
  uint64_t number = 0;
  Executor* executor = executor_;
  {
    MutexLock lock(&mu_);
    const absl::Duration now = clock_->Boot();
    if (store_ == nullptr || running_) {
      return;
    }
    const v1::Health health = machine_->View().health;
    const bool hung = health == v1::HEALTH_HUNG;
    if (hung ? now < probed_ + kProbeEveryHung : now < next_identity_) {
      return;
    }
    next_identity_ = now + kIdentityEvery;
    if (hung || now >= next_probe_) {
      next_probe_ = now + kProbeEvery;
      probed_ = now;
      with_probe = skipped_ >= kMostSkipped || health != v1::HEALTH_ONLINE ||
                   !machine_->FreshTraffic(kProbeEvery);
      skipped_ = with_probe ? 0 : skipped_ + 1;
    }
    running_ = true;
    number = number_;
    store = store_;
    executor = left_ > 0 ? spare_ : executor_;
    machine_->ProbeStarted();
  }
  executor->Post([this, with_probe, number, store = std::move(store)] {
    Run(store, with_probe, number);
  });
}

void MountProber::Run(const std::shared_ptr<ImageStore>& store, bool with_probe,
                      uint64_t number) {
  // A probe is many calls, and each of them may take its time.
  const DiskCalls::Steps steps([this, number] {
    MutexLock lock(&mu_);
    if (CurrentLocked(number)) {
      machine_->CallReturned();
    }
  });
  const absl::Status identity = store->CheckIdentity();
  bool wanted = false;
  {
    MutexLock lock(&mu_);
    wanted = CurrentLocked(number);
    if (wanted) {
      machine_->IdentityChecked(identity);
    }
  }
  ProbeOutcome probe;
  // An identity that can not be read for an I/O error is no reason not to
  // look closer.
  const bool probes =
      wanted && with_probe && !MountStateMachine::MeansAbsent(identity);
  if (probes) {
    probe = store->Probe();
  }
  MutexLock lock(&mu_);
  if (!CurrentLocked(number)) {
    --left_;
    return;
  }
  running_ = false;
  if (probes) {
    machine_->ProbeDone(probe);
  } else {
    machine_->CheckOnlyDone();
  }
}

}  // namespace predella::agent
