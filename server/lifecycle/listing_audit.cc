#include "server/lifecycle/listing_audit.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/image_health.h"

namespace predella::server {
namespace {

// One commit, and so one sync, for so many.
constexpr size_t kAuditBatch = 100;
constexpr int64_t kAuditPage = 1000;

// More than 1 % or 100 at once are an incident; a few are not, however small
// the mount, but all of them always are.
constexpr int64_t kMostMissing = 100;
constexpr int64_t kFewMissing = 10;

// What is known of the size of a file that could not be read.
std::string SizeSeen(const control::v1::InventoryEntry& entry) {
  return entry.size_bytes() > 0
             ? absl::StrCat("; the file has ", entry.size_bytes(), " bytes")
             : "";
}

// Strangers do not make a mount that lost all its images the right one; a
// single image may have been moved by hand.
bool Suspicious(int64_t missing, int64_t expected, bool any, int64_t files) {
  return missing > kMostMissing ||
         (missing >= kFewMissing && missing * 100 > expected) ||
         (missing > 1 && !any) || (missing > 0 && files == 0);
}

}  // namespace

bool MayNotBeRead(absl::string_view read_error) {
  return absl::StartsWith(read_error, "EACCES") ||
         absl::StartsWith(read_error, "EPERM") ||
         absl::StartsWith(read_error, "ELOOP") ||
         absl::StartsWith(read_error, "EXDEV") ||
         absl::StartsWith(read_error, "ENOTDIR") ||
         absl::StartsWith(read_error, "EISDIR") ||
         absl::StartsWith(read_error, "EMLINK");
}

bool IsWhole(const control::v1::InventoryEntry& entry) {
  return entry.named() && entry.has_record() &&
         entry.record().size_bytes() == entry.size_bytes() &&
         entry.record().image_id() == entry.image_id();
}

ListingAudit::ListingAudit(const LifecycleDeps& deps,
                           UploadManager* upload_manager,
                           Tombstones* tombstones, const Uuid& mount_uid,
                           std::string mount_name, int64_t alarmed)
    : deps_(deps),
      upload_manager_(upload_manager),
      tombstones_(tombstones),
      mount_uid_(mount_uid),
      mount_name_(std::move(mount_name)),
      alarmed_(alarmed),
      begin_(deps.index->synced_pair()) {}

absl::StatusOr<std::unique_ptr<ListingAudit>> ListingAudit::Begin(
    const LifecycleDeps& deps, UploadManager* upload_manager,
    Tombstones* tombstones, const Uuid& mount_uid,
    const std::string& mount_name, int64_t alarmed) {
  // The constructor is private: make_unique cannot reach it.
  std::unique_ptr<ListingAudit> audit(new ListingAudit(
      deps, upload_manager, tombstones, mount_uid, mount_name, alarmed));
  MutexLock lock(&audit->mu_);
  Uuid after;
  while (true) {
    ASSIGN_OR_RETURN(const std::vector<Uuid> ids,
                     deps.index->ListMountImages(mount_uid, after, kAuditPage));
    audit->expected_.insert(ids.begin(), ids.end());
    if (static_cast<int64_t>(ids.size()) < kAuditPage) {
      break;
    }
    after = ids.back();
  }
  audit->expected_count_ = static_cast<int64_t>(audit->expected_.size());
  return audit;
}

absl::Status ListingAudit::Take(const control::v1::InventoryPart& part) {
  for (const control::v1::InventoryEntry& entry : part.entries()) {
    RETURN_IF_ERROR(TakeEntry(entry));
  }
  return absl::OkStatus();
}

absl::Status ListingAudit::TakeEntry(const control::v1::InventoryEntry& entry) {
  const Uuid image_id = Uuid::FromBytesOrNone(entry.image_id());
  if (image_id.none() || !entry.named()) {
    return absl::OkStatus();  // a record without a name is garbage
  }
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                   deps_.index->GetImage(image_id));
  const bool whole = IsWhole(entry);
  const bool same = row.has_value() && entry.has_record() &&
                    Generation::FromProto(row->generation()) ==
                        Generation::FromProto(entry.record().generation());
  const bool copy = row.has_value() && HoldsCopy(*row, mount_uid_);
  if (!copy || !IsAsRowSays(entry, *row)) {
    NoteStrange(entry, copy ? &*row : nullptr);
  }
  {
    MutexLock lock(&mu_);
    ++files_;
    if (!whole) {
      unfit_.insert(image_id);
    }
  }
  if (copy) {
    TakeCopy(entry, *row);
    return whole && !same ? TakeStray(entry, row) : absl::OkStatus();
  }
  if (whole) {
    return TakeStray(entry, row);
  }
  // Damaged, and of an image that was deleted.
  const Generation said =
      entry.has_record() && entry.record().image_id() == entry.image_id()
          ? Generation::FromProto(entry.record().generation())
          : Generation();
  if (!said.none() && tombstones_->Covers(image_id, said)) {
    RETURN_IF_ERROR(
        tombstones_->AddPending(image_id, said.ToProto(), mount_uid_));
  }
  NameOrphan(entry, absl::StrCat(entry.read_error().empty()
                                     ? "a file without a record that fits it"
                                     : absl::StrCat("it could not be read (",
                                                    entry.read_error(), ")"),
                                 "; not served, not removed, not replaced",
                                 row.has_value() ? Where(*row) : ""));
  return absl::OkStatus();
}

