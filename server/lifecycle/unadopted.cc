// Files that RECOVERING could not adopt: a part of Inventory.
#include <algorithm>
#include <map>
#include <optional>
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

// One commit, and so one sync, for so many.
constexpr size_t kNotesPerCommit = 100;

storage::v1::ImageRow RowOfNote(const Inventory::Unadopted& file) {
  storage::v1::ImageRow row;
  row.set_image_id(file.image_id.bytes());
  row.set_size_bytes(file.size_bytes);
  row.add_copies()->set_mount_uid(file.mount_uid.bytes());
  *row.mutable_generation() = file.not_above.ToProto();
  return row;
}

// Of the entry's record, when it is of this image at all.
Generation SaidBy(const control::v1::InventoryEntry& entry) {
  return entry.has_record() && entry.record().image_id() == entry.image_id()
             ? Generation::FromProto(entry.record().generation())
             : Generation();
}

}  // namespace

absl::Status Inventory::Load() {
  std::map<std::pair<Uuid, Uuid>, Unadopted> loaded;
  RETURN_IF_ERROR(
      deps_.index->ScanUnadopted([&loaded](const storage::v1::ImageRow& row) {
        const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
        const Uuid mount_uid = Uuid::FromBytesOrNone(
            row.copies().empty() ? "" : row.copies(0).mount_uid());
        loaded[{image_id, mount_uid}] = {
            image_id, mount_uid, row.size_bytes(),
            Generation::FromProto(row.generation()), 0};
      }));
  MutexLock lock(&mu_);
  unadopted_ = std::move(loaded);
  return absl::OkStatus();
}

