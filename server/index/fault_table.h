// The faults of copies, in memory: nearly every index has none, and every
// answer about an image asks.
#ifndef PREDELLA_SERVER_INDEX_FAULT_TABLE_H_
#define PREDELLA_SERVER_INDEX_FAULT_TABLE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"

#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::server {

struct FaultCounts {
  int64_t missing = 0;
  int64_t damaged = 0;
  int64_t all() const { return missing + damaged; }
};

// Thread-safe. About 200 bytes for each fault.
class FaultTable {
 public:
  struct Change {
    Uuid mount_uid;
    Uuid image_id;
    // Absent: the fault is gone.
    std::optional<storage::v1::FaultRow> row;
  };

  void Apply(const Change& change);

  // Without a lock: whether there is any fault at all.
  bool empty() const { return count_ == 0; }
  std::optional<storage::v1::FaultRow> Find(const Uuid& mount_uid,
                                            const Uuid& image_id) const;
  // Of one mount, with ids greater than `after` ("none": from the first), in
  // the order of the ids.
  std::vector<storage::v1::FaultRow> List(const Uuid& mount_uid,
                                          const Uuid& after,
                                          int64_t limit) const;
  FaultCounts Count(const Uuid& mount_uid) const;

 private:
  struct Mount {
    std::map<Uuid, storage::v1::FaultRow> faults;
    FaultCounts counts;
  };
  std::atomic<int64_t> count_ = 0;
  mutable Mutex mu_;
  absl::flat_hash_map<Uuid, Mount> mounts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_FAULT_TABLE_H_
