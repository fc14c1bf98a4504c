#include "agent/health/mount_state_machine.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "agent/fs/errno_status.h"
#include "common/errors.h"

namespace predella::agent {
namespace {

// Probes in the window before their latency says anything.
constexpr size_t kLeastLatencies = 5;
constexpr size_t kProbesLookedAt = 3;
constexpr int kProbesThatFail = 2;

bool IsFull(const absl::Status& status) {
  return HasReason(status, reason::kMountFull);
}

// Of this process's own want, which says nothing of the mount.
bool IsOurs(const absl::Status& status) {
  return HasReason(status, reason::kAgentOverloaded);
}

}  // namespace

MountStateMachine::MountStateMachine(Clock* clock, HealthLimits limits)
    : clock_(clock), limits_(limits) {}

bool MountStateMachine::MeansAbsent(const absl::Status& status) {
  return HasReason(status, reason::kMountIdentityMismatch) ||
         absl::IsNotFound(status) || MeansGone(status);
}

MountStateMachine::Seen MountStateMachine::Because(const absl::Status& status) {
  return {true, std::string(status.message()), ErrorName(status)};
}

void MountStateMachine::ClearLocked() {
  if (hung_.now) {
    latencies_.clear();  // a hang is not slowness
  }
  hung_ = failed_ = suspect_ = read_only_ = Seen();
}

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
    ClearLocked();
    absent_ = slow_ = Seen();
    clean_ = fast_ = 0;
    last_probes_.clear();
    latencies_.clear();
    return;
  }
  open_ = false;
  if (MeansAbsent(status)) {
    absent_ = Because(status);
    failed_ = Seen();
  } else if (absent_.now && HasReason(status, reason::kMountInUse)) {
    // Calls of before it went away still hold what came back.
    absent_ = Because(status);
  } else {
    absent_ = Seen();
    failed_ = Because(status);
  }
}

void MountStateMachine::ProbeStarted() {
  MutexLock lock(&mu_);
  probe_started_ = call_started_ = clock_->Boot();
}

void MountStateMachine::CallReturned() {
  MutexLock lock(&mu_);
  CheckHungLocked();
  if (call_started_.has_value()) {
    call_started_ = clock_->Boot();
  }
}

void MountStateMachine::ProbeDone(const ProbeOutcome& outcome) {
  MutexLock lock(&mu_);
  CheckHungLocked();
  if (outcome.read.ok() && probe_started_.has_value()) {
    read_well_ = probe_started_;
  }
  NoteLatencyLocked();
  call_started_.reset();
  if (IsOurs(outcome.write) || IsOurs(outcome.read)) {
    return;
  }
  const bool wrote = outcome.write.ok() || IsFull(outcome.write);
  last_probes_.push_back({wrote, outcome.read.ok()});
  if (last_probes_.size() > kProbesLookedAt) {
    last_probes_.pop_front();
  }
  if (wrote && outcome.read.ok()) {
    if (++clean_ >= limits_.clean_probes) {
      ClearLocked();
    }
    return;
  }
  clean_ = 0;
  NoteErrorLocked(outcome.write);
  NoteErrorLocked(outcome.read);
  if (absl::IsDataLoss(outcome.read)) {
    suspect_ = Because(outcome.read);
  }
  const auto failed = [this](auto which) {
    mu_.AssertHeld();
    return std::count_if(last_probes_.begin(), last_probes_.end(), which) >=
           kProbesThatFail;
  };
  if (!outcome.read.ok() && failed([](Halves h) { return !h.read; })) {
    failed_ = Because(outcome.read);
  }
  if (!wrote && failed([](Halves h) { return !h.write && h.read; })) {
    read_only_ = Because(outcome.write);
  }
}

void MountStateMachine::CheckOnlyDone() {
  MutexLock lock(&mu_);
  CheckHungLocked();
  call_started_.reset();
  probe_started_.reset();
}

void MountStateMachine::IdentityChecked(const absl::Status& status) {
  MutexLock lock(&mu_);
  if (MeansAbsent(status)) {
    absent_ = Because(status);
  } else {
    NoteErrorLocked(status);
  }
}

