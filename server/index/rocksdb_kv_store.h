// KvStore over RocksDB: one directory, synced writes, commits of callers that
// wait together share one sync.
#ifndef PREDELLA_SERVER_INDEX_ROCKSDB_KV_STORE_H_
#define PREDELLA_SERVER_INDEX_ROCKSDB_KV_STORE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "server/index/kv_store.h"

namespace rocksdb {
class DB;
class Env;
class FileLock;
class Status;
class WriteBatch;
}  // namespace rocksdb

namespace predella::server {

class ManifestGuard;

struct RocksDbOptions {
  // Where files are; null: the machine's file systems. Must outlive the store.
  rocksdb::Env* env = nullptr;
  size_t block_cache_bytes = size_t{96} << 20;
  // A disk that fills up under the write-ahead log can abort the process, so
  // commits are refused (INDEX_READ_ONLY) while less than this is free; they
  // work again by themselves once it is.
  int64_t min_free_bytes = int64_t{64} << 20;
  // Bytes free where the index lies, asked at most once a second; absent: not
  // known, nothing is refused. Null: statvfs of the directory, or no check
  // where `env` is set.
  std::function<std::optional<int64_t>()> free_bytes;
  Clock* clock = RealClock();
};

struct KvSummary {
  int64_t rows = 0;
  int64_t images = 0;
  // Values of meta/cluster and meta/epochs.
  std::string cluster;
  std::string epochs;
};

// Thread-safe.
class RocksDbKvStore final : public KvStore {
 public:
  // Opens or makes the index at `path`; the directory above must exist.
  // FAILED_PRECONDITION when another process holds it, DATA_LOSS when it is
  // damaged (it is never repaired automatically). An index on a full disk
  // opens for reading: write_error() says so, commits fail until it is opened
  // again.
  static absl::StatusOr<std::unique_ptr<KvStore>> Open(
      const std::string& path, const RocksDbOptions& options = {});

  ~RocksDbKvStore() override;

  absl::StatusOr<std::optional<std::string>> Get(
      absl::string_view key) override;
  absl::Status Scan(
      absl::string_view prefix, absl::string_view after, int64_t limit,
      const std::function<bool(absl::string_view, absl::string_view)>& row)
      override;
  absl::Status ScanBack(
      absl::string_view prefix, absl::string_view before, int64_t limit,
      const std::function<bool(absl::string_view, absl::string_view)>& row)
      override;
  absl::Status Commit(KvTransaction transaction) override;
  std::string write_error() override;
  // Links the files that never change where `path` is on the same file system,
  // copies all of them elsewhere.
  absl::Status Checkpoint(const std::string& path) override;

  // Opens a directory for reading alone and reads all rows of it, checksums
  // verified, without a lock: for copies that nobody has open. DATA_LOSS when
  // it is damaged, or is no index of Predella.
  static absl::StatusOr<KvSummary> Inspect(const std::string& path);

 private:
  // A caller of Commit, on its stack. `done` under mu_; `result` is written by
  // the leader before it.
  struct Waiter {
    const KvTransaction* transaction = nullptr;
    absl::Status result;
    bool done = false;
    bool leads = false;  // the next group is its to write
    // Its own: a group's end wakes those it concerns and nobody else.
    CondVar cv;
  };
  // Writes of the group being built, which conditions see.
  using Overlay = absl::flat_hash_map<std::string, std::optional<std::string>>;

  RocksDbKvStore(std::string path, RocksDbOptions options);

  absl::Status OpenWritable();
  absl::Status OpenReadOnly(absl::string_view why);
  // Runs on one thread at a time, without mu_.
  void CommitGroup(const std::vector<Waiter*>& group);
  absl::Status Stage(const KvTransaction& transaction, Overlay* overlay,
                     rocksdb::WriteBatch* batch);
  absl::Status CheckWritableLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Fail(const rocksdb::Status& status);

  const std::string path_;
  RocksDbOptions options_;
  std::shared_ptr<ManifestGuard> manifest_;
  std::unique_ptr<rocksdb::DB> db_;
  // Held by hand when the index is open for reading: RocksDB takes no lock.
  rocksdb::FileLock* read_only_lock_ = nullptr;

  Mutex mu_;
  std::vector<Waiter*> queue_ ABSL_GUARDED_BY(mu_);
  // A group is being written, or its successor was named.
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  // Sticky: the first write error, or why the index is open for reading.
  absl::Status failed_ ABSL_GUARDED_BY(mu_);
  std::optional<int64_t> free_ ABSL_GUARDED_BY(mu_);
  absl::Duration free_time_ ABSL_GUARDED_BY(mu_) = -absl::InfiniteDuration();
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_ROCKSDB_KV_STORE_H_
