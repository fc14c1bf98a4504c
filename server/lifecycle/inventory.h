// What lies on the mounts: the listings, and the end of RECOVERING.
//
// Every mount is listed after every start of the coordinator or its agent, two
// at a time, and compared with the index (ListingAudit); and again after
// rescan_interval, one at a time, which finds what somebody did to the
// directory meanwhile. The latter begins with the digest of a listing
// (inventory_digest.cc): where it is the expected one, nothing is sent.
//
// After a rollback of the index every mount is listed. A complete image that
// nothing in the index speaks against is adopted from its record; one whose id
// has a row of another generation is a conflict: which of the two clients were
// told of cannot be known, so both are kept until an operator chooses. Nothing
// is removed that the index or a tombstone does not name.
#ifndef PREDELLA_SERVER_LIFECYCLE_INVENTORY_H_
#define PREDELLA_SERVER_LIFECYCLE_INVENTORY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/lifecycle/agent_session.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/listing_audit.h"
#include "server/lifecycle/notifier.h"
#include "server/lifecycle/single_run.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/trust_keeper.h"
#include "server/lifecycle/upload_manager.h"
#include "server/lifecycle/upload_table.h"

namespace predella::server {

// Thread-safe.
class Inventory {
 public:
  // All must outlive it. `changed` is told when images were taken in.
  Inventory(const LifecycleDeps& deps, AgentCommands* commands,
            TrustKeeper* trust, UploadTable* uploads,
            UploadManager* upload_manager, Tombstones* tombstones,
            Notifier* changed);
  // Called on the pool when RECOVERING has ended and mounts are trusted.
  void OnEnded(std::function<void()> ended);
  // Called on the pool when a mount was compared with the index.
  void OnAudited(std::function<void()> audited);

  // Asks for the listings that are missing, and ends RECOVERING when there are
  // none. Posts its work; a second call while one runs does nothing.
  void Tick();

  // A part of a listing that was asked for; blocks on the index.
  // FAILED_PRECONDITION for any other.
  absl::Status Take(const control::v1::InventoryPart& part);

  // TrustKeeper::TakeIn, and the listings that follow from it.
  absl::Status TakeIn(const storage::v1::MountRow& old);

  // Whether a mount was listed as it is now; true outside of RECOVERING.
  bool Listed(const MountInfo& info) const;

  // unadopted.cc. A file that a listing showed under the name of an image which
  // the index does not have, and whose record could not vouch for it: it is
  // neither adopted nor called missing, also after a start, until a listing
  // shows that it is gone. A tombstone rules over it.
  struct Unadopted {
    Uuid image_id;
    Uuid mount_uid;
    int64_t size_bytes = 0;
    // Whatever image it was of had no later generation.
    Generation not_above;
    // In which it was seen; 0: before this start of the coordinator.
    int64_t session = 0;
  };
  std::optional<Unadopted> FindUnadopted(const Uuid& image_id) const;
  std::vector<Unadopted> ListUnadopted() const;
  // Orphans of the last listing and those of ListUnadopted that it did not
  // show, in the order of their ids; as ListOrphans.
  std::vector<Orphan> ListUnnamed(const Uuid& mount_uid, const Uuid& after,
                                  int64_t limit) const;
  // Reads those of earlier starts.
  absl::Status Load();

  // Names of the mounts whose listings RECOVERING waits for; empty without.
  std::vector<std::string> Awaited() const;

  // For whoever wants to know how the mounts are: asks for one more listing of
  // each mount that can be listed, as soon as there is room, or joins such a
  // round that has not ended. Returns the number that the listings begun before
  // the round are not above.
  int64_t ListAllAgain();
  // One mount in full, as soon as it can be, and if that fails soon again; the
  // same number.
  int64_t ListSoon(const Uuid& mount_uid);
  // What the listings of a mount that are above `after` came to.
  struct Relisted {
    bool compared = false;
    // Of the last one, where none was compared; OK: none has ended.
    absl::Status error;
  };
  Relisted RelistedSince(const Uuid& mount_uid, int64_t after) const;

  // What each mount's last listing comes to for tombstones.
  Tombstones::Listings ListedAll() const;

