// Listings outside of RECOVERING: a part of Inventory.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/generation.h"
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
// What a listing of a mount that is listed by itself takes of the time, at
// most one part of so many: a million records on NFS take longer than the
// interval.
constexpr int kRescanShare = 10;

// The same file as an earlier listing showed, as far as a listing tells.
bool SameFile(const Orphan& a, const Orphan& b) {
  return a.size_bytes == b.size_bytes &&
         a.record.has_value() == b.record.has_value() &&
         (!a.record.has_value() ||
          Generation::FromProto(a.record->generation()) ==
              Generation::FromProto(b.record->generation()));
}

// One that hangs may not answer for days, and is not waited for.
bool CanBeListed(const MountInfo& info, int64_t session) {
  return session != 0 && info.attached && !IsRetired(info) &&
         !CountsAsDegraded(info.health);
}

}  // namespace

void Inventory::AskForAudits(const std::vector<MountInfo>& mounts) {
  int running = 0;
  std::vector<std::pair<MountInfo, int64_t>> wanted;
  std::optional<std::pair<MountInfo, int64_t>> due;
  absl::Duration due_since = deps_.clock->Boot();
  for (const MountInfo& info : mounts) {
    const Uuid mount_uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    const int64_t session = commands_->AttachedSession(mount_uid);
    if (!CanBeListed(info, session)) {
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
    } else if (listing.again || listing.in_full) {
      wanted.emplace_back(info, session);
    } else if (deps_.options.rescan_interval > absl::ZeroDuration() &&
               listing.due <= due_since) {
      due_since = listing.due;
      due = {info, session};
    }
  }
  if (due.has_value() && running == 0 && wanted.empty()) {
    AskForAudit(due->first, due->second, /*rescan=*/true);
    return;
  }
  for (const auto& [info, session] : wanted) {
    if (running >= kListingsAtOnce) {
      return;
    }
    AskForAudit(info, session, /*rescan=*/false);
    ++running;
  }
}

void Inventory::AskForAudit(const MountInfo& info, int64_t session,
                            bool rescan) {
  const Uuid mount_uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const std::string listing_id = deps_.ids->NextUuid().bytes();
  const absl::Duration begin = deps_.clock->Boot();
  int64_t number = 0;
  int64_t alarmed = 0;
  bool asked = false;
  {
    MutexLock lock(&mu_);
    number = ++last_number_;
    asked = std::exchange(listings_[mount_uid].again, false);
    const auto it = audited_.find(mount_uid);
    if (it != audited_.end() && it->second.suspicious) {
      alarmed = it->second.missing;
    }
  }
  auto audit = ListingAudit::Begin(deps_, upload_manager_, tombstones_,
                                   mount_uid, info.row.mount_name(), alarmed);
  if (!audit.ok()) {
    LogIfError(audit.status(), "the mount is listed at a later tick");
    MutexLock lock(&mu_);
    listings_[mount_uid].again |= asked;
    return;
  }
  control::v1::Command command;
  command.mutable_list_mount()->set_listing_id(listing_id);
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
    listing.number = number;
    if (!std::exchange(listing.in_full, false)) {
      listing.begin = begin;  // else: with the digest
    }
    listing.asked = asked;
    listing.basis = rescan ? BasisLocked(info, session) : nullptr;
    command.mutable_list_mount()->set_digest_only(listing.basis != nullptr);
  }
  commands_->CallAsync(
      mount_uid, std::move(command),
      [this, mount_uid,
       listing_id](const absl::StatusOr<control::v1::CommandResult>& answer) {
        AuditListed(mount_uid, listing_id, answer);
      });
}

void Inventory::AuditListed(
    const Uuid& mount_uid, const std::string& listing_id,
    const absl::StatusOr<control::v1::CommandResult>& answer) {
  const absl::Status status = answer.status();
  std::shared_ptr<ListingAudit> audit;
  bool by_digest = false;
  {
    MutexLock lock(&mu_);
    Listing& listing = listings_[mount_uid];
    if (listing.id != listing_id || listing.audit == nullptr) {
      return;
    }
    by_digest = listing.basis != nullptr;
    if (status.ok()) {
      audit = listing.audit;
    } else {
      listing.audit = nullptr;
      FailedLocked(&listing, status);
    }
  }
  if (audit == nullptr) {
    LogIfError(status, "the mount is listed again in a minute");
    return;
  }
  // It reads and writes the index, and this thread delivers messages.
  if (by_digest) {
    deps_.pool->Post([this, mount_uid, listing_id, audit,
                      digest = answer->listing_digest()] {
      CompareDigest(mount_uid, listing_id, audit, digest);
    });
    return;
  }
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
      FailedLocked(&listing, result.status());
    } else {
      for (const Uuid& image_id : known) {
        unadopted_.erase(image_id);
      }
      absl::erase_if(unadopted_, [&](const auto& file) {
        return file.second.mount_uid == mount_uid &&
               !result->unfit.contains(file.first) &&
               result->orphans.count(file.first) == 0;
      });
      notify = result->missing > 0 || result->found > 0;
      KeepLocked(mount_uid, &listing, *std::move(result));
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

void Inventory::FailedLocked(Listing* listing, const absl::Status& status) {
  listing->session = 0;
  listing->retry = deps_.clock->Boot() + kListAgainAfter;
  listing->failed = listing->number;
  listing->error = status;
}

void Inventory::KeepLocked(const Uuid& mount_uid, Listing* listing,
                           ListingAudit::Result result) {
  const absl::Duration now = deps_.clock->Boot();
  listing->done = true;
  listing->retry = absl::ZeroDuration();
  listing->due = now + std::max(deps_.options.rescan_interval,
                                kRescanShare * (now - listing->begin));
  Audited& audited = audited_[mount_uid];
  // A stranger whose bytes were read once is not read again at every rescan;
  // whoever asks for a listing wants to know anew.
  if (audited.session == listing->session && !listing->asked) {
    for (auto& [image_id, orphan] : result.orphans) {
      const auto it = audited.orphans.find(image_id);
      if (it != audited.orphans.end() && it->second.refused &&
          SameFile(it->second, orphan)) {
        orphan = it->second;
      }
    }
  }
  audited.number = listing->number;
  audited.session = listing->session;
  audited.expected = result.expected;
  audited.missing = result.missing;
  audited.suspicious = result.suspicious;
  audited.orphans = std::move(result.orphans);
  audited.basis = std::move(result.basis);
  LogInfo("mount_audited",
          {{"mount", mount_uid.ToString()},
           {"by", listing->basis != nullptr ? "digest" : "listing"},
           {"images", audited.expected},
           {"missing", audited.missing},
           {"orphans", static_cast<int64_t>(audited.orphans.size())}});
}

int64_t Inventory::ListAllAgain() {
  const std::vector<MountInfo> mounts = deps_.registry->List();
  int64_t after = 0;
  {
    MutexLock lock(&mu_);
    for (const MountInfo& info : mounts) {
      listings_[Uuid::FromBytesOrNone(info.row.mount_uid())].again = true;
    }
    after = last_number_;
  }
  Tick();
  return after;
}

Inventory::Relisted Inventory::RelistedSince(const Uuid& mount_uid,
                                             int64_t after) const {
  Relisted out;
  MutexLock lock(&mu_);
  const auto audited = audited_.find(mount_uid);
  out.compared = audited != audited_.end() && audited->second.number > after;
  const auto listing = listings_.find(mount_uid);
  if (!out.compared && listing != listings_.end() &&
      listing->second.failed > after) {
    out.error = listing->second.error;
  }
  return out;
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
