// MountRegistry: what placement sees, kept up to date mount by mount.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "server/placement/mount_registry.h"
#include "server/placement/placement_policy.h"

namespace predella::server {
namespace {

std::string GroupKey(const MountInfo& info, const std::string& boot_id,
                     int64_t device, const Uuid& uid) {
  if (info.hello.has_value() && !info.hello->space_group().empty()) {
    return absl::StrCat("configured/", info.hello->space_group());
  }
  if (!boot_id.empty() && device != 0) {
    return absl::StrCat("device/", boot_id, "/", device);
  }
  return absl::StrCat("alone/", uid.bytes());
}

int64_t WholeSeconds(absl::Duration duration) {
  return absl::ToInt64Seconds(duration);
}

}  // namespace

void MountRegistry::RegroupLocked(size_t i) {
  Entry& entry = entries_[i];
  const std::string key =
      GroupKey(entry.info, entry.boot_id, entry.device, views_[i].uid);
  const auto [it, added] = group_by_key_.emplace(key, groups_.size());
  if (added) {
    groups_.emplace_back();
  }
  const size_t before = entry.group;
  const size_t now = it->second;
  entry.group = now;
  std::vector<size_t>& members = groups_[now].members;
  if (std::find(members.begin(), members.end(), i) == members.end()) {
    members.push_back(i);
    if (before != now && before != kNoGroup) {
      std::vector<size_t>& left = groups_[before].members;
      left.erase(std::remove(left.begin(), left.end(), i), left.end());
      UpdateGroupLocked(before);
    }
  }
  UpdateGroupLocked(now);
}

void MountRegistry::UpdateGroupLocked(size_t group) const {
  const absl::Duration now = clock_->Boot();
  for (const size_t i : groups_[group].members) {
    UpdateStateLocked(i, now);
  }
  UpdateSpaceLocked(group);
}

void MountRegistry::UpdateSpaceLocked(size_t group) const {
  const std::vector<size_t>& members = groups_[group].members;
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  int64_t available = kMost;
  int64_t inodes = kMost;
  int64_t reserve = 0;
  int64_t promised = 0;
  int64_t promises = 0;
  for (const size_t i : members) {
    const Entry& entry = entries_[i];
    // Promises of a mount whose session is broken still count: its streams go
    // on. Its free space is old news.
    promised += entry.promised_bytes;
    promises += static_cast<int64_t>(entry.promises.size());
    if (!entry.info.has_space ||
        views_[i].admin_state == storage::v1::ADMIN_STATE_RETIRED) {
      continue;
    }
    promised += entry.info.space.promised_bytes();
    if (entry.info.session_open && entry.space_session == entry.session) {
      available = std::min(available, entry.info.space.available_bytes());
      inodes = std::min(inodes, entry.info.space.available_inodes());
      reserve = std::max(reserve, entry.info.space.reserve_bytes());
    }
  }
  for (const size_t i : members) {
    const Entry& entry = entries_[i];
    const control::v1::Space& space = entry.info.space;
    MountView& view = views_[i];
    const bool fresh = available != kMost;
    const int64_t bavail = fresh ? available : space.available_bytes();
    view.space_group = members.size() > 1 ? static_cast<int>(group) : -1;
    view.size_bytes = space.size_bytes();
    view.reserve_bytes = fresh ? reserve : space.reserve_bytes();
    view.promised_bytes = promised;
    view.available_bytes = bavail - view.reserve_bytes - promised;
    view.used_bytes = space.size_bytes() - bavail + promised;
    view.available_inodes = (fresh ? inodes : space.available_inodes()) -
                            promises * options_.placement.needed_inodes;
    view.image_bytes =
        entry.index_bytes + space.promised_bytes() + entry.promised_bytes;
  }
}

void MountRegistry::UpdateStateLocked(size_t i, absl::Duration now) const {
  Entry& entry = entries_[i];
  MountInfo& info = entry.info;
  MountView& view = views_[i];

  const absl::Duration changes =
      entry.ever_heard ? entry.last_heard + options_.unreachable_after
                       : start_ + options_.unknown_for;
  if (now >= changes) {
    info.health = v1::HEALTH_UNREACHABLE;
  } else {
    next_change_ = std::min(next_change_, changes);
    info.health = entry.health_seen &&
                          v1::Health_IsValid(info.reported_health.health()) &&
                          info.reported_health.health() != 0
                      ? static_cast<v1::Health>(info.reported_health.health())
                      : v1::HEALTH_UNKNOWN;
  }
  view.health = info.health;

  view.admin_state = info.row.admin_state();
  if (view.admin_state == storage::v1::ADMIN_STATE_UNSPECIFIED) {
    view.admin_state = storage::v1::ADMIN_STATE_ACTIVE;
  }
  if (view.admin_state == storage::v1::ADMIN_STATE_MAINTENANCE &&
      info.row.maintenance_until_us() != 0) {
    const absl::Time until =
        absl::FromUnixMicros(info.row.maintenance_until_us());
    if (clock_->Now() >= until) {
      view.admin_state = storage::v1::ADMIN_STATE_ACTIVE;
    } else {
      next_wall_change_ = std::min(next_wall_change_, until);
    }
  }

  view.ready = info.session_open && info.attached && info.has_space &&
               entry.space_session == entry.session && !info.row.unconfirmed();
  if (info.hello.has_value() && !info.hello->failure_domain().empty()) {
    view.failure_domain = info.hello->failure_domain();
  } else {
    view.failure_domain = view.name;
  }
}

void MountRegistry::RefreshLocked() const {
  if (clock_->Boot() < next_change_ &&
      (next_wall_change_ == absl::InfiniteFuture() ||
       clock_->Now() < next_wall_change_)) {
    return;
  }
  next_change_ = absl::InfiniteDuration();
  next_wall_change_ = absl::InfiniteFuture();
  for (size_t group = 0; group < groups_.size(); ++group) {
    UpdateGroupLocked(group);
  }
}

MountInfo MountRegistry::InfoLocked(size_t i) const {
  MountInfo info = entries_[i].info;
  info.health_detail = HealthDetailLocked(entries_[i]);
  info.view = views_[i];
  return info;
}

std::string MountRegistry::HealthDetailLocked(const Entry& entry) const {
  const absl::Duration now = clock_->Boot();
  switch (entry.info.health) {
    case v1::HEALTH_UNREACHABLE:
      return entry.ever_heard
                 ? absl::StrCat("its agent has been silent for ",
                                WholeSeconds(now - entry.last_heard), " s")
                 : absl::StrCat(
                       "its agent has not been heard since the "
                       "coordinator started ",
                       WholeSeconds(now - start_), " s ago");
    case v1::HEALTH_UNKNOWN:
      return entry.ever_heard
                 ? "its agent has registered and not yet said how it is"
                 : "not yet heard of since the coordinator started";
    default:
      return entry.info.reported_health.detail();
  }
}

bool MountRegistry::ExcusedLocked(size_t i) const {
  return views_[i].admin_state == storage::v1::ADMIN_STATE_MAINTENANCE ||
         views_[i].admin_state == storage::v1::ADMIN_STATE_RETIRED;
}

}  // namespace predella::server
