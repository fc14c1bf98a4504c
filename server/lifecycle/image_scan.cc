#include "server/lifecycle/image_scan.h"

#include <algorithm>

#include "common/status_macros.h"

namespace predella::server {
namespace {

constexpr int64_t kLeastBatch = 64;
constexpr int64_t kMostBatch = 1000;
// One row read by its id costs about as much as so many read in order: beyond
// this part of all images the whole table is read instead.
constexpr int64_t kGetCost = 4;

}  // namespace

ImageScan::ImageScan(const PlacementIndex* index, const Uuid& after,
                     int64_t want)
    : index_(index),
      batch_(std::clamp(want, kLeastBatch, kMostBatch)),
      after_(after) {}

void ImageScan::AddMount(const Uuid& mount_uid) {
  const int64_t count = index_->mount_totals(mount_uid).count;
  if (count > 0) {
    expected_ += count;
    sources_.push_back({mount_uid, /*faults=*/false, {}, 0, false});
  }
}

void ImageScan::AddFaults(const Uuid& mount_uid) {
  const int64_t count = index_->fault_count(mount_uid);
  if (count > 0) {
    expected_ += count;
    sources_.push_back({mount_uid, /*faults=*/true, {}, 0, false});
  }
}

absl::Status ImageScan::Fill(Source* source) const {
  if (source->next < source->ids.size() || source->last) {
    return absl::OkStatus();
  }
  source->ids.clear();
  source->next = 0;
  if (source->faults) {
    for (const storage::v1::FaultRow& row :
         index_->ListFaults(source->mount_uid, after_, batch_)) {
      source->ids.push_back(Uuid::FromBytesOrNone(row.image_id()));
    }
  } else {
    ASSIGN_OR_RETURN(source->ids, index_->ListMountImages(source->mount_uid,
                                                          after_, batch_));
  }
  source->last = static_cast<int64_t>(source->ids.size()) < batch_;
  return absl::OkStatus();
}

// Everything up to `after_` was given, so a source that is read again from
// there misses nothing.
absl::StatusOr<std::optional<Uuid>> ImageScan::NextId() {
  std::optional<Uuid> id;
  for (Source& source : sources_) {
    RETURN_IF_ERROR(Fill(&source));
    if (source.next < source.ids.size() &&
        (!id.has_value() || source.ids[source.next] < *id)) {
      id = source.ids[source.next];
    }
  }
  if (id.has_value()) {
    for (Source& source : sources_) {
      if (source.next < source.ids.size() && source.ids[source.next] == *id) {
        ++source.next;
      }
    }
    after_ = *id;
  }
  return id;
}

absl::Status ImageScan::Run(
    const std::function<bool(const storage::v1::ImageRow&)>& image) {
  if (all_ || (expected_ > kMostBatch &&
               expected_ * kGetCost >= index_->totals().count)) {
    return index_->ScanImages(after_, image);
  }
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<Uuid> id, NextId());
    if (!id.has_value()) {
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> row,
                     index_->GetImage(*id));
    // Without one it was deleted between the two reads.
    if (row.has_value() && !image(*row)) {
      return absl::OkStatus();
    }
  }
}

}  // namespace predella::server