std::string ListingAudit::Where(const storage::v1::ImageRow& row) const {
  std::string out;
  for (const storage::v1::CopyRow& copy : row.copies()) {
    const std::optional<MountInfo> info =
        deps_.registry->Find(Uuid::FromBytesOrNone(copy.mount_uid()));
    absl::StrAppend(&out, out.empty() ? "; the index has this image on " : ", ",
                    MountName(info.has_value() ? info->row.mount_name()
                                               : "a mount that is gone"));
  }
  return out;
}

void ListingAudit::TakeCopy(const control::v1::InventoryEntry& entry,
                            const storage::v1::ImageRow& row) {
  const Uuid image_id = Uuid::FromBytesOrNone(entry.image_id());
  const bool same = entry.has_record() &&
                    Generation::FromProto(row.generation()) ==
                        Generation::FromProto(entry.record().generation());
  const std::optional<storage::v1::FaultRow> fault =
      deps_.index->FaultOf(row, mount_uid_);
  MutexLock lock(&mu_);
  if (!entry.read_error().empty() && !MayNotBeRead(entry.read_error())) {
    // The disk does not give it: whether it is there, and whole, is unknown.
    expected_.erase(image_id);
    unlike_[image_id] = absl::StrCat("it can not be read: ", entry.read_error(),
                                     SizeSeen(entry));
    damaged_.push_back(image_id);
    return;
  }
  if (!entry.read_error().empty()) {
    unlike_[image_id] = absl::StrCat(
        "the name bears a file that could not be read: ", entry.read_error(),
        SizeSeen(entry));
    unvouched_.insert(image_id);
    return;
  }
  if (!same) {
    unlike_[image_id] = absl::StrCat(
        "the name bears a file of ", entry.size_bytes(), " bytes ",
        entry.has_record()
            ? absl::StrCat(
                  "and generation ",
                  Generation::FromProto(entry.record().generation()).ToString())
            : "without a record that can be read");
    if (!entry.has_record()) {
      unvouched_.insert(image_id);
    }
    return;
  }
  expected_.erase(image_id);
  if (!IsWhole(entry)) {
    unlike_[image_id] =
        absl::StrCat("the file has ", entry.size_bytes(),
                     " bytes, its record says ", entry.record().size_bytes());
    damaged_.push_back(image_id);
  } else if (fault.has_value() &&
             fault->fault() == storage::v1::COPY_FAULT_MISSING) {
    found_.push_back(image_id);
  }
}

absl::Status ListingAudit::TakeStray(
    const control::v1::InventoryEntry& entry,
    const std::optional<storage::v1::ImageRow>& row) {
  const storage::v1::ReplicaRecord& record = entry.record();
  const Uuid image_id = Uuid::FromBytesOrNone(record.image_id());
  const Generation generation = Generation::FromProto(record.generation());
  const bool same =
      row.has_value() && Generation::FromProto(row->generation()) == generation;
  if (same) {
    NameOrphan(entry, absl::StrCat("a copy that the index does not name",
                                   Where(*row)));
    return absl::OkStatus();
  }
  if (tombstones_->Covers(image_id, generation)) {
    return tombstones_->AddPending(image_id, record.generation(), mount_uid_);
  }
  ASSIGN_OR_RETURN(
      const std::optional<storage::v1::UploadRow> upload,
      deps_.index->GetUpload(Uuid::FromBytesOrNone(record.upload_id())));
  // Read after its upload, and looked at before it: one that ended SUPERSEDED
  // may be kept as a conflict, which one commit says.
  ASSIGN_OR_RETURN(const std::vector<storage::v1::ConflictRow> conflicts,
                   deps_.index->ConflictsOf(image_id));
  for (const storage::v1::ConflictRow& conflict : conflicts) {
    if (Generation::FromProto(conflict.image().generation()) == generation) {
      return absl::OkStatus();
    }
  }
  if (upload.has_value() &&
      Generation::FromProto(upload->generation()) == generation) {
    if (upload->outcome() == storage::v1::UPLOAD_OUTCOME_UNSPECIFIED) {
      return absl::OkStatus();  // decided when its agent says so
    }
    const bool was_here =
        std::any_of(upload->targets().begin(), upload->targets().end(),
                    [&](const storage::v1::UploadTargetRow& target) {
                      return target.mount_uid() == mount_uid_.bytes();
                    });
    if (was_here &&
        upload->outcome() != storage::v1::UPLOAD_OUTCOME_COMMITTED) {
      return upload_manager_->MarkLeftover(
          Uuid::FromBytesOrNone(upload->upload_id()), mount_uid_);
    }
  }
  NameOrphan(entry, row.has_value()
                        ? absl::StrCat("another generation than the index has",
                                       Where(*row))
                        : "a whole image that the index does not know");
  return absl::OkStatus();
}

