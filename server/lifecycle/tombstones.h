// Deletes that must not be forgotten: the only writer of tombstone rows.
#ifndef PREDELLA_SERVER_LIFECYCLE_TOMBSTONES_H_
#define PREDELLA_SERVER_LIFECYCLE_TOMBSTONES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/lifecycle/agent_session.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/mount_gate.h"
#include "server/lifecycle/notifier.h"
#include "server/lifecycle/upload_table.h"

namespace predella::server {

struct TombstoneEntry {
  storage::v1::TombstoneRow row;
  int64_t pair_n = 0;
  // Written since this start by a delete of ours, not merged from a mount:
  // only such a one answers NOT_FOUND at once.
  bool written_here = false;
  // The last listing that was asked for when a tick met it first; 0: it is of
  // an earlier start, -1: none has met it.
  int64_t met_after = -1;
};

// Thread-safe. All tombstones are in memory too; the index is the truth.
class Tombstones {
 public:
  // `commands`, `uploads` must outlive it. `changed` is told whenever a mount
  // confirms a removal or attaches.
  Tombstones(const LifecycleDeps& deps, AgentCommands* commands,
             UploadTable* uploads, Notifier* changed);

  // What the listings outside of RECOVERING have come to; their numbers rise
  // from 1 on with each that is asked for since the start.
  struct Listings {
    int64_t last = 0;  // that was asked for
    // Each mount that was not given up is there, and was compared with the
    // index since it came, by a listing of this number or a later one; 0: one
    // was not.
    int64_t all = 0;
  };
  // Asked at each tick; before the first. `shows`: whether the last listing of
  // some mount showed a file under the name of the image.
  void OnListings(std::function<Listings()> listings,
                  std::function<bool(const Uuid&)> shows);

  absl::Status Load();

  // A tombstone for `txn`; call Committed with it after the commit.
  storage::v1::TombstoneRow Make(const Uuid& image_id,
                                 const storage::v1::Generation& generation,
                                 const std::vector<Uuid>& pending) const;
  void Committed(const storage::v1::TombstoneRow& row, const Generation& pair,
                 bool written_here);

  // Whether a delete of this or a later generation of the image is known.
  bool Covers(const Uuid& image_id, const Generation& generation) const;
  std::vector<TombstoneEntry> OfImage(const Uuid& image_id) const;
  std::vector<TombstoneEntry> Select(
      const std::function<bool(const TombstoneEntry&)>& want) const;
  // Whose files a mount has not confirmed gone; costs its answer.
  std::vector<TombstoneEntry> PendingOn(const Uuid& mount_uid) const;
  // Every mount that was not given up.
  std::vector<Uuid> AllMounts() const;
  // Adding while a listing's images are taken in, Counting (of Uuid()) while a
  // tombstone for more than the index has is written: what it covers is either
  // seen by it, or sees it.
  MountGate* adopting() { return &adopting_; }
  // Mounts that may still hold a deleted generation of the image.
  std::vector<Uuid> Leftovers(const Uuid& image_id) const;
  int64_t count() const;

  // Whether a mount that was not given up holds a copy, as far as is known. One
  // that was may be thrown away, or never be given to a rebuild.
  bool HasCopy(const storage::v1::TombstoneRow& row) const;
  // Has a copy synced on at least one attached mount, retired ones aside;
  // blocks.
  // UNAVAILABLE, NO_TOMBSTONE_COPY when there is none in time: the tombstone
  // itself stays.
  absl::Status EnsureCopy(const storage::v1::TombstoneRow& row,
                          absl::Duration wait);

  // A mount has confirmed that nothing of this generation is left on it.
  absl::Status ConfirmRemoved(const Uuid& image_id,
                              const storage::v1::Generation& generation,
                              const Uuid& mount_uid);

  // A listing shows a file of this generation on the mount, and a tombstone of
  // it or of a later one is known: the file is to be removed.
  absl::Status AddPending(const Uuid& image_id,
                          const storage::v1::Generation& generation,
                          const Uuid& mount_uid);

  // Takes in the copies that a mount brought at its registration: they rule
  // over image rows and open uploads, for their generation and every lower
  // one of the id.
  absl::Status Merge(const Uuid& mount_uid,
                     const std::vector<storage::v1::Tombstone>& copies);

  // What a mount brought at its registration is all it has: where the rows say
  // it holds more, as after an older copy of its directory was put back, that
  // is taken out of them, and the next tick writes another copy.
  absl::Status TakeOutLost(const Uuid& mount_uid,
                           const std::vector<storage::v1::Tombstone>& copies);

  // Second copies, settling, and forgetting: what was settled long ago, once
  // every mount was listed since the delete. Of those that wait for a listing
  // alone the oldest are forgotten where they are too many for the mounts'
  // slots. Where a mount's file of deletes fills up, copies of what is settled
  // make room (docs/adr/0026).
  // `may_settle`: not in RECOVERING and no mount is unconfirmed.
  void Tick(bool may_settle);

