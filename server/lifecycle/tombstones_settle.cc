// Tombstones over time: settling and forgetting.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/logging.h"
#include "server/lifecycle/tombstones.h"

namespace predella::server {

// Copies are dropped before the row, so a forgotten tombstone never comes back
// from a mount that was there.
void Tombstones::Forget(const std::vector<TombstoneEntry>& settled) {
  std::map<Uuid, std::vector<TombstoneEntry>> by_mount;
  for (const TombstoneEntry& entry : settled) {
    for (const std::string& uid : entry.row.copy_mount_uids()) {
      auto& list = by_mount[Uuid::FromBytesOrNone(uid)];
      if (list.size() < kMostDropsAtOnce) {
        list.push_back(entry);
      }
    }
    if (entry.row.copy_mount_uids().empty()) {
      IndexTxn txn = deps_.index->Begin();
      txn.RequireTombstone(entry.row);
      txn.DeleteTombstone(entry.row);
      if (deps_.index->Commit(std::move(txn)).ok()) {
        MutexLock lock(&mu_);
        const auto it = entries_.find(KeyOf(entry.row));
        if (it != entries_.end()) {
          Unlist(it->first, it->second.row);
          entries_.erase(it);
        }
        copying_.erase(KeyOf(entry.row));
      }
    }
  }
  for (const auto& [uid, list] : by_mount) {
    DropCopies(uid, list);  // where that fails, a later tick asks again
  }
}

void Tombstones::Settle() {
  const int64_t now = deps_.clock->NowMicros();
  for (const TombstoneEntry& entry :
       Select([](const TombstoneEntry& candidate) {
         return candidate.row.settle_time_us() == 0 &&
                candidate.row.pending_mount_uids().empty();
       })) {
    const Uuid image_id = Uuid::FromBytesOrNone(entry.row.image_id());
    if (LoserWaits(image_id)) {
      continue;
    }
    LogIfError(Update(image_id, entry.row.generation(),
                      [now](storage::v1::TombstoneRow* row) {
                        if (row->settle_time_us() != 0 ||
                            !row->pending_mount_uids().empty()) {
                          return false;
                        }
                        row->set_settle_time_us(now);
                        return true;
                      }),
               "the next tick settles it");
  }
}

// Somebody may have copied the file by hand to a mount that was away then, or
// since its last listing: the image would rise from there (docs/adr/0025). A
// file whose record is lost is not removed, and would rise with its record.
std::vector<TombstoneEntry> Tombstones::Forgettable() {
  const int64_t now = deps_.clock->NowMicros();
  const int64_t keep = absl::ToInt64Microseconds(deps_.options.tombstone_ttl);
  // In this order: no listing that was asked for before one of these was
  // committed has a later number.
  std::vector<Key> met;
  {
    MutexLock lock(&mu_);
    for (const auto& [key, entry] : entries_) {
      if (entry.met_after < 0) {
        met.push_back(key);
      }
    }
  }
  const Listings listings = listings_();
  std::vector<TombstoneEntry> leaving;
  std::vector<TombstoneEntry> waiting;
  {
    MutexLock lock(&mu_);
    for (const Key& key : met) {
      const auto it = entries_.find(key);
      if (it != entries_.end()) {
        it->second.met_after = listings.last;
      }
    }
    for (const auto& [key, entry] : entries_) {
      if (entry.row.settle_time_us() == 0 ||
          entry.row.settle_time_us() + keep > now) {
        continue;
      }
      const bool listed =
          entry.met_after >= 0 && entry.met_after < listings.all;
      (listed ? leaving : waiting).push_back(entry);
    }
  }
  const auto gone = std::partition(
      leaving.begin(), leaving.end(), [this](const TombstoneEntry& entry) {
        return !shows_(Uuid::FromBytesOrNone(entry.row.image_id()));
      });
  waiting.insert(waiting.end(), gone, leaving.end());
  leaving.erase(gone, leaving.end());
  const auto most = static_cast<size_t>(deps_.options.tombstones_waiting_most);
  if (waiting.size() > most) {
    std::sort(waiting.begin(), waiting.end(),
              [](const TombstoneEntry& a, const TombstoneEntry& b) {
                return a.row.settle_time_us() < b.row.settle_time_us();
              });
    const auto end =
        waiting.begin() + static_cast<std::ptrdiff_t>(waiting.size() - most);
    LogWarning("tombstones_forgotten_unlisted",
               {{"tombstones", end - waiting.begin()}});
    leaving.insert(leaving.end(), waiting.begin(), end);
  }
  return leaving;
}

void Tombstones::Tick(bool may_settle) {
  // The numbers of the listings are taken down at every tick.
  std::vector<TombstoneEntry> leaving = Forgettable();
  if (!may_settle) {
    leaving.clear();
  }
  std::set<Key> keys;
  for (const TombstoneEntry& entry : leaving) {
    keys.insert(KeyOf(entry.row));
  }
  SendSecondCopies(keys);
  if (may_settle) {
    MakeRoom(keys);
    Settle();
    Forget(leaving);
  }
}

}  // namespace predella::server