  // What the last listing of a mount outside of RECOVERING came to.
  struct Audited {
    int64_t number = 0;   // of the listing
    int64_t session = 0;  // it was of
    int64_t expected = 0;
    int64_t missing = 0;
    bool suspicious = false;
    std::map<Uuid, Orphan> orphans;
    // To compare digests with; null: there is none.
    std::shared_ptr<const ListingBasis> basis;
  };
  // Digests that were compared since the start: how many were as expected, and
  // how many led to a listing.
  struct Digests {
    int64_t same = 0;
    int64_t other = 0;
  };
  Digests digests() const;
  // Mounts that were compared since the start of the coordinator, by uid.
  bool WasAudited(const Uuid& mount_uid) const;
  // As many as ListOrphans has, and of a mount that was given up none.
  int64_t OrphanCount(const Uuid& mount_uid) const;
  // In the order of the ids, greater than `after` ("none": from the first).
  std::vector<Orphan> ListOrphans(const Uuid& mount_uid, const Uuid& after,
                                  int64_t limit) const;
  std::optional<Orphan> FindOrphan(const Uuid& mount_uid,
                                   const Uuid& image_id) const;
  // Whole files under the name of the image, wherever the last listings showed
  // one; also on mounts that are away since.
  std::vector<Orphan> WholeOrphansOf(const Uuid& image_id) const;
  // Whether the last listings show any file under the name of the image that no
  // row names as its copy.
  bool ShowsFileOf(const Uuid& image_id) const;
  // A row names it by now; what a listing that runs saw of it does not count.
  void ForgetOrphan(const Uuid& mount_uid, const Uuid& image_id);
  // It is gone.
  absl::Status DropOrphan(const Uuid& mount_uid, const Uuid& image_id);
  // It is not what it seemed: `detail` says why.
  void RefuseOrphan(const Uuid& mount_uid, const Uuid& image_id,
                    std::string detail);
  // Makes an image of it, as RECOVERING does. ABORTED when something changed
  // meanwhile.
  absl::Status AdoptOrphan(const Uuid& mount_uid,
                           const storage::v1::ReplicaRecord& record);

  // Its last listing lacked more than is likely one by one; absent: no, or not
  // any more.
  struct Suspicion {
    int64_t missing = 0;
    int64_t expected = 0;
  };
  std::optional<Suspicion> SuspicionOf(const Uuid& mount_uid) const;

 private:
  using OrphanMap = std::map<Uuid, Orphan>;
  // Those that count.
  const OrphanMap& OrphansLocked(const Uuid& mount_uid, bool given_up) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool GivenUp(const Uuid& mount_uid) const;

  // A listing brings a thousand entries at a time. One without any for so long
  // is stuck in one call, or its agent has forgotten it.
  static constexpr absl::Duration kListingStalls = absl::Minutes(5);
  struct Listing {
    std::string id;           // of the one that runs, or was taken in
    std::string incarnation;  // of the agent that gives it
    int64_t session = 0;      // in which it was asked for
    bool done = false;        // ... and taken in whole
    bool recovering = false;  // it was asked for in RECOVERING
    // Else; shared with the calls that bring its parts.
    std::shared_ptr<ListingAudit> audit;
    // Not before then again, when it failed.
    absl::Duration retry;
    absl::Duration moved;     // when it was asked for, or brought a part, last
    absl::Duration patience;  // for so long without a part
    // Images that ForgetOrphan named since it was asked for: what it showed of
    // them may be older.
    absl::flat_hash_set<Uuid> settled;
    // Of audits: rises with each that is asked for, of whatever mount.
    int64_t number = 0;
    absl::Duration begin;
    // When one that is done is made again by itself.
    absl::Duration due;
    // The session in which ListAllAgain wants another one; 0: none.
    int64_t again = 0;
    // What the digest is compared with; null: it is a whole listing.
    std::shared_ptr<const ListingBasis> basis;
    bool in_full = false;  // the digest was not the expected one
    bool soon = false;     // ListSoon wants another one
    bool waited = false;   // ... and none was compared since
    bool asked = false;    // this one was wanted so
    int64_t failed = 0;    // number of the last one that failed, and why
    absl::Status error;
  };

  // unadopted.cc
  absl::Status NoteUnadopted(
      const Uuid& mount_uid,
      const std::vector<control::v1::InventoryEntry>& entries);
  absl::StatusOr<std::optional<Unadopted>> ToNote(
      const Uuid& mount_uid, const control::v1::InventoryEntry& entry);
  absl::Status DropUnadopted(const std::function<bool(const Unadopted&)>& gone);
  // Those whose ids were deleted since, for good: a delete is forgotten.
  void DropDeleted();
  // Those that the listing does not show any more, or whose id has a row.
  // Takes those in whose records can be read by now, as RECOVERING would have,
  // and out of what the listing calls orphans. Only in the session that they
  // were first seen in: the next one may bring an older copy of the directory.
  absl::Status AdoptReturned(const Uuid& mount_uid,
                             ListingAudit::Result* result);
  absl::Status DropSettledUnadopted(const Uuid& mount_uid,
                                    const ListingAudit::Result& result);
  bool GivenUp(const Unadopted& file) const;
  bool Counts(const Unadopted& file) const;

