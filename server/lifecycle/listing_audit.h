// One full listing of a mount against the index, outside of RECOVERING: which
// copies that rows name are not there, and which files no row names. Removes
// nothing and adopts nothing.
#ifndef PREDELLA_SERVER_LIFECYCLE_LISTING_AUDIT_H_
#define PREDELLA_SERVER_LIFECYCLE_LISTING_AUDIT_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/upload_manager.h"

namespace predella::server {

// A file under an image's name that no row of the index names.
struct Orphan {
  Uuid image_id;
  Uuid mount_uid;
  int64_t size_bytes = 0;
  // Absent: a file without a record that fits it, which is nobody's (FOREIGN).
  std::optional<storage::v1::ReplicaRecord> record;
  // Why it, or its record, could not be read; empty where it could.
  std::string read_error;
  std::string detail;
  // Its bytes were looked at, and are not those of the image it might be.
  bool refused = false;
  // Why, when it was last read; also where a later listing asks anew.
  std::string refusal;
};

// What a listing showed otherwise than the rows of the index say. With it, and
// the rows as they are later, the digest of a later listing can be told.
struct ListingBasis {
  // Files that are no row's copy as it should be.
  std::vector<control::v1::InventoryEntry> strange;
  // Copies that rows named, and that were not shown as they should be.
  absl::flat_hash_map<Uuid, Generation> absent;
};

// Whether an entry's read_error is a permission, or a link in the file's place:
// the next listing shows that it was mended. Any other is the disk's.
bool MayNotBeRead(absl::string_view read_error);
// Whether the file is the image that its record says, as far as a listing
// tells.
bool IsWhole(const control::v1::InventoryEntry& entry);
// Whether it is that, and what `row` says of its copies.
bool IsAsRowSays(const control::v1::InventoryEntry& entry,
                 const storage::v1::ImageRow& row);

// Begin, then Take each part, or TakeDigest, then Finish. Thread-safe.
//
// What changes while the listing runs is never judged: a copy counts as
// missing only when its row was there before the listing began and is there
// still, of a generation given before it. Files were listed twice by the agent
// (by names, then by records), each looked at under its image's lock.
class ListingAudit {
 public:
  struct Result {
    int64_t expected = 0;  // copies that rows named when it began
    int64_t missing = 0;   // of these, still named and not there
    int64_t found = 0;     // that were missing, and are there again
    // More are missing than is likely one by one: an incident, not a fact.
    bool suspicious = false;
    std::map<Uuid, Orphan> orphans;
    // Ids that bear a file without a record that fits.
    absl::flat_hash_set<Uuid> unfit;
    // For later digests; null: so much is otherwise that it is not kept.
    std::shared_ptr<const ListingBasis> basis;
  };
  // Of each half of a basis.
  static constexpr size_t kMostKept = 10'000;
  // Where more are missing they are counted, and not all named.
  static constexpr int64_t kMostFaults = 10'000;

  // Reads which copies the index names on the mount; blocks. All must outlive
  // it. `alarmed` missing copies were said to be suspicious before, and are no
  // event again.
  static absl::StatusOr<std::unique_ptr<ListingAudit>> Begin(
      const LifecycleDeps& deps, UploadManager* upload_manager,
      Tombstones* tombstones, const Uuid& mount_uid,
      const std::string& mount_name, int64_t alarmed);

  absl::Status Take(const control::v1::InventoryPart& part);
  // Instead of all parts: whether a listing with that digest would show what
  // the rows say, otherwise only as `basis` has it. Then it counts as if it had
  // been taken, and all of it is judged anew. False: nothing was taken.
  absl::StatusOr<bool> TakeDigest(const ListingBasis& basis,
                                  const control::v1::ListingDigest& digest);
  // The listing was whole: writes faults and events, in several commits.
  absl::StatusOr<Result> Finish();

 private:
  ListingAudit(const LifecycleDeps& deps, UploadManager* upload_manager,
               Tombstones* tombstones, const Uuid& mount_uid,
               std::string mount_name, int64_t alarmed);
  absl::Status TakeEntry(const control::v1::InventoryEntry& entry);
  // The entry is not what a listing should show of `row`, a copy here (or of
  // no row).
  void NoteStrange(const control::v1::InventoryEntry& entry,
                   const storage::v1::ImageRow* row);
  // `missing` are the rows whose copies were not shown, or the first of them.
  std::shared_ptr<const ListingBasis> MakeBasis(
      const std::vector<storage::v1::ImageRow>& missing, int64_t count) const;
  // The row names a copy here, and the listing shows a file.
  void TakeCopy(const control::v1::InventoryEntry& entry,
                const storage::v1::ImageRow& row);
  // A whole image that the row, if there is one, does not mean.
  absl::Status TakeStray(const control::v1::InventoryEntry& entry,
                         const std::optional<storage::v1::ImageRow>& row);
  void NameOrphan(const control::v1::InventoryEntry& entry, std::string detail);
  std::string Where(const storage::v1::ImageRow& row) const;

  // Rows of those of `ids` whose copy here is to be judged at this moment.
  absl::StatusOr<std::vector<storage::v1::ImageRow>> Judged(
      const std::vector<Uuid>& ids) const;
  absl::Status WriteFaults(const std::vector<storage::v1::ImageRow>& rows,
                           storage::v1::CopyFault fault, bool events);
  absl::Status ClearFaults(const std::vector<Uuid>& ids, int64_t* cleared);
  storage::v1::EventRow Event(const std::string& kind,
                              const std::string& image_id,
                              const std::string& detail) const;

  const LifecycleDeps deps_;
  UploadManager* const upload_manager_;
  Tombstones* const tombstones_;
  const Uuid mount_uid_;
  const std::string mount_name_;
  const int64_t alarmed_;
  const Generation begin_;

  mutable Mutex mu_;
  int64_t expected_count_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t files_ ABSL_GUARDED_BY(mu_) = 0;
  // Copies that rows name and that no part has shown yet.
  absl::flat_hash_set<Uuid> expected_ ABSL_GUARDED_BY(mu_);
  // What is under the name of such a copy instead of it.
  absl::flat_hash_map<Uuid, std::string> unlike_ ABSL_GUARDED_BY(mu_);
  // Of these: files without a record that can be read.
  absl::flat_hash_set<Uuid> unvouched_ ABSL_GUARDED_BY(mu_);
  std::vector<Uuid> damaged_ ABSL_GUARDED_BY(mu_);
  // Known as missing, and there.
  std::vector<Uuid> found_ ABSL_GUARDED_BY(mu_);
  std::map<Uuid, Orphan> orphans_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<Uuid> unfit_ ABSL_GUARDED_BY(mu_);
  ListingBasis basis_ ABSL_GUARDED_BY(mu_);
  bool too_strange_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_LISTING_AUDIT_H_
