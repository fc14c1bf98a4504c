// KvStore in memory: for tests and tools, with faults on demand.
#ifndef PREDELLA_SERVER_INDEX_MEM_KV_STORE_H_
#define PREDELLA_SERVER_INDEX_MEM_KV_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/mutex.h"
#include "server/index/kv_store.h"

namespace predella::server {

// Thread-safe.
class MemKvStore final : public KvStore {
 public:
  using Rows = std::map<std::string, std::string>;
  // How a commit breaks: nothing of it kept, or all of it. The caller sees
  // the same error.
  enum class Fault { kBeforeApplying, kAfterApplying };

  MemKvStore() = default;
  // What another one left behind: a restart.
  explicit MemKvStore(Rows rows);

  absl::StatusOr<std::optional<std::string>> Get(
      absl::string_view key) override;
  absl::Status Scan(
      absl::string_view prefix, absl::string_view after, int64_t limit,
      const std::function<bool(absl::string_view, absl::string_view)>& row)
      override;
  absl::Status Commit(KvTransaction transaction) override;
  std::string write_error() override;

  // The n-th Commit from now (1: the next) breaks so, and all after it fail.
  // INDEX_READ_ONLY instead of INDEX_UNAVAILABLE if `disk_full`.
  void FailCommit(int64_t n, Fault fault, bool disk_full = false);
  // Commits work again, as after a restart.
  void ClearFaults();
  // Called before the next Commit is looked at, once, without a lock: what
  // happens in it comes between its conditions being read and being checked.
  void BeforeNextCommit(std::function<void()> hook);
  Rows Contents();
  // Calls of Commit so far, failed ones included.
  int64_t commits();

 private:
  absl::Status BreakLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  Rows rows_ ABSL_GUARDED_BY(mu_);
  std::function<void()> hook_ ABSL_GUARDED_BY(mu_);
  int64_t commits_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t fail_at_ ABSL_GUARDED_BY(mu_) = 0;  // number of a Commit; 0: none
  Fault fault_ ABSL_GUARDED_BY(mu_) = Fault::kBeforeApplying;
  bool disk_full_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status failed_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_MEM_KV_STORE_H_
