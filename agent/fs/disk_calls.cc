#include "agent/fs/disk_calls.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"

namespace predella::agent {
namespace {

// Ticks come four times a second; a loaded machine makes them late.
constexpr absl::Duration kLongestPause = absl::Seconds(3);
// What is remembered of slow calls: this long, and up to twice as long.
constexpr absl::Duration kSlowWindow = absl::Seconds(30);
// A call of ours is several of the file system's: some of them more than
// others.
constexpr int kSlowFactor = 4;

thread_local DiskCalls::Work* t_work = nullptr;
thread_local DiskCalls::Steps* t_steps = nullptr;
thread_local bool t_unreplaced = false;
thread_local char t_thread = 0;  // its address names the thread

}  // namespace

struct DiskCalls::Work::State {
  Mutex mu;  // held while it is told
  Stalled stalled ABSL_GUARDED_BY(mu);
  Returned returned ABSL_GUARDED_BY(mu);
  bool told ABSL_GUARDED_BY(mu) = false;
  bool finished ABSL_GUARDED_BY(mu) = false;
  // The last call that came back late; they are made one after the other.
  uint64_t late ABSL_GUARDED_BY(mu) = 0;

  void Tell(uint64_t call, const absl::Status& why) {
    MutexLock lock(&mu);
    if (!finished && call > late) {
      told = true;
      stalled(why);
    }
  }
  void Return(uint64_t call) {
    MutexLock lock(&mu);
    late = std::max(late, call);
    if (!finished && told && returned) {
      returned();
    }
  }
};

DiskCalls::Work::Work(DiskCalls* calls, Stalled stalled, Returned returned)
    : state_(calls == nullptr ? nullptr : std::make_shared<State>()),
      outer_(t_work) {
  if (state_ != nullptr) {
    MutexLock lock(&state_->mu);
    state_->stalled = std::move(stalled);
    state_->returned = std::move(returned);
  }
  t_work = this;
}

DiskCalls::Work::~Work() {
  Finish();
  t_work = outer_;
}

bool DiskCalls::Work::Finish() {
  if (state_ == nullptr) {
    return false;
  }
  MutexLock lock(&state_->mu);
  state_->finished = true;
  // What it holds is let go on the work's own thread, which may close files.
  state_->stalled = nullptr;
  state_->returned = nullptr;
  return state_->told;
}

DiskCalls::Call::Call(DiskCalls* calls, Kind kind, absl::string_view op,
                      absl::string_view path, absl::Duration more)
    : calls_(calls) {
  Running running;
  running.kind = kind;
  running.limit = calls_->LimitOf(kind) + more;
  running.thread = ThisThread();
  running.op = std::string(op);
  running.path = std::string(path);
  running.counts = !t_unreplaced;
  if (t_work != nullptr) {
    running.work = t_work->state_;
  }
  number_ = calls_->Begin(std::move(running));
}

DiskCalls::Call::~Call() {
  calls_->End(number_);
  if (t_steps != nullptr) {
    t_steps->returned_();
  }
}

DiskCalls::Steps::Steps(std::function<void()> returned)
    : returned_(std::move(returned)), outer_(std::exchange(t_steps, this)) {}

DiskCalls::Steps::~Steps() { t_steps = outer_; }

DiskCalls::DiskCalls(Clock* clock, int threads, DiskCallLimits limits)
    : clock_(clock), threads_(threads), limits_(limits) {}

void DiskCalls::MarkUnreplaced() { t_unreplaced = true; }

const void* DiskCalls::ThisThread() { return &t_thread; }

absl::Duration DiskCalls::LimitOf(Kind kind) const {
  switch (kind) {
    case Kind::kData:
      return limits_.data;
    case Kind::kSync:
      return limits_.sync;
    case Kind::kMetadata:
      break;
  }
  return limits_.metadata;
}

void DiskCalls::ForgetSlowLocked(absl::Duration now) {
  if (now - slow_since_ < kSlowWindow) {
    return;
  }
  slowest_before_ =
      now - slow_since_ < 2 * kSlowWindow ? slowest_ : absl::ZeroDuration();
  slowest_ = absl::ZeroDuration();
  slow_since_ = now;
}

absl::Duration DiskCalls::LimitLocked(const Running& call, absl::Duration now) {
  ForgetSlowLocked(now);
  const absl::Duration patience =
      kSlowFactor * std::max(slowest_, slowest_before_);
  return std::max(call.limit, std::min(patience, limits_.sync));
}

uint64_t DiskCalls::Begin(Running running) {
  running.started = clock_->Boot();
  MutexLock lock(&mu_);
  running_.emplace(++last_, std::move(running));
  return last_;
}

void DiskCalls::End(uint64_t number) {
  Running ended;
  absl::Duration age;
  {
    MutexLock lock(&mu_);
    const auto it = running_.find(number);
    ended = std::move(it->second);
    running_.erase(it);
    age = clock_->Boot() - ended.started;
    if (!ended.overdue) {
      // A sync is slow on a disk that is well.
      if (ended.kind != Kind::kSync) {
        ForgetSlowLocked(clock_->Boot());
        slowest_ = std::max(slowest_, age);
      }
      return;
    }
    stuck_ -= ended.counts ? 1 : 0;
    --overdue_;
  }
  LogInfo("disk_call_returned", {{"call", ended.op},
                                 {"path", ended.path},
                                 {"seconds", absl::ToInt64Seconds(age)}});
  if (ended.work != nullptr) {
    ended.work->Return(number);
  }
}

absl::Status DiskCalls::WhyStuck(const Running& call, absl::Duration now) {
  const int64_t age = absl::ToInt64Seconds(now - call.started);
  const int64_t limit = absl::ToInt64Seconds(call.limit);
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kMountStalled,
      absl::StrCat(call.op, " of ", call.path.empty() ? "." : call.path,
                   " has not returned for ", age, " s; the limit is ", limit,
                   " s"),
      {{"call", call.op},
       {"age_seconds", absl::StrCat(age)},
       {"limit_seconds", absl::StrCat(limit)}});
}

