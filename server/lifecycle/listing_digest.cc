// Digests instead of listings: a part of ListingAudit.
#include "common/listing_digest.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "common/status_macros.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/listing_audit.h"

namespace predella::server {
namespace {

// What a listing shows of a copy that is as it should be, as far as a digest
// tells.
control::v1::InventoryEntry EntryOfRow(const storage::v1::ImageRow& row) {
  control::v1::InventoryEntry entry;
  entry.set_image_id(row.image_id());
  entry.set_named(true);
  entry.set_size_bytes(row.size_bytes());
  storage::v1::ReplicaRecord* const record = entry.mutable_record();
  record->set_image_id(row.image_id());
  *record->mutable_generation() = row.generation();
  record->set_size_bytes(row.size_bytes());
  record->set_crc32c(row.crc32c());
  return entry;
}

}  // namespace

bool IsAsRowSays(const control::v1::InventoryEntry& entry,
                 const storage::v1::ImageRow& row) {
  return IsWhole(entry) && entry.image_id() == row.image_id() &&
         entry.size_bytes() == row.size_bytes() &&
         entry.record().crc32c() == row.crc32c() &&
         Generation::FromProto(entry.record().generation()) ==
             Generation::FromProto(row.generation());
}

void ListingAudit::NoteStrange(const control::v1::InventoryEntry& entry,
                               const storage::v1::ImageRow* row) {
  MutexLock lock(&mu_);
  if (basis_.strange.size() >= kMostKept) {
    too_strange_ = true;
    return;
  }
  basis_.strange.push_back(entry);
  if (row != nullptr) {
    basis_.absent[Uuid::FromBytesOrNone(row->image_id())] =
        Generation::FromProto(row->generation());
  }
}

std::shared_ptr<const ListingBasis> ListingAudit::MakeBasis(
    const std::vector<storage::v1::ImageRow>& missing, int64_t count) const {
  MutexLock lock(&mu_);
  if (too_strange_ || count > static_cast<int64_t>(kMostKept) ||
      count > static_cast<int64_t>(missing.size())) {
    return nullptr;
  }
  auto basis = std::make_shared<ListingBasis>(basis_);
  for (const storage::v1::ImageRow& row : missing) {
    basis->absent[Uuid::FromBytesOrNone(row.image_id())] =
        Generation::FromProto(row.generation());
  }
  return basis;
}

absl::StatusOr<bool> ListingAudit::TakeDigest(
    const ListingBasis& basis, const control::v1::ListingDigest& digest) {
  std::vector<Uuid> ids;
  {
    MutexLock lock(&mu_);
    ids.assign(expected_.begin(), expected_.end());
  }
  std::sort(ids.begin(), ids.end());  // as they lie in the index
  const bool faults = deps_.index->fault_count(mount_uid_) > 0;
  ListingSum sum;
  std::vector<Uuid> shown;
  std::vector<Uuid> found;
  for (const Uuid& id : ids) {
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                     deps_.index->GetImage(id));
    // What changes meanwhile may be in the digest as it was or as it is: when
    // that is not as it is taken here, the mount is listed.
    if (!row.has_value() || !HoldsCopy(*row, mount_uid_)) {
      continue;
    }
    const auto absent = basis.absent.find(id);
    if (absent != basis.absent.end() &&
        absent->second == Generation::FromProto(row->generation())) {
      continue;
    }
    sum.Add(EntryOfRow(*row));
    shown.push_back(id);
    const std::optional<storage::v1::FaultRow> fault =
        faults ? deps_.index->FaultOf(*row, mount_uid_) : std::nullopt;
    if (fault.has_value() &&
        fault->fault() == storage::v1::COPY_FAULT_MISSING) {
      found.push_back(id);
    }
  }
  for (const control::v1::InventoryEntry& entry : basis.strange) {
    sum.Add(entry);
  }
  if (!sum.Matches(digest)) {
    return false;
  }
  {
    MutexLock lock(&mu_);
    files_ += static_cast<int64_t>(shown.size());
    found_ = std::move(found);
    for (const Uuid& id : shown) {
      expected_.erase(id);
    }
  }
  for (const control::v1::InventoryEntry& entry : basis.strange) {
    RETURN_IF_ERROR(TakeEntry(entry));
  }
  return true;
}

}  // namespace predella::server
