// Ordered keys under compare-then-write transactions: the shape that RocksDB,
// memory and, later, etcd have in common.
#ifndef PREDELLA_SERVER_INDEX_KV_STORE_H_
#define PREDELLA_SERVER_INDEX_KV_STORE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace predella::server {

// A key must have exactly this value; absent: the key must not exist.
struct KvCondition {
  std::string key;
  std::optional<std::string> value;
};

// Deletes first, then puts.
struct KvTransaction {
  std::vector<KvCondition> conditions;
  std::vector<std::pair<std::string, std::string>> puts;
  std::vector<std::string> deletes;
};

// Thread-safe.
class KvStore {
 public:
  virtual ~KvStore() = default;

  virtual absl::StatusOr<std::optional<std::string>> Get(
      absl::string_view key) = 0;

  // Calls `row` for keys that begin with `prefix` and are greater than
  // `after` (whole keys; "" is from the first), in order, at most `limit`
  // (0: all), until it returns false. One consistent view.
  virtual absl::Status Scan(
      absl::string_view prefix, absl::string_view after, int64_t limit,
      const std::function<bool(absl::string_view key, absl::string_view value)>&
          row) = 0;

  // As Scan, backwards: keys less than `before` ("": from the last). Here by a
  // scan of them all; a store that can do better does.
  virtual absl::Status ScanBack(
      absl::string_view prefix, absl::string_view before, int64_t limit,
      const std::function<bool(absl::string_view key, absl::string_view value)>&
          row);

  // All or nothing, durable when OK. Concurrent calls share one sync.
  // ABORTED when a condition does not hold: nothing was written. UNAVAILABLE,
  // INDEX_READ_ONLY or INDEX_UNAVAILABLE on a write error: the outcome is
  // unknown, every later Commit fails alike, reads go on.
  virtual absl::Status Commit(KvTransaction transaction) = 0;

  // Why commits fail; empty while they work.
  virtual std::string write_error() = 0;

  // Copies everything that is committed, as it is at one moment, into the
  // directory `path`, which must not exist and is synced when this returns OK.
  // UNIMPLEMENTED where a store keeps no files.
  virtual absl::Status Checkpoint(const std::string& path) {
    return absl::UnimplementedError(
        absl::StrCat("this store makes no copy at ", path));
  }
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_KV_STORE_H_
