// Rescans by digest: a part of Inventory. docs/adr/0017 says what it can see.
#include <algorithm>
#include <memory>
#include <string>

#include "common/errors.h"
#include "common/listing_digest.h"
#include "common/logging.h"
#include "server/lifecycle/inventory.h"

namespace predella::server {

std::shared_ptr<const ListingBasis> Inventory::BasisLocked(
    const MountInfo& info, int64_t session) const {
  const auto audited =
      audited_.find(Uuid::FromBytesOrNone(info.row.mount_uid()));
  if (audited == audited_.end() || audited->second.session != session ||
      !info.hello.has_value()) {
    return nullptr;
  }
  const auto& can = info.hello->capabilities();
  return std::find(can.begin(), can.end(), kListingDigestCapability) ==
                 can.end()
             ? nullptr
             : audited->second.basis;
}

void Inventory::CompareDigest(const Uuid& mount_uid,
                              const std::string& listing_id,
                              const std::shared_ptr<ListingAudit>& audit,
                              const control::v1::ListingDigest& digest) {
  std::shared_ptr<const ListingBasis> basis;
  {
    MutexLock lock(&mu_);
    const Listing& listing = listings_[mount_uid];
    if (listing.id != listing_id || listing.audit != audit) {
      return;
    }
    basis = listing.basis;
  }
  const absl::StatusOr<bool> same =
      trust_->recovering()
          ? absl::StatusOr<bool>(absl::CancelledError("RECOVERING began"))
          : audit->TakeDigest(*basis, digest);
  {
    MutexLock lock(&mu_);
    Listing& listing = listings_[mount_uid];
    if (listing.id != listing_id || listing.audit != audit) {
      return;
    }
    if (same.ok()) {
      ++(*same ? digests_.same : digests_.other);
    }
    if (!same.ok()) {
      listing.audit = nullptr;
      FailedLocked(&listing, same.status());
    } else if (!*same) {
      // Nothing is concluded from it but that the mount is to be listed.
      listing.audit = nullptr;
      listing.done = true;
      listing.in_full = true;
    }
  }
  if (!same.ok()) {
    LogIfError(same.status(), "the mount is listed in a minute");
    return;
  }
  if (*same) {
    FinishAudit(mount_uid, listing_id, audit);
    return;
  }
  LogInfo("digest_differs",
          {{"mount", mount_uid.ToString()}, {"files", digest.images()}});
  Tick();
}

Inventory::Digests Inventory::digests() const {
  MutexLock lock(&mu_);
  return digests_;
}

}  // namespace predella::server
