// Whether the index can be believed against what the mounts know.
#ifndef PREDELLA_SERVER_LIFECYCLE_TRUST_KEEPER_H_
#define PREDELLA_SERVER_LIFECYCLE_TRUST_KEEPER_H_

#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/types/span.h"

#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/placement/mount_registry.h"

namespace predella::server {

// Thread-safe.
class TrustKeeper {
 public:
  explicit TrustKeeper(const LifecycleDeps& deps);

  // Reads whether an earlier start was left RECOVERING.
  absl::Status Load();

  // Compares what a mount knows with the index. When the mount knows more the
  // index was rolled back: RECOVERING is synced before this returns, and no
  // mount is trusted from then on. Returns an error only when that row could
  // not be written, now or at an earlier call (it is tried again): the mount
  // must be told nothing. RECOVERING holds in memory even then.
  // A mount that the index has no row of and that knows anything at all tells
  // the same: it was taken in by a history that was lost, and what others know
  // of that may have covered its own.
  absl::Status Compare(const Uuid& mount_uid,
                       absl::Span<const storage::v1::FenceEntry> known);

  // Takes in a mount that was away when the index was rebuilt: it is
  // UNCONFIRMED no more, and RECOVERING begins, both in one commit. `old` is
  // its row. ABORTED when that has changed.
  absl::StatusOr<storage::v1::MountRow> TakeIn(
      const storage::v1::MountRow& old);
  // Whether a mount, known or not yet, is one that was away when the index was
  // rebuilt. What it knows is no news, and nothing on it counts.
  bool Absent(const Uuid& mount_uid,
              absl::Span<const storage::v1::FenceEntry> known) const;

  // Counts the mounts that were taken in: what was listed before one came is
  // not everything.
  int64_t taken_in() const;
  // Every mount was listed: raises the table to what the mounts know and ends
  // RECOVERING, synced. `detail` says for people what came of it.
  // ABORTED when a mount was taken in since `taken_in`.
  absl::Status End(absl::Span<const storage::v1::FenceEntry> known,
                   int64_t taken_in, const std::string& detail);
  // Whether the mount knows no more than the index, and nothing else forbids
  // to remove what lies on it.
  bool MayTrust(const MountInfo& info) const;

  bool recovering() const;
  // The mount whose knowledge gave it away, or that is taken in, for people;
  // empty when a command began it.
  std::string cause() const;
  // Why it is RECOVERING, as a clause for people.
  std::string why() const;
  // The last close was clean, a mount that holds its last pair has registered
  // and no mount knew more: the index is all there is.
  bool clean_start_counts() const;

 private:
  void Distrust();
  // Syncs the finding that is not written yet, if there is one.
  absl::Status WriteRow();

  const LifecycleDeps deps_;
  Mutex change_mu_;  // held over End and TakeIn, before mu_
  mutable Mutex mu_;
  bool recovering_ ABSL_GUARDED_BY(mu_) = false;
  bool clean_confirmed_ ABSL_GUARDED_BY(mu_) = false;
  std::string cause_ ABSL_GUARDED_BY(mu_);
  bool by_command_ ABSL_GUARDED_BY(mu_) = false;
  int64_t taken_in_ ABSL_GUARDED_BY(mu_) = 0;
  std::optional<storage::v1::RecoveringRow> unwritten_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_TRUST_KEEPER_H_