void ListingAudit::NameOrphan(const control::v1::InventoryEntry& entry,
                              std::string detail) {
  Orphan orphan;
  orphan.image_id = Uuid::FromBytesOrNone(entry.image_id());
  orphan.mount_uid = mount_uid_;
  orphan.size_bytes = entry.size_bytes();
  orphan.read_error = entry.read_error();
  if (IsWhole(entry)) {
    orphan.record = entry.record();
  }
  orphan.detail = std::move(detail);
  MutexLock lock(&mu_);
  orphans_[orphan.image_id] = std::move(orphan);
}

absl::StatusOr<std::vector<storage::v1::ImageRow>> ListingAudit::Judged(
    const std::vector<Uuid>& ids) const {
  std::vector<storage::v1::ImageRow> rows;
  for (const Uuid& id : ids) {
    ASSIGN_OR_RETURN(std::optional<storage::v1::ImageRow> row,
                     deps_.index->GetImage(id));
    // One that was stored, removed or moved since the listing began may be in
    // it as it was.
    if (row.has_value() && HoldsCopy(*row, mount_uid_) &&
        !Generation::FromProto(row->generation()).After(begin_)) {
      rows.push_back(*std::move(row));
    }
  }
  return rows;
}

storage::v1::EventRow ListingAudit::Event(const std::string& kind,
                                          const std::string& image_id,
                                          const std::string& detail) const {
  storage::v1::EventRow event;
  event.set_time_us(deps_.clock->NowMicros());
  event.set_kind(kind);
  event.set_mount_name(mount_name_);
  event.set_image_id(image_id);
  event.set_detail(detail);
  event.set_affected_images(1);
  return event;
}

absl::Status ListingAudit::WriteFaults(
    const std::vector<storage::v1::ImageRow>& rows,
    storage::v1::CopyFault fault, bool events) {
  absl::flat_hash_map<Uuid, std::string> unlike;
  absl::flat_hash_set<Uuid> unvouched;
  {
    MutexLock lock(&mu_);
    unlike = unlike_;
    unvouched = unvouched_;
  }
  const bool missing = fault == storage::v1::COPY_FAULT_MISSING;
  for (size_t i = 0; i < rows.size(); i += kAuditBatch) {
    std::vector<Uuid> ids;
    for (size_t j = i; j < std::min(i + kAuditBatch, rows.size()); ++j) {
      ids.push_back(Uuid::FromBytesOrNone(rows[j].image_id()));
    }
    absl::Status written;
    for (int tries = 0; tries < kMaxCommitTries; ++tries) {
      ASSIGN_OR_RETURN(const std::vector<storage::v1::ImageRow> now,
                       Judged(ids));
      IndexTxn txn = deps_.index->Begin();
      int puts = 0;
      for (const storage::v1::ImageRow& row : now) {
        const std::optional<storage::v1::FaultRow> known =
            deps_.index->FaultOf(row, mount_uid_);
        const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
        // What a scrub or a read found of a file that is there says more.
        if (known.has_value() && (known->fault() == fault || !missing ||
                                  unvouched.contains(image_id))) {
          continue;
        }
        const auto it = unlike.find(image_id);
        storage::v1::FaultRow put;
        put.set_mount_uid(mount_uid_.bytes());
        put.set_image_id(row.image_id());
        *put.mutable_generation() = row.generation();
        put.set_fault(fault);
        put.set_detail(it != unlike.end() ? it->second
                                          : "the mount was listed, and no "
                                            "file of it is there");
        put.set_found_time_us(deps_.clock->NowMicros());
        txn.RequireImage(row);
        txn.PutFault(put);
        if (events) {
          txn.PutEvent(Event(missing ? "copy_missing" : "copy_damaged",
                             row.image_id(), put.detail()));
          LogWarning(missing ? "copy_missing" : "copy_damaged",
                     {{"image", image_id.ToString()},
                      {"mount", mount_name_},
                      {"detail", put.detail()}});
        }
        ++puts;
      }
      written =
          puts == 0 ? absl::OkStatus() : deps_.index->Commit(std::move(txn));
      if (!absl::IsAborted(written)) {
        break;
      }
    }
    RETURN_IF_ERROR(written);
  }
  return absl::OkStatus();
}

