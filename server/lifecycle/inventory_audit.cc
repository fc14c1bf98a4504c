// Listings outside of RECOVERING: a part of Inventory.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/inventory.h"

namespace predella::server {
namespace {

// A listing reads every record of a mount, and each costs a look into the
// index: few at a time, whatever starts together.
constexpr int kListingsAtOnce = 2;
constexpr absl::Duration kListAgainAfter = absl::Minutes(1);

}  // namespace

void Inventory::AskForAudits(const std::vector<MountInfo>& mounts) {
  int running = 0;
  std::vector<std::pair<MountInfo, int64_t>> wanted;
  for (const MountInfo& info : mounts) {
    const Uuid mount_uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    const int64_t session = commands_->AttachedSession(mount_uid);
    // One that hangs may not answer for days, and is not waited for.
    if (session == 0 || !info.attached || IsRetired(info) ||
        CountsAsDegraded(info.health)) {
      continue;
    }
    MutexLock lock(&mu_);
    const Listing& listing = listings_[mount_uid];
    if (listing.session != session) {
      if (listing.retry <= deps_.clock->Boot()) {
        wanted.emplace_back(info, session);
      }
    } else if (!listing.done) {
      ++running;
    }
  }
  for (const auto& [info, session] : wanted) {
    if (running >= kListingsAtOnce) {
      return;
    }
    AskForAudit(info, session);
    ++running;
  }
}

void Inventory::AskForAudit(const MountInfo& info, int64_t session) {
  const Uuid mount_uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const std::string listing_id = deps_.ids->NextUuid().bytes();
  auto audit = ListingAudit::Begin(deps_, upload_manager_, tombstones_,
                                   mount_uid, info.row.mount_name());
  if (!audit.ok()) {
    LogIfError(audit.status(), "the mount is listed at a later tick");
    return;
  }
  {
    MutexLock lock(&mu_);
    Listing& listing = listings_[mount_uid];
    listing.id = listing_id;
    listing.incarnation =
        info.hello.has_value() ? info.hello->incarnation() : std::string();
    listing.session = session;
    listing.done = false;
    listing.recovering = false;
    listing.audit = *std::move(audit);
  }
  control::v1::Command command;
  command.mutable_list_mount()->set_listing_id(listing_id);
  commands_->CallAsync(
      mount_uid, std::move(command),
      [this, mount_uid,
       listing_id](const absl::StatusOr<control::v1::CommandResult>& result) {
        AuditListed(mount_uid, listing_id, result.status());
      });
}

void Inventory::AuditListed(const Uuid& mount_uid,
                            const std::string& listing_id,
                            const absl::Status& status) {
  std::shared_ptr<ListingAudit> audit;
  {
    MutexLock lock(&mu_);
    Listing& listing = listings_[mount_uid];
    if (listing.id != listing_id || listing.audit == nullptr) {
      return;
    }
    if (status.ok()) {
      audit = listing.audit;
    } else {
      listing.session = 0;
      listing.audit = nullptr;
      listing.retry = deps_.clock->Boot() + kListAgainAfter;
    }
  }
  if (audit == nullptr) {
    LogIfError(status, "the mount is listed again in a minute");
    return;
  }
  // It reads and writes the index, and this thread delivers messages.
  deps_.pool->Post([this, mount_uid, listing_id, audit] {
    FinishAudit(mount_uid, listing_id, audit);
  });
}

void Inventory::FinishAudit(const Uuid& mount_uid,
                            const std::string& listing_id,
                            const std::shared_ptr<ListingAudit>& audit) {
  // In RECOVERING the index is not one to judge by.
  absl::StatusOr<ListingAudit::Result> result =
      trust_->recovering() ? absl::CancelledError("RECOVERING began")
                           : audit->Finish();
  std::vector<Uuid> known;
  {
    MutexLock lock(&mu_);
    for (const auto& [image_id, file] : unadopted_) {
      known.push_back(image_id);
    }
  }
  // What was not adopted stays named while it is there and unknown.
  std::erase_if(known, [&](const Uuid& image_id) {
    const auto row = deps_.index->GetImage(image_id);
    return !row.ok() || !row->has_value();
  });
  bool notify = false;
  {
    MutexLock lock(&mu_);
    Listing& listing = listings_[mount_uid];
    if (listing.id != listing_id || listing.audit != audit) {
      return;
    }
    listing.audit = nullptr;
    if (!result.ok()) {
      listing.session = 0;
      listing.retry = deps_.clock->Boot() + kListAgainAfter;
    } else {
      listing.done = true;
      listing.retry = absl::ZeroDuration();
      for (const Uuid& image_id : known) {
        unadopted_.erase(image_id);
      }
      absl::erase_if(unadopted_, [&](const auto& file) {
        return file.second.mount_uid == mount_uid &&
               !result->unfit.contains(file.first) &&
               result->orphans.count(file.first) == 0;
      });
      notify = result->missing > 0 || result->found > 0;
      Audited& audited = audited_[mount_uid];
      audited.expected = result->expected;
      audited.missing = result->missing;
      audited.suspicious = result->suspicious;
      audited.orphans = std::move(result->orphans);
      LogInfo("mount_audited",
              {{"mount", mount_uid.ToString()},
               {"images", audited.expected},
               {"missing", audited.missing},
               {"orphans", static_cast<int64_t>(audited.orphans.size())}});
    }
  }
  LogIfError(result.status(), "the mount is listed again in a minute");
  if (notify) {
    changed_->Notify();
  }
  if (result.ok() && audited_done_) {
    audited_done_();
  }
  Tick();  // the next mount's turn
}

void Inventory::OnAudited(std::function<void()> audited) {
  audited_done_ = std::move(audited);
}

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

void Inventory::ForgetOrphan(const Uuid& mount_uid, const Uuid& image_id) {
  MutexLock lock(&mu_);
  const auto mount = audited_.find(mount_uid);
  if (mount != audited_.end()) {
    mount->second.orphans.erase(image_id);
  }
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
    it->second.detail = std::move(detail);
  }
}

