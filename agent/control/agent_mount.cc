// Opening the directory, losing it, and what is seen of it: a part of
// AgentCore.
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "agent/control/agent_core.h"
#include "agent/fs/disk_calls.h"
#include "common/errors.h"
#include "common/logging.h"

namespace predella::agent {
namespace {

constexpr absl::Duration kOpenRetry = absl::Seconds(2);
constexpr absl::Duration kOpenHangs = absl::Seconds(2);
// Each holds a disk thread.
constexpr int kMostLeftOpens = 3;

}  // namespace

absl::Status NotServing(const MountView& view) {
  if (view.health == v1::HEALTH_READ_ONLY) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kMountReadOnly, view.detail);
  }
  if (view.health == v1::HEALTH_HUNG) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kMountStalled,
                     view.detail);
  }
  if (view.health == v1::HEALTH_ABSENT || view.health == v1::HEALTH_FAILED) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed,
                     view.detail);
  }
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kNotReady,
      view.detail.empty() ? "the mount is not ready" : view.detail);
}

void AgentCore::TryOpenLocked() {
  const absl::Duration now = seams_.clock->Boot();
  if (store_ != nullptr || opening_ || now < next_open_) {
    return;
  }
  opening_ = true;
  opening_since_ = now;
  opening_mount_ = seen_mount_;
  machine_.OpenStarted();
  seams_.disk->Post([this, number = ++open_number_, memory = memory_] {
    RunOpen(number, memory);
  });
}

void AgentCore::RunOpen(uint64_t number, const MountMemory& memory) {
  // Opening is many calls, and each of them may take its time. Only of those
  // made without mu_.
  std::optional<DiskCalls::Steps> steps;
  steps.emplace([this, number] {
    MutexLock lock(&mu_);
    if (number == open_number_ && opening_) {
      machine_.CallReturned();
    }
  });
  absl::StatusOr<std::shared_ptr<ImageStore>> opened =
      seams_.open_store(memory);
  storage::v1::MountLabel label;
  std::vector<storage::v1::FenceEntry> known;
  absl::Status status = opened.status();
  if (opened.ok()) {
    label = (*opened)->label();
    known = (*opened)->Known();
    status = ReadSpace(opened->get()).status();
  }
  steps.reset();
  bool fatal = false;
  {
    MutexLock lock(&mu_);
    if (number != open_number_) {
      --left_opens_;  // it hung in what was mounted here before
      return;
    }
    machine_.OpenDone(status);
    opening_ = false;
    next_open_ = seams_.clock->Boot() + kOpenRetry;
    if (stopped_) {
      return;
    }
    if (status.ok()) {
      TakeStoreLocked(*std::move(opened), label, known);
    } else {
      // One of ours that was left behind may hold it.
      fatal = !opened_once_ && left_opens_ == 0 &&
              HasReason(status, reason::kMountInUse);
      NotOpenedLocked(status);
    }
  }
  if (fatal) {
    seams_.fatal(status);
  }
}

void AgentCore::TakeStoreLocked(
    std::shared_ptr<ImageStore> store, const storage::v1::MountLabel& label,
    const std::vector<storage::v1::FenceEntry>& known) {
  store_ = std::move(store);
  unreadable_.clear();
  label_ = label;
  if (memory_.mount_uid != label.mount_uid()) {
    memory_ = MountMemory();
    memory_.mount_uid = label.mount_uid();
  }
  memory_.cluster_uid = label.cluster_uid();
  for (const storage::v1::FenceEntry& entry : known) {
    KnowEpochLocked(entry.epoch(), entry.nonce());
  }
  table_.SetStore(store_);
  prober_.SetStore(store_);
  LogInfo("mount_opened",
          {{"mount", identity_.mount_name},
           {"path", identity_.path},
           {"uid", Uuid::FromBytesOrNone(label.mount_uid()).ToString()},
           {"images", store_->image_count()}});
  // Something may have been mounted over it while it was being opened.
  if (seams_.look_again) {
    store_ticket_ = seams_.look_again();
  }
  if (phase_ == Phase::kWelcomed) {
    ReportLocked(session_.current());
  } else if (phase_ == Phase::kReporting || phase_ == Phase::kReported) {
    session_.Disconnect(session_.current(),
                        "the mount came back and registers again");
  }
  opened_once_ = true;
  open_error_.clear();
}

