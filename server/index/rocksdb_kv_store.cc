#include "server/index/rocksdb_kv_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/iterator.h"
#include "rocksdb/options.h"
#include "rocksdb/slice.h"
#include "rocksdb/status.h"
#include "rocksdb/write_batch.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::server {
namespace {

rocksdb::Slice ToSlice(absl::string_view text) {
  return rocksdb::Slice(text.data(), text.size());
}
absl::string_view ToView(const rocksdb::Slice& slice) {
  return absl::string_view(slice.data(), slice.size());
}

}  // namespace

absl::StatusOr<std::optional<std::string>> RocksDbKvStore::Get(
    absl::string_view key) {
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = db_->Get(
      rocksdb::ReadOptions(), db_->DefaultColumnFamily(), ToSlice(key), &value);
  if (status.IsNotFound()) {
    return std::optional<std::string>();
  }
  if (!status.ok()) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kIndexUnavailable,
                     absl::StrCat("cannot read the index at ", path_, ": ",
                                  status.ToString()));
  }
  return std::optional<std::string>(value.ToString());
}

absl::Status RocksDbKvStore::Scan(
    absl::string_view prefix, absl::string_view after, int64_t limit,
    const std::function<bool(absl::string_view, absl::string_view)>& row) {
  const std::unique_ptr<rocksdb::Iterator> it(
      db_->NewIterator(rocksdb::ReadOptions()));
  it->Seek(ToSlice(std::max(prefix, after)));
  int64_t seen = 0;
  for (; it->Valid() && (limit <= 0 || seen < limit); it->Next()) {
    const absl::string_view key = ToView(it->key());
    if (key == after && !after.empty()) {
      continue;
    }
    if (key.substr(0, prefix.size()) != prefix) {
      break;
    }
    ++seen;
    if (!row(key, ToView(it->value()))) {
      break;
    }
  }
  if (!it->status().ok()) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kIndexUnavailable,
                     absl::StrCat("cannot read the index at ", path_, ": ",
                                  it->status().ToString()));
  }
  return absl::OkStatus();
}

absl::Status RocksDbKvStore::ScanBack(
    absl::string_view prefix, absl::string_view before, int64_t limit,
    const std::function<bool(absl::string_view, absl::string_view)>& row) {
  const std::unique_ptr<rocksdb::Iterator> it(
      db_->NewIterator(rocksdb::ReadOptions()));
  // The first key behind the prefix: its last byte, which is ASCII, plus one.
  std::string end(prefix);
  if (!end.empty()) {
    end.back() = static_cast<char>(end.back() + 1);
  }
  const std::string from(before.empty() ? absl::string_view(end) : before);
  it->SeekForPrev(from);
  int64_t seen = 0;
  for (; it->Valid() && (limit <= 0 || seen < limit); it->Prev()) {
    const absl::string_view key = ToView(it->key());
    if (key >= from) {
      continue;
    }
    if (key.substr(0, prefix.size()) != prefix) {
      break;
    }
    ++seen;
    if (!row(key, ToView(it->value()))) {
      break;
    }
  }
  if (!it->status().ok()) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kIndexUnavailable,
                     absl::StrCat("cannot read the index at ", path_, ": ",
                                  it->status().ToString()));
  }
  return absl::OkStatus();
}

absl::Status RocksDbKvStore::Commit(KvTransaction transaction) {
  Waiter waiter;
  waiter.transaction = &transaction;
  std::vector<Waiter*> group;
  {
    MutexLock lock(&mu_);
    queue_.push_back(&waiter);
    while (writing_ && !waiter.done && !waiter.leads) {
      waiter.cv.Wait(&mu_);
    }
    if (waiter.done) {
      return waiter.result;
    }
    writing_ = true;
    group.swap(queue_);
  }
  CommitGroup(group);
  MutexLock lock(&mu_);
  for (Waiter* member : group) {
    member->done = true;
    member->cv.Signal();
  }
  writing_ = !queue_.empty();
  if (writing_) {
    queue_.front()->leads = true;
    queue_.front()->cv.Signal();
  }
  return waiter.result;
}

