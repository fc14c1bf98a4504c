// Copies of the index, taken while it is open.
#ifndef PREDELLA_SERVER_INDEX_BACKUPS_H_
#define PREDELLA_SERVER_INDEX_BACKUPS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "predella/v1/cluster_service.pb.h"
#include "server/index/kv_store.h"

namespace predella::server {

// What the operator has to know of deletes before the copy is put back at
// `now`, where they are remembered for so long; empty: each that was done since
// the copy was made still is. When that was is told by its name alone.
std::string DeletesForgottenBy(const std::string& path, absl::Time now,
                               absl::Duration remembered);

struct BackupOptions {
  // <directory>/<UTC time>, one directory a copy.
  std::string directory;
  // Where the index lies; what a copy would take is its size.
  std::string index;
  // Zero: only when it is asked for.
  absl::Duration interval = absl::Hours(1);
  // Older ones are removed after a newer one is whole.
  int keep = 24;
  // Room that has to be left where copies lie.
  int64_t min_free_bytes = int64_t{256} << 20;
};

// Whole copies in a directory, newest first. A directory that is not there
// has none.
absl::StatusOr<std::vector<v1::IndexBackup>> ListBackups(
    const std::string& directory);

// Thread-safe; one copy at a time.
class IndexBackups {
 public:
  // `kv`, `clock` must outlive it.
  IndexBackups(KvStore* kv, Clock* clock, const BackupOptions& options);

  // Makes a copy, reads it as a whole, and removes the oldest beyond `keep`.
  // A copy that is not whole never bears a name of one. RESOURCE_EXHAUSTED,
  // INDEX_READ_ONLY when there is not enough room; ABORTED while another one
  // is being made. Blocks.
  absl::StatusOr<v1::IndexBackup> Make();

  // Whether `interval` has passed since the last copy was begun, or since
  // this was made.
  bool Due() const;

 private:
  absl::Status CheckRoom() const;
  absl::StatusOr<v1::IndexBackup> MakeNow();
  void RemoveOld();

  KvStore* const kv_;
  Clock* const clock_;
  const BackupOptions options_;
  mutable Mutex mu_;
  bool making_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration begun_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_BACKUPS_H_
