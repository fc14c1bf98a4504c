// PlacementIndex: reads.
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/ids.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/index/index_keys.h"
#include "server/index/kv_store.h"
#include "server/index/placement_index.h"

namespace predella::server {
namespace {

template <typename Row>
absl::StatusOr<std::optional<Row>> GetRow(KvStore* kv, absl::string_view key) {
  ASSIGN_OR_RETURN(const std::optional<std::string> value, kv->Get(key));
  if (!value.has_value()) {
    return std::optional<Row>();
  }
  std::optional<Row> row(std::in_place);
  RETURN_IF_ERROR(ParseRow(key, *value, &*row));
  return row;
}

template <typename Row>
absl::Status ScanRows(KvStore* kv, absl::string_view prefix,
                      absl::string_view after, int64_t limit,
                      const std::function<void(Row&&)>& each) {
  absl::Status parsed;
  RETURN_IF_ERROR(kv->Scan(prefix, after, limit,
                           [&](absl::string_view key, absl::string_view value) {
                             Row row;
                             parsed = ParseRow(key, value, &row);
                             if (parsed.ok()) {
                               each(std::move(row));
                             }
                             return parsed.ok();
                           }));
  return parsed;
}

}  // namespace

absl::StatusOr<std::optional<storage::v1::ImageRow>> PlacementIndex::GetImage(
    const Uuid& image_id) const {
  return GetRow<storage::v1::ImageRow>(kv_, keys::Image(image_id));
}

absl::Status PlacementIndex::ScanImages(
    const Uuid& after,
    const std::function<bool(const storage::v1::ImageRow&)>& row) const {
  // One message for all of them: it keeps its strings, and a scan of a million
  // rows allocates next to nothing.
  storage::v1::ImageRow image;
  absl::Status parsed;
  RETURN_IF_ERROR(kv_->Scan(
      keys::kImages, after.none() ? std::string() : keys::Image(after), 0,
      [&](absl::string_view key, absl::string_view value) {
        parsed = ParseRow(key, value, &image);
        return parsed.ok() && row(image);
      }));
  return parsed;
}

absl::StatusOr<std::vector<Uuid>> PlacementIndex::ListMountImages(
    const Uuid& mount_uid, const Uuid& after, int64_t limit) const {
  std::vector<Uuid> ids;
  RETURN_IF_ERROR(kv_->Scan(
      keys::MountImages(mount_uid),
      after.none() ? std::string() : keys::MountImage(mount_uid, after), limit,
      [&](absl::string_view key, absl::string_view) {
        ids.push_back(keys::ImageOfMountImage(key));
        return true;
      }));
  return ids;
}

absl::StatusOr<std::optional<storage::v1::UploadRow>> PlacementIndex::GetUpload(
    const Uuid& upload_id) const {
  return GetRow<storage::v1::UploadRow>(kv_, keys::Upload(upload_id));
}

absl::Status PlacementIndex::ScanUploads(
    const std::function<void(const storage::v1::UploadRow&)>& row) const {
  return ScanRows<storage::v1::UploadRow>(kv_, keys::kUploads, "", 0, row);
}

absl::Status PlacementIndex::ScanTombstones(
    const std::function<void(const storage::v1::TombstoneRow&)>& row) const {
  return ScanRows<storage::v1::TombstoneRow>(kv_, keys::kTombstones, "", 0,
                                             row);
}

absl::StatusOr<std::vector<storage::v1::TombstoneRow>>
PlacementIndex::TombstonesOf(const Uuid& image_id) const {
  std::vector<storage::v1::TombstoneRow> rows;
  RETURN_IF_ERROR(ScanRows<storage::v1::TombstoneRow>(
      kv_, keys::TombstonesOf(image_id), "", 0,
      [&](storage::v1::TombstoneRow&& row) {
        rows.push_back(std::move(row));
      }));
  return rows;
}

absl::StatusOr<std::vector<storage::v1::ConflictRow>>
PlacementIndex::ConflictsOf(const Uuid& image_id) const {
  std::vector<storage::v1::ConflictRow> rows;
  if (!had_conflicts_) {
    return rows;
  }
  RETURN_IF_ERROR(ScanRows<storage::v1::ConflictRow>(
      kv_, keys::ConflictsOf(image_id), "", 0,
      [&](storage::v1::ConflictRow&& row) { rows.push_back(std::move(row)); }));
  return rows;
}

absl::Status PlacementIndex::ScanConflicts(
    const std::function<void(const storage::v1::ConflictRow&)>& row) const {
  if (!had_conflicts_) {
    return absl::OkStatus();
  }
  return ScanRows<storage::v1::ConflictRow>(kv_, keys::kConflicts, "", 0, row);
}

absl::Status PlacementIndex::ScanUnadopted(
    const std::function<void(const storage::v1::ImageRow&)>& file) const {
  return ScanRows<storage::v1::ImageRow>(kv_, keys::kUnadopted, "", 0, file);
}

std::optional<storage::v1::FaultRow> PlacementIndex::FaultOf(
    const storage::v1::ImageRow& image, const Uuid& mount_uid) const {
  std::optional<storage::v1::FaultRow> row =
      faults_.Find(mount_uid, Uuid::FromBytesOrNone(image.image_id()));
  // One of another generation is left over from a commit that crossed the
  // image's end; the next start drops it.
  if (row.has_value() && Generation::FromProto(row->generation()) !=
                             Generation::FromProto(image.generation())) {
    row.reset();
  }
  return row;
}

std::vector<storage::v1::FaultRow> PlacementIndex::ListFaults(
    const Uuid& mount_uid, const Uuid& after, int64_t limit) const {
  return faults_.List(mount_uid, after, limit);
}

FaultCounts PlacementIndex::fault_counts(const Uuid& mount_uid) const {
  return faults_.Count(mount_uid);
}

absl::Status PlacementIndex::LoadFaults() {
  std::vector<storage::v1::FaultRow> rows;
  RETURN_IF_ERROR(ScanRows<storage::v1::FaultRow>(
      kv_, keys::kFaults, "", 0,
      [&](storage::v1::FaultRow&& row) { rows.push_back(std::move(row)); }));
  for (storage::v1::FaultRow& row : rows) {
    const Uuid mount = Uuid::FromBytesOrNone(row.mount_uid());
    const Uuid image = Uuid::FromBytesOrNone(row.image_id());
    faults_.Apply({mount, image, row});
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> owner,
                     GetImage(image));
    if (!owner.has_value() || !FaultOf(*owner, mount).has_value()) {
      faults_.Apply({mount, image, std::nullopt});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<storage::v1::MountRow>> PlacementIndex::ListMounts()
    const {
  std::vector<storage::v1::MountRow> rows;
  RETURN_IF_ERROR(ScanRows<storage::v1::MountRow>(
      kv_, keys::kMounts, "", 0,
      [&](storage::v1::MountRow&& row) { rows.push_back(std::move(row)); }));
  return rows;
}

absl::StatusOr<std::vector<storage::v1::ScrubRow>> PlacementIndex::ListScrubs()
    const {
  std::vector<storage::v1::ScrubRow> rows;
  RETURN_IF_ERROR(ScanRows<storage::v1::ScrubRow>(
      kv_, keys::kScrubs, "", 0,
      [&](storage::v1::ScrubRow&& row) { rows.push_back(std::move(row)); }));
  return rows;
}

absl::StatusOr<std::optional<storage::v1::RecoveringRow>>
PlacementIndex::GetRecovering() const {
  return GetRow<storage::v1::RecoveringRow>(kv_, keys::kRecovering);
}

absl::Status PlacementIndex::ScanEvents(
    const std::function<void(const storage::v1::EventRow&)>& row) const {
  return ScanRows<storage::v1::EventRow>(kv_, keys::kEvents, "", 0, row);
}

// Commits overtake each other. One that begins after this look takes a higher n
// than any before it.
std::string PlacementIndex::EventHorizon() const {
  MutexLock lock(&mu_);
  const int64_t next =
      event_commits_.empty() ? issued_n_ + 1 : *event_commits_.begin();
  return keys::Event({current_.epoch, next, 0}, 0);
}

absl::StatusOr<std::vector<StoredEvent>> PlacementIndex::EventsAfter(
    absl::string_view id, int64_t limit) const {
  const std::string horizon = EventHorizon();
  std::vector<StoredEvent> events;
  absl::Status parsed;
  RETURN_IF_ERROR(kv_->Scan(
      keys::kEvents, absl::StrCat(keys::kEvents, id), limit,
      [&](absl::string_view key, absl::string_view value) {
        if (key >= horizon) {
          return false;
        }
        events.emplace_back();
        events.back().id = std::string(key.substr(keys::kEvents.size()));
        parsed = ParseRow(key, value, &events.back().row);
        return parsed.ok();
      }));
  RETURN_IF_ERROR(parsed);
  return events;
}

absl::StatusOr<std::vector<StoredEvent>> PlacementIndex::EventsBefore(
    absl::string_view id, int64_t limit) const {
  const std::string horizon = EventHorizon();
  std::vector<StoredEvent> events;
  absl::Status parsed;
  RETURN_IF_ERROR(kv_->ScanBack(
      keys::kEvents, id.empty() ? horizon : absl::StrCat(keys::kEvents, id),
      limit, [&](absl::string_view key, absl::string_view value) {
        events.emplace_back();
        events.back().id = std::string(key.substr(keys::kEvents.size()));
        parsed = ParseRow(key, value, &events.back().row);
        return parsed.ok();
      }));
  RETURN_IF_ERROR(parsed);
  return events;
}

ImageTotals PlacementIndex::totals() const {
  MutexLock lock(&mu_);
  return totals_;
}

ImageTotals PlacementIndex::mount_totals(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  const auto it = mount_totals_.find(mount_uid);
  return it == mount_totals_.end() ? ImageTotals() : it->second;
}

absl::StatusOr<ImageTotals> PlacementIndex::CountUnheard(
    const Uuid& mount_uid,
    absl::Span<const storage::v1::FenceEntry> known) const {
  ImageTotals unheard;
  {
    MutexLock lock(&mu_);
    const auto it = newest_.find(mount_uid);
    if (it == newest_.end() || HasHeardOf(known, it->second)) {
      return unheard;
    }
  }
  absl::Status parsed;
  RETURN_IF_ERROR(kv_->Scan(
      keys::MountImages(mount_uid), "", 0,
      [&](absl::string_view key, absl::string_view value) {
        storage::v1::MountImageRow row;
        parsed = ParseRow(key, value, &row);
        if (parsed.ok() &&
            !HasHeardOf(known, Generation::FromProto(row.generation()))) {
          ++unheard.count;
          unheard.bytes += row.size_bytes();
        }
        return parsed.ok();
      }));
  RETURN_IF_ERROR(parsed);
  return unheard;
}

}  // namespace predella::server
