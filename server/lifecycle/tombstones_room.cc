// Room in the mounts' files of deletes.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/logging.h"
#include "server/lifecycle/tombstones.h"

namespace predella::server {
namespace {

// Of a mount's file. The rest is for deletes that are not settled: a mount that
// has the file is away.
constexpr double kSecondCopiesUpTo = 0.5;
// None is written anew above this, so that it is not dropped again at once.
constexpr double kSecondCopiesFrom = 0.4;
constexpr double kSettledUpTo = 0.75;

}  // namespace

int64_t CopyBytes(const storage::v1::TombstoneRow& row) {
  constexpr int64_t kTagAndLength = 2;
  return static_cast<int64_t>(ToCopy(row).ByteSizeLong()) + kTagAndLength;
}

bool HoldsCopy(const storage::v1::TombstoneRow& row, const Uuid& mount_uid) {
  const auto& uids = row.copy_mount_uids();
  return std::find(uids.begin(), uids.end(), mount_uid.bytes()) != uids.end();
}

std::vector<Tombstones::Fullness> Tombstones::Fullest() const {
  std::vector<Fullness> out;
  for (const CopyPlace& place : CopyPlaces()) {
    out.push_back(
        {place.uid, place.copy_bytes,
         static_cast<double>(place.copy_bytes) /
             static_cast<double>(deps_.options.tombstone_slot_bytes)});
  }
  std::sort(out.begin(), out.end(), [](const Fullness& a, const Fullness& b) {
    return a.copy_bytes > b.copy_bytes;
  });
  return out;
}

int64_t Tombstones::CountOnlyOn(const std::set<Uuid>& mounts) const {
  std::vector<CopyPlace> others = CopyPlaces();
  std::vector<CopyPlace> theirs = others;
  const auto is_one = [&](const CopyPlace& place) {
    return mounts.count(place.uid) != 0;
  };
  std::erase_if(others, is_one);
  std::erase_if(theirs, std::not_fn(is_one));
  return static_cast<int64_t>(
      Select([&](const TombstoneEntry& entry) {
        const auto& pending = entry.row.pending_mount_uids();
        return std::any_of(pending.begin(), pending.end(),
                           [&](const std::string& uid) {
                             return mounts.count(Uuid::FromBytesOrNone(uid)) ==
                                    0;
                           }) &&
               CountCopies(entry.row, theirs) > 0 &&
               CountCopies(entry.row, others) == 0;
      }).size());
}

int64_t Tombstones::CountWithoutCopy(absl::Duration age) const {
  const std::vector<CopyPlace> places = CopyPlaces();
  const int64_t before =
      deps_.clock->NowMicros() - absl::ToInt64Microseconds(age);
  return static_cast<int64_t>(
      Select([&](const TombstoneEntry& entry) {
        return !entry.row.pending_mount_uids().empty() &&
               entry.row.create_time_us() < before &&
               CountCopies(entry.row, places) == 0;
      }).size());
}

std::vector<std::pair<Uuid, int64_t>> Tombstones::Awaited() const {
  std::vector<std::pair<Uuid, int64_t>> out;
  {
    MutexLock lock(&mu_);
    for (const auto& [uid, keys] : pending_on_) {
      if (!keys.empty()) {
        out.emplace_back(Uuid::FromBytesOrNone(uid),
                         static_cast<int64_t>(keys.size()));
      }
    }
  }
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return a.second > b.second; });
  return out;
}

std::vector<Uuid> Tombstones::SecondTargets(
    const storage::v1::TombstoneRow& row,
    const std::vector<CopyPlace>& places) const {
  const auto most = static_cast<int64_t>(
      kSecondCopiesFrom *
      static_cast<double>(deps_.options.tombstone_slot_bytes));
  return CopyTargets(row, places, row.settle_time_us() == 0 ? INT64_MAX : most);
}

std::vector<TombstoneEntry> Tombstones::OldestSettledOn(
    const Uuid& mount_uid, int64_t bytes,
    const std::function<bool(const TombstoneEntry&)>& want) const {
  std::vector<TombstoneEntry> out = Select([&](const TombstoneEntry& entry) {
    return entry.row.settle_time_us() != 0 && HoldsCopy(entry.row, mount_uid) &&
           want(entry);
  });
  std::sort(out.begin(), out.end(),
            [](const TombstoneEntry& a, const TombstoneEntry& b) {
              return a.row.settle_time_us() < b.row.settle_time_us();
            });
  size_t count = 0;
  while (bytes > 0 && count < out.size() && count < kMostDropsAtOnce) {
    bytes -= CopyBytes(out[count++].row);
  }
  out.resize(count);
  return out;
}

// The index remembers all of them until they are forgotten.
void Tombstones::MakeRoom(const std::set<Key>& leaving) {
  const auto slot = static_cast<double>(deps_.options.tombstone_slot_bytes);
  for (const CopyPlace& at : CopyPlaces()) {
    const auto over = [&](double share) {
      return at.copy_bytes - static_cast<int64_t>(share * slot);
    };
    if (!at.attached || over(kSecondCopiesUpTo) <= 0) {
      continue;
    }
    // Counted anew for each mount: what one drops the next must keep.
    const std::vector<CopyPlace> places = CopyPlaces();
    std::vector<TombstoneEntry> oldest = OldestSettledOn(
        at.uid, over(kSecondCopiesUpTo), [&](const TombstoneEntry& entry) {
          return leaving.count(KeyOf(entry.row)) == 0 &&
                 CountCopies(entry.row, places) > 1;
        });
    if (oldest.empty()) {
      oldest = OldestSettledOn(at.uid, over(kSettledUpTo),
                               [&](const TombstoneEntry& entry) {
                                 return leaving.count(KeyOf(entry.row)) == 0;
                               });
    }
    if (!oldest.empty()) {
      DropCopies(at.uid, oldest);
    }
  }
}

void Tombstones::DropCopies(const Uuid& mount_uid,
                            const std::vector<TombstoneEntry>& entries) {
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  const bool retired =
      !info.has_value() ||
      info->row.admin_state() == storage::v1::ADMIN_STATE_RETIRED;
  if (!retired) {
    control::v1::Command command;
    for (const TombstoneEntry& entry : entries) {
      *command.mutable_drop_tombstones()->add_tombstones() = ToCopy(entry.row);
    }
    if (!commands_->Call(mount_uid, command, deps_.options.command_timeout, {})
             .ok()) {
      return;
    }
  }
  LogIfError(TakeOut(mount_uid, entries),
             "the next tick drops the copies again");
}

}  // namespace predella::server
