// ScrubKeeper: how far a pass is, and its end.
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/units.h"
#include "server/lifecycle/scrub_keeper.h"

namespace predella::server {
namespace {

constexpr absl::Duration kWriteEvery = absl::Minutes(1);
constexpr int64_t kFaultPage = 1000;
constexpr absl::string_view kWaits =
    "all is read; it waits for a listing of the mount";

}  // namespace

void ScrubKeeper::OnPassRead(std::function<int64_t(const Uuid&)> list,
                             Listed listed) {
  list_ = std::move(list);
  listed_ = std::move(listed);
}

void ScrubKeeper::OnProgress(const Uuid& mount_uid, int64_t session,
                             const control::v1::ScrubProgress& progress) {
  {
    MutexLock writing(&write_mu_);
    storage::v1::ScrubRow row;
    {
      MutexLock lock(&mu_);
      Pass& pass = passes_[mount_uid];
      if (pass.row.state() != storage::v1::SCRUB_STATE_RUNNING ||
          pass.session != session || pass.run_id.empty() ||
          pass.run_id != progress.scrub_id() || pass.listed_after.has_value()) {
        return;
      }
      if (!progress.last_image_id().empty()) {
        pass.row.set_last_image_id(progress.last_image_id());
      }
      const auto passed = pass.ahead.upper_bound(
          Uuid::FromBytesOrNone(pass.row.last_image_id()));
      pass.row.set_faults(pass.row.faults() +
                          std::distance(pass.ahead.begin(), passed));
      pass.ahead.erase(pass.ahead.begin(), passed);
      pass.row.set_images(pass.base_images + progress.images());
      pass.row.set_bytes(pass.base_bytes + progress.bytes());
      pass.row.set_detail(progress.detail());
      pass.row.set_update_time_us(deps_.clock->NowMicros());
      if (!progress.done() &&
          deps_.clock->Boot() - pass.written_at < kWriteEvery) {
        return;
      }
      row = pass.row;
    }
    if (!progress.done()) {
      const absl::Status written = WriteLocked(row, "", "");
      if (!written.ok()) {
        LogIfError(written,
                   "the scrub's row is written with its next progress");
        return;
      }
      MutexLock lock(&mu_);
      passes_[mount_uid].written_at = deps_.clock->Boot();
      return;
    }
    const int64_t after = list_ ? list_(mount_uid) : 0;
    MutexLock lock(&mu_);
    Pass& pass = passes_[mount_uid];
    pass.listed_after = after;
    pass.row.set_detail(std::string(kWaits));
  }
  EndPass(mount_uid);
}

// An image that is not there, or another generation under its name, is nothing
// that a read of what is there can find: only the index knows.
int64_t ScrubKeeper::CountMissing(const Uuid& mount_uid) const {
  int64_t missing = 0;
  Uuid after;
  while (true) {
    const std::vector<storage::v1::FaultRow> rows =
        deps_.index->ListFaults(mount_uid, after, kFaultPage);
    MutexLock lock(&mu_);
    const auto pass = passes_.find(mount_uid);
    for (const storage::v1::FaultRow& row : rows) {
      after = Uuid::FromBytesOrNone(row.image_id());
      missing += row.fault() == storage::v1::COPY_FAULT_MISSING &&
                         pass != passes_.end() &&
                         !pass->second.found.contains(after)
                     ? 1
                     : 0;
    }
    if (static_cast<int64_t>(rows.size()) < kFaultPage) {
      return missing;
    }
  }
}

void ScrubKeeper::EndPasses() {
  std::vector<Uuid> ending;
  {
    MutexLock lock(&mu_);
    for (const auto& [uid, pass] : passes_) {
      if (pass.listed_after.has_value()) {
        ending.push_back(uid);
      }
    }
  }
  for (const Uuid& uid : ending) {
    EndPass(uid);
  }
}

bool ScrubKeeper::MayEnd(const Uuid& mount_uid) {
  std::optional<int64_t> after;
  {
    MutexLock lock(&mu_);
    const Pass& pass = passes_[mount_uid];
    if (pass.row.state() == storage::v1::SCRUB_STATE_RUNNING) {
      after = pass.listed_after;
    }
  }
  if (!after.has_value() || !listed_) {
    return after.has_value();
  }
  const absl::StatusOr<bool> listed = listed_(mount_uid, *after);
  if (!listed.ok()) {
    MutexLock lock(&mu_);
    passes_[mount_uid].row.set_detail(
        absl::StrCat(kWaits, ": ", listed.status().message()));
  }
  return listed.ok() && *listed;
}

void ScrubKeeper::EndPass(const Uuid& mount_uid) {
  {
    MutexLock writing(&write_mu_);
    if (!MayEnd(mount_uid)) {
      return;
    }
    storage::v1::ScrubRow row;
    {
      MutexLock lock(&mu_);
      row = passes_[mount_uid].row;
    }
    row.set_faults(row.faults() + CountMissing(mount_uid));
    row.set_state(storage::v1::SCRUB_STATE_DONE);
    row.set_complete_time_us(deps_.clock->NowMicros());
    row.clear_last_image_id();
    row.clear_detail();
    const absl::Status written = WriteLocked(
        row, "scrub_completed",
        absl::StrCat(row.images(), " images with ", FormatSize(row.bytes()),
                     " were read, ", row.faults(), " are not whole"));
    if (!written.ok()) {
      LogIfError(written, "the scrub's end is written at the next look");
      return;
    }
    MutexLock lock(&mu_);
    Pass& pass = passes_[mount_uid];
    pass.written_at = deps_.clock->Boot();
    pass.row = row;
    pass.done_at = deps_.clock->Boot();
    pass.run_id.clear();
    pass.listed_after.reset();
    pass.recheck = true;
    pass.checking = false;
    pass.rechecked = Uuid();
  }
  SettleRequired(mount_uid);
}

}  // namespace predella::server
