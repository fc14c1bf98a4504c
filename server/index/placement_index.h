// The typed index over a KvStore: images, images by mount, uploads and their
// outcomes, tombstones, mounts, events, epochs. The only code that knows keys
// (docs/on-disk-format.md lists them).
#ifndef PREDELLA_SERVER_INDEX_PLACEMENT_INDEX_H_
#define PREDELLA_SERVER_INDEX_PLACEMENT_INDEX_H_

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
#include "absl/types/span.h"

#include "common/clock.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"
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

  // Image row and its by-mount rows.
  void PutImage(const storage::v1::ImageRow& row);
  // Takes the row that is there, for its by-mount rows.
  void DeleteImage(const storage::v1::ImageRow& row);
  void PutUpload(const storage::v1::UploadRow& row);
  void DeleteUpload(const storage::v1::UploadRow& row);
  void PutTombstone(const storage::v1::TombstoneRow& row);
  void DeleteTombstone(const storage::v1::TombstoneRow& row);
  void PutMount(const storage::v1::MountRow& row);
  void PutEvent(const storage::v1::EventRow& row);
  void PutRecovering(const storage::v1::RecoveringRow& row);
  void DeleteRecovering();

 private:
  friend class PlacementIndex;
  explicit IndexTxn(const Generation& pair) : pair_(pair) {}
  struct TotalsChange {
    Uuid mount_uid;
    int64_t count;
    int64_t bytes;
  };
  Generation pair_;
  KvTransaction kv_;
  std::vector<TotalsChange> totals_;
};

// Thread-safe. Reads never block on commits.
class PlacementIndex {
 public:
  struct OpenOptions {
    // A new cluster may be made when index and epoch file are both empty.
    bool create = true;
  };

  // Opens the index and begins a new epoch: one above everything in the index
  // and the epoch file, with fresh random bytes; both are synced before this
  // returns. Consumes the mark of a clean close. FAILED_PRECONDITION when the
  // index is of a newer format, or is empty while the epoch file is not (the
  // index was lost: says what helps). `kv`, `epoch_file`, `clock` and `ids`
  // must outlive it.
  static absl::StatusOr<std::unique_ptr<PlacementIndex>> Open(
      KvStore* kv, EpochFile* epoch_file, Clock* clock, IdGenerator* ids,
      const OpenOptions& options);

  const storage::v1::ClusterRow& cluster() const { return cluster_; }
  // Whether this start made the cluster.
  bool created() const { return created_; }
  int64_t epoch() const { return epochs_.current_epoch(); }
  uint32_t epoch_nonce() const { return epochs_.current_nonce(); }
  // The mark found at the start, when the last close was clean.
  const std::optional<storage::v1::CleanMarker>& clean_start() const {
    return clean_start_;
  }

  // Highest pair that is synced: the only one agents may be told.
  Generation synced_pair() const;
  // Whether somebody who heard `known` knows no more than this index.
  bool Covers(absl::Span<const storage::v1::FenceEntry> known) const;
  // Raises the table to `known`, after RECOVERING.
  absl::Status RaiseTo(absl::Span<const storage::v1::FenceEntry> known);

  // Takes the next pair.
  IndexTxn Begin();
  // Durable when OK. ABORTED: something required has changed.
  absl::Status Commit(IndexTxn txn);
  // Why commits fail; empty while they work.
  std::string write_error() const { return kv_->write_error(); }
  // Writes the mark of a clean close as the last commit.
  absl::Status CloseCleanly();

  absl::StatusOr<std::optional<storage::v1::ImageRow>> GetImage(
      const Uuid& image_id) const;
  // Rows with ids greater than `after` ("none": from the first), at most
  // `limit`.
  absl::StatusOr<std::vector<storage::v1::ImageRow>> ListImages(
      const Uuid& after, int64_t limit) const;
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
  absl::StatusOr<std::vector<storage::v1::MountRow>> ListMounts() const;
  absl::StatusOr<std::optional<storage::v1::RecoveringRow>> GetRecovering()
      const;

  // Counted at the start and kept by every commit.
  ImageTotals totals() const;
  ImageTotals mount_totals(const Uuid& mount_uid) const;

 private:
  PlacementIndex(KvStore* kv, EpochFile* epoch_file, Clock* clock,
                 IdGenerator* ids);
  absl::Status Load(const OpenOptions& options);

  KvStore* const kv_;
  EpochFile* const epoch_file_;
  Clock* const clock_;
  IdGenerator* const ids_;

  // Constant after Open.
  storage::v1::ClusterRow cluster_;
  bool created_ = false;
  std::optional<storage::v1::CleanMarker> clean_start_;

  mutable Mutex mu_;
  storage::v1::EpochTable epochs_;  // past raised by RaiseTo only
  int64_t next_n_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t synced_n_ ABSL_GUARDED_BY(mu_) = 0;
  absl::flat_hash_map<Uuid, ImageTotals> mount_totals_ ABSL_GUARDED_BY(mu_);
  ImageTotals totals_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_PLACEMENT_INDEX_H_
