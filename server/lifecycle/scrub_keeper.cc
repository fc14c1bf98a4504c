#include "server/lifecycle/scrub_keeper.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "server/lifecycle/api_convert.h"

namespace predella::server {
namespace {

constexpr absl::Duration kAskAgain = absl::Seconds(10);

}  // namespace

ScrubKeeper::ScrubKeeper(const LifecycleDeps& deps, AgentCommands* commands,
                         Notifier* changed)
    : deps_(deps), commands_(commands), changed_(changed) {}

absl::Status ScrubKeeper::Load() {
  ASSIGN_OR_RETURN(const std::vector<storage::v1::ScrubRow> rows,
                   deps_.index->ListScrubs());
  MutexLock lock(&mu_);
  for (const storage::v1::ScrubRow& row : rows) {
    Pass& pass = passes_[Uuid::FromBytesOrNone(row.mount_uid())];
    pass.row = row;
    // The process may have ended between the pass and this.
    pass.recheck = row.state() == storage::v1::SCRUB_STATE_DONE;
  }
  return absl::OkStatus();
}

storage::v1::EventRow ScrubKeeper::EventOf(const Uuid& mount_uid,
                                           absl::string_view kind,
                                           const std::string& detail) const {
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  storage::v1::EventRow event;
  event.set_time_us(deps_.clock->NowMicros());
  event.set_kind(std::string(kind));
  event.set_mount_name(info.has_value() ? info->row.mount_name()
                                        : mount_uid.ToString());
  event.set_detail(detail);
  return event;
}

absl::Status ScrubKeeper::WriteLocked(const storage::v1::ScrubRow& row,
                                      absl::string_view kind,
                                      const std::string& detail) {
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  IndexTxn txn = deps_.index->Begin();
  txn.PutScrub(row);
  if (!kind.empty()) {
    const storage::v1::EventRow event =
        EventOf(Uuid::FromBytesOrNone(row.mount_uid()), kind, detail);
    txn.PutEvent(event);
    LogInfo(kind, {{"mount", event.mount_name()}, {"detail", detail}});
  }
  return deps_.index->Commit(std::move(txn));
}

absl::Status ScrubKeeper::Start(const Uuid& mount_uid, int64_t bytes_per_second,
                                bool restart, absl::string_view why) {
  {
    MutexLock writing(&write_mu_);
    storage::v1::ScrubRow row;
    {
      MutexLock lock(&mu_);
      row = passes_[mount_uid].row;
    }
    const bool running = row.state() == storage::v1::SCRUB_STATE_RUNNING;
    const bool same_rate =
        bytes_per_second == 0 || bytes_per_second == row.bytes_per_second();
    if (running && !restart && same_rate) {
      return absl::OkStatus();
    }
    const bool goes_on =
        !restart && (running || row.state() == storage::v1::SCRUB_STATE_PAUSED);
    if (!goes_on) {
      storage::v1::ScrubRow fresh;
      fresh.set_mount_uid(mount_uid.bytes());
      fresh.set_scrub_id(deps_.ids->NextUuid().bytes());
      // After the error that it is for, whatever the clock did since.
      const std::optional<MountInfo> needed = deps_.registry->Find(mount_uid);
      fresh.set_start_time_us(std::max(
          deps_.clock->NowMicros(),
          needed.has_value() ? needed->row.scrub_required_since_us() + 1 : 0));
      fresh.set_complete_time_us(row.complete_time_us());
      fresh.set_bytes_per_second(row.bytes_per_second());
      row = fresh;
    }
    if (bytes_per_second > 0) {
      row.set_bytes_per_second(bytes_per_second);
    }
    row.set_state(storage::v1::SCRUB_STATE_RUNNING);
    row.set_update_time_us(deps_.clock->NowMicros());
    row.clear_detail();
    RETURN_IF_ERROR(WriteLocked(
        row, goes_on ? "scrub_resumed" : "scrub_started", std::string(why)));
    MutexLock lock(&mu_);
    Pass& pass = passes_[mount_uid];
    pass.row = row;
    if (!goes_on) {
      pass.ahead.clear();
      pass.found.clear();
      pass.recheck = false;
    }
    pass.run_id.clear();
    pass.listed_after.reset();
    pass.next_ask = absl::ZeroDuration();
    pass.written_at = deps_.clock->Boot();
  }
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  if (info.has_value()) {
    Ask(*info);
  }
  return absl::OkStatus();
}

absl::Status ScrubKeeper::Pause(const Uuid& mount_uid) {
  std::string run_id;
  {
    MutexLock writing(&write_mu_);
    storage::v1::ScrubRow row;
    {
      MutexLock lock(&mu_);
      row = passes_[mount_uid].row;
    }
    if (row.state() == storage::v1::SCRUB_STATE_PAUSED) {
      return absl::OkStatus();
    }
    if (row.state() != storage::v1::SCRUB_STATE_RUNNING) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       reason::kInvalidArgument, "no scrub runs there");
    }
    row.set_state(storage::v1::SCRUB_STATE_PAUSED);
    row.set_update_time_us(deps_.clock->NowMicros());
    row.clear_detail();
    RETURN_IF_ERROR(WriteLocked(row, "scrub_paused", ""));
    MutexLock lock(&mu_);
    Pass& pass = passes_[mount_uid];
    pass.row = row;
    run_id = std::exchange(pass.run_id, "");
  }
  if (!run_id.empty()) {
    control::v1::Command command;
    command.mutable_stop_scrub()->set_scrub_id(run_id);
    // One that is not stopped tells of a part that nobody waits for.
    commands_->CallAsync(mount_uid, std::move(command), [](const auto& result) {
      LogIfError(result.status(), "the scrub ends with its session");
    });
  }
  return absl::OkStatus();
}

