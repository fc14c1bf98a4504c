#include "server/lifecycle/image_health.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/resource_name.h"
#include "server/placement/placement_policy.h"

namespace predella::server {
namespace {

void Append(std::string* detail, const std::string& why) {
  absl::StrAppend(detail, detail->empty() ? "" : "; ", why);
}

std::string Because(const std::string& detail) {
  return detail.empty() ? "" : absl::StrCat(": ", detail);
}

std::string NameOf(const Uuid& uid, const MountInfo* info) {
  return MountName(info == nullptr ? uid.ToString() : info->row.mount_name());
}

}  // namespace

bool CountsAsDegraded(v1::Health health) {
  return health == v1::HEALTH_HUNG || health == v1::HEALTH_FAILED ||
         health == v1::HEALTH_ABSENT || health == v1::HEALTH_UNREACHABLE;
}

bool CountsAsAtRisk(v1::Health health) {
  return health == v1::HEALTH_SUSPECT || health == v1::HEALTH_READ_ONLY;
}

bool IsRetired(const MountInfo& info) {
  return info.row.admin_state() == storage::v1::ADMIN_STATE_RETIRED;
}

bool HoldsCopy(const storage::v1::ImageRow& image, const Uuid& mount_uid) {
  return std::any_of(image.copies().begin(), image.copies().end(),
                     [&](const storage::v1::CopyRow& copy) {
                       return copy.mount_uid() == mount_uid.bytes();
                     });
}

bool Readable(const MountInfo& info) {
  return info.attached && info.health != v1::HEALTH_UNKNOWN &&
         !CountsAsDegraded(info.health) && !IsRetired(info);
}

bool HasReadableCopy(const storage::v1::ImageRow& row,
                     const PlacementIndex& index,
                     const MountRegistry& registry) {
  return std::any_of(row.copies().begin(), row.copies().end(),
                     [&](const storage::v1::CopyRow& copy) {
                       const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
                       const auto held = registry.Find(uid);
                       return held.has_value() && Readable(*held) &&
                              !index.FaultOf(row, uid).has_value();
                     });
}

int ReadRank(v1::Health health) {
  switch (health) {
    case v1::HEALTH_ONLINE:
      return 0;
    case v1::HEALTH_SLOW:
      return 1;
    case v1::HEALTH_READ_ONLY:
      return 2;
    case v1::HEALTH_SUSPECT:
      return 3;
    case v1::HEALTH_FAILED:
      return 4;
    case v1::HEALTH_UNKNOWN:
      return 5;
    default:
      return 6;
  }
}

KnownMounts::KnownMounts(const MountRegistry& registry) {
  for (MountInfo& info : registry.List()) {
    const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    mounts_.emplace(uid, std::move(info));
  }
}

KnownMounts::KnownMounts(const MountRegistry& registry,
                         const storage::v1::ImageRow& row) {
  for (const storage::v1::CopyRow& copy : row.copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    std::optional<MountInfo> info = registry.Find(uid);
    if (info.has_value()) {
      mounts_.emplace(uid, *std::move(info));
    }
  }
}

const MountInfo* KnownMounts::Find(const Uuid& mount_uid) const {
  const auto it = mounts_.find(mount_uid);
  return it == mounts_.end() ? nullptr : &it->second;
}

bool HasExtraCopies(const PlacementIndex& index, const KnownMounts& mounts) {
  int64_t copies = 0;
  for (const auto& [uid, info] : mounts.all()) {
    copies += index.mount_totals(uid).count;
  }
  return copies > index.totals().count;
}

ImageState DeriveImage(const storage::v1::ImageRow& row,
                       const PlacementIndex& index, const KnownMounts& mounts) {
  ImageState state;
  std::string risks;
  int retired = 0;
  int good = 0;
  int at_risk = 0;
  for (const storage::v1::CopyRow& copy : row.copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    const MountInfo* const info = mounts.Find(uid);
    const std::string name = NameOf(uid, info);
    if (info != nullptr && IsRetired(*info)) {
      ++retired;
      Append(&state.detail, absl::StrCat(name, " was retired",
                                         Because(info->row.admin_reason())));
      continue;
    }
    const v1::Health health =
        info == nullptr ? v1::HEALTH_UNKNOWN : info->health;
    const std::optional<storage::v1::FaultRow> fault = index.FaultOf(row, uid);
    if (fault.has_value()) {
      Append(&state.detail,
             absl::StrCat("the copy on ", name,
                          fault->fault() == storage::v1::COPY_FAULT_MISSING
                              ? " is missing"
                              : " is damaged",
                          Because(fault->detail())));
    }
    if (CountsAsDegraded(health)) {
      Append(&state.detail, absl::StrCat(name, " is ", HealthName(health),
                                         Because(info->health_detail)));
    }
    if (fault.has_value() || CountsAsDegraded(health)) {
      continue;
    }
    ++good;
    state.readable_copies += info != nullptr && Readable(*info) ? 1 : 0;
    if (CountsAsAtRisk(health)) {
      ++at_risk;
      Append(&risks, absl::StrCat(name, " is ", HealthName(health),
                                  Because(info->health_detail)));
    }
  }
  if (retired > 0 && retired == row.copies_size()) {
    state.health = v1::IMAGE_HEALTH_LOST;
  } else if (good < row.copies_size() || row.copies().empty()) {
    state.health = v1::IMAGE_HEALTH_DEGRADED;
    if (row.copies().empty()) {
      state.detail = "the index names no copy of it";
    }
  } else if (at_risk == good) {
    state.at_risk = true;
    state.detail = std::move(risks);
  }
  return state;
}

}  // namespace predella::server
