// The typed index over a KvStore: images, images by mount, uploads and their
// outcomes, tombstones, mounts, events, epochs. The only code that knows keys
// (docs/index-format.md lists them).
#ifndef PREDELLA_SERVER_INDEX_PLACEMENT_INDEX_H_
#define PREDELLA_SERVER_INDEX_PLACEMENT_INDEX_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "common/clock.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/index/fault_table.h"
#include "server/index/kv_store.h"

namespace predella::server {

// The epoch's second home: a file beside the index, so that an index put back
// from a copy cannot give an epoch again. Written to a temporary name, synced,
// renamed, directory synced.
class EpochFile {
 public:
  virtual ~EpochFile() = default;
  // Absent: never written.
  virtual absl::StatusOr<std::optional<storage::v1::EpochTable>> Read() = 0;
  virtual absl::Status Write(const storage::v1::EpochTable& table) = 0;
};

// <directory>/epoch.
std::unique_ptr<EpochFile> MakePosixEpochFile(const std::string& directory);

struct ImageTotals {
  int64_t count = 0;
  int64_t bytes = 0;
};

// One commit being put together. Rows it requires must be unchanged since they
// were read, else Commit is ABORTED and the caller reads again.
class IndexTxn {
 public:
  // The pair this commit takes.
  const Generation& pair() const { return pair_; }

  void RequireNoImage(const Uuid& image_id);
  void RequireImage(const storage::v1::ImageRow& row);
  void RequireNoUpload(const Uuid& upload_id);
  void RequireUpload(const storage::v1::UploadRow& row);
  void RequireMount(const storage::v1::MountRow& row);
  void RequireNoMount(const Uuid& mount_uid);
  void RequireTombstone(const storage::v1::TombstoneRow& row);

  // Image row and its by-mount rows. What it replaces is taken from
  // RequireImage or DeleteImage where those were called, else read by Commit.
  void PutImage(const storage::v1::ImageRow& row);
  // Takes the row that is there, for its by-mount rows, and requires it.
  void DeleteImage(const storage::v1::ImageRow& row);
  void PutUpload(const storage::v1::UploadRow& row);
  void DeleteUpload(const storage::v1::UploadRow& row);
  void PutTombstone(const storage::v1::TombstoneRow& row);
  void DeleteTombstone(const storage::v1::TombstoneRow& row);
  void PutConflict(const storage::v1::ConflictRow& row);
  void DeleteConflict(const storage::v1::ConflictRow& row);
  void RequireConflict(const storage::v1::ConflictRow& row);
  // A fault belongs to the image row that names its copy: call RequireImage
  // too. It is deleted by the commit that deletes or replaces that row.
  void PutFault(const storage::v1::FaultRow& row);
  void DeleteFault(const Uuid& mount_uid, const Uuid& image_id);
  // A file that RECOVERING could not adopt. Of the row only these count: image
  // id, size, the mount as its one copy, and a generation that the file is not
  // above.
  void PutUnadopted(const storage::v1::ImageRow& file);
  void DeleteUnadopted(const Uuid& image_id, const Uuid& mount_uid);
  void PutMount(const storage::v1::MountRow& row);
  void PutScrub(const storage::v1::ScrubRow& row);
  void PutEvent(const storage::v1::EventRow& row);
  void PutRecovering(const storage::v1::RecoveringRow& row);
  void DeleteRecovering();

 private:
  friend class PlacementIndex;
  explicit IndexTxn(const Generation& pair) : pair_(pair) {}
  struct ImageChange {
    Uuid id;
    std::optional<storage::v1::ImageRow> old;  // required
    bool required_none = false;
    std::optional<storage::v1::ImageRow> put;
    bool deleted = false;
  };
  struct TotalsChange {
    Uuid mount_uid;  // none: all mounts together
    int64_t count;
    int64_t bytes;
    Generation generation;
  };
  ImageChange* Change(absl::string_view image_id);
  void Require(std::string key, std::optional<std::string> value);
  // A put and a delete of one key: the later call counts.
  void Put(std::string key, std::string value);
  void Delete(std::string key);
  // Image row and by-mount rows of one change, and what they add up to.
  void Resolve(const ImageChange& change);
  void AddTotals(const storage::v1::ImageRow& row, int sign);

  Generation pair_;
  KvTransaction kv_;
  bool puts_conflict_ = false;
  std::vector<FaultTable::Change> faults_;
  std::vector<ImageChange> images_;
  std::vector<TotalsChange> totals_;
  std::vector<storage::v1::EventRow> events_;
};

// `id` rises with every event and is kEventIdBytes long.
struct StoredEvent {
  std::string id;
  storage::v1::EventRow row;
};

// Thread-safe. Reads never block on commits.
class PlacementIndex {
 public:
  struct OpenOptions {
    // A new cluster may be made when index and epoch file are both empty.
    bool create = true;
    // The new epoch is above this one too: for an index whose epoch file is
    // an older copy as well, while mounts have heard of a later epoch.
    int64_t above_epoch = 0;
    // Older events than these are dropped, a thousand at a time.
    int64_t max_events = 100'000;
    absl::Duration max_event_age = absl::Hours(24 * 30);
  };