void AgentCore::NotOpenedLocked(const absl::Status& status) {
  if (status.message() != open_error_) {
    LogWarning("mount_not_opened",
               {{"mount", identity_.mount_name}, {"error", status.ToString()}});
    open_error_ = std::string(status.message());
  }
}

void AgentCore::LoseStoreLocked() {
  const MountView view = machine_.View();
  LogError("mount_lost", {{"mount", identity_.mount_name},
                          {"path", identity_.path},
                          {"detail", view.detail}});
  LetGoLocked(NotServing(view));
}

void AgentCore::ReopenLocked() {
  LogInfo("mount_writable_again",
          {{"mount", identity_.mount_name}, {"path", identity_.path}});
  LetGoLocked(MakeError(
      absl::StatusCode::kUnavailable, reason::kNotReady,
      absl::StrCat(identity_.path,
                   " takes writes again, and is opened anew for them")));
}

void AgentCore::LetGoLocked(const absl::Status& why) {
  prober_.SetStore(nullptr);
  scrubber_.End();
  table_.DropStore(why);
  EndReadsLocked(why);  // they hold the directory's lock
  seams_.disk->Post([store = std::move(store_)] {});
  store_ = nullptr;
  // What hangs in the old one holds up nothing of the next.
  session_strand_ = Strand(seams_.disk);
  space_running_ = fence_syncing_ = false;
  listing_ = 0;
  // What the old one was told says nothing of what the next has on its disk.
  fence_written_ = last_heard_ = Generation();
  fence_dirty_since_.reset();
  may_collect_ = false;
  next_open_ = seams_.clock->Boot() + kOpenRetry;
}

void AgentCore::OnMountSeen(const MountSighting& seen) {
  MutexLock lock(&mu_);
  if (stopped_) {
    return;
  }
  const bool other = seen.mount_id != seen_mount_;
  seen_mount_ = seen.mount_id;
  if (store_ == nullptr) {
    if (other) {
      next_open_ = seams_.clock->Boot();
    }
    // An open that hangs in what was mounted here before is left behind.
    if (opening_ && opening_mount_.has_value() && seen.mount_id.has_value() &&
        *opening_mount_ != *seen.mount_id && left_opens_ < kMostLeftOpens &&
        seams_.clock->Boot() - opening_since_ > kOpenHangs) {
      ++left_opens_;
      ++open_number_;
      opening_ = false;
    }
    return;
  }
  const std::optional<int64_t> opened = store_->mount_id();
  if (seen.ticket < store_ticket_ || !opened.has_value() ||
      !seen.mount_id.has_value() || *opened == *seen.mount_id) {
    return;
  }
  machine_.IdentityChecked(MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
      absl::StrCat("what was mounted on ", identity_.path,
                   " when it was opened is not there any more; there is ",
                   seen.what, " now")));
  LoseStoreLocked();
  next_open_ = seams_.clock->Boot();  // it may be the right one
  NoticeHealthLocked();
}

void AgentCore::EndReadsLocked(const absl::Status& why) {
  for (const std::weak_ptr<ReadStream>& weak : std::exchange(readers_, {})) {
    if (const std::shared_ptr<ReadStream> reader = weak.lock()) {
      reader->Stalled(why);
    }
  }
}

void AgentCore::NoticeHealthLocked() {
  const MountView view = machine_.View();
  if (view.health == v1::HEALTH_HUNG) {
    EndReadsLocked(NotServing(view));
  } else {
    std::erase_if(readers_, [](const auto& r) { return r.expired(); });
  }
  if (view.health == told_health_) {
    return;
  }
  const std::string from = v1::Health_Name(told_health_);
  told_health_ = view.health;
  if (view.health == v1::HEALTH_ONLINE) {
    LogInfo("mount_health", {{"mount", identity_.mount_name},
                             {"from", from},
                             {"to", v1::Health_Name(view.health)}});
  } else {
    LogWarning("mount_health", {{"mount", identity_.mount_name},
                                {"from", from},
                                {"to", v1::Health_Name(view.health)},
                                {"error", view.error},
                                {"detail", view.detail}});
  }
  // The coordinator hears of it now, not with the next heartbeat.
  if (sent_health_ != view.health) {
    next_heartbeat_ = seams_.clock->Boot();
    HeartbeatLocked();
  }
}

}  // namespace predella::agent
