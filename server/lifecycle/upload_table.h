// Upload rows in memory, open and ended, with what is not worth a write: when
// each last showed life. The index is the truth; this finds rows by image and
// by mount without a scan.
#ifndef PREDELLA_SERVER_LIFECYCLE_UPLOAD_TABLE_H_
#define PREDELLA_SERVER_LIFECYCLE_UPLOAD_TABLE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"

#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::server {

struct UploadEntry {
  storage::v1::UploadRow row;
  // n of the commit that wrote the row: an older one never replaces it.
  int64_t pair_n = 0;
  absl::Duration last_life;
  // Open, begun before this start, and its mount has not said yet what became
  // of it: undecided, so it neither expires nor lets a NOT_FOUND pass.
  bool waiting = false;

  bool open() const {
    return row.outcome() == storage::v1::UPLOAD_OUTCOME_UNSPECIFIED;
  }
  // The mount its bytes go to now; none if it has no target.
  Uuid target() const;
  // Whether a mount may still hold something of it that has to go. A file
  // that was committed is not such a thing.
  bool LeftoverOn(const Uuid& mount_uid) const;
};

// Thread-safe.
class UploadTable {
 public:
  // From the index at the start.
  void Load(storage::v1::UploadRow row, absl::Duration now);
  // After the commit of `row` that took `pair`. Rows must be read before the
  // pair is taken: then pairs order the writers of one row.
  void Put(const storage::v1::UploadRow& row, const Generation& pair,
           absl::Duration now);
  void Erase(const Uuid& upload_id);

  std::optional<UploadEntry> Find(const Uuid& upload_id) const;
  std::vector<UploadEntry> OfImage(const Uuid& image_id) const;
  // What a mount may hold that has to go or is still to come, open and ended;
  // costs its answer.
  std::vector<UploadEntry> LeftoversOn(const Uuid& mount_uid) const;
  // Of the open ones; looks at no others.
  std::vector<UploadEntry> SelectOpen(
      const std::function<bool(const UploadEntry&)>& want) const;
  // Of the ended ones; looks at a day's uploads, so it is for ticks only.
  std::vector<UploadEntry> SelectEnded(
      const std::function<bool(const UploadEntry&)>& want) const;
  int64_t open_count() const;

  void Touch(const Uuid& upload_id, absl::Duration now);
  // The upload's mount has registered and answered for it.
  void Decided(const Uuid& upload_id, absl::Duration now);

 private:
  // Around every change of an entry's row.
  void Unlist(const UploadEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void List(const UploadEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  absl::flat_hash_map<Uuid, UploadEntry> entries_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, std::vector<Uuid>> by_image_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<Uuid> open_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, absl::flat_hash_set<Uuid>> left_on_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_UPLOAD_TABLE_H_
