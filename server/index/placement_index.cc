#include "server/index/placement_index.h"

#include <algorithm>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "server/index/epoch_table.h"
#include "server/index/index_keys.h"

namespace predella::server {
namespace {

// How many events are dropped at once.
constexpr int64_t kTrimStep = 1000;

}  // namespace

Generation PlacementIndex::synced_pair() const {
  MutexLock lock(&mu_);
  return {current_.epoch, synced_n_, current_.nonce};
}

bool PlacementIndex::Covers(
    absl::Span<const storage::v1::FenceEntry> known) const {
  MutexLock lock(&mu_);
  return std::all_of(known.begin(), known.end(),
                     [&](const storage::v1::FenceEntry& entry) {
                       mu_.AssertHeld();
                       if (entry.epoch() == current_.epoch &&
                           entry.nonce() == current_.nonce) {
                         return entry.max_n() <= synced_n_;
                       }
                       const storage::v1::FenceEntry* const past =
                           FindEpoch(epochs_, entry.epoch(), entry.nonce());
                       return past != nullptr && entry.max_n() <= past->max_n();
                     });
}

absl::Status PlacementIndex::RaiseTo(
    absl::Span<const storage::v1::FenceEntry> known) {
  MutexLock raise_lock(&raise_mu_);
  storage::v1::EpochTable table;
  int64_t n = 0;
  {
    MutexLock lock(&mu_);
    table = epochs_;
    for (const storage::v1::FenceEntry& entry : known) {
      if (entry.epoch() == current_.epoch && entry.nonce() == current_.nonce) {
        // This very epoch went back under us: go on above what was heard.
        next_n_ = std::max(next_n_, entry.max_n() + 1);
      } else {
        RaiseEpoch(entry, &table);
      }
    }
    n = next_n_++;
  }
  KvTransaction kv;
  kv.puts.emplace_back(keys::kEpochs, SerializeRow(table));
  RETURN_IF_ERROR(CommitPair(std::move(kv), n, {}, {}));
  MutexLock lock(&mu_);
  epochs_ = std::move(table);
  return absl::OkStatus();
}

IndexTxn PlacementIndex::Begin() {
  MutexLock lock(&mu_);
  return IndexTxn({current_.epoch, next_n_++, current_.nonce});
}

absl::Status PlacementIndex::ResolveImages(IndexTxn* txn) const {
  for (IndexTxn::ImageChange& change : txn->images_) {
    if (!change.put.has_value() && !change.deleted) {
      continue;
    }
    if (!change.old.has_value() && !change.required_none) {
      ASSIGN_OR_RETURN(change.old, GetImage(change.id));
      txn->Require(keys::Image(change.id),
                   change.old.has_value()
                       ? std::make_optional(SerializeRow(*change.old))
                       : std::nullopt);
    }
    txn->Resolve(change);
  }
  return absl::OkStatus();
}

void PlacementIndex::ResolveFaults(IndexTxn* txn) const {
  if (faults_.empty()) {
    return;
  }
  for (const IndexTxn::ImageChange& change : txn->images_) {
    if (!change.old.has_value() ||
        (!change.put.has_value() && !change.deleted)) {
      continue;
    }
    for (const storage::v1::CopyRow& copy : change.old->copies()) {
      const Uuid mount = Uuid::FromBytesOrNone(copy.mount_uid());
      if (!FaultOf(*change.old, mount).has_value()) {
        continue;
      }
      const bool stays =
          change.put.has_value() &&
          Generation::FromProto(change.put->generation()) ==
              Generation::FromProto(change.old->generation()) &&
          std::any_of(change.put->copies().begin(), change.put->copies().end(),
                      [&](const storage::v1::CopyRow& now) {
                        return now.mount_uid() == copy.mount_uid();
                      });
      if (!stays) {
        txn->DeleteFault(mount, change.id);
      }
    }
  }
}

absl::Status PlacementIndex::CommitTxn(IndexTxn* txn) {
  if (txn->faults_.empty()) {
    RETURN_IF_ERROR(CommitPair(std::move(txn->kv_), txn->pair_.n, txn->totals_,
                               txn->events_));
    if (std::none_of(txn->images_.begin(), txn->images_.end(),
                     [](const IndexTxn::ImageChange& change) {
                       return change.old.has_value();
                     })) {
      return absl::OkStatus();
    }
    // A fault may have been committed between the look for faults and the
    // commit that took its copy away. Whoever commits one holds the mutex until
    // memory has it, and none can come later: it requires the image's row.
    MutexLock lock(&fault_mu_);
    txn->kv_ = KvTransaction();
    ResolveFaults(txn);
    if (txn->faults_.empty()) {
      return absl::OkStatus();
    }
    const absl::Status late =
        CommitPair(std::move(txn->kv_), txn->pair_.n, {}, {});
    LogIfError(late, "the next start drops the fault of a copy that is gone");
    for (const FaultTable::Change& change : txn->faults_) {
      faults_.Apply(change);
    }
    return absl::OkStatus();
  }
  MutexLock lock(&fault_mu_);
  ResolveFaults(txn);  // again: none is added from here on
  RETURN_IF_ERROR(CommitPair(std::move(txn->kv_), txn->pair_.n, txn->totals_,
                             txn->events_));
  for (const FaultTable::Change& change : txn->faults_) {
    faults_.Apply(change);
  }
  return absl::OkStatus();
}

absl::Status PlacementIndex::Commit(IndexTxn txn) {
  RETURN_IF_ERROR(ResolveImages(&txn));
  ResolveFaults(&txn);
  if (txn.puts_conflict_) {
    had_conflicts_ = true;  // before anybody can read the row
  }
  RETURN_IF_ERROR(CommitTxn(&txn));
  {
    MutexLock lock(&mu_);
    if (trimming_ || events_ < max_events_ + kTrimStep) {
      return absl::OkStatus();
    }
    trimming_ = true;
  }
  LogIfError(TrimEvents(), "old events are dropped by a later commit");
  MutexLock lock(&mu_);
  trimming_ = false;
  return absl::OkStatus();
}

absl::Status PlacementIndex::WritableLocked() const {
  if (!read_only_.empty()) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kIndexReadOnly,
                     read_only_);
  }
  if (closed_) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kIndexUnavailable,
                     "the coordinator is stopping: the index is closed");
  }
  return absl::OkStatus();
}