void RocksDbKvStore::CommitGroup(const std::vector<Waiter*>& group) {
  absl::Status writable;
  {
    MutexLock lock(&mu_);
    writable = CheckWritableLocked();
  }
  if (!writable.ok()) {
    for (Waiter* member : group) {
      member->result = writable;
    }
    return;
  }
  rocksdb::WriteBatch batch;
  Overlay overlay;
  for (Waiter* member : group) {
    // The only member has nobody after it who would look at the overlay.
    member->result = Stage(*member->transaction,
                           group.size() > 1 ? &overlay : nullptr, &batch);
  }
  if (batch.Count() == 0) {
    return;
  }
  rocksdb::WriteOptions write;
  write.sync = true;
  const rocksdb::Status status = db_->Write(write, &batch);
  if (!status.ok()) {
    // Also to those whose conditions failed: they may have failed against a
    // write of this very group.
    const absl::Status error = Fail(status);
    for (Waiter* member : group) {
      member->result = error;
    }
    return;
  }
  MutexLock lock(&mu_);
  if (free_.has_value()) {
    *free_ -= static_cast<int64_t>(batch.GetDataSize());
  }
}

absl::Status RocksDbKvStore::Stage(const KvTransaction& transaction,
                                   Overlay* overlay,
                                   rocksdb::WriteBatch* batch) {
  for (const KvCondition& condition : transaction.conditions) {
    std::optional<std::string> present;
    bool known = false;
    if (overlay != nullptr) {
      if (const auto it = overlay->find(condition.key); it != overlay->end()) {
        present = it->second;
        known = true;
      }
    }
    if (!known) {
      ASSIGN_OR_RETURN(present, Get(condition.key));
    }
    if (present != condition.value) {
      return MakeError(absl::StatusCode::kAborted, reason::kCommitConflict,
                       "a row of the index that this change requires has "
                       "changed: read it again");
    }
  }
  for (const std::string& key : transaction.deletes) {
    // A batch in memory fails for nothing but its limits, which are not set.
    batch->Delete(ToSlice(key)).PermitUncheckedError();
    if (overlay != nullptr) {
      (*overlay)[key] = std::nullopt;
    }
  }
  for (const auto& [key, value] : transaction.puts) {
    batch->Put(ToSlice(key), ToSlice(value)).PermitUncheckedError();
    if (overlay != nullptr) {
      (*overlay)[key] = value;
    }
  }
  return absl::OkStatus();
}

absl::Status RocksDbKvStore::CheckWritableLocked() {
  if (!failed_.ok()) {
    return failed_;
  }
  const absl::Duration now = options_.clock->Boot();
  if (now - free_time_ >= absl::Seconds(1)) {
    free_ = options_.free_bytes();
    free_time_ = now;
  }
  if (!free_.has_value() || *free_ >= options_.min_free_bytes) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kIndexReadOnly,
      absl::StrCat(
          "the index at ", path_,
          " takes no changes: ", FormatSize(std::max<int64_t>(*free_, 0)),
          " are free there, ", FormatSize(options_.min_free_bytes),
          " are needed to write safely; it goes on by itself once they are"));
}

absl::Status RocksDbKvStore::Fail(const rocksdb::Status& status) {
  LogError("index_write_failed",
           {{"path", path_}, {"error", status.ToString()}});
  const std::string message = absl::StrCat(
      "cannot write the index at ", path_, " (", status.ToString(),
      "); whether the change was kept is known after the coordinator has "
      "started again");
  MutexLock lock(&mu_);
  failed_ = MakeError(
      absl::StatusCode::kUnavailable,
      status.IsNoSpace() ? reason::kIndexReadOnly : reason::kIndexUnavailable,
      message);
  return failed_;
}

std::string RocksDbKvStore::write_error() {
  MutexLock lock(&mu_);
  return std::string(CheckWritableLocked().message());
}

}  // namespace predella::server
