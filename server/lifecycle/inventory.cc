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

// What stays when the adopted image's own upload is asked for again.
storage::v1::UploadRow OutcomeOfRecord(const storage::v1::ReplicaRecord& record,
                                       const Uuid& mount_uid, int64_t now_us) {
  storage::v1::UploadRow row;
  row.set_upload_id(record.upload_id());
  row.set_image_id(record.image_id());
  *row.mutable_generation() = record.generation();
  row.set_location_key(record.location_key());
  row.set_size_bytes(record.size_bytes());
  row.add_targets()->set_mount_uid(mount_uid.bytes());
  row.set_create_time_us(record.create_time_us());
  row.set_update_time_us(now_us);
  row.set_adopted(true);
  row.set_outcome(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  row.set_outcome_time_us(now_us);
  *row.mutable_decision() = record.decision();
  return row;
}

// One that was given up, or that nobody took in after a rebuild, is not.
bool IsAwaited(const MountInfo& info) {
  return info.row.admin_state() != storage::v1::ADMIN_STATE_RETIRED &&
         !info.row.unconfirmed();
}

}  // namespace

storage::v1::ImageRow RowOfRecord(const storage::v1::ReplicaRecord& record,
                                  const Uuid& mount_uid) {
  storage::v1::ImageRow row;
  row.set_image_id(record.image_id());
  *row.mutable_generation() = record.generation();
  row.set_location_key(record.location_key());
  row.set_size_bytes(record.size_bytes());
  row.set_crc32c(record.crc32c());
  *row.mutable_hashes() = record.hashes();
  row.add_copies()->set_mount_uid(mount_uid.bytes());
  row.set_upload_id(record.upload_id());
  row.set_create_time_us(record.publish_time_us());
  *row.mutable_decision() = record.decision();
  return row;
}

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
    if (session == 0 || (listing.recovering && listing.session == session)) {
      return;
    }
    absl::erase_if(unadopted_, [&](const auto& file) {
      return file.second.mount_uid == mount_uid;
    });
    listing.id = listing_id;
    listing.incarnation =
        info.hello.has_value() ? info.hello->incarnation() : std::string();
    listing.session = session;
    listing.done = false;
    listing.recovering = true;
    listing.audit = nullptr;
    listing.basis = nullptr;
    listing.in_full = false;
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
  std::string detail;
  {
    MutexLock lock(&mu_);
    detail = absl::StrCat(
        "every mount was listed; ", adopted_.size(), " images were adopted, ",
        conflicts_, " wait for a choice between two generations, ",
        unadopted_.size(), " files have no record that vouches for them");
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
    if (it == listings_.end() || it->second.id != part.listing_id() ||
        it->second.done) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       reason::kInvalidArgument,
                       "nobody asked for this listing, or not any more");
    }
    audit = it->second.audit;
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
  for (const control::v1::InventoryEntry& entry : part.entries()) {
    // What is not whole, or says it is another image, is nobody's to adopt.
    if (IsWhole(entry)) {
      records.push_back(entry.record());
    } else if (entry.named()) {
      RETURN_IF_ERROR(NoteUnadopted(mount_uid, entry));
    }
  }
  const absl::Span<const storage::v1::ReplicaRecord> all(records);
  for (size_t i = 0; i < all.size(); i += kBatch) {
    RETURN_IF_ERROR(TakeBatch(mount_uid, all.subspan(i, kBatch)));
  }
  return absl::OkStatus();
}

absl::Status Inventory::NoteUnadopted(
    const Uuid& mount_uid, const control::v1::InventoryEntry& entry) {
  const Uuid image_id = Uuid::FromBytesOrNone(entry.image_id());
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                   deps_.index->GetImage(image_id));
  if (image_id.none() || image.has_value()) {
    return absl::OkStatus();  // a damaged copy, of an image that is known
  }
  MutexLock lock(&mu_);
  const auto [it, inserted] = unadopted_.try_emplace(
      image_id, Unadopted{image_id, mount_uid, entry.size_bytes()});
  if (inserted) {
    LogWarning("image_not_adopted", {{"image", image_id.ToString()},
                                     {"mount", mount_uid.ToString()},
                                     {"bytes", entry.size_bytes()}});
  }
  return absl::OkStatus();
}