std::optional<v1::Scrub> ScrubKeeper::View(const MountInfo& info) const {
  const bool required = info.row.scrub_required_since_us() != 0;
  MutexLock lock(&mu_);
  const auto it = passes_.find(Uuid::FromBytesOrNone(info.row.mount_uid()));
  const bool any = it != passes_.end() && it->second.row.start_time_us() != 0;
  if (!any && !required) {
    return std::nullopt;
  }
  v1::Scrub out;
  out.set_required(required);
  if (!any) {
    return out;
  }
  const storage::v1::ScrubRow& row = it->second.row;
  out.set_state(static_cast<v1::ScrubState>(row.state()));
  *out.mutable_create_time() = ToTimestamp(row.start_time_us());
  *out.mutable_update_time() = ToTimestamp(row.update_time_us());
  if (row.complete_time_us() != 0) {
    *out.mutable_complete_time() = ToTimestamp(row.complete_time_us());
  }
  out.set_image_count(row.images());
  out.set_bytes(row.bytes());
  out.set_fault_count(row.faults() +
                      static_cast<int64_t>(it->second.ahead.size()));
  out.set_bytes_per_second(row.bytes_per_second());
  out.set_detail(row.detail());
  if (row.state() == storage::v1::SCRUB_STATE_RUNNING &&
      it->second.run_id.empty() && out.detail().empty()) {
    out.set_detail("it waits for the mount's agent");
  }
  return out;
}

void ScrubKeeper::Ask(const MountInfo& info) {
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const int64_t session = commands_->AttachedSession(uid);
  if (session == 0 || !info.trusted) {
    return;
  }
  control::v1::Command command;
  std::string run_id;
  {
    MutexLock lock(&mu_);
    Pass& pass = passes_[uid];
    if (pass.row.state() != storage::v1::SCRUB_STATE_RUNNING ||
        (!pass.run_id.empty() && pass.session == session) ||
        deps_.clock->Boot() < pass.next_ask) {
      return;
    }
    run_id = deps_.ids->RandomBytes(16);
    pass.run_id = run_id;
    pass.listed_after.reset();
    pass.session = session;
    pass.answered = false;
    pass.base_images = pass.row.images();
    pass.base_bytes = pass.row.bytes();
    pass.next_ask = deps_.clock->Boot() + kAskAgain;
    control::v1::StartScrub* const start = command.mutable_start_scrub();
    start->set_scrub_id(run_id);
    start->set_after_image_id(pass.row.last_image_id());
    start->set_bytes_per_second(pass.row.bytes_per_second());
  }
  commands_->CallAsync(uid, std::move(command),
                       [this, uid, run_id](const auto& result) {
                         Answered(uid, run_id, result.status());
                       });
}