  // Opens the index and begins a new epoch: one above everything in the index
  // and the epoch file, with fresh random bytes; both are synced before this
  // returns. Consumes the mark of a clean close. FAILED_PRECONDITION when the
  // index is of a newer format, or is empty while the epoch file is not (the
  // index was lost: says what helps). `kv`, `epoch_file`, `clock` and `ids`
  // must outlive it. A `kv` that takes no commits (its disk is full) is opened
  // for reading, in the epoch it last had: read_only() says so, and every
  // commit fails, INDEX_READ_ONLY, until it is opened again.
  static absl::StatusOr<std::unique_ptr<PlacementIndex>> Open(
      KvStore* kv, EpochFile* epoch_file, Clock* clock, IdGenerator* ids,
      const OpenOptions& options);

  const storage::v1::ClusterRow& cluster() const { return cluster_; }
  // Whether this start made the cluster.
  bool created() const { return created_; }
  // Rebuilt from the mounts, once: one that was away then may come back.
  bool rebuilt() const { return rebuilt_; }
  int64_t epoch() const { return current_.epoch; }
  uint32_t epoch_nonce() const { return current_.nonce; }
  bool read_only() const { return !read_only_.empty(); }
  // The mark found at the start, when the last close was clean.
  const std::optional<storage::v1::CleanMarker>& clean_start() const {
    return clean_start_;
  }

  // Highest pair that is synced: the only one agents may be told.
  Generation synced_pair() const;
  // Whether somebody who heard `known` knows no more than this index. Two
  // epochs of one number with different nonces are different epochs.
  bool Covers(absl::Span<const storage::v1::FenceEntry> known) const;
  // Raises the table to `known`, after RECOVERING.
  absl::Status RaiseTo(absl::Span<const storage::v1::FenceEntry> known);

  // Takes the next pair.
  IndexTxn Begin();
  // Durable when OK. ABORTED, COMMIT_CONFLICT: something required has changed.
  // UNAVAILABLE as KvStore::Commit says: the outcome may be unknown.
  absl::Status Commit(IndexTxn txn);
  // Why commits fail; empty while they work.
  std::string write_error() const;
  // Waits for running commits and writes the mark of a clean close; commits
  // that begin later fail.
  absl::Status CloseCleanly();

  absl::StatusOr<std::optional<storage::v1::ImageRow>> GetImage(
      const Uuid& image_id) const;
  // Rows with ids greater than `after` ("none": from the first), in the order
  // of the ids, until `row` returns false. A row is valid during its call.
  absl::Status ScanImages(
      const Uuid& after,
      const std::function<bool(const storage::v1::ImageRow&)>& row) const;
  // Ids of the images with a copy on a mount; costs its answer.
  absl::StatusOr<std::vector<Uuid>> ListMountImages(const Uuid& mount_uid,
                                                    const Uuid& after,
                                                    int64_t limit) const;
  absl::StatusOr<std::optional<storage::v1::UploadRow>> GetUpload(
      const Uuid& upload_id) const;
  // All uploads, open and ended; used at the start.
  absl::Status ScanUploads(
      const std::function<void(const storage::v1::UploadRow&)>& row) const;
  absl::Status ScanTombstones(
      const std::function<void(const storage::v1::TombstoneRow&)>& row) const;
  absl::StatusOr<std::vector<storage::v1::TombstoneRow>> TombstonesOf(
      const Uuid& image_id) const;
  absl::StatusOr<std::vector<storage::v1::ConflictRow>> ConflictsOf(
      const Uuid& image_id) const;
  // In the order of ids. Both look into the store only once there was a
  // conflict: nearly every index has none, and every GetImage asks.
  absl::Status ScanConflicts(
      const std::function<void(const storage::v1::ConflictRow&)>& row) const;
  // What is wrong with the copy of an image on a mount; absent: nothing that
  // is known. From memory.
  std::optional<storage::v1::FaultRow> FaultOf(
      const storage::v1::ImageRow& image, const Uuid& mount_uid) const;
  // Faults of a mount in the order of the ids greater than `after`.
  std::vector<storage::v1::FaultRow> ListFaults(const Uuid& mount_uid,
                                                const Uuid& after,
                                                int64_t limit) const;
  FaultCounts fault_counts(const Uuid& mount_uid) const;
  int64_t fault_count(const Uuid& mount_uid) const {
    return fault_counts(mount_uid).all();
  }
  // What PutUnadopted wrote; used at the start.
  absl::Status ScanUnadopted(
      const std::function<void(const storage::v1::ImageRow&)>& file) const;
  absl::StatusOr<std::vector<storage::v1::MountRow>> ListMounts() const;
  absl::StatusOr<std::vector<storage::v1::ScrubRow>> ListScrubs() const;
  absl::StatusOr<std::optional<storage::v1::RecoveringRow>> GetRecovering()
      const;
  // In the order they were written.
  absl::Status ScanEvents(
      const std::function<void(const storage::v1::EventRow&)>& row) const;
  static constexpr size_t kEventIdBytes = 22;
  // At most `limit` events after the one with this id, oldest first, or before
  // it ("": from the newest), newest first. None that another, still being
  // committed, could come before: whoever goes on at the last id misses none.
  absl::StatusOr<std::vector<StoredEvent>> EventsAfter(absl::string_view id,
                                                       int64_t limit) const;
  absl::StatusOr<std::vector<StoredEvent>> EventsBefore(absl::string_view id,
                                                        int64_t limit) const;

