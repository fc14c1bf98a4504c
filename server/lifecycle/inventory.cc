#include "server/lifecycle/inventory.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "server/lifecycle/image_conflict.h"

namespace predella::server {
namespace {

// One commit, and so one sync, for so many.
constexpr size_t kBatch = 100;

// One that was given up, or that nobody took in after a rebuild, is not.
bool IsAwaited(const MountInfo& info) {
  return info.row.admin_state() != storage::v1::ADMIN_STATE_RETIRED &&
         !info.row.unconfirmed();
}

}  // namespace

Inventory::Inventory(const LifecycleDeps& deps, AgentCommands* commands,
                     TrustKeeper* trust, UploadTable* uploads,
                     UploadManager* upload_manager, Tombstones* tombstones,
                     Notifier* changed)
    : deps_(deps),
      commands_(commands),
      trust_(trust),
      uploads_(uploads),
      upload_manager_(upload_manager),
      tombstones_(tombstones),
      changed_(changed) {}

void Inventory::OnEnded(std::function<void()> ended) {
  ended_ = std::move(ended);
}

void Inventory::Tick() {
  ticks_.Post(deps_.pool, [this] { RunTick(); });
}

void Inventory::RunTick() {
  if (!deps_.index->write_error().empty()) {
    return;
  }
  const int64_t taken_in = trust_->taken_in();
  const std::vector<MountInfo> mounts = deps_.registry->List();
  GiveUpStalled(mounts);
  DropDeleted();
  if (!trust_->recovering()) {
    // One that registered just when RECOVERING ended was compared in it.
    for (const MountInfo& info : mounts) {
      if (info.attached && !info.trusted && !deps_.index->Covers(info.known)) {
        LogIfError(trust_->Compare(Uuid::FromBytesOrNone(info.row.mount_uid()),
                                   info.known),
                   "nobody is told a pair until it is written");
      }
    }
    AskForAudits(mounts);
    return;
  }
  bool all = true;
  for (const MountInfo& info : mounts) {
    if (!IsAwaited(info)) {
      continue;
    }
    bool listed = false;
    {
      MutexLock lock(&mu_);
      listed = ListedLocked(info);
    }
    all = all && listed;
    if (!listed && info.attached) {
      Ask(info);
    }
  }
  if (all) {
    End(taken_in);
  }
}

bool Inventory::Listed(const MountInfo& info) const {
  if (!trust_->recovering()) {
    return true;
  }
  MutexLock lock(&mu_);
  return ListedLocked(info);
}

bool Inventory::ListedLocked(const MountInfo& info) const {
  const auto it = listings_.find(Uuid::FromBytesOrNone(info.row.mount_uid()));
  // A mount that another process may have changed is listed again, and one
  // that is away may be: nothing is decided without it.
  return it != listings_.end() && it->second.recovering && it->second.done &&
         info.attached && !info.row.unconfirmed() && info.hello.has_value() &&
         it->second.incarnation == info.hello->incarnation();
}

void Inventory::Ask(const MountInfo& info) {
  const Uuid mount_uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const int64_t session = commands_->AttachedSession(mount_uid);
  const std::string listing_id = deps_.ids->NextUuid().bytes();
  {
    MutexLock lock(&mu_);
    Listing& listing = listings_[mount_uid];
    if (session == 0 ||
        (listing.recovering &&
         (listing.session == session || listing.retry > deps_.clock->Boot()))) {
      return;
    }
    listing.id = listing_id;
    listing.incarnation =
        info.hello.has_value() ? info.hello->incarnation() : std::string();
    listing.session = session;
    listing.done = false;
    listing.recovering = true;
    listing.audit = nullptr;
    listing.basis = nullptr;
    listing.in_full = false;
    listing.moved = deps_.clock->Boot();
    listing.patience = kListingStalls;
  }
  control::v1::Command command;
  command.mutable_list_mount()->set_listing_id(listing_id);
  commands_->CallAsync(
      mount_uid, std::move(command),
      [this, mount_uid,
       listing_id](const absl::StatusOr<control::v1::CommandResult>& result) {
        Listed(mount_uid, listing_id, result.status());
      });
}

void Inventory::Listed(const Uuid& mount_uid, const std::string& listing_id,
                       const absl::Status& status) {
  {
    MutexLock lock(&mu_);
    Listing& listing = listings_[mount_uid];
    if (listing.id != listing_id) {
      return;
    }
    listing.done = status.ok();
    if (!status.ok()) {
      listing.session = 0;
    }
  }
  if (!status.ok()) {
    LogIfError(status, "the mount is listed again at the next tick");
    return;
  }
  Tick();
}

void Inventory::End(int64_t taken_in) {
  std::vector<storage::v1::FenceEntry> known;
  for (const MountInfo& info : deps_.registry->List()) {
    // What one knows that nobody took in has not been looked at.
    if (!info.row.unconfirmed()) {
      known.insert(known.end(), info.known.begin(), info.known.end());
    }
  }
  const size_t unadopted = ListUnadopted().size();
  std::string detail;
  {
    MutexLock lock(&mu_);
    detail = absl::StrCat(
        "every mount was listed; ", adopted_.size(), " images were adopted, ",
        conflicts_, " wait for a choice between two generations, ", unadopted,
        " files have no record that vouches for them");
  }
  const absl::Status ended = trust_->End(known, taken_in, detail);
  if (!ended.ok()) {
    LogIfError(ended, "RECOVERING goes on; the next tick ends it");
    return;
  }
  {
    MutexLock lock(&mu_);
    listings_.clear();
    audited_.clear();  // what was an orphan may be an image or a conflict now
    adopted_.clear();
    conflicts_ = 0;
  }
  for (const MountInfo& info : deps_.registry->List()) {
    if (info.attached && trust_->MayTrust(info)) {
      deps_.registry->SetTrusted(Uuid::FromBytesOrNone(info.row.mount_uid()),
                                 true);
    }
  }
  changed_->Notify();
  if (ended_) {
    ended_();
  }
}

std::vector<std::string> Inventory::Awaited() const {
  std::vector<std::string> names;
  if (!trust_->recovering()) {
    return names;
  }
  const std::vector<MountInfo> mounts = deps_.registry->List();
  MutexLock lock(&mu_);
  for (const MountInfo& info : mounts) {
    if (IsAwaited(info) && !ListedLocked(info)) {
      names.push_back(info.row.mount_name());
    }
  }
  return names;
}

absl::Status Inventory::Take(const control::v1::InventoryPart& part) {
  const Uuid mount_uid = Uuid::FromBytesOrNone(part.mount_uid());
  std::shared_ptr<ListingAudit> audit;
  {
    MutexLock lock(&mu_);
    const auto it = listings_.find(mount_uid);
    if (it == listings_.end() || it->second.id.empty() ||
        it->second.id != part.listing_id() || it->second.done) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       reason::kInvalidArgument,
                       "nobody asked for this listing, or not any more");
    }
    audit = it->second.audit;
    it->second.moved = deps_.clock->Boot();
  }
  if (audit != nullptr && trust_->recovering()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kRecovering,
                     "RECOVERING began: this listing is not judged, the mount "
                     "is listed again");
  }
  if (audit != nullptr) {
    return audit->Take(part);
  }
  std::vector<storage::v1::ReplicaRecord> records;
  std::vector<control::v1::InventoryEntry> unfit;
  for (const control::v1::InventoryEntry& entry : part.entries()) {
    // What is not whole, or says it is another image, is nobody's to adopt.
    if (IsWhole(entry)) {
      records.push_back(entry.record());
    } else if (entry.named()) {
      unfit.push_back(entry);
    }
  }
  RETURN_IF_ERROR(NoteUnadopted(mount_uid, unfit));
  const absl::Span<const storage::v1::ReplicaRecord> all(records);
  for (size_t i = 0; i < all.size(); i += kBatch) {
    RETURN_IF_ERROR(TakeBatch(mount_uid, all.subspan(i, kBatch)));
  }
  return absl::OkStatus();
}

}  // namespace predella::server
