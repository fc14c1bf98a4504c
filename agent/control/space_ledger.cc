#include "agent/control/space_ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/units.h"

namespace predella::agent {

namespace {

// Bytes, state and record; and what is left of them once the file system
// counts the first two.
constexpr int64_t kInodesOfUpload = 3;
constexpr int64_t kInodesOfRecord = 1;
// Of a promise of unknown size.
constexpr int64_t kSmallestStep = kMiB;

}  // namespace

int64_t DefaultReserve(int64_t size_bytes) {
  return std::min(std::max(size_bytes / 100, kGiB), size_bytes / 20);
}

SpaceLedger::SpaceLedger(std::optional<int64_t> reserve_bytes)
    : reserve_bytes_(reserve_bytes) {}

SpaceLedger::Reading SpaceLedger::StartReading() {
  MutexLock lock(&mu_);
  Reading reading;
  reading.number = ++readings_;
  for (const auto& [id, entry] : entries_) {
    reading.allocated.emplace(id, entry.allocated_now);
  }
  return reading;
}

void SpaceLedger::SetSpace(const SpaceInfo& space, const Reading& reading) {
  MutexLock lock(&mu_);
  if (reading.number < read_) {
    return;
  }
  read_ = reading.number;
  space_ = space;
  for (auto& [id, entry] : entries_) {
    if (const auto it = reading.allocated.find(id);
        it != reading.allocated.end()) {
      entry.allocated = it->second;
      entry.is_new = false;
    }
  }
}

bool SpaceLedger::known() {
  MutexLock lock(&mu_);
  return space_.has_value();
}

SpaceLedger::Snapshot SpaceLedger::Take() {
  MutexLock lock(&mu_);
  Snapshot out;
  out.space = space_.value_or(SpaceInfo());
  if (out.space.size_inodes > 0) {
    out.space.available_inodes = std::max<int64_t>(0, InodesLocked());
  }
  out.reserve_bytes = ReserveLocked();
  out.promised_bytes = OutstandingLocked();
  out.available_bytes = AvailableLocked();
  return out;
}

absl::Status SpaceLedger::Promise(const Uuid& upload_id,
                                  std::optional<int64_t> size, int64_t start,
                                  int64_t on_disk) {
  MutexLock lock(&mu_);
  if (!space_.has_value()) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "the space of the mount is not known yet");
  }
  int64_t available = AvailableLocked();
  const auto it = entries_.find(upload_id);
  Entry entry;
  if (it != entries_.end()) {
    entry = it->second;
    available += entry.Outstanding();
  } else {
    // With bytes there are inodes, and both are counted.
    entry.is_new = on_disk == 0;
    entry.allocated = entry.allocated_now = on_disk;
  }
  // Of unknown size: the first step may be what is left, as every later one.
  const int64_t step = std::max(std::min(StepLocked(), available),
                                std::min(StepLocked(), kSmallestStep));
  const int64_t wanted = size.value_or(start + step);
  // A file system that counts no inodes (size 0) has no limit of them.
  if (wanted - entry.allocated - entry.holes > available ||
      (it == entries_.end() && space_->size_inodes > 0 &&
       InodesLocked() < kInodesOfUpload)) {
    return FullLocked(wanted);
  }
  entry.promised = std::max(entry.promised, wanted);
  entry.grows = !size.has_value();
  entries_[upload_id] = entry;
  return absl::OkStatus();
}

void SpaceLedger::PromiseAgain(const Uuid& upload_id,
                               std::optional<int64_t> size, int64_t start,
                               int64_t on_disk) {
  MutexLock lock(&mu_);
  const auto [it, inserted] = entries_.try_emplace(upload_id);
  Entry& entry = it->second;
  if (inserted) {
    entry.allocated = entry.allocated_now = on_disk;
  }
  const int64_t wanted = size.value_or(start + StepLocked());
  entry.promised = std::max(entry.promised, wanted);
  entry.grows = !size.has_value();
}

absl::Status SpaceLedger::Grow(const Uuid& upload_id, int64_t needed) {
  MutexLock lock(&mu_);
  const auto it = entries_.find(upload_id);
  if (it == entries_.end() || !it->second.grows) {
    return absl::OkStatus();
  }
  Entry& entry = it->second;
  const int64_t step = StepLocked();
  while (entry.promised < needed) {
    if (AvailableLocked() < step) {
      // The last step may be what the bytes at hand need, no more.
      const int64_t rest = needed - entry.promised;
      if (AvailableLocked() < rest) {
        return FullLocked(rest);
      }
      entry.promised = needed;
      return absl::OkStatus();
    }
    entry.promised += step;
  }
  return absl::OkStatus();
}

void SpaceLedger::SetAllocated(const Uuid& upload_id, int64_t bytes,
                               int64_t holes) {
  MutexLock lock(&mu_);
  const auto it = entries_.find(upload_id);
  if (it != entries_.end()) {
    Entry& entry = it->second;
    entry.allocated_now = bytes;
    entry.holes = holes;
    if (holes > 0) {
      // Whoever promised it again took all that came for allocated.
      entry.allocated = std::min(entry.allocated, bytes);
    }
  }
}

void SpaceLedger::Release(const Uuid& upload_id) {
  MutexLock lock(&mu_);
  const auto it = entries_.find(upload_id);
  if (it == entries_.end()) {
    return;
  }
  // What was written since f_bavail was read stays away until the next one.
  if (space_.has_value()) {
    space_->available_bytes -=
        std::max<int64_t>(0, it->second.allocated_now - it->second.allocated);
  }
  entries_.erase(it);
}

int64_t SpaceLedger::ReserveLocked() const {
  if (reserve_bytes_.has_value()) {
    return *reserve_bytes_;
  }
  return space_.has_value() ? DefaultReserve(space_->size_bytes) : 0;
}

int64_t SpaceLedger::OutstandingLocked() const {
  int64_t sum = 0;
  for (const auto& [id, entry] : entries_) {
    sum += entry.Outstanding();
  }
  return sum;
}

int64_t SpaceLedger::AvailableLocked() const {
  if (!space_.has_value()) {
    return 0;
  }
  return space_->available_bytes - ReserveLocked() - OutstandingLocked();
}

int64_t SpaceLedger::InodesLocked() const {
  int64_t inodes = space_.has_value() ? space_->available_inodes : 0;
  for (const auto& [id, entry] : entries_) {
    inodes -= entry.is_new ? kInodesOfUpload : kInodesOfRecord;
  }
  return inodes;
}

int64_t SpaceLedger::StepLocked() const {
  const int64_t size = space_.has_value() ? space_->size_bytes : 0;
  return std::max<int64_t>(1, std::min(kGiB, size / 100));
}

absl::Status SpaceLedger::FullLocked(int64_t wanted) const {
  const int64_t bavail = space_.has_value() ? space_->available_bytes : 0;
  const int64_t inodes = std::max<int64_t>(0, InodesLocked());
  return MakeError(
      absl::StatusCode::kResourceExhausted, reason::kMountFull,
      absl::StrCat("no room for ", FormatSize(wanted), ": ", FormatSize(bavail),
                   " free, ", FormatSize(ReserveLocked()), " reserved, ",
                   FormatSize(OutstandingLocked()),
                   " promised to open uploads, ", inodes, " inodes free"),
      {{"wanted_bytes", absl::StrCat(wanted)},
       {"free_bytes", absl::StrCat(bavail)},
       {"reserve_bytes", absl::StrCat(ReserveLocked())},
       {"promised_bytes", absl::StrCat(OutstandingLocked())},
       {"available_inodes", absl::StrCat(inodes)}});
}

}  // namespace predella::agent
