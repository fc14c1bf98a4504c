#include "client/cli/serve/supervisor.h"

#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"

namespace predella::cli {

Supervisor::Supervisor(std::vector<ChildSpec> specs, ProcessRunner* runner,
                       Clock* clock, IdGenerator* ids)
    : runner_(runner), clock_(clock) {
  for (ChildSpec& spec : specs) {
    children_.push_back(Child{std::move(spec),
                              Backoff(kFirstBackoff, kMostBackoff, ids), 0, "",
                              absl::ZeroDuration(), absl::ZeroDuration()});
  }
}

void Supervisor::Tick() {
  for (const ChildExit& exit : runner_->Reap()) {
    for (Child& child : children_) {
      if (child.pid == exit.pid) {
        Ended(&child, exit);
      }
    }
  }
  if (stopping_) {
    ContinueStop();
    return;
  }
  for (Child& child : children_) {
    if (child.pid == 0 && clock_->Boot() >= child.due) {
      Start(&child);
    }
  }
}

void Supervisor::Start(Child* child) {
  const absl::StatusOr<int64_t> pid = runner_->Start(child->spec.argv);
  if (!pid.ok()) {
    Retry(child, std::string(pid.status().message()));
    return;
  }
  child->pid = *pid;
  child->started = clock_->Boot();
  LogInfo("child_started", {{"child", child->spec.name}, {"pid", *pid}});
}

void Supervisor::Ended(Child* child, const ChildExit& exit) {
  child->pid = 0;
  if (stopping_) {
    LogInfo("child_stopped",
            {{"child", child->spec.name}, {"how", exit.ToString()}});
    return;
  }
  if (exit.signal == 0 && exit.code == kExitConfiguration) {
    status_ = absl::FailedPreconditionError(
        absl::StrCat(child->spec.name,
                     " cannot run as it is configured; what it said stands "
                     "above"));
    RequestStop();
    return;
  }
  if (!ready_ && child->spec.stops_last && ++vain_starts_ >= kMostVainStarts) {
    status_ = absl::FailedPreconditionError(absl::StrCat(
        child->spec.name, " ended ", vain_starts_,
        " times before it ever served; what it said stands above"));
    RequestStop();
    return;
  }
  if (clock_->Boot() - child->started >= kResetAfter) {
    child->backoff.Reset();
  }
  Retry(child, exit.ToString());
}

void Supervisor::Retry(Child* child, const std::string& why) {
  const absl::Duration delay = child->backoff.Next();
  child->due = clock_->Boot() + delay;
  child->last_end = why;
  LogError("child_died", {{"child", child->spec.name},
                          {"how", why},
                          {"again_in_ms", absl::ToInt64Milliseconds(delay)}});
}

std::string Supervisor::LastEnd(absl::string_view name) const {
  for (const Child& child : children_) {
    if (child.spec.name != name) {
      continue;
    }
    // One that was just started again ends again more often than not.
    const bool settled =
        child.pid != 0 && clock_->Boot() - child.started >= kResetAfter;
    return settled ? "" : child.last_end;
  }
  return "";
}

bool Supervisor::AnyRunning(bool last) const {
  for (const Child& child : children_) {
    if (child.pid != 0 && child.spec.stops_last == last) {
      return true;
    }
  }
  return false;
}

void Supervisor::SignalAll(bool last, int signal) {
  for (const Child& child : children_) {
    if (child.pid != 0 && child.spec.stops_last == last) {
      runner_->Signal(child.pid, signal);
    }
  }
}

void Supervisor::RequestStop() {
  if (stopping_) {
    killed_ = true;
    SignalAll(false, SIGKILL);
    SignalAll(true, SIGKILL);
    return;
  }
  stopping_ = true;
  stop_begun_ = clock_->Boot();
  SignalAll(false, SIGTERM);
  ContinueStop();
}

void Supervisor::ContinueStop() {
  const bool late = clock_->Boot() - stop_begun_ >= kStopFor;
  if (AnyRunning(false)) {
    if (late && !killed_) {
      LogError("children_killed",
               {{"after_s", absl::ToInt64Seconds(kStopFor)}});
      SignalAll(false, SIGKILL);
      killed_ = true;
    }
    return;
  }
  if (!last_stopping_) {
    last_stopping_ = true;
    killed_ = false;
    stop_begun_ = clock_->Boot();
    SignalAll(true, SIGTERM);
  } else if (late && !killed_ && AnyRunning(true)) {
    SignalAll(true, SIGKILL);
    killed_ = true;
  }
}

bool Supervisor::stopped() const {
  return stopping_ && !AnyRunning(false) && !AnyRunning(true);
}

}  // namespace predella::cli