  enum class Verdict { kNothing, kAdopt, kDisplace, kConflict };

  void RunTick();
  // Whether the mount's present agent was listed since RECOVERING began.
  bool ListedLocked(const MountInfo& info) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Ask(const MountInfo& info);
  void Listed(const Uuid& mount_uid, const std::string& listing_id,
              const absl::Status& status);
  void End(int64_t taken_in);

  // inventory_audit.cc
  // One that never ends would keep all others from their turn.
  void GiveUpStalled(const std::vector<MountInfo>& mounts);
  void AskForAudits(const std::vector<MountInfo>& mounts);
  // `rescan`: nobody waits for it, and a digest will do.
  void AskForAudit(const MountInfo& info, int64_t session, bool rescan);
  void FailedLocked(Listing* listing, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes the place of what the listing before it showed.
  void KeepLocked(const Uuid& mount_uid, Listing* listing,
                  ListingAudit::Result result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AuditListed(const Uuid& mount_uid, const std::string& listing_id,
                   const absl::StatusOr<control::v1::CommandResult>& answer);
  void FinishAudit(const Uuid& mount_uid, const std::string& listing_id,
                   const std::shared_ptr<ListingAudit>& audit);

  // inventory_digest.cc: null where the agent gives none, or there is nothing
  // to compare it with.
  std::shared_ptr<const ListingBasis> BasisLocked(const MountInfo& info,
                                                  int64_t session) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CompareDigest(const Uuid& mount_uid, const std::string& listing_id,
                     const std::shared_ptr<ListingAudit>& audit,
                     const control::v1::ListingDigest& digest);

  // inventory_adopt.cc
  absl::StatusOr<Verdict> Judge(const Uuid& mount_uid,
                                const storage::v1::ReplicaRecord& record);
  // What the index ended, or never had, is to be removed once the mount is
  // trusted.
  absl::Status RemoveAgain(const Uuid& mount_uid,
                           const storage::v1::UploadRow& row);
  // ABORTED: something changed meanwhile; judge anew.
  absl::Status Adopt(const Uuid& mount_uid,
                     absl::Span<const storage::v1::ReplicaRecord> records);
  // Of several generations out of a history that was lost, the highest is the
  // image; the one adopted before becomes the conflict.
  absl::Status Displace(const Uuid& mount_uid,
                        const storage::v1::ReplicaRecord& record);
  absl::Status NoteConflict(const Uuid& mount_uid,
                            const storage::v1::ReplicaRecord& record);
  absl::Status TakeBatch(const Uuid& mount_uid,
                         absl::Span<const storage::v1::ReplicaRecord> records);

  const LifecycleDeps deps_;
  AgentCommands* const commands_;
  TrustKeeper* const trust_;
  UploadTable* const uploads_;
  UploadManager* const upload_manager_;
  Tombstones* const tombstones_;
  Notifier* const changed_;
  std::function<void()> ended_;         // constant after OnEnded
  std::function<void()> audited_done_;  // constant after OnAudited

  SingleRun ticks_;
  mutable Mutex mu_;
  absl::flat_hash_map<Uuid, Listing> listings_ ABSL_GUARDED_BY(mu_);
  int64_t last_number_ ABSL_GUARDED_BY(mu_) = 0;
  Digests digests_ ABSL_GUARDED_BY(mu_);
  // Of the last round of ListAllAgain.
  int64_t round_after_ ABSL_GUARDED_BY(mu_) = 0;
  // Since RECOVERING began, or this start.
  absl::flat_hash_set<Uuid> adopted_ ABSL_GUARDED_BY(mu_);
  int64_t conflicts_ ABSL_GUARDED_BY(mu_) = 0;
  // By image and mount; as the index has them.
  std::map<std::pair<Uuid, Uuid>, Unadopted> unadopted_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, Audited> audited_ ABSL_GUARDED_BY(mu_);
};

// The row that a record on a mount stands for.
storage::v1::ImageRow RowOfRecord(const storage::v1::ReplicaRecord& record,
                                  const Uuid& mount_uid);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_INVENTORY_H_
