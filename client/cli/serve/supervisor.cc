#include "client/cli/serve/supervisor.h"

#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/errors.h"
#include "common/logging.h"

namespace predella::cli {

Supervisor::Supervisor(std::vector<ChildSpec> specs, ProcessRunner* runner,
                       Clock* clock, IdGenerator* ids, absl::Duration drain)
    : runner_(runner), clock_(clock), drain_(drain) {
  for (ChildSpec& spec : specs) {
    children_.push_back(
        Child{std::move(spec), Backoff(kFirstBackoff, kMostBackoff, ids), 0, "",
              absl::ZeroDuration(), absl::ZeroDuration(), std::nullopt});
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
  child->hollow_since.reset();
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
    status_ = absl::InvalidArgumentError(
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
  if (!stopping_) {
    stopping_ = true;
    stop_begun_ = clock_->Boot();
    SignalAll(false, SIGTERM);
  } else {
    impatient_ = true;
  }
  ContinueStop();
}

void Supervisor::ContinueStop() {
  Press(false, drain_ + kPastDrain);
  if (AnyRunning(false)) {
    return;
  }
  if (!last_stopping_) {
    last_stopping_ = true;
    killed_.reset();
    stop_begun_ = clock_->Boot();
    SignalAll(true, SIGTERM);
  }
  Press(true, kDrain + kPastDrain);
}

void Supervisor::Press(bool last, absl::Duration limit) {
  if (!AnyRunning(last)) {
    return;
  }
  const absl::Duration now = clock_->Boot();
  if (!killed_.has_value() && (impatient_ || now - stop_begun_ >= limit)) {
    LogError("children_killed",
             {{"after_s", absl::ToInt64Seconds(now - stop_begun_)}});
    SignalAll(last, SIGKILL);
    killed_ = now;
  }
  for (Child& child : children_) {
    if (child.pid == 0 || child.spec.stops_last != last) {
      continue;
    }
    if (!child.hollow_since.has_value() && runner_->Hollow(child.pid)) {
      child.hollow_since = now;
    }
    const std::optional<absl::Duration> since =
        child.hollow_since.has_value() ? child.hollow_since : killed_;
    if (since.has_value() && now - *since >= kLetGo) {
      Leave(&child);
    }
  }
}

void Supervisor::Leave(Child* child) {
  LogError("child_left_behind",
           {{"child", child->spec.name}, {"pid", child->pid}});
  left_.push_back(absl::StrCat(child->spec.name, " (pid ", child->pid, ")"));
  child->pid = 0;
  if (status_.ok() || absl::IsInternal(status_)) {
    status_ = absl::InternalError(
        absl::StrCat("left behind: ", absl::StrJoin(left_, ", "),
                     ". The kernel does not let it go from a call to a file "
                     "system that hangs; it ends when that answers, and does "
                     "nothing more"));
  }
}

bool Supervisor::stopped() const {
  return stopping_ && !AnyRunning(false) && !AnyRunning(true);
}

}  // namespace predella::cli
