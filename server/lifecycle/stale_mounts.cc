#include "server/lifecycle/stale_mounts.h"

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::server {
namespace {

Generation LastHeard(absl::Span<const storage::v1::FenceEntry> known) {
  Generation last;
  for (const storage::v1::FenceEntry& entry : known) {
    const Generation pair{entry.epoch(), entry.max_n(), entry.nonce()};
    if (pair.After(last)) {
      last = pair;
    }
  }
  return last;
}

}  // namespace

void StaleMounts::Synced(const Uuid& mount_uid, const Generation& pair) {
  MutexLock lock(&mu_);
  Generation& synced = synced_[mount_uid];
  synced = pair.After(synced) ? pair : synced;
}

void StaleMounts::Attached(const Uuid& mount_uid) {
  MutexLock lock(&mu_);
  copies_.erase(mount_uid);
}

absl::Status StaleMounts::Check(
    const Uuid& mount_uid, const std::string& name,
    absl::Span<const storage::v1::FenceEntry> known) {
  ASSIGN_OR_RETURN(const ImageTotals later,
                   deps_.index->CountUnheard(mount_uid, known));
  const Generation heard = LastHeard(known);
  Generation synced;
  {
    MutexLock lock(&mu_);
    const auto it = synced_.find(mount_uid);
    if (it != synced_.end() && !HasHeardOf(known, it->second)) {
      synced = it->second;
    }
    if (later.count == 0 && synced.none()) {
      copies_.erase(mount_uid);
      return absl::OkStatus();
    }
    Copy& copy = copies_[mount_uid];
    if (copy.heard != heard) {
      copy = {heard, false};
    }
    if (copy.accepted) {
      LogWarning("stale_mount_accepted",
                 {{"mount", name}, {"images_later", later.count}});
      return absl::OkStatus();
    }
  }
  const std::string last =
      heard.none()
          ? "it has heard of nothing"
          : absl::StrCat("the last it has heard of is ", heard.ToString());
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountStale,
      absl::StrCat("the directory is an older copy of ", MountName(name), ": ",
                   last,
                   later.count == 0
                       ? absl::StrCat(", and ", synced.ToString(),
                                      " was synced there; or its file fence "
                                      "was damaged")
                       : absl::StrCat(", and ", later.count, " (",
                                      FormatSize(later.bytes),
                                      ") of the images there came later"),
                   "; it is not used"),
      {{"mount", MountName(name)}, {"images", absl::StrCat(later.count)}});
}

bool StaleMounts::Refused(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  const auto it = copies_.find(mount_uid);
  return it != copies_.end() && !it->second.accepted;
}

bool StaleMounts::Accepted(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  const auto it = copies_.find(mount_uid);
  return it != copies_.end() && it->second.accepted;
}

void StaleMounts::Accept(const Uuid& mount_uid) {
  MutexLock lock(&mu_);
  const auto it = copies_.find(mount_uid);
  if (it != copies_.end()) {
    it->second.accepted = true;
  }
}

}  // namespace predella::server