bool Inventory::WasAudited(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  return audited_.contains(mount_uid);
}

int64_t Inventory::OrphanCount(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  const auto it = audited_.find(mount_uid);
  return it == audited_.end() ? 0
                              : static_cast<int64_t>(it->second.orphans.size());
}

std::vector<Orphan> Inventory::ListOrphans(const Uuid& mount_uid,
                                           const Uuid& after,
                                           int64_t limit) const {
  std::vector<Orphan> out;
  MutexLock lock(&mu_);
  const auto mount = audited_.find(mount_uid);
  if (mount == audited_.end()) {
    return out;
  }
  const std::map<Uuid, Orphan>& orphans = mount->second.orphans;
  auto it = after.none() ? orphans.begin() : orphans.upper_bound(after);
  for (; it != orphans.end() && static_cast<int64_t>(out.size()) < limit;
       ++it) {
    out.push_back(it->second);
  }
  return out;
}

std::optional<Inventory::Unadopted> Inventory::FindUnadopted(
    const Uuid& image_id) const {
  MutexLock lock(&mu_);
  if (const auto it = unadopted_.find(image_id); it != unadopted_.end()) {
    return it->second;
  }
  // Of an earlier start: the listing of this one shows it again, as a file
  // that nothing vouches for.
  for (const auto& [mount_uid, audited] : audited_) {
    const auto it = audited.orphans.find(image_id);
    if (it != audited.orphans.end() && !it->second.record.has_value()) {
      return Unadopted{image_id, mount_uid, it->second.size_bytes};
    }
  }
  return std::nullopt;
}

std::vector<Inventory::Unadopted> Inventory::ListUnadopted() const {
  std::vector<Unadopted> out;
  MutexLock lock(&mu_);
  for (const auto& [id, file] : unadopted_) {
    out.push_back(file);
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
