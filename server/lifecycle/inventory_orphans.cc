// What the last listings showed beside the images: a part of Inventory.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/inventory.h"

namespace predella::server {

std::optional<Orphan> Inventory::FindOrphan(const Uuid& mount_uid,
                                            const Uuid& image_id) const {
  MutexLock lock(&mu_);
  const auto mount = audited_.find(mount_uid);
  if (mount == audited_.end()) {
    return std::nullopt;
  }
  const auto it = mount->second.orphans.find(image_id);
  return it == mount->second.orphans.end() ? std::nullopt
                                           : std::make_optional(it->second);
}

std::vector<Orphan> Inventory::WholeOrphansOf(const Uuid& image_id) const {
  std::vector<Orphan> out;
  MutexLock lock(&mu_);
  for (const auto& [mount_uid, audited] : audited_) {
    const auto it = audited.orphans.find(image_id);
    if (it != audited.orphans.end() && it->second.record.has_value()) {
      out.push_back(it->second);
    }
  }
  return out;
}

bool Inventory::ShowsFileOf(const Uuid& image_id) const {
  std::vector<Uuid> mounts;
  {
    MutexLock lock(&mu_);
    for (const auto& [mount_uid, audited] : audited_) {
      if (audited.orphans.contains(image_id)) {
        mounts.push_back(mount_uid);
      }
    }
  }
  return std::any_of(mounts.begin(), mounts.end(),
                     [this](const Uuid& uid) { return !GivenUp(uid); });
}

void Inventory::ForgetOrphan(const Uuid& mount_uid, const Uuid& image_id) {
  MutexLock lock(&mu_);
  const auto mount = audited_.find(mount_uid);
  if (mount != audited_.end()) {
    mount->second.orphans.erase(image_id);
  }
  const auto listing = listings_.find(mount_uid);
  if (listing != listings_.end() && listing->second.audit != nullptr) {
    listing->second.settled.insert(image_id);
  }
}

absl::Status Inventory::DropOrphan(const Uuid& mount_uid,
                                   const Uuid& image_id) {
  ForgetOrphan(mount_uid, image_id);
  return DropUnadopted([&](const Unadopted& file) {
    return file.mount_uid == mount_uid && file.image_id == image_id;
  });
}

absl::Status Inventory::AdoptOrphan(const Uuid& mount_uid,
                                    const storage::v1::ReplicaRecord& record) {
  RETURN_IF_ERROR(Adopt(mount_uid, {record}));
  // Not of a history that was lost: no other generation may displace it.
  MutexLock lock(&mu_);
  adopted_.erase(Uuid::FromBytesOrNone(record.image_id()));
  return absl::OkStatus();
}

void Inventory::RefuseOrphan(const Uuid& mount_uid, const Uuid& image_id,
                             std::string detail) {
  MutexLock lock(&mu_);
  const auto mount = audited_.find(mount_uid);
  if (mount == audited_.end()) {
    return;
  }
  const auto it = mount->second.orphans.find(image_id);
  if (it != mount->second.orphans.end()) {
    it->second.refused = true;
    it->second.refusal = detail;
    it->second.detail = std::move(detail);
  }
}

bool Inventory::WasAudited(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  return audited_.contains(mount_uid);
}

bool Inventory::GivenUp(const Uuid& mount_uid) const {
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  return !info.has_value() || IsRetired(*info);
}

const Inventory::OrphanMap& Inventory::OrphansLocked(const Uuid& mount_uid,
                                                     bool given_up) const {
  static const auto* const kNone = new OrphanMap();
  const auto it = audited_.find(mount_uid);
  return given_up || it == audited_.end() ? *kNone : it->second.orphans;
}

int64_t Inventory::OrphanCount(const Uuid& mount_uid) const {
  const bool given_up = GivenUp(mount_uid);
  MutexLock lock(&mu_);
  return static_cast<int64_t>(OrphansLocked(mount_uid, given_up).size());
}

std::vector<Orphan> Inventory::ListOrphans(const Uuid& mount_uid,
                                           const Uuid& after,
                                           int64_t limit) const {
  std::vector<Orphan> out;
  const bool given_up = GivenUp(mount_uid);
  MutexLock lock(&mu_);
  const OrphanMap& orphans = OrphansLocked(mount_uid, given_up);
  auto it = after.none() ? orphans.begin() : orphans.upper_bound(after);
  for (; it != orphans.end() && static_cast<int64_t>(out.size()) < limit;
       ++it) {
    out.push_back(it->second);
  }
  return out;
}

std::optional<Inventory::Suspicion> Inventory::SuspicionOf(
    const Uuid& mount_uid) const {
  // Over when what is missing came back or was deleted.
  if (deps_.index->fault_count(mount_uid) == 0) {
    return std::nullopt;
  }
  MutexLock lock(&mu_);
  const auto it = audited_.find(mount_uid);
  if (it == audited_.end() || !it->second.suspicious) {
    return std::nullopt;
  }
  return Suspicion{it->second.missing, it->second.expected};
}

}  // namespace predella::server