absl::Status Inventory::TakeBatch(
    const Uuid& mount_uid,
    absl::Span<const storage::v1::ReplicaRecord> records) {
  absl::Status status;
  // Against deletes: those that were before are seen, later ones see the rows.
  const MountGate::Adding adding(tombstones_->adopting(), Uuid());
  for (int i = 0; i < kMaxCommitTries; ++i) {
    std::vector<storage::v1::ReplicaRecord> adopt;
    for (const storage::v1::ReplicaRecord& record : records) {
      ASSIGN_OR_RETURN(const Verdict verdict, Judge(mount_uid, record));
      if (verdict == Verdict::kAdopt) {
        adopt.push_back(record);
      } else if (verdict == Verdict::kDisplace) {
        RETURN_IF_ERROR(Displace(mount_uid, record));
      } else if (verdict == Verdict::kConflict) {
        RETURN_IF_ERROR(NoteConflict(mount_uid, record));
      }
    }
    status = Adopt(mount_uid, adopt);
    if (!absl::IsAborted(status)) {
      return status;
    }
  }
  return status;
}

absl::StatusOr<Inventory::Verdict> Inventory::Judge(
    const Uuid& mount_uid, const storage::v1::ReplicaRecord& record) {
  const Uuid image_id = Uuid::FromBytesOrNone(record.image_id());
  const Generation generation = Generation::FromProto(record.generation());
  if (!trust_->recovering() || image_id.none() || generation.none()) {
    return Verdict::kNothing;
  }
  if (tombstones_->Covers(image_id, generation)) {
    RETURN_IF_ERROR(
        tombstones_->AddPending(image_id, record.generation(), mount_uid));
    return Verdict::kNothing;
  }
  ASSIGN_OR_RETURN(
      const std::optional<storage::v1::UploadRow> upload,
      deps_.index->GetUpload(Uuid::FromBytesOrNone(record.upload_id())));
  const bool same = upload.has_value() &&
                    Generation::FromProto(upload->generation()) == generation;
  const bool open =
      same && upload->outcome() == storage::v1::UPLOAD_OUTCOME_UNSPECIFIED;
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                   deps_.index->GetImage(image_id));
  if (image.has_value() &&
      Generation::FromProto(image->generation()) == generation) {
    return Verdict::kNothing;
  }
  if (open && !image.has_value()) {
    return Verdict::kNothing;  // committed when its agent says so
  }
  ASSIGN_OR_RETURN(const std::vector<storage::v1::ConflictRow> conflicts,
                   deps_.index->ConflictsOf(image_id));
  for (const storage::v1::ConflictRow& row : conflicts) {
    if (Generation::FromProto(row.image().generation()) == generation) {
      return Verdict::kNothing;
    }
  }
  if (same && !open) {
    RETURN_IF_ERROR(RemoveAgain(mount_uid, *upload));
    return Verdict::kNothing;
  }
  if (!image.has_value()) {
    return Verdict::kAdopt;
  }
  MutexLock lock(&mu_);
  return adopted_.contains(image_id) &&
                 generation.After(Generation::FromProto(image->generation()))
             ? Verdict::kDisplace
             : Verdict::kConflict;
}

absl::Status Inventory::RemoveAgain(const Uuid& mount_uid,
                                    const storage::v1::UploadRow& row) {
  // Of a committed one without a row nothing is known but that it was deleted:
  // its tombstone was settled and forgotten.
  if (row.outcome() == storage::v1::UPLOAD_OUTCOME_COMMITTED) {
    return absl::OkStatus();
  }
  return upload_manager_->MarkLeftover(Uuid::FromBytesOrNone(row.upload_id()),
                                       mount_uid);
}

