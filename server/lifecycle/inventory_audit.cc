// Listings outside of RECOVERING: a part of Inventory.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

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
// Where something waits for it, as a mount for the end of its scrub.
constexpr absl::Duration kListSoonAfter = absl::Seconds(5);
// What a listing of a mount that is listed by itself takes of the time, at
// most one part of so many: a million records on NFS take longer than the
// interval.
constexpr int kRescanShare = 10;
// A digest comes at the end alone: two cold reads of a busy disk an image.
constexpr absl::Duration kDigestImageTakes = absl::Milliseconds(40);

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

void Inventory::GiveUpStalled(const std::vector<MountInfo>& mounts) {
  for (const MountInfo& info : mounts) {
    const Uuid mount_uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    std::string patience;
    {
      MutexLock lock(&mu_);
      const auto it = listings_.find(mount_uid);
      if (it == listings_.end() || it->second.session == 0 || it->second.done ||
          deps_.clock->Boot() - it->second.moved < it->second.patience) {
        continue;
      }
      patience = absl::FormatDuration(it->second.patience);
      it->second.id.clear();  // what still comes of it is nobody's
      it->second.audit = nullptr;
      FailedLocked(&it->second,
                   MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                             absl::StrCat("it showed nothing for ", patience,
                                          " and was given up")));
    }
    storage::v1::EventRow event;
    event.set_time_us(deps_.clock->NowMicros());
    event.set_kind("listing_stalled");
    event.set_mount_name(info.row.mount_name());
    event.set_detail(absl::StrCat(
        "the listing of the mount showed nothing for ", patience,
        ": it is given up, and asked for again; a call of it may be stuck in "
        "the file system"));
    LogWarning("listing_stalled",
               {{"mount", event.mount_name()}, {"detail", event.detail()}});
    IndexTxn txn = deps_.index->Begin();
    txn.PutEvent(event);
    LogIfError(deps_.index->Commit(std::move(txn)), "the log has it");
  }
}

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
    } else if (listing.again == session || listing.in_full || listing.soon) {
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
    asked = std::exchange(listings_[mount_uid].again, 0) == session;
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
    if (asked) {
      listings_[mount_uid].again = session;
    }
    return;
  }
  control::v1::Command command;
  command.mutable_list_mount()->set_listing_id(listing_id);
  const int64_t images = deps_.index->mount_totals(mount_uid).count;
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
    listing.settled.clear();
    listing.number = number;
    if (!std::exchange(listing.in_full, false)) {
      listing.begin = begin;  // else: with the digest
    }
    listing.soon = false;
    listing.moved = begin;
    listing.asked = asked;
    listing.basis = rescan ? BasisLocked(info, session) : nullptr;
    listing.patience = kListingStalls;
    if (listing.basis != nullptr) {
      command.mutable_list_mount()->set_digest_only(true);
      listing.patience += kDigestImageTakes * images;
    }
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
      listing.moved = absl::InfiniteDuration();  // the rest is ours
    } else {
      listing.audit = nullptr;
      FailedLocked(&listing, status);
    }
  }
  if (audit == nullptr) {
    LogIfError(status, "the mount is listed again soon");
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
  // What was not adopted stays named while it is there and unknown.
  if (result.ok()) {
    absl::Status settled = AdoptReturned(mount_uid, &*result);
    settled.Update(DropSettledUnadopted(mount_uid, *result));
    if (!settled.ok()) {
      result = settled;
    }
  }
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
      notify = result->missing > 0 || result->found > 0;
      KeepLocked(mount_uid, &listing, *std::move(result));
    }
  }
  LogIfError(result.status(), "the mount is listed again soon");
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
  listing->retry = deps_.clock->Boot() +
                   (listing->waited ? kListSoonAfter : kListAgainAfter);
  listing->failed = listing->number;
  listing->error = status;
}

void Inventory::KeepLocked(const Uuid& mount_uid, Listing* listing,
                           ListingAudit::Result result) {
  const absl::Duration now = deps_.clock->Boot();
  listing->done = true;
  listing->waited = listing->soon;
  listing->retry = absl::ZeroDuration();
  listing->due = now + std::max(deps_.options.rescan_interval,
                                kRescanShare * (now - listing->begin));
  for (const Uuid& image_id : std::exchange(listing->settled, {})) {
    result.orphans.erase(image_id);
  }
  Audited& audited = audited_[mount_uid];
  // A stranger whose bytes were read once is not read again at every rescan;
  // whoever asks for a listing wants to know anew.
  for (auto& [image_id, orphan] : result.orphans) {
    const auto it = audited.orphans.find(image_id);
    if (it == audited.orphans.end() || !SameFile(it->second, orphan)) {
      continue;
    }
    if (it->second.refused && audited.session == listing->session &&
        !listing->asked) {
      orphan = it->second;
    } else {
      orphan.refusal = it->second.refusal;
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
  std::vector<std::pair<Uuid, int64_t>> mounts;  // 0: it can not be listed
  for (const MountInfo& info : deps_.registry->List()) {
    const Uuid mount_uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    const int64_t session = commands_->AttachedSession(mount_uid);
    mounts.emplace_back(mount_uid, CanBeListed(info, session) ? session : 0);
  }
  int64_t after = 0;
  {
    MutexLock lock(&mu_);
    // Whoever asks while a round runs gets what it shows.
    const bool running = std::any_of(
        mounts.begin(), mounts.end(),
        [&](const auto& mount) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
          const Listing& listing = listings_[mount.first];
          return mount.second != 0 &&
                 (listing.again == mount.second ||
                  (listing.asked && !listing.done && !listing.recovering &&
                   listing.session == mount.second));
        });
    if (!running) {
      for (const auto& [mount_uid, session] : mounts) {
        listings_[mount_uid].again = session;
      }
      round_after_ = last_number_;
    }
    after = round_after_;
  }
  Tick();
  return after;
}

int64_t Inventory::ListSoon(const Uuid& mount_uid) {
  int64_t after = 0;
  {
    MutexLock lock(&mu_);
    Listing& listing = listings_[mount_uid];
    listing.soon = listing.waited = true;
    // What made the last one fail may be mended.
    listing.retry = absl::ZeroDuration();
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

Tombstones::Listings Inventory::ListedAll() const {
  // One that went away since its listing may come back with another directory:
  // it is listed anew first.
  std::vector<std::pair<Uuid, int64_t>> mounts;
  for (const Uuid& mount_uid : tombstones_->AllMounts()) {
    mounts.emplace_back(mount_uid, commands_->AttachedSession(mount_uid));
  }
  Tombstones::Listings out;
  MutexLock lock(&mu_);
  out.last = last_number_;
  out.all = last_number_ + 1;  // where there is none to be listed
  for (const auto& [mount_uid, session] : mounts) {
    const auto it = audited_.find(mount_uid);
    const bool listed =
        it != audited_.end() && session != 0 && it->second.session == session;
    out.all = std::min(out.all, listed ? it->second.number : 0);
  }
  return out;
}

void Inventory::OnAudited(std::function<void()> audited) {
  audited_done_ = std::move(audited);
}

}  // namespace predella::server
