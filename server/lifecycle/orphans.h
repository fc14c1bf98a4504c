// Files under image names that no row of the index names: what an operator may
// do with them, and images that somebody moved from one mount to another.
#ifndef PREDELLA_SERVER_LIFECYCLE_ORPHANS_H_
#define PREDELLA_SERVER_LIFECYCLE_ORPHANS_H_

#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/ids.h"
#include "common/mutex.h"
#include "predella/v1/mount_service.pb.h"
#include "server/lifecycle/agent_session.h"
#include "server/lifecycle/inventory.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/mount_gate.h"
#include "server/lifecycle/notifier.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/trust_keeper.h"
#include "server/lifecycle/upload_table.h"

namespace predella::server {

// Thread-safe. NOT_FOUND, MOUNT_NOT_FOUND for an unknown mount; NOT_FOUND,
// IMAGE_NOT_FOUND for a file that no listing showed.
class Orphans {
 public:
  // All must outlive it.
  Orphans(const LifecycleDeps& deps, AgentCommands* commands,
          TrustKeeper* trust, UploadTable* uploads, Tombstones* tombstones,
          Inventory* inventory, MountGate* gate, Notifier* changed);

  absl::StatusOr<v1::ListOrphansResponse> List(
      const v1::ListOrphansRequest& request);
  // Into the quarantine of its mount. FAILED_PRECONDITION in RECOVERING, on a
  // mount that is not trusted, when a row or a conflict names it by now, and
  // when it was moved by hand and its row is to follow. ABORTED while it is
  // being taken in.
  absl::StatusOr<v1::Orphan> Remove(const v1::RemoveOrphanRequest& request);
  // ALREADY_EXISTS, IMAGE_EXISTS when the id is not free; FAILED_PRECONDITION,
  // UPLOAD_DELETED when a delete covers the file, and for one without a record
  // that fits it; ABORTED while the id is uploaded. Also when that came while
  // its agent looked at the file.
  absl::StatusOr<v1::Orphan> Adopt(const v1::AdoptOrphanRequest& request);

  // An image whose copy is missing on one mount and lies as an orphan on
  // another was moved by hand: its row follows. Blocks on the index; called
  // on the pool after every listing.
  void FollowMoves();

 private:
  // Holds an id in busy_.
  class Work {
   public:
    // Not held when it is there already.
    Work(Orphans* orphans, const Uuid& image_id);
    ~Work();
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    bool held() const { return held_; }
    static absl::Status Refused(const Uuid& image_id);

   private:
    Orphans* const orphans_;
    const Uuid image_id_;
    bool held_ = false;
  };
  struct Found {
    MountInfo info;
    Orphan orphan;
  };
  absl::StatusOr<MountInfo> FindMount(const std::string& name) const;
  absl::StatusOr<Found> Find(const std::string& mount, const std::string& image,
                             const std::string& generation) const;
  absl::Status CheckTouchable(const MountInfo& info) const;
  // Whether nothing that the index has speaks against such an image.
  absl::Status CheckFree(const Uuid& image_id, const Generation& generation);
  absl::Status CommitAdoption(const Uuid& mount_uid,
                              const storage::v1::ReplicaRecord& record);
  void Record(const std::string& kind, const Found& found);
  v1::Orphan ToApi(const Orphan& orphan, const MountInfo& info) const;

  // Whether the file may be a copy of the image, as far as it is known without
  // reading it.
  static bool MayBe(const Orphan& orphan, const storage::v1::ImageRow& row);

  // orphan_moves.cc
  // The mount that the row names and whose copy is missing; absent: none.
  std::optional<storage::v1::ImageRow> MovedRow(const Orphan& orphan,
                                                Uuid* source) const;
  // To one mount, one image after the other: all of each file is read.
  void FollowMovesTo(const Uuid& target);
  void AskToAdopt(const Orphan& orphan, const storage::v1::ImageRow& row);
  // Whether the row names the target now.
  bool CommitMove(const Uuid& image_id, const Uuid& target);
  // What the index says against putting the file away.
  absl::Status CheckUnwanted(const Orphan& orphan, const MountInfo& info) const;

  const LifecycleDeps deps_;
  AgentCommands* const commands_;
  TrustKeeper* const trust_;
  UploadTable* const uploads_;
  Tombstones* const tombstones_;
  Inventory* const inventory_;
  MountGate* const gate_;
  Notifier* const changed_;

  Mutex mu_;
  // Mounts that were asked to take a file in, and have not answered.
  absl::flat_hash_set<Uuid> asking_ ABSL_GUARDED_BY(mu_);
  // Images whose files are being put away or taken in: one of them at a time,
  // until the index has what came of it.
  absl::flat_hash_set<Uuid> busy_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_ORPHANS_H_