absl::Status DiskCalls::StuckCallOf(const void* thread) {
  MutexLock lock(&mu_);
  for (const auto& [number, call] : running_) {
    if (call.overdue && call.thread == thread) {
      return WhyStuck(call, clock_->Boot());
    }
  }
  return absl::OkStatus();
}

uint64_t DiskCalls::Listen(std::function<void()> changed) {
  MutexLock lock(&listeners_mu_);
  listeners_.emplace(++last_listener_, std::move(changed));
  return last_listener_;
}

void DiskCalls::Unlisten(uint64_t number) {
  MutexLock lock(&listeners_mu_);
  listeners_.erase(number);
}

void DiskCalls::Tick() {
  struct Told {
    uint64_t number;
    std::shared_ptr<Work::State> work;
    absl::Status why;
  };
  std::vector<Told> told;
  {
    MutexLock lock(&mu_);
    const absl::Duration now = clock_->Boot();
    // While the machine was suspended, or this process stopped, no call could
    // return.
    const absl::Duration away = last_tick_.has_value()
                                    ? now - *last_tick_ - kLongestPause
                                    : absl::ZeroDuration();
    last_tick_ = now;
    for (auto& [number, call] : running_) {
      if (away > absl::ZeroDuration()) {
        call.started = std::min(call.started + away, now);
      }
      if (call.overdue || now - call.started <= LimitLocked(call, now)) {
        continue;
      }
      call.limit = LimitLocked(call, now);
      call.overdue = true;
      stuck_ += call.counts ? 1 : 0;
      ++overdue_;
      told.push_back({number, call.work, WhyStuck(call, now)});
    }
  }
  if (told.empty()) {
    return;
  }
  for (const Told& each : told) {
    LogWarning("disk_call_stuck",
               {{"error", each.why.ToString()}, {"threads_stuck", stuck()}});
    if (each.work != nullptr) {
      each.work->Tell(each.number, each.why);
    }
  }
  MutexLock lock(&listeners_mu_);
  for (const auto& [number, changed] : listeners_) {
    changed();
  }
}

int DiskCalls::stuck() {
  MutexLock lock(&mu_);
  return stuck_;
}

int DiskCalls::overdue() {
  MutexLock lock(&mu_);
  return overdue_;
}

int DiskCalls::replaced() { return std::min(stuck(), threads_); }

bool DiskCalls::exhausted(int missing) {
  return stuck() >= 2 * threads_ - missing;
}

absl::Status DiskCalls::WhyExhausted(int missing) {
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kMountStalled,
      absl::StrCat("all ", 2 * threads_ - missing,
                   " threads for the mount (--disk-threads and as many again",
                   missing == 0 ? ""
                                : absl::StrCat(", of which the system gave ",
                                               missing, " less"),
                   ") are stuck in calls that do not return"));
}

}  // namespace predella::agent
