#include "agent/health/mount_state_machine.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"

namespace predella::agent {
namespace {

bool IsFull(const absl::Status& status) {
  return HasReason(status, reason::kMountFull);
}

}  // namespace

MountStateMachine::MountStateMachine(Clock* clock, HealthLimits limits)
    : clock_(clock), limits_(limits) {}

void MountStateMachine::OpenStarted() {
  MutexLock lock(&mu_);
  call_started_ = clock_->Boot();
}

void MountStateMachine::OpenDone(const absl::Status& status) {
  MutexLock lock(&mu_);
  call_started_.reset();
  hung_ = Seen();
  if (status.ok()) {
    open_ = true;
    absent_ = failed_ = suspect_ = read_only_ = Seen();
    clean_ = 0;
    last_probes_.clear();
    latencies_.clear();
    return;
  }
  open_ = false;
  const std::string why(status.message());
  if (HasReason(status, reason::kMountIdentityMismatch) ||
      absl::IsNotFound(status)) {
    absent_ = {true, why};
    failed_ = Seen();
  } else {
    absent_ = Seen();
    failed_ = {true, why};
  }
}

void MountStateMachine::ProbeStarted() {
  MutexLock lock(&mu_);
  call_started_ = clock_->Boot();
}

void MountStateMachine::ProbeDone(const absl::Status& status) {
  MutexLock lock(&mu_);
  CheckHungLocked();
  if (call_started_.has_value()) {
    latencies_.push_back(clock_->Boot() - *call_started_);
    if (latencies_.size() > static_cast<size_t>(limits_.slow_probes)) {
      latencies_.pop_front();
    }
  }
  call_started_.reset();
  const bool good = status.ok() || IsFull(status);
  last_probes_.push_back(good);
  if (last_probes_.size() > 3) {
    last_probes_.pop_front();
  }
  if (!good) {
    clean_ = 0;
    NoteErrorLocked(status);
    if (!HasReason(status, reason::kMountReadOnly) &&
        std::count(last_probes_.begin(), last_probes_.end(), false) >= 2) {
      failed_ = {true, std::string(status.message())};
    }
    return;
  }
  if (++clean_ >= limits_.clean_probes) {
    hung_ = failed_ = suspect_ = read_only_ = Seen();
  }
}

void MountStateMachine::CheckOnlyDone() {
  MutexLock lock(&mu_);
  CheckHungLocked();
  call_started_.reset();
}

void MountStateMachine::IdentityChecked(const absl::Status& status) {
  MutexLock lock(&mu_);
  if (status.ok()) {
    absent_ = Seen();
  } else if (HasReason(status, reason::kMountIdentityMismatch) ||
             absl::IsNotFound(status)) {
    absent_ = {true, std::string(status.message())};
  } else {
    NoteErrorLocked(status);
  }
}

void MountStateMachine::CallDone(const absl::Status& status) {
  MutexLock lock(&mu_);
  CheckHungLocked();
  data_done_ = clock_->Boot();
  NoteErrorLocked(status);
}

void MountStateMachine::StatDone(const absl::Status& status) {
  MutexLock lock(&mu_);
  NoteErrorLocked(status);
}

void MountStateMachine::DamageSeen(absl::string_view what) {
  MutexLock lock(&mu_);
  clean_ = 0;
  suspect_ = {true, std::string(what)};
}

void MountStateMachine::NoteErrorLocked(const absl::Status& status) {
  if (HasReason(status, reason::kMountReadOnly)) {
    clean_ = 0;
    read_only_ = {true, std::string(status.message())};
  } else if (HasReason(status, reason::kMountFailed)) {
    clean_ = 0;
    suspect_ = {true, std::string(status.message())};
  }
}

void MountStateMachine::CheckHungLocked() {
  if (!call_started_.has_value()) {
    return;
  }
  const absl::Duration age = clock_->Boot() - *call_started_;
  // Progress of late: one call that ended just after the stuck one began says
  // nothing of the minutes since.
  const bool moved = data_done_.has_value() && *data_done_ > *call_started_ &&
                     clock_->Boot() - *data_done_ <= limits_.hung_after;
  if (age > limits_.hung_after && !moved) {
    if (!hung_.now) {
      clean_ = 0;
    }
    hung_ = {true, absl::StrCat("a call to the mount has not returned for ",
                                absl::ToInt64Seconds(age), " s")};
  }
}

bool MountStateMachine::SlowLocked(std::string* why) {
  if (latencies_.size() < static_cast<size_t>(limits_.slow_probes)) {
    return false;
  }
  std::vector<absl::Duration> sorted(latencies_.begin(), latencies_.end());
  std::sort(sorted.begin(), sorted.end());
  const absl::Duration p95 = sorted[sorted.size() * 95 / 100];
  if (p95 <= limits_.slow_above) {
    return false;
  }
  *why = absl::StrCat("95 of 100 probes took up to ",
                      absl::ToInt64Milliseconds(p95), " ms; the limit is ",
                      absl::ToInt64Milliseconds(limits_.slow_above), " ms");
  return true;
}

MountView MountStateMachine::View() {
  MutexLock lock(&mu_);
  CheckHungLocked();
  MountView out;
  out.serves_reads = open_;
  out.serves_writes = open_;
  std::string slow;
  if (absent_.now) {
    out = {v1::HEALTH_ABSENT, absent_.why, false, false};
  } else if (hung_.now) {
    out = {v1::HEALTH_HUNG, hung_.why, false, false};
  } else if (failed_.now) {
    out = {v1::HEALTH_FAILED, failed_.why, open_, false};
  } else if (suspect_.now) {
    out = {v1::HEALTH_SUSPECT, suspect_.why, open_, open_};
  } else if (read_only_.now) {
    out = {v1::HEALTH_READ_ONLY, read_only_.why, open_, false};
  } else if (!open_) {
    out.health = v1::HEALTH_UNKNOWN;
    out.detail = "the directory has not been opened yet";
  } else if (SlowLocked(&slow)) {
    out.health = v1::HEALTH_SLOW;
    out.detail = slow;
  } else {
    out.health = v1::HEALTH_ONLINE;
  }
  return out;
}

bool MountStateMachine::FreshTraffic(absl::Duration within) {
  MutexLock lock(&mu_);
  return data_done_.has_value() && clock_->Boot() - *data_done_ <= within;
}

}  // namespace predella::agent