absl::Status ListingAudit::ClearFaults(const std::vector<Uuid>& ids,
                                       int64_t* cleared) {
  for (size_t i = 0; i < ids.size(); i += kAuditBatch) {
    absl::Status written;
    int count = 0;
    for (int tries = 0; tries < kMaxCommitTries; ++tries) {
      IndexTxn txn = deps_.index->Begin();
      count = 0;
      for (size_t j = i; j < std::min(i + kAuditBatch, ids.size()); ++j) {
        ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                         deps_.index->GetImage(ids[j]));
        const std::optional<storage::v1::FaultRow> fault =
            row.has_value() ? deps_.index->FaultOf(*row, mount_uid_)
                            : std::nullopt;
        if (!fault.has_value() ||
            fault->fault() != storage::v1::COPY_FAULT_MISSING) {
          continue;
        }
        txn.RequireImage(*row);
        txn.DeleteFault(mount_uid_, ids[j]);
        txn.PutEvent(Event("copy_found", ids[j].bytes(),
                           "the file that was missing is there again"));
        ++count;
      }
      written =
          count == 0 ? absl::OkStatus() : deps_.index->Commit(std::move(txn));
      if (!absl::IsAborted(written)) {
        break;
      }
    }
    RETURN_IF_ERROR(written);
    *cleared += count;
  }
  return absl::OkStatus();
}

absl::StatusOr<ListingAudit::Result> ListingAudit::Finish() {
  Result result;
  std::vector<Uuid> gone;
  std::vector<Uuid> damaged;
  std::vector<Uuid> found;
  int64_t files = 0;
  {
    MutexLock lock(&mu_);
    result.expected = expected_count_;
    result.orphans = orphans_;
    result.unfit = unfit_;
    gone.assign(expected_.begin(), expected_.end());
    damaged = damaged_;
    found = found_;
    files = files_;
  }
  std::sort(gone.begin(), gone.end());
  RETURN_IF_ERROR(ClearFaults(found, &result.found));
  // What was committed while its file was being judged is none.
  for (auto it = result.orphans.begin(); it != result.orphans.end();) {
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                     deps_.index->GetImage(it->first));
    const auto orphan = it++;
    if (row.has_value() && HoldsCopy(*row, mount_uid_) &&
        orphan->second.record.has_value() &&
        Generation::FromProto(orphan->second.record->generation()) ==
            Generation::FromProto(row->generation())) {
      result.orphans.erase(orphan);
    }
  }
  // Counted in full; kept, as rows, only as far as they are named.
  std::vector<storage::v1::ImageRow> missing;
  for (size_t i = 0; i < gone.size(); i += kAuditBatch) {
    ASSIGN_OR_RETURN(
        std::vector<storage::v1::ImageRow> rows,
        Judged({gone.begin() + static_cast<ptrdiff_t>(i),
                gone.begin() + static_cast<ptrdiff_t>(
                                   std::min(i + kAuditBatch, gone.size()))}));
    result.missing += static_cast<int64_t>(rows.size());
    for (storage::v1::ImageRow& row : rows) {
      if (static_cast<int64_t>(missing.size()) < kMostFaults) {
        missing.push_back(std::move(row));
      }
    }
  }
  result.basis = MakeBasis(missing, result.missing);
  const bool any = static_cast<int64_t>(gone.size()) < result.expected;
  result.suspicious = Suspicious(result.missing, result.expected, any, files);
  if (result.suspicious && result.missing > alarmed_) {
    const std::string detail = absl::StrCat(
        "a listing with ", files, " files lacks ", result.missing, " of ",
        result.expected, " images: nothing is removed for that");
    LogError("inventory_suspicious",
             {{"mount", mount_name_}, {"detail", detail}});
    storage::v1::EventRow event = Event("inventory_suspicious", "", detail);
    event.set_affected_images(result.missing);
    IndexTxn txn = deps_.index->Begin();
    txn.PutEvent(event);
    RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  }
  RETURN_IF_ERROR(WriteFaults(missing, storage::v1::COPY_FAULT_MISSING,
                              /*events=*/!result.suspicious));
  ASSIGN_OR_RETURN(const std::vector<storage::v1::ImageRow> bad,
                   Judged(damaged));
  RETURN_IF_ERROR(
      WriteFaults(bad, storage::v1::COPY_FAULT_DAMAGED, /*events=*/true));
  return result;
}

}  // namespace predella::server
