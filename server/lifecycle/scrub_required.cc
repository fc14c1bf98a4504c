// ScrubKeeper: which mounts have to be scrubbed, and since when.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/scrub_keeper.h"

namespace predella::server {
namespace {

// Longer than two heartbeats.
constexpr absl::Duration kDoneLately = absl::Seconds(5);

bool ShowsErrors(int health) {
  return health == v1::HEALTH_SUSPECT || health == v1::HEALTH_FAILED;
}

// Whether all of it can be read as far as is known.
bool IsClean(const MountInfo& info) {
  const int health = info.reported_health.health();
  return info.attached && info.trusted &&
         info.view.health != v1::HEALTH_UNREACHABLE &&
         (health == v1::HEALTH_ONLINE || health == v1::HEALTH_SLOW ||
          health == v1::HEALTH_READ_ONLY);
}

// The same for a mount at every start, between 0 and a quarter of the
// interval: mounts that were made together are not read together.
absl::Duration Spread(const Uuid& mount_uid, absl::Duration interval) {
  const std::string bytes = mount_uid.bytes();
  const unsigned char first = static_cast<unsigned char>(bytes[0]);
  return interval / 4 * first / 256;
}

}  // namespace

absl::Status ScrubKeeper::ChangeMount(const Uuid& mount_uid,
                                      const storage::v1::MountRow& row,
                                      const storage::v1::EventRow& event) {
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  if (!info.has_value()) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  IndexTxn txn = deps_.index->Begin();
  txn.RequireMount(info->row);
  storage::v1::MountRow changed = info->row;
  changed.set_scrub_required_since_us(row.scrub_required_since_us());
  changed.set_scrub_required_reason(row.scrub_required_reason());
  changed.set_update_time_us(deps_.clock->NowMicros());
  txn.PutMount(changed);
  txn.PutEvent(event);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  deps_.registry->SetRow(changed);
  LogInfo(event.kind(),
          {{"mount", changed.mount_name()}, {"detail", event.detail()}});
  return absl::OkStatus();
}

ScrubKeeper::Errors ScrubKeeper::ErrorsOf(const MountInfo& info,
                                          const Pass& pass) const {
  const auto& reported = info.reported_health;
  if (!ShowsErrors(reported.health())) {
    return Errors::kNone;
  }
  const auto state = pass.row.state();
  // The heartbeat that says so may be the one after the pass's last.
  const bool under_way = state == storage::v1::SCRUB_STATE_RUNNING ||
                         (state == storage::v1::SCRUB_STATE_DONE &&
                          deps_.clock->Boot() < pass.done_at + kDoneLately);
  // An errno is of a call that failed, not of bytes that are wrong.
  const bool of_bytes =
      reported.health() == v1::HEALTH_SUSPECT && reported.error().empty();
  // It is said for as long as the probes take to be clean.
  const bool found =
      of_bytes &&
      (pass.errors == Errors::kFound ||
       (under_way && (!pass.found.empty() || pass.row.faults() > 0)));
  return found ? Errors::kFound : Errors::kOther;
}

absl::Status ScrubKeeper::Require(const MountInfo& info, Errors errors) {
  storage::v1::MountRow row;
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  {
    // Not before the pass that runs or was the last, whatever the clock did;
    // what that pass itself found is met by its own end.
    MutexLock lock(&mu_);
    const int64_t pass = passes_[uid].row.start_time_us();
    row.set_scrub_required_since_us(
        errors == Errors::kFound ? pass - 1
                                 : std::max(deps_.clock->NowMicros(), pass));
  }
  row.set_scrub_required_reason(info.reported_health.detail());
  storage::v1::EventRow event =
      EventOf(uid, "scrub_required", info.reported_health.detail());
  event.set_error(info.reported_health.error());
  event.set_affected_images(deps_.index->mount_totals(uid).count);
  return ChangeMount(uid, row, event);
}

bool ScrubKeeper::NoteHealth(const MountInfo& info) {
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  if (!info.session_open) {
    return true;  // what was seen last still stands
  }
  Errors errors = Errors::kNone;
  bool required = false;
  {
    MutexLock lock(&mu_);
    Pass& pass = passes_[uid];
    const int64_t since = info.row.scrub_required_since_us();
    errors = ErrorsOf(info, pass);
    // A requirement that no pass has begun to meet covers this one too.
    const bool running = pass.row.state() == storage::v1::SCRUB_STATE_RUNNING;
    required = errors > pass.errors &&
               (errors == Errors::kFound
                    ? since == 0 && running
                    : since == 0 || pass.row.start_time_us() > since);
    // Of one error, what was the worse reading of it stays.
    pass.errors =
        errors == Errors::kNone ? errors : std::max(errors, pass.errors);
  }
  if (!required) {
    return true;
  }
  const absl::Status written = Require(info, errors);
  if (!written.ok()) {
    LogIfError(written, "the requirement is written with the next look");
    MutexLock lock(&mu_);
    passes_[uid].errors = Errors::kNone;
  }
  return false;
}

bool ScrubKeeper::SettleRequired(const Uuid& mount_uid) {
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  if (!info.has_value() || info->row.scrub_required_since_us() == 0) {
    return false;
  }
  int64_t faults = 0;
  {
    MutexLock lock(&mu_);
    const storage::v1::ScrubRow& row = passes_[mount_uid].row;
    if (row.state() != storage::v1::SCRUB_STATE_DONE ||
        row.start_time_us() <= info->row.scrub_required_since_us()) {
      return false;
    }
    faults = row.faults();
  }
  const absl::Status settled = ChangeMount(
      mount_uid, storage::v1::MountRow(),
      EventOf(mount_uid, "scrub_requirement_met",
              absl::StrCat("the scrub has finished; ", faults,
                           " copies are not whole and are marked")));
  LogIfError(settled, "the requirement is settled with the next look");
  if (settled.ok()) {
    changed_->Notify();
  }
  return true;
}

std::string ScrubKeeper::DueReason(const MountInfo& info,
                                   bool host_is_busy) const {
  if (!IsClean(info)) {
    return "";
  }
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const int64_t since = info.row.scrub_required_since_us();
  storage::v1::ScrubRow row;
  {
    MutexLock lock(&mu_);
    const auto it = passes_.find(uid);
    if (it != passes_.end()) {
      row = it->second.row;
    }
  }
  const bool covers = row.start_time_us() > since;
  if (row.state() == storage::v1::SCRUB_STATE_RUNNING) {
    return "";
  }
  const bool paused = row.state() == storage::v1::SCRUB_STATE_PAUSED;
  if (since != 0) {
    // One that was begun for it and paused is the operator's will.
    return covers ? ""
                  : absl::StrCat("the mount showed errors: ",
                                 info.row.scrub_required_reason());
  }
  const absl::Duration interval = deps_.options.scrub_interval;
  if (interval <= absl::ZeroDuration() || paused || host_is_busy ||
      (info.view.admin_state != storage::v1::ADMIN_STATE_ACTIVE &&
       info.view.admin_state != storage::v1::ADMIN_STATE_CORDONED)) {
    return "";
  }
  const absl::Time last = absl::FromUnixMicros(
      std::max(row.complete_time_us(), info.row.create_time_us()));
  if (deps_.clock->Now() < last + interval - Spread(uid, interval)) {
    return "";
  }
  return absl::StrCat("the last one ended longer ago than ",
                      absl::FormatDuration(interval), " (--scrub-interval)");
}

}  // namespace predella::server
