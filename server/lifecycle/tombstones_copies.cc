// Copies of tombstones on mounts: where they go, and what is left of them.
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/wait.h"
#include "server/lifecycle/tombstones.h"

namespace predella::server {
namespace {

constexpr int kCopiesWanted = 2;
constexpr int kSecondCopiesPerTick = 64;
constexpr size_t kRowsPerCommit = 500;
// Then another mount is asked; the first may still do it.
constexpr absl::Duration kSecondCopyTimeout = absl::Seconds(30);

bool TakeOutOf(storage::v1::TombstoneRow* row, const Uuid& uid) {
  auto* copies = row->mutable_copy_mount_uids();
  const auto end = std::remove(copies->begin(), copies->end(), uid.bytes());
  const bool changed = end != copies->end();
  copies->erase(end, copies->end());
  return changed;
}

}  // namespace

absl::Status Tombstones::RecordCopy(const storage::v1::Tombstone& tombstone,
                                    const Uuid& mount_uid) {
  return Update(Uuid::FromBytesOrNone(tombstone.image_id()),
                tombstone.generation(), [&](storage::v1::TombstoneRow* row) {
                  if (HoldsCopy(*row, mount_uid)) {
                    return false;
                  }
                  row->add_copy_mount_uids(mount_uid.bytes());
                  return true;
                });
}

std::vector<Tombstones::CopyPlace> Tombstones::CopyPlaces() const {
  std::vector<CopyPlace> out;
  for (const MountInfo& info : deps_.registry->List()) {
    // Nothing is written to one that was away when the index was rebuilt.
    if (info.row.admin_state() == storage::v1::ADMIN_STATE_RETIRED ||
        info.row.unconfirmed()) {
      continue;
    }
    const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    out.push_back(
        {uid, commands_->AttachedSession(uid) != 0,
         info.health == v1::HEALTH_ONLINE || info.health == v1::HEALTH_SLOW,
         0});
  }
  MutexLock lock(&mu_);
  for (CopyPlace& place : out) {
    const auto it = copy_bytes_.find(place.uid.bytes());
    place.copy_bytes = it == copy_bytes_.end() ? 0 : it->second;
  }
  return out;
}

int Tombstones::CountCopies(const storage::v1::TombstoneRow& row,
                            const std::vector<CopyPlace>& places) {
  return static_cast<int>(std::count_if(
      places.begin(), places.end(),
      [&row](const CopyPlace& place) { return HoldsCopy(row, place.uid); }));
}

bool Tombstones::HasCopy(const storage::v1::TombstoneRow& row) const {
  return CountCopies(row, CopyPlaces()) > 0;
}

// Those that hold the file come first: their copy also survives with it.
std::vector<Uuid> Tombstones::CopyTargets(const storage::v1::TombstoneRow& row,
                                          const std::vector<CopyPlace>& places,
                                          int64_t below_bytes) {
  std::vector<std::pair<int, Uuid>> ranked;
  for (const CopyPlace& place : places) {
    if (!place.attached || HoldsCopy(row, place.uid) ||
        place.copy_bytes >= below_bytes) {
      continue;
    }
    const auto& pending = row.pending_mount_uids();
    const bool holds = std::find(pending.begin(), pending.end(),
                                 place.uid.bytes()) != pending.end();
    ranked.emplace_back((place.writes ? 0 : 2) + (holds ? 0 : 1), place.uid);
  }
  std::stable_sort(
      ranked.begin(), ranked.end(),
      [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Uuid> out;
  out.reserve(ranked.size());
  for (const auto& [rank, uid] : ranked) {
    out.push_back(uid);
  }
  return out;
}

absl::Status Tombstones::EnsureCopy(const storage::v1::TombstoneRow& row,
                                    absl::Duration wait) {
  const Deadline deadline(deps_.clock, wait);
  control::v1::Command command;
  *command.mutable_store_tombstone()->mutable_tombstone() = ToCopy(row);
  std::string last = "no agent is attached";
  bool full = false;
  while (true) {
    const int64_t seen = changed_->version();
    for (const Uuid& uid : CopyTargets(row, CopyPlaces())) {
      const absl::Duration left =
          std::min(deps_.options.command_timeout, deadline.left());
      if (left <= absl::ZeroDuration()) {
        break;
      }
      *command.mutable_store_tombstone()->mutable_heard() =
          deps_.index->synced_pair().ToProto();
      const auto result = commands_->Call(uid, command, left, {});
      if (result.ok()) {
        RETURN_IF_ERROR(RecordCopy(ToCopy(row), uid));
        storage::v1::TombstoneRow there;
        there.add_copy_mount_uids(uid.bytes());
        if (HasCopy(there)) {
          return absl::OkStatus();
        }
        last = "the mount that took a copy was retired meanwhile";
        continue;
      }
      last = std::string(result.status().message());
      full = HasReason(result.status(), reason::kMountFull);
    }
    const absl::Duration left = deadline.left();
    if (left <= absl::ZeroDuration() || !changed_->WaitPast(seen, left)) {
      break;
    }
  }
  const std::string image = ImageName(Uuid::FromBytesOrNone(row.image_id()));
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kNoTombstoneCopy,
      absl::StrCat("the delete of ", image,
                   " is written in the index but on no mount within ",
                   absl::FormatDuration(wait), " (", last,
                   full ? "); the mounts have no room for more deletes that "
                          "wait for a mount which is away: predella cluster "
                          "status names it; repeat the delete when that is "
                          "there, or given up"
                        : "); repeat it when a mount's agent is there, "
                          "NOT_FOUND then says that it is done"),
      {{"image", image}});
}

void Tombstones::SendSecondCopies(const std::set<Key>& leaving) {
  const std::vector<CopyPlace> places = CopyPlaces();
  const std::vector<TombstoneEntry> thin =
      Select([&](const TombstoneEntry& entry) {
        return leaving.count(KeyOf(entry.row)) == 0 &&
               CountCopies(entry.row, places) < kCopiesWanted &&
               !SecondTargets(entry.row, places).empty();
      });
  int sent = 0;
  for (const TombstoneEntry& entry : thin) {
    if (sent == kSecondCopiesPerTick) {
      return;
    }
    sent += SendSecondCopy(entry.row, places) ? 1 : 0;
  }
}

// False: one is under way.
bool Tombstones::SendSecondCopy(const storage::v1::TombstoneRow& row,
                                const std::vector<CopyPlace>& places) {
  const std::vector<Uuid> targets = SecondTargets(row, places);
  const absl::Duration now = deps_.clock->Boot();
  Uuid target;
  {
    MutexLock lock(&mu_);
    SecondCopy& copy = copying_[KeyOf(row)];
    if (copy.next > now) {
      return false;
    }
    // A mount that refused or said nothing must not keep the others from it.
    target = targets[copy.asked++ % targets.size()];
    copy.next = now + kSecondCopyTimeout;
  }
  control::v1::Command command;
  *command.mutable_store_tombstone()->mutable_tombstone() = ToCopy(row);
  *command.mutable_store_tombstone()->mutable_heard() =
      deps_.index->synced_pair().ToProto();
  commands_->CallAsync(
      target, std::move(command),
      [this, row,
       uid = target](const absl::StatusOr<control::v1::CommandResult>& result) {
        deps_.pool->Post([this, row, uid, ok = result.ok()] {
          if (ok) {
            LogIfError(
                RecordCopy(ToCopy(row), uid),
                "the copy is on the mount; the next tick writes another");
          }
          MutexLock lock(&mu_);
          const auto it = copying_.find(KeyOf(row));
          if (it != copying_.end() && ok) {
            copying_.erase(it);
          } else if (it != copying_.end()) {
            it->second.next = absl::ZeroDuration();
          }
        });
      });
  return true;
}

absl::Status Tombstones::TakeOutLost(
    const Uuid& mount_uid, const std::vector<storage::v1::Tombstone>& copies) {
  std::set<Key> brought;
  for (const storage::v1::Tombstone& copy : copies) {
    brought.emplace(copy.image_id(),
                    Generation::FromProto(copy.generation()).ToString());
  }
  const std::vector<TombstoneEntry> lost =
      Select([&](const TombstoneEntry& entry) {
        return HoldsCopy(entry.row, mount_uid) &&
               brought.count(KeyOf(entry.row)) == 0;
      });
  if (lost.empty()) {
    return absl::OkStatus();
  }
  LogWarning("tombstone_copies_lost",
             {{"mount", mount_uid.ToString()},
              {"copies", static_cast<int64_t>(lost.size())}});
  return TakeOut(mount_uid, lost);
}

absl::Status Tombstones::TakeOut(const Uuid& mount_uid,
                                 const std::vector<TombstoneEntry>& entries) {
  for (size_t begin = 0; begin < entries.size(); begin += kRowsPerCommit) {
    const size_t end = std::min(entries.size(), begin + kRowsPerCommit);
    std::vector<storage::v1::TombstoneRow> rows;
    IndexTxn txn = deps_.index->Begin();
    const Generation pair = txn.pair();
    for (size_t i = begin; i < end; ++i) {
      storage::v1::TombstoneRow row = entries[i].row;
      if (TakeOutOf(&row, mount_uid)) {
        txn.RequireTombstone(entries[i].row);
        txn.PutTombstone(row);
        rows.push_back(std::move(row));
      }
    }
    const absl::Status status = deps_.index->Commit(std::move(txn));
    if (status.ok()) {
      for (const storage::v1::TombstoneRow& row : rows) {
        Committed(row, pair, /*written_here=*/false);
      }
      continue;
    }
    if (!absl::IsAborted(status)) {
      return status;
    }
    // Some of them were changed meanwhile: each for itself.
    for (size_t i = begin; i < end; ++i) {
      const storage::v1::TombstoneRow& row = entries[i].row;
      RETURN_IF_ERROR(Update(Uuid::FromBytesOrNone(row.image_id()),
                             row.generation(),
                             [&](storage::v1::TombstoneRow* now) {
                               return TakeOutOf(now, mount_uid);
                             }));
    }
  }
  return absl::OkStatus();
}

}  // namespace predella::server