absl::Status Inventory::NoteUnadopted(
    const Uuid& mount_uid,
    const std::vector<control::v1::InventoryEntry>& entries) {
  for (size_t i = 0; i < entries.size(); i += kNotesPerCommit) {
    std::vector<Unadopted> noted;
    for (size_t j = i; j < entries.size() && j < i + kNotesPerCommit; ++j) {
      ASSIGN_OR_RETURN(std::optional<Unadopted> file,
                       ToNote(mount_uid, entries[j]));
      if (file.has_value()) {
        noted.push_back(*std::move(file));
      }
    }
    if (noted.empty()) {
      continue;
    }
    IndexTxn txn = deps_.index->Begin();
    for (const Unadopted& file : noted) {
      txn.PutUnadopted(RowOfNote(file));
    }
    RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
    MutexLock lock(&mu_);
    for (const Unadopted& file : noted) {
      unadopted_[{file.image_id, file.mount_uid}] = file;
      LogWarning("image_not_adopted", {{"image", file.image_id.ToString()},
                                       {"mount", file.mount_uid.ToString()},
                                       {"bytes", file.size_bytes}});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Inventory::Unadopted>> Inventory::ToNote(
    const Uuid& mount_uid, const control::v1::InventoryEntry& entry) {
  Unadopted file;
  file.image_id = Uuid::FromBytesOrNone(entry.image_id());
  file.mount_uid = mount_uid;
  file.size_bytes = entry.size_bytes();
  file.not_above = SaidBy(entry);
  file.session = commands_->AttachedSession(mount_uid);
  ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                   deps_.index->GetImage(file.image_id));
  if (file.image_id.none() || image.has_value()) {
    return std::optional<Unadopted>();  // a damaged copy of a known image
  }
  if (!file.not_above.none() &&
      tombstones_->Covers(file.image_id, file.not_above)) {
    RETURN_IF_ERROR(tombstones_->AddPending(
        file.image_id, file.not_above.ToProto(), mount_uid));
    return std::optional<Unadopted>();
  }
  if (file.not_above.none()) {
    // The lost history gave nothing of this epoch: it is above all fences.
    file.not_above = {deps_.index->epoch(), 1, deps_.index->epoch_nonce()};
  }
  MutexLock lock(&mu_);
  const auto it = unadopted_.find({file.image_id, mount_uid});
  if (it == unadopted_.end()) {
    return std::make_optional(std::move(file));
  }
  if (it->second.size_bytes == file.size_bytes) {
    return std::optional<Unadopted>();
  }
  // A delete since it was first seen goes on to count.
  file.not_above = it->second.not_above;
  return std::make_optional(std::move(file));
}

absl::Status Inventory::DropUnadopted(
    const std::function<bool(const Unadopted&)>& gone) {
  std::vector<Unadopted> files;
  {
    MutexLock lock(&mu_);
    for (const auto& [key, file] : unadopted_) {
      files.push_back(file);
    }
  }
  std::erase_if(files, [&](const Unadopted& file) { return !gone(file); });
  for (size_t i = 0; i < files.size(); i += kNotesPerCommit) {
    IndexTxn txn = deps_.index->Begin();
    const size_t end = std::min(files.size(), i + kNotesPerCommit);
    for (size_t j = i; j < end; ++j) {
      txn.DeleteUnadopted(files[j].image_id, files[j].mount_uid);
    }
    RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
    MutexLock lock(&mu_);
    for (size_t j = i; j < end; ++j) {
      unadopted_.erase({files[j].image_id, files[j].mount_uid});
    }
  }
  return absl::OkStatus();
}

absl::Status Inventory::AdoptReturned(const Uuid& mount_uid,
                                      ListingAudit::Result* result) {
  std::vector<storage::v1::ReplicaRecord> returned;
  const int64_t session = commands_->AttachedSession(mount_uid);
  for (const Unadopted& file : ListUnadopted()) {
    const auto it = result->orphans.find(file.image_id);
    if (file.mount_uid == mount_uid && file.session == session &&
        session != 0 && it != result->orphans.end() &&
        it->second.record.has_value()) {
      returned.push_back(*it->second.record);
    }
  }
  if (returned.empty()) {
    return absl::OkStatus();
  }
  // As TakeBatch.
  const MountGate::Adding adding(tombstones_->adopting(), Uuid());
  std::vector<storage::v1::ReplicaRecord> adopt;
  for (const storage::v1::ReplicaRecord& record : returned) {
    ASSIGN_OR_RETURN(const Verdict verdict, Judge(mount_uid, record));
    if (verdict == Verdict::kAdopt) {
      adopt.push_back(record);
    }
  }
  RETURN_IF_ERROR(Adopt(mount_uid, adopt));
  for (const storage::v1::ReplicaRecord& record : adopt) {
    result->orphans.erase(Uuid::FromBytesOrNone(record.image_id()));
  }
  return absl::OkStatus();
}

void Inventory::DropDeleted() {
  LogIfError(DropUnadopted([this](const Unadopted& file) {
               return tombstones_->Covers(file.image_id, file.not_above);
             }),
             "the next tick drops them again");
}

std::vector<Orphan> Inventory::ListUnnamed(const Uuid& mount_uid,
                                           const Uuid& after,
                                           int64_t limit) const {
  std::map<Uuid, Orphan> files;
  for (const Unadopted& file : ListUnadopted()) {
    if (file.mount_uid == mount_uid && after < file.image_id) {
      Orphan& orphan = files[file.image_id];
      orphan.image_id = file.image_id;
      orphan.mount_uid = mount_uid;
      orphan.size_bytes = file.size_bytes;
      orphan.detail =
          "RECOVERING found it, and no record that could be read vouched for "
          "it";
    }
  }
  for (Orphan& orphan : ListOrphans(mount_uid, after, limit)) {
    files[orphan.image_id] = std::move(orphan);
  }
  std::vector<Orphan> out;
  for (auto& [image_id, orphan] : files) {
    if (static_cast<int64_t>(out.size()) == limit) {
      break;
    }
    out.push_back(std::move(orphan));
  }
  return out;
}

absl::Status Inventory::DropSettledUnadopted(
    const Uuid& mount_uid, const ListingAudit::Result& result) {
  return DropUnadopted([&](const Unadopted& file) {
    if (file.mount_uid == mount_uid && !result.unfit.contains(file.image_id) &&
        result.orphans.count(file.image_id) == 0) {
      return true;
    }
    const auto row = deps_.index->GetImage(file.image_id);
    return row.ok() && row->has_value();
  });
}

// What lies on a mount that was given up is given up with it.
bool Inventory::GivenUp(const Unadopted& file) const {
  const std::optional<MountInfo> info = deps_.registry->Find(file.mount_uid);
  return info.has_value() && IsRetired(*info);
}

bool Inventory::Counts(const Unadopted& file) const {
  return !GivenUp(file) && !tombstones_->Covers(file.image_id, file.not_above);
}

std::optional<Inventory::Unadopted> Inventory::FindUnadopted(
    const Uuid& image_id) const {
  std::vector<Unadopted> noted;
  std::vector<Unadopted> foreign;
  {
    MutexLock lock(&mu_);
    for (auto it = unadopted_.lower_bound({image_id, Uuid()});
         it != unadopted_.end() && it->first.first == image_id; ++it) {
      noted.push_back(it->second);
    }
    for (const auto& [mount_uid, audited] : audited_) {
      const auto it = audited.orphans.find(image_id);
      if (it != audited.orphans.end() && !it->second.record.has_value()) {
        foreign.push_back({image_id, mount_uid, it->second.size_bytes, {}, 0});
      }
    }
  }
  for (const Unadopted& file : noted) {
    if (Counts(file)) {
      return file;
    }
  }
  // No history was lost with the others: where a delete is known, they are
  // what it left.
  if (tombstones_->OfImage(image_id).empty()) {
    for (const Unadopted& file : foreign) {
      if (!GivenUp(file)) {
        return file;
      }
    }
  }
  return std::nullopt;
}

std::vector<Inventory::Unadopted> Inventory::ListUnadopted() const {
  std::vector<Unadopted> out;
  {
    MutexLock lock(&mu_);
    for (const auto& [key, file] : unadopted_) {
      out.push_back(file);
    }
  }
  std::erase_if(out, [this](const Unadopted& file) { return !Counts(file); });
  return out;
}

}  // namespace predella::server