absl::Status PlacementIndex::CommitPair(
    KvTransaction kv, int64_t n,
    absl::Span<const IndexTxn::TotalsChange> totals,
    absl::Span<const storage::v1::EventRow> events, int64_t dropped_events) {
  {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(WritableLocked());
    if (n <= issued_n_) {
      // Overtaken: a further n for the slot, so that an index that lost this
      // commit and no earlier one is seen to have lost something.
      n = next_n_++;
    }
    issued_n_ = n;
    ++in_flight_;
    if (!events.empty()) {
      event_commits_.insert(n);
    }
  }
  for (size_t i = 0; i < events.size(); ++i) {
    kv.puts.emplace_back(
        keys::Event({current_.epoch, n, current_.nonce}, static_cast<int>(i)),
        SerializeRow(events[i]));
  }
  kv.puts.emplace_back(
      keys::Sequence(n),
      SerializeRow(Generation{current_.epoch, n, current_.nonce}.ToProto()));
  const absl::Status status = kv_->Commit(std::move(kv));
  MutexLock lock(&mu_);
  --in_flight_;
  event_commits_.erase(n);
  idle_.SignalAll();
  RETURN_IF_ERROR(status);
  synced_n_ = std::max(synced_n_, n);
  events_ += static_cast<int64_t>(events.size()) - dropped_events;
  for (const IndexTxn::TotalsChange& change : totals) {
    ImageTotals& sum =
        change.mount_uid.none() ? totals_ : mount_totals_[change.mount_uid];
    sum.count += change.count;
    sum.bytes += change.bytes;
    if (!change.mount_uid.none()) {
      Generation& newest = newest_[change.mount_uid];
      newest = change.generation.After(newest) ? change.generation : newest;
    }
  }
  return absl::OkStatus();
}

std::string PlacementIndex::write_error() const {
  return read_only_.empty() ? kv_->write_error() : read_only_;
}

absl::Status PlacementIndex::CloseCleanly() {
  storage::v1::CleanMarker marker;
  int64_t n = 0;
  {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(WritableLocked());
    closed_ = true;
    while (in_flight_ > 0) {
      idle_.Wait(&mu_);
    }
    *marker.mutable_last() =
        Generation{current_.epoch, synced_n_, current_.nonce}.ToProto();
    n = next_n_++;
  }
  marker.set_close_time_us(clock_->NowMicros());
  KvTransaction kv;
  kv.puts.emplace_back(keys::kClean, SerializeRow(marker));
  kv.puts.emplace_back(
      keys::Sequence(n),
      SerializeRow(Generation{current_.epoch, n, current_.nonce}.ToProto()));
  return kv_->Commit(std::move(kv));
}

absl::Status PlacementIndex::TrimEvents() {
  int64_t excess = 0;
  {
    MutexLock lock(&mu_);
    excess = std::max<int64_t>(0, events_ - max_events_);
  }
  const int64_t oldest_us = absl::ToUnixMicros(clock_->Now() - max_event_age_);
  KvTransaction kv;
  absl::Status parsed;
  RETURN_IF_ERROR(
      kv_->Scan(keys::kEvents, "", 0,
                [&](absl::string_view key, absl::string_view value) {
                  storage::v1::EventRow row;
                  parsed = ParseRow(key, value, &row);
                  if (!parsed.ok() ||
                      (static_cast<int64_t>(kv.deletes.size()) >= excess &&
                       row.time_us() >= oldest_us)) {
                    return false;
                  }
                  kv.deletes.emplace_back(key);
                  return true;
                }));
  RETURN_IF_ERROR(parsed);
  if (kv.deletes.empty()) {
    return absl::OkStatus();
  }
  int64_t n = 0;
  {
    MutexLock lock(&mu_);
    n = next_n_++;
  }
  const auto dropped = static_cast<int64_t>(kv.deletes.size());
  return CommitPair(std::move(kv), n, {}, {}, dropped);
}

}  // namespace predella::server