  // How full the mounts' files of deletes are, as far as the index knows.
  struct Fullness {
    Uuid mount_uid;
    int64_t copy_bytes = 0;
    double share = 0;  // of what the file holds
  };
  // Fullest first; those that were given up are not there.
  std::vector<Fullness> Fullest() const;
  // Deletes that other mounts have still to confirm, and of which none but
  // `mounts` holds a copy.
  int64_t CountOnlyOn(const std::set<Uuid>& mounts) const;
  // Those of longer ago than that, of which no mount holds a copy.
  int64_t CountWithoutCopy(absl::Duration age) const;
  // By the mounts whose confirmation is awaited; most first.
  std::vector<std::pair<Uuid, int64_t>> Awaited() const;

 private:
  using Key = std::pair<std::string, std::string>;  // image, generation
  static Key KeyOf(const storage::v1::TombstoneRow& row);
  // In one command to one mount.
  static constexpr size_t kMostDropsAtOnce = 500;

  // Reads the row, lets `change` edit it (false: nothing to do), commits.
  absl::Status Update(
      const Uuid& image_id, const storage::v1::Generation& generation,
      const std::function<bool(storage::v1::TombstoneRow*)>& change);
  // What a copy brought by a mount rules over at this moment.
  struct Ruled {
    bool known = false;  // the index has this very tombstone
    std::optional<storage::v1::ImageRow> image;
    std::vector<storage::v1::ConflictRow> conflicts;
    // The highest of the generations that it leaves beside `image`.
    std::optional<storage::v1::ConflictRow> successor;
    std::vector<storage::v1::UploadRow> uploads;
    bool nothing() const {
      return !image.has_value() && conflicts.empty() && uploads.empty();
    }
  };
  absl::StatusOr<Ruled> WhatItRules(const storage::v1::Tombstone& copy) const;
  absl::Status CommitMerge(const Uuid& mount_uid,
                           const storage::v1::Tombstone& copy, Ruled ruled);
  absl::Status MergeOne(const Uuid& mount_uid,
                        const storage::v1::Tombstone& copy);
  absl::Status RecordCopy(const storage::v1::Tombstone& tombstone,
                          const Uuid& mount_uid);
  // A mount that may hold copies: it was not given up, and is confirmed.
  struct CopyPlace {
    Uuid uid;
    bool attached = false;
    bool writes = false;
    int64_t copy_bytes = 0;
  };
  std::vector<CopyPlace> CopyPlaces() const;
  static int CountCopies(const storage::v1::TombstoneRow& row,
                         const std::vector<CopyPlace>& places);
  // None whose file holds that many bytes of copies.
  static std::vector<Uuid> CopyTargets(const storage::v1::TombstoneRow& row,
                                       const std::vector<CopyPlace>& places,
                                       int64_t below_bytes = INT64_MAX);
  // As CopyTargets, but for one that is settled none whose file fills up.
  std::vector<Uuid> SecondTargets(const storage::v1::TombstoneRow& row,
                                  const std::vector<CopyPlace>& places) const;
  // On the mount, oldest first, whose total is `bytes` or a little more.
  std::vector<TombstoneEntry> OldestSettledOn(
      const Uuid& mount_uid, int64_t bytes,
      const std::function<bool(const TombstoneEntry&)>& want) const;
  // Drops copies of settled ones where a mount's file fills up: second ones
  // first, and then the oldest.
  void MakeRoom(const std::set<Key>& leaving);
  // On the mount, then in the rows; neither where the mount is away, or
  // refuses.
  void DropCopies(const Uuid& mount_uid,
                  const std::vector<TombstoneEntry>& entries);
  void SendSecondCopies(const std::set<Key>& leaving);
  bool SendSecondCopy(const storage::v1::TombstoneRow& row,
                      const std::vector<CopyPlace>& places);
  // Takes the mount out of the rows of those that hold a copy there.
  absl::Status TakeOut(const Uuid& mount_uid,
                       const std::vector<TombstoneEntry>& entries);
  void Settle();
  std::vector<TombstoneEntry> Forgettable();
  void Forget(const std::vector<TombstoneEntry>& settled);
  bool LoserWaits(const Uuid& image_id) const;

  const LifecycleDeps deps_;
  AgentCommands* const commands_;
  UploadTable* const uploads_;
  Notifier* const changed_;
  MountGate adopting_;

  std::function<Listings()> listings_;      // constant after OnListings
  std::function<bool(const Uuid&)> shows_;  // the same

  mutable Mutex mu_;
  // Around every change of an entry's row.
  void List(const Key& key, const storage::v1::TombstoneRow& row)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Unlist(const Key& key, const storage::v1::TombstoneRow& row)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::map<Key, TombstoneEntry> entries_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::set<Key>> pending_on_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int64_t> copy_bytes_ ABSL_GUARDED_BY(mu_);
  // A second copy that is wanted: candidates asked so far, and when the next
  // one is.
  struct SecondCopy {
    size_t asked = 0;
    absl::Duration next;
  };
  std::map<Key, SecondCopy> copying_ ABSL_GUARDED_BY(mu_);
};

// As a command's or a report's message has it.
storage::v1::Tombstone ToCopy(const storage::v1::TombstoneRow& row);
// What its copy takes of a mount's file.
int64_t CopyBytes(const storage::v1::TombstoneRow& row);
bool HoldsCopy(const storage::v1::TombstoneRow& row, const Uuid& mount_uid);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_TOMBSTONES_H_