void ScrubKeeper::Answered(const Uuid& mount_uid, const std::string& run_id,
                           const absl::Status& status) {
  MutexLock lock(&mu_);
  Pass& pass = passes_[mount_uid];
  if (pass.run_id != run_id) {
    return;
  }
  pass.answered = status.ok();
  if (!status.ok()) {
    pass.run_id.clear();
    pass.row.set_detail(std::string(status.message()));
  }
}

void ScrubKeeper::OnNoProgress(const Uuid& mount_uid, int64_t session) {
  MutexLock lock(&mu_);
  const auto it = passes_.find(mount_uid);
  if (it != passes_.end() && it->second.answered &&
      it->second.session == session) {
    it->second.run_id.clear();
  }
}

void ScrubKeeper::Tick() {
  ticks_.Post(deps_.pool, [this] { RunTick(); });
}

void ScrubKeeper::RunTick() {
  const std::vector<MountInfo> mounts = deps_.registry->List();
  absl::flat_hash_set<std::string> busy;
  {
    MutexLock lock(&mu_);
    for (const MountInfo& info : mounts) {
      const auto it = passes_.find(Uuid::FromBytesOrNone(info.row.mount_uid()));
      if (it != passes_.end() && info.hello.has_value() &&
          it->second.row.state() == storage::v1::SCRUB_STATE_RUNNING) {
        busy.insert(info.hello->host());
      }
    }
  }
  for (const MountInfo& info : mounts) {
    if (info.row.admin_state() == storage::v1::ADMIN_STATE_RETIRED ||
        !info.hello.has_value()) {
      continue;
    }
    TickMount(info, busy.contains(info.hello->host()));
    const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    MutexLock lock(&mu_);
    if (passes_[uid].row.state() == storage::v1::SCRUB_STATE_RUNNING) {
      busy.insert(info.hello->host());
    }
  }
}

void ScrubKeeper::TickMount(const MountInfo& info, bool host_is_busy) {
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  if (!NoteHealth(info)) {
    return;
  }
  // The commit after the last pass may have failed, or the process have ended
  // before it.
  if (SettleRequired(uid)) {
    return;
  }
  if (const std::string why = DueReason(info, host_is_busy); !why.empty()) {
    LogIfError(Start(uid, 0, /*restart=*/true, why), "it is begun later");
    return;
  }
  Ask(info);
  EndPass(uid);
  Recheck(info);
}

// A copy that was missing or damaged before and that the pass did not see:
// it was put back, or is still not there.
void ScrubKeeper::Recheck(const MountInfo& info) {
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  Uuid after;
  int64_t before = 0;
  {
    MutexLock lock(&mu_);
    const Pass& pass = passes_[uid];
    if (!pass.recheck || pass.checking || !info.attached) {
      return;
    }
    after = pass.rechecked;
    before = pass.row.start_time_us();
  }
  std::optional<storage::v1::FaultRow> next;
  while (!next.has_value()) {
    const std::vector<storage::v1::FaultRow> rows =
        deps_.index->ListFaults(uid, after, 1);
    if (rows.empty()) {
      break;
    }
    after = Uuid::FromBytesOrNone(rows[0].image_id());
    MutexLock lock(&mu_);
    if (rows[0].found_time_us() < before &&
        !passes_[uid].found.contains(after)) {
      next = rows[0];
    }
  }
  {
    MutexLock lock(&mu_);
    Pass& pass = passes_[uid];
    pass.rechecked = after;
    pass.recheck = next.has_value();
    pass.checking = next.has_value();
  }
  if (!next.has_value()) {
    return;
  }
  control::v1::Command command;
  command.mutable_check_copy()->set_image_id(next->image_id());
  *command.mutable_check_copy()->mutable_generation() = next->generation();
  // The finding comes before this answer, on its own way.
  commands_->CallAsync(
      uid, std::move(command), [this, uid](const auto& result) {
        if (!absl::IsDataLoss(result.status()) &&
            !absl::IsNotFound(result.status())) {
          LogIfError(result.status(), "the next scrub looks at the copy");
        }
        MutexLock lock(&mu_);
        passes_[uid].checking = false;
      });
}

}  // namespace predella::server
