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
#include "server/placement/placement_table.h"

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

// Without limit where the file system does not count them (btrfs).
int64_t InodesOf(const control::v1::Space& space) {
  return space.size_inodes() > 0 ? space.available_inodes()
                                 : std::numeric_limits<int64_t>::max();
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
    spaces_.emplace_back();
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
  SumGroupLocked(group);
  for (const size_t i : groups_[group].members) {
    ShowLocked(i);
    rows_[i] = MakeRow(views_[i], static_cast<int>(group), options_.placement);
  }
}

void MountRegistry::SumGroupLocked(size_t group) const {
  Group& sum = groups_[group];
  sum.available_bytes = kUnknown;
  sum.available_inodes = kUnknown;
  sum.reserve_bytes = 0;
  sum.promised_bytes = 0;
  sum.promises = 0;
  for (const size_t i : sum.members) {
    const Entry& entry = entries_[i];
    // Promises of a mount whose session is broken still count: its streams go
    // on. Its free space is old news.
    sum.promised_bytes += entry.promised_bytes;
    sum.promises += static_cast<int64_t>(entry.promises.size());
    if (!entry.info.has_space ||
        views_[i].admin_state == storage::v1::ADMIN_STATE_RETIRED) {
      continue;
    }
    const control::v1::Space& space = entry.info.space;
    sum.promised_bytes += space.promised_bytes();
    if (entry.info.session_open && entry.space_session == entry.session) {
      sum.available_bytes =
          std::min(sum.available_bytes, space.available_bytes());
      sum.available_inodes = std::min(sum.available_inodes, InodesOf(space));
      sum.reserve_bytes = std::max(sum.reserve_bytes, space.reserve_bytes());
    }
  }
  UpdateSpaceLocked(group);
}

void MountRegistry::UpdateSpaceLocked(size_t group) const {
  const Group& sum = groups_[group];
  if (!sum.fresh()) {
    spaces_[group] = {};  // none of its mounts is ready: not looked at
    return;
  }
  const int64_t unused = sum.available_bytes - sum.promised_bytes;
  spaces_[group] = {
      unused - sum.reserve_bytes,
      sum.available_inodes - sum.promises * options_.placement.needed_inodes,
      unused};
}

void MountRegistry::ShowLocked(size_t i) const {
  const Entry& entry = entries_[i];
  const Group& sum = groups_[entry.group];
  const control::v1::Space& space = entry.info.space;
  const int64_t bavail =
      sum.fresh() ? sum.available_bytes : space.available_bytes();
  MountView& view = views_[i];
  view.space_group =
      sum.members.size() > 1 ? static_cast<int>(entry.group) : -1;
  view.size_bytes = space.size_bytes();
  view.reserve_bytes = sum.fresh() ? sum.reserve_bytes : space.reserve_bytes();
  view.promised_bytes = sum.promised_bytes;
  view.available_bytes = bavail - view.reserve_bytes - sum.promised_bytes;
  view.used_bytes = space.size_bytes() - bavail + sum.promised_bytes;
  view.available_inodes =
      (sum.fresh() ? sum.available_inodes : InodesOf(space)) -
      sum.promises * options_.placement.needed_inodes;
  view.image_bytes = ImageBytesLocked(i);
}

void MountRegistry::ShowAllLocked() const {
  for (size_t i = 0; i < views_.size(); ++i) {
    ShowLocked(i);
  }
}

void MountRegistry::PromisedLocked(size_t i, int64_t bytes, int count) {
  Entry& entry = entries_[i];
  entry.promised_bytes += bytes;
  Group& group = groups_[entry.group];
  group.promised_bytes += bytes;
  group.promises += count;
  rows_[i].image_bytes = ImageBytesLocked(i);
  UpdateSpaceLocked(entry.group);
}

int64_t MountRegistry::ImageBytesLocked(size_t i) const {
  const Entry& entry = entries_[i];
  return entry.index_bytes + entry.info.space.promised_bytes() +
         entry.promised_bytes;
}

void MountRegistry::UpdateStateLocked(size_t i, absl::Duration now) const {
  Entry& entry = entries_[i];
  MountInfo& info = entry.info;
  MountView& view = views_[i];

  const v1::Health before = info.health;
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
  // It showed errors: what the probes say now is not enough.
  if (info.row.scrub_required_since_us() != 0 &&
      (info.health == v1::HEALTH_ONLINE || info.health == v1::HEALTH_SLOW ||
       info.health == v1::HEALTH_READ_ONLY)) {
    info.health = v1::HEALTH_SUSPECT;
  }
  view.health = info.health;
  NoteHealthLocked(before, &entry);

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

void MountRegistry::NoteHealthLocked(v1::Health before, Entry* entry) const {
  MountInfo& info = entry->info;
  // Of one that is silent it is the error of its last heartbeat.
  const std::string error =
      info.health == v1::HEALTH_UNREACHABLE ? "" : info.reported_health.error();
  const bool another = !error.empty() && error != entry->seen_error;
  entry->seen_error = error;
  if (info.health == before && !another) {
    return;
  }
  const int64_t now_us = clock_->NowMicros();
  if (info.health != before) {
    info.health_time_us = now_us;
  }
  entry->seen.push_back(
      {info.health, HealthDetailLocked(*entry), error, now_us, clock_->Boot()});
  if (entry->seen.size() > kMostSeen) {
    entry->seen.pop_front();
  }
}

MountInfo MountRegistry::InfoLocked(size_t i) const {
  ShowLocked(i);
  MountInfo info = entries_[i].info;
  info.health_detail = HealthDetailLocked(entries_[i]);
  info.view = views_[i];
  if (info.has_space && info.view.size_bytes > 0) {
    info.fullness = IsFull(info.view, options_.placement) ? v1::FULLNESS_FULL
                    : IsNearFull(info.view, options_.placement)
                        ? v1::FULLNESS_NEAR
                        : v1::FULLNESS_OK;
  }
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
    case v1::HEALTH_SUSPECT:
      if (entry.info.reported_health.health() != v1::HEALTH_SUSPECT) {
        return absl::StrCat("it showed errors (",
                            entry.info.row.scrub_required_reason(),
                            ") and takes new images again when the scrub for "
                            "that has finished");
      }
      return entry.info.reported_health.detail();
    default:
      return entry.info.reported_health.detail();
  }
}

bool MountRegistry::ExcusedLocked(size_t i) const {
  return views_[i].admin_state == storage::v1::ADMIN_STATE_MAINTENANCE ||
         views_[i].admin_state == storage::v1::ADMIN_STATE_RETIRED;
}

}  // namespace predella::server
