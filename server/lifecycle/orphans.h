// Files under image names that no row of the index names: what an operator may
// do with them, and images that somebody moved from one mount to another.
#ifndef PREDELLA_SERVER_LIFECYCLE_ORPHANS_H_
#define PREDELLA_SERVER_LIFECYCLE_ORPHANS_H_

#include <functional>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/ids.h"
#include "common/mutex.h"
#include "common/wait.h"
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
  // A file of the very image that the index has takes the place of a copy that
  // is missing, damaged, or on a mount that is away, once its bytes were read:
  // DATA_LOSS when they are others, ABORTED while that goes on, and the row
  // follows later.
  // A file without a record is read by its agent, and becomes an image when it
  // is what `plain` says; ABORTED while that goes on, and the same request
  // again says what came of it.
  // ALREADY_EXISTS, IMAGE_EXISTS when the id is not free; FAILED_PRECONDITION,
  // UPLOAD_DELETED when a delete covers the file, and for one without a record
  // that fits it; ABORTED while the id is uploaded. Also when that came while
  // its agent looked at the file.
  absl::StatusOr<v1::Orphan> Adopt(const v1::AdoptOrphanRequest& request);

  // An image whose copy is missing on one mount, or on one that is away or
  // retired, and lies as an orphan on another: its row follows. Blocks on the
  // index; called on the pool after every listing.
  void FollowMoves();
  // Once a second: the same where a mount went away or was retired.
  void Tick();

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
    // Once; otherwise when it goes out of scope.
    void Release();
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

  // orphan_plain.cc
  // Where the file is the copy that a row names: what an earlier request of the
  // same file came to, or Mend. Absent: it is not.
  absl::StatusOr<std::optional<v1::Orphan>> TakenIn(
      const v1::AdoptOrphanRequest& request);
  // Of a generation of its own, whose pair is synced.
  absl::StatusOr<storage::v1::ReplicaRecord> RecordOfPlain(
      const Uuid& image_id, const v1::PlainFile& plain);
  absl::StatusOr<v1::Orphan> AdoptPlain(const Found& found,
                                        const v1::PlainFile& plain,
                                        bool validate_only);
  // Called on the pool when the file was read: what came of the request.
  absl::Status FinishPlain(const Found& found,
                           const storage::v1::ReplicaRecord& record,
                           const absl::Status& looked, Work* work);

  void Record(const std::string& kind, const Found& found);
  v1::Orphan ToApi(const Orphan& orphan, const MountInfo& info) const;
  v1::Orphan Adopted(const Found& found) const;
  // What came of the reading of a file; ABORTED while it goes on, `then` says
  // what to do.
  absl::Status AwaitRead(Answer<absl::Status>* outcome, const Orphan& file,
                         absl::string_view then) const;

  // Whether the file may be a copy of the image, as far as it is known without
  // reading it.
  static bool MayBe(const Orphan& orphan, const storage::v1::ImageRow& row);

  // orphan_moves.cc
  struct Move {
    storage::v1::ImageRow row;
    Uuid source;  // whose copy the file takes the place of
  };
  // What the row may follow to the file. `told`: by an operator, also from a
  // copy that is damaged. Absent: it is another image, or nothing is to be
  // done.
  std::optional<Move> MoveOf(const Orphan& orphan, bool told) const;
  // To one mount, one image after the other: all of each file is read.
  void FollowMovesTo(const Uuid& target);
  void Follow(const Orphan& orphan, const Move& move);
  // Has the file looked at by its agent; `done` is called on the pool.
  void AskToAdopt(const Orphan& orphan, const Move& move,
                  std::function<void(const absl::Status&)> done);
  absl::StatusOr<v1::Orphan> AdoptMoved(const Found& found, const Move& move,
                                        bool validate_only);
  storage::v1::EventRow MovedEvent(const Uuid& image_id, const MountInfo& to,
                                   const Uuid& source, bool missing) const;
  // orphan_mend.cc. A copy where its row says: is it there? Its record is
  // written anew where it is lost; one that the index calls missing or damaged
  // is read whole.
  absl::StatusOr<v1::Orphan> Mend(const MountInfo& info,
                                  const storage::v1::ImageRow& row,
                                  bool validate_only);
  absl::Status CommitMend(const Uuid& image_id, const Uuid& mount_uid,
                          const Generation& generation);
  // OK: the row names the target now.
  absl::Status CommitMove(const Uuid& image_id, const Uuid& target, bool told);
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
  // Mounts that were away or retired at the last look.
  absl::flat_hash_set<Uuid> away_ ABSL_GUARDED_BY(mu_);
  // Images whose files are being put away or taken in: one of them at a time,
  // until the index has what came of it.
  absl::flat_hash_set<Uuid> busy_ ABSL_GUARDED_BY(mu_);
};

// The record that stands for the copies of a row, byte for byte.
storage::v1::ReplicaRecord RecordOfRow(const storage::v1::ImageRow& row);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_ORPHANS_H_
