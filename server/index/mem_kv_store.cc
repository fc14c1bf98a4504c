#include "server/index/mem_kv_store.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/errors.h"

namespace predella::server {

MemKvStore::MemKvStore(Rows rows) : rows_(std::move(rows)) {}

absl::StatusOr<std::optional<std::string>> MemKvStore::Get(
    absl::string_view key) {
  MutexLock lock(&mu_);
  const auto it = rows_.find(std::string(key));
  return it == rows_.end() ? std::optional<std::string>()
                           : std::optional<std::string>(it->second);
}

absl::Status MemKvStore::Scan(
    absl::string_view prefix, absl::string_view after, int64_t limit,
    const std::function<bool(absl::string_view, absl::string_view)>& row) {
  // Copied first: `row` may call this store.
  std::vector<std::pair<std::string, std::string>> found;
  {
    MutexLock lock(&mu_);
    for (auto it = rows_.lower_bound(std::string(std::max(prefix, after)));
         it != rows_.end(); ++it) {
      if (!after.empty() && it->first == after) {
        continue;
      }
      if (it->first.compare(0, prefix.size(), prefix.data(), prefix.size()) !=
          0) {
        break;
      }
      found.emplace_back(*it);
      if (limit > 0 && static_cast<int64_t>(found.size()) == limit) {
        break;
      }
    }
  }
  for (const auto& [key, value] : found) {
    if (!row(key, value)) {
      break;
    }
  }
  return absl::OkStatus();
}

absl::Status MemKvStore::Commit(KvTransaction transaction) {
  std::function<void()> hook;
  {
    MutexLock lock(&mu_);
    hook.swap(hook_);
  }
  if (hook) {
    hook();
  }
  MutexLock lock(&mu_);
  ++commits_;
  if (!failed_.ok()) {
    return failed_;
  }
  const bool breaks = commits_ == fail_at_;
  if (breaks && fault_ == Fault::kBeforeApplying) {
    return BreakLocked();
  }
  for (const KvCondition& condition : transaction.conditions) {
    const auto it = rows_.find(condition.key);
    const bool holds = condition.value.has_value()
                           ? it != rows_.end() && it->second == *condition.value
                           : it == rows_.end();
    if (!holds) {
      return breaks ? BreakLocked()
                    : MakeError(absl::StatusCode::kAborted,
                                reason::kCommitConflict,
                                "a row of the index that this change requires "
                                "has changed: read it again");
    }
  }
  for (const std::string& key : transaction.deletes) {
    rows_.erase(key);
  }
  for (auto& [key, value] : transaction.puts) {
    rows_[key] = std::move(value);
  }
  return breaks ? BreakLocked() : absl::OkStatus();
}

std::string MemKvStore::write_error() {
  MutexLock lock(&mu_);
  return std::string(failed_.message());
}

void MemKvStore::FailCommit(int64_t n, Fault fault, bool disk_full) {
  MutexLock lock(&mu_);
  fail_at_ = commits_ + n;
  fault_ = fault;
  disk_full_ = disk_full;
}

void MemKvStore::ClearFaults() {
  MutexLock lock(&mu_);
  fail_at_ = 0;
  failed_ = absl::OkStatus();
}

void MemKvStore::BeforeNextCommit(std::function<void()> hook) {
  MutexLock lock(&mu_);
  hook_ = std::move(hook);
}

MemKvStore::Rows MemKvStore::Contents() {
  MutexLock lock(&mu_);
  return rows_;
}

int64_t MemKvStore::commits() {
  MutexLock lock(&mu_);
  return commits_;
}

absl::Status MemKvStore::BreakLocked() {
  failed_ =
      disk_full_
          ? MakeError(absl::StatusCode::kUnavailable, reason::kIndexReadOnly,
                      "cannot write the index: the disk is full")
          : MakeError(absl::StatusCode::kUnavailable, reason::kIndexUnavailable,
                      "cannot write the index: a fault that a test asked for");
  return failed_;
}

}  // namespace predella::server