void MountStateMachine::CallDone(const absl::Status& status) {
  MutexLock lock(&mu_);
  CheckHungLocked();
  if (HasReason(status, reason::kMountStalled)) {
    return;  // it was not made: one that is stuck is in its way
  }
  data_done_ = clock_->Boot();
  NoteErrorLocked(status);
}

void MountStateMachine::StatDone(const absl::Status& status) {
  MutexLock lock(&mu_);
  NoteErrorLocked(status);
}

void MountStateMachine::NoThreadIsLeft(absl::string_view why) {
  MutexLock lock(&mu_);
  clean_ = 0;
  hung_ = {true, std::string(why), ""};
}

void MountStateMachine::DamageSeen(absl::string_view what) {
  MutexLock lock(&mu_);
  clean_ = 0;
  suspect_ = {true, std::string(what), ""};
}

void MountStateMachine::NoteErrorLocked(const absl::Status& status) {
  if (HasReason(status, reason::kMountReadOnly)) {
    clean_ = 0;
    read_only_ = Because(status);
  } else if (HasReason(status, reason::kMountFailed)) {
    clean_ = 0;
    suspect_ = Because(status);
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
    hung_ = {true,
             absl::StrCat("a call to the mount has not returned for ",
                          absl::ToInt64Seconds(age), " s"),
             ""};
  }
}

void MountStateMachine::NoteLatencyLocked() {
  if (!probe_started_.has_value()) {
    return;
  }
  const absl::Duration now = clock_->Boot();
  const absl::Duration took = now - *probe_started_;
  probe_started_.reset();
  latencies_.push_back({now, took});
  // One that is older stays: the window is full. As do as many as say anything,
  // for few slow probes fit into it.
  while (latencies_.size() > kLeastLatencies &&
         latencies_[1].at <= now - limits_.slow_for) {
    latencies_.pop_front();
  }
  fast_ = took <= limits_.slow_above ? fast_ + 1 : 0;
  if (slow_.now && fast_ >= limits_.clean_probes) {
    slow_ = Seen();
    latencies_.clear();
    return;
  }
  if (latencies_.size() < kLeastLatencies ||
      latencies_.front().at > now - limits_.slow_for) {
    return;
  }
  std::vector<absl::Duration> sorted;
  for (const Latency& latency : latencies_) {
    sorted.push_back(latency.took);
  }
  std::sort(sorted.begin(), sorted.end());
  // Never the slowest alone: among few probes it is the 95th percentile.
  const absl::Duration p95 =
      sorted[std::min(sorted.size() * 95 / 100, sorted.size() - 2)];
  if (p95 > limits_.slow_above) {
    slow_ = {true,
             absl::StrCat("95 of 100 probes took up to ",
                          absl::ToInt64Milliseconds(p95), " ms; the limit is ",
                          absl::ToInt64Milliseconds(limits_.slow_above), " ms"),
             ""};
  }
}

MountView MountStateMachine::View() {
  MutexLock lock(&mu_);
  CheckHungLocked();
  const struct {
    const Seen& seen;
    v1::Health health;
    bool reads;
    bool writes;
  } states[] = {
      {absent_, v1::HEALTH_ABSENT, false, false},
      {hung_, v1::HEALTH_HUNG, false, false},
      {failed_, v1::HEALTH_FAILED, open_, false},
      {suspect_, v1::HEALTH_SUSPECT, open_, open_ && !read_only_.now},
      {read_only_, v1::HEALTH_READ_ONLY, open_, false},
  };
  for (const auto& state : states) {
    if (state.seen.now) {
      return {state.health, state.seen.why, state.seen.error, state.reads,
              state.writes};
    }
  }
  if (!open_) {
    return {v1::HEALTH_UNKNOWN, "the directory has not been opened yet", "",
            false, false};
  }
  return slow_.now ? MountView{v1::HEALTH_SLOW, slow_.why, "", true, true}
                   : MountView{v1::HEALTH_ONLINE, "", "", true, true};
}

bool MountStateMachine::FreshTraffic(absl::Duration within) {
  MutexLock lock(&mu_);
  return data_done_.has_value() && clock_->Boot() - *data_done_ <= within;
}

bool MountStateMachine::ProbeReadSince(absl::Duration since) {
  MutexLock lock(&mu_);
  return read_well_.has_value() && *read_well_ > since;
}

}  // namespace predella::agent