  // Counted at the start and kept by every commit. Images with a copy on some
  // mount; each counts once in totals().
  ImageTotals totals() const;
  ImageTotals mount_totals(const Uuid& mount_uid) const;
  // Of the images on a mount, those that somebody who heard `known` has not
  // heard of. Looks at the mount's list only where the newest may be one.
  absl::StatusOr<ImageTotals> CountUnheard(
      const Uuid& mount_uid,
      absl::Span<const storage::v1::FenceEntry> known) const;

 private:
  friend class IndexCheck;  // reads all rows, and what is counted
  PlacementIndex(KvStore* kv, EpochFile* epoch_file, Clock* clock,
                 IdGenerator* ids);
  absl::Status Load(const OpenOptions& options);
  absl::Status LoadMeta(storage::v1::EpochTable* table, Generation* last);
  absl::Status CheckEmpty(bool epoch_file_exists, bool create) const;
  absl::Status BeginEpoch(const storage::v1::EpochTable& from_index,
                          const Generation& last,
                          const std::optional<storage::v1::EpochTable>& file);
  absl::Status CountTotals();
  absl::Status CountEvents();
  absl::Status LoadFaults();
  // Highest n of an epoch that the slots hold; 0: none.
  absl::StatusOr<int64_t> LastN(int64_t epoch, uint32_t nonce) const;

  // Adds what a put without RequireImage needs, then all image rows.
  absl::Status ResolveImages(IndexTxn* txn) const;
  // Adds the ends of the faults whose copies the commit takes away.
  void ResolveFaults(IndexTxn* txn) const;
  absl::Status CommitTxn(IndexTxn* txn);
  // Adds the sequence slot and commits.
  absl::Status CommitPair(KvTransaction kv, int64_t n,
                          absl::Span<const IndexTxn::TotalsChange> totals,
                          absl::Span<const storage::v1::EventRow> events,
                          int64_t dropped_events = 0);
  // Key before which no further event will come.
  std::string EventHorizon() const;
  absl::Status WritableLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Drops the oldest events beyond the limits; one caller at a time.
  absl::Status TrimEvents();

  KvStore* const kv_;
  EpochFile* const epoch_file_;
  Clock* const clock_;
  IdGenerator* const ids_;

  // Constant after Open.
  int64_t max_events_ = 0;
  int64_t above_epoch_ = 0;
  absl::Duration max_event_age_;
  storage::v1::ClusterRow cluster_;
  bool created_ = false;
  bool rebuilt_ = false;
  std::optional<storage::v1::CleanMarker> clean_start_;
  Generation current_;  // n unused
  std::string read_only_;

  // Some row was there at the start or put since; never taken back.
  std::atomic<bool> had_conflicts_ = false;

  FaultTable faults_;
  // Held over commits that change faults, so that memory sees them in the
  // order of the store; before mu_.
  Mutex fault_mu_;
  Mutex raise_mu_;  // held over RaiseTo, before mu_
  mutable Mutex mu_;
  CondVar idle_;
  storage::v1::EpochTable epochs_ ABSL_GUARDED_BY(mu_);
  int64_t next_n_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t issued_n_ ABSL_GUARDED_BY(mu_) = 0;  // last one given to the store
  int64_t synced_n_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t in_flight_ ABSL_GUARDED_BY(mu_) = 0;
  // The n of commits under way that bear events.
  std::set<int64_t> event_commits_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  int64_t events_ ABSL_GUARDED_BY(mu_) = 0;
  bool trimming_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<Uuid, ImageTotals> mount_totals_ ABSL_GUARDED_BY(mu_);
  ImageTotals totals_ ABSL_GUARDED_BY(mu_);
  // The newest generation that a row ever named on a mount since the start, or
  // names; its row may be gone.
  absl::flat_hash_map<Uuid, Generation> newest_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_PLACEMENT_INDEX_H_