absl::Status Inventory::Adopt(
    const Uuid& mount_uid,
    absl::Span<const storage::v1::ReplicaRecord> records) {
  if (records.empty()) {
    return absl::OkStatus();
  }
  std::vector<storage::v1::UploadRow> outcomes;
  IndexTxn txn = deps_.index->Begin();
  const Generation pair = txn.pair();
  for (const storage::v1::ReplicaRecord& record : records) {
    txn.RequireNoImage(Uuid::FromBytesOrNone(record.image_id()));
    txn.PutImage(RowOfRecord(record, mount_uid));
    const Uuid upload_id = Uuid::FromBytesOrNone(record.upload_id());
    ASSIGN_OR_RETURN(const std::optional<storage::v1::UploadRow> known,
                     deps_.index->GetUpload(upload_id));
    if (!known.has_value()) {
      outcomes.push_back(
          OutcomeOfRecord(record, mount_uid, deps_.clock->NowMicros()));
      txn.RequireNoUpload(upload_id);
      txn.PutUpload(outcomes.back());
    }
  }
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  for (const storage::v1::UploadRow& row : outcomes) {
    uploads_->Put(row, pair, deps_.clock->Boot());
  }
  deps_.registry->SetImageBytes(mount_uid,
                                deps_.index->mount_totals(mount_uid).bytes);
  for (const storage::v1::ReplicaRecord& record : records) {
    LogInfo(
        "image_adopted",
        {{"image", Uuid::FromBytesOrNone(record.image_id()).ToString()},
         {"generation", Generation::FromProto(record.generation()).ToString()},
         {"mount", mount_uid.ToString()}});
  }
  {
    MutexLock lock(&mu_);
    for (const storage::v1::ReplicaRecord& record : records) {
      adopted_.insert(Uuid::FromBytesOrNone(record.image_id()));
    }
  }
  changed_->Notify();
  return absl::OkStatus();
}

absl::Status Inventory::Displace(const Uuid& mount_uid,
                                 const storage::v1::ReplicaRecord& record) {
  const Uuid image_id = Uuid::FromBytesOrNone(record.image_id());
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> old,
                   deps_.index->GetImage(image_id));
  if (!old.has_value()) {
    return absl::OkStatus();  // deleted meanwhile, this generation with it
  }
  storage::v1::ConflictRow conflict;
  *conflict.mutable_image() = *old;
  conflict.set_found_time_us(deps_.clock->NowMicros());
  IndexTxn txn = deps_.index->Begin();
  txn.RequireImage(*old);
  txn.PutImage(RowOfRecord(record, mount_uid));
  txn.PutConflict(conflict);
  txn.PutEvent(ConflictEvent(conflict));
  const absl::Status status = deps_.index->Commit(std::move(txn));
  if (absl::IsAborted(status)) {
    return NoteConflict(mount_uid, record);
  }
  RETURN_IF_ERROR(status);
  for (const storage::v1::CopyRow& copy : old->copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    deps_.registry->SetImageBytes(uid, deps_.index->mount_totals(uid).bytes);
  }
  deps_.registry->SetImageBytes(mount_uid,
                                deps_.index->mount_totals(mount_uid).bytes);
  MutexLock lock(&mu_);
  ++conflicts_;
  return absl::OkStatus();
}

absl::Status Inventory::NoteConflict(const Uuid& mount_uid,
                                     const storage::v1::ReplicaRecord& record) {
  ASSIGN_OR_RETURN(
      std::optional<storage::v1::UploadRow> upload,
      deps_.index->GetUpload(Uuid::FromBytesOrNone(record.upload_id())));
  if (upload.has_value() &&
      (upload->outcome() != storage::v1::UPLOAD_OUTCOME_UNSPECIFIED ||
       Generation::FromProto(upload->generation()) !=
           Generation::FromProto(record.generation()))) {
    upload.reset();
  }
  RETURN_IF_ERROR(
      KeepAsConflict(deps_, RowOfRecord(record, mount_uid), upload, uploads_));
  MutexLock lock(&mu_);
  ++conflicts_;
  return absl::OkStatus();
}

}  // namespace predella::server
