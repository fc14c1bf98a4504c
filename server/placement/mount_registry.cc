#include "server/placement/mount_registry.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace predella::server {

MountRegistry::MountRegistry(Clock* clock, IdGenerator* ids,
                             const RegistryOptions& options)
    : clock_(clock), ids_(ids), options_(options), start_(clock->Boot()) {}

void MountRegistry::SetRow(const storage::v1::MountRow& row) {
  const Uuid uid = Uuid::FromBytesOrNone(row.mount_uid());
  MutexLock lock(&mu_);
  const size_t i = AddLocked(uid);
  entries_[i].info.row = row;
  views_[i].name = row.mount_name();
  if (row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
    // Nothing will ever be written there: others that share its space need not
    // wait for it.
    DropPromisesLocked(i, [](const Promise&) { return true; });
  }
  UpdateGroupLocked(entries_[i].group);
}

void MountRegistry::SetImageBytes(const Uuid& mount_uid, int64_t bytes) {
  MutexLock lock(&mu_);
  if (const auto i = IndexLocked(mount_uid); i.has_value()) {
    entries_[*i].index_bytes = bytes;
    UpdateGroupLocked(entries_[*i].group);
  }
}

void MountRegistry::SessionOpened(const Uuid& mount_uid, int64_t session,
                                  const control::v1::Hello& hello) {
  MutexLock lock(&mu_);
  const size_t i = AddLocked(mount_uid);
  Entry& entry = entries_[i];
  entry.info.hello = hello;
  entry.info.session_open = true;
  entry.info.attached = false;
  entry.info.trusted = false;
  entry.info.stuck_calls = 0;  // it may be another process
  entry.session = session;
  if (entry.info.row.mount_name().empty()) {
    views_[i].name = hello.mount_name();
  }
  views_[i].priority = hello.priority();
  // Not heard yet: who it is shows when it reports, or says that it has none to
  // report of.
  RegroupLocked(i);
}

void MountRegistry::Reported(const Uuid& mount_uid, int64_t session,
                             const control::v1::MountReport& report) {
  MutexLock lock(&mu_);
  const auto i = SessionLocked(mount_uid, session);
  if (!i.has_value()) {
    return;
  }
  Entry& entry = entries_[*i];
  entry.boot_id = report.boot_id();
  entry.device = report.device();
  entry.info.known.assign(report.known().begin(), report.known().end());
  HeardLocked(&entry);
  if (report.has_health()) {
    ApplyHealth(report.health(), &entry);
  }
  RegroupLocked(*i);
  if (report.has_space()) {
    ApplySpaceLocked(*i, report.space());
  }
}

void MountRegistry::Attached(const Uuid& mount_uid, int64_t session,
                             bool trusted) {
  MutexLock lock(&mu_);
  const auto i = SessionLocked(mount_uid, session);
  if (!i.has_value()) {
    return;
  }
  Entry& entry = entries_[*i];
  entry.info.attached = true;
  entry.info.registered = true;
  entry.info.trusted = trusted;
  HeardLocked(&entry);
  UpdateGroupLocked(entry.group);
}

void MountRegistry::Refused(const Uuid& mount_uid, int64_t session,
                            const std::string& detail) {
  MutexLock lock(&mu_);
  const auto i = SessionLocked(mount_uid, session);
  if (!i.has_value()) {
    return;
  }
  control::v1::MountHealth health;
  health.set_health(v1::HEALTH_ABSENT);
  health.set_detail(detail);
  ApplyHealth(health, &entries_[*i]);
  HeardLocked(&entries_[*i]);
  UpdateGroupLocked(entries_[*i].group);
}

void MountRegistry::SetTrusted(const Uuid& mount_uid, bool trusted) {
  MutexLock lock(&mu_);
  if (const auto i = IndexLocked(mount_uid); i.has_value()) {
    entries_[*i].info.trusted = trusted;
  }
}

void MountRegistry::Heard(const Uuid& mount_uid, int64_t session,
                          const control::v1::Heartbeat& heartbeat) {
  MutexLock lock(&mu_);
  const auto i = SessionLocked(mount_uid, session);
  if (!i.has_value()) {
    return;
  }
  Entry& entry = entries_[*i];
  HeardLocked(&entry);
  if (heartbeat.has_health()) {
    ApplyHealth(heartbeat.health(), &entry);
  }
  // Silence says something once the agent has looked, and it looks when it is
  // trusted; until then what was said before stands.
  if (heartbeat.has_held_garbage() ||
      (entry.info.attached && entry.info.trusted)) {
    entry.info.held_garbage = heartbeat.held_garbage();
  }
  entry.info.stuck_calls = heartbeat.stuck_calls();
  if (heartbeat.has_space()) {
    ApplySpaceLocked(*i, heartbeat.space());
  } else {
    UpdateGroupLocked(entry.group);
  }
}

void MountRegistry::SpaceSeen(const Uuid& mount_uid, int64_t session,
                              const control::v1::Space& space) {
  MutexLock lock(&mu_);
  const auto i = SessionLocked(mount_uid, session);
  if (!i.has_value()) {
    return;
  }
  HeardLocked(&entries_[*i]);
  ApplySpaceLocked(*i, space);
}

void MountRegistry::SessionClosed(const Uuid& mount_uid, int64_t session) {
  MutexLock lock(&mu_);
  const auto i = SessionLocked(mount_uid, session);
  if (!i.has_value()) {
    return;
  }
  Entry& entry = entries_[*i];
  entry.info.session_open = false;
  entry.info.attached = false;
  entry.info.trusted = false;
  UpdateGroupLocked(entry.group);
}

std::optional<MountInfo> MountRegistry::Find(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  RefreshLocked();
  const auto i = IndexLocked(mount_uid);
  return i.has_value() ? std::make_optional(InfoLocked(*i)) : std::nullopt;
}

std::optional<MountInfo> MountRegistry::FindByName(
    absl::string_view name) const {
  MutexLock lock(&mu_);
  RefreshLocked();
  for (size_t i = 0; i < views_.size(); ++i) {
    if (views_[i].name == name) {
      return InfoLocked(i);
    }
  }
  return std::nullopt;
}

std::vector<SeenHealth> MountRegistry::TakeSeen(const Uuid& mount_uid) {
  MutexLock lock(&mu_);
  RefreshLocked();
  const auto i = IndexLocked(mount_uid);
  if (!i.has_value()) {
    return {};
  }
  std::deque<SeenHealth>& seen = entries_[*i].seen;
  std::vector<SeenHealth> taken(std::make_move_iterator(seen.begin()),
                                std::make_move_iterator(seen.end()));
  seen.clear();
  return taken;
}

std::vector<MountInfo> MountRegistry::List() const {
  std::vector<MountInfo> list;
  {
    MutexLock lock(&mu_);
    RefreshLocked();
    list.reserve(entries_.size());
    for (size_t i = 0; i < entries_.size(); ++i) {
      list.push_back(InfoLocked(i));
    }
  }
  std::sort(list.begin(), list.end(),
            [](const MountInfo& a, const MountInfo& b) {
              return a.view.name < b.view.name;
            });
  return list;
}

std::vector<std::string> MountRegistry::Missing() const {
  std::vector<std::string> names;
  {
    MutexLock lock(&mu_);
    RefreshLocked();
    for (size_t i = 0; i < entries_.size(); ++i) {
      const bool unconfirmed =
          entries_[i].info.row.unconfirmed() &&
          views_[i].admin_state != storage::v1::ADMIN_STATE_RETIRED;
      if (unconfirmed || (!ExcusedLocked(i) && !entries_[i].info.registered)) {
        names.push_back(views_[i].name);
      }
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool MountRegistry::AllSettled() const {
  MutexLock lock(&mu_);
  RefreshLocked();
  for (size_t i = 0; i < entries_.size(); ++i) {
    const MountInfo& info = entries_[i].info;
    if (!ExcusedLocked(i) &&
        (!info.attached || !info.trusted || info.row.unconfirmed())) {
      return false;
    }
  }
  return true;
}

v1::PlacementDecision MountRegistry::Explain(
    const PlacementRequest& request) const {
  MutexLock lock(&mu_);
  RefreshLocked();
  ShowAllLocked();
  return ExplainPlacement(request, views_, options_.placement);
}

std::optional<size_t> MountRegistry::IndexLocked(const Uuid& mount_uid) const {
  const auto it = by_uid_.find(mount_uid);
  return it == by_uid_.end() ? std::nullopt : std::make_optional(it->second);
}

std::optional<size_t> MountRegistry::SessionLocked(const Uuid& mount_uid,
                                                   int64_t session) const {
  const auto i = IndexLocked(mount_uid);
  return i.has_value() && entries_[*i].info.session_open &&
                 entries_[*i].session == session
             ? i
             : std::nullopt;
}

size_t MountRegistry::AddLocked(const Uuid& mount_uid) {
  const auto [it, added] = by_uid_.emplace(mount_uid, entries_.size());
  if (!added) {
    return it->second;
  }
  const size_t i = it->second;
  entries_.emplace_back();
  views_.emplace_back();
  rows_.emplace_back();
  views_[i].uid = mount_uid;
  entries_[i].info.health_time_us = clock_->NowMicros();
  RegroupLocked(i);
  return i;
}

void MountRegistry::HeardLocked(Entry* entry) {
  entry->last_heard = clock_->Boot();
  entry->ever_heard = true;
  entry->info.heartbeat_time_us = clock_->NowMicros();
}

void MountRegistry::ApplyHealth(const control::v1::MountHealth& health,
                                Entry* entry) {
  entry->info.reported_health = health;
  entry->health_seen = true;
}

void MountRegistry::ApplySpaceLocked(size_t i,
                                     const control::v1::Space& space) {
  Entry& entry = entries_[i];
  // Of before what is known: the promises since are not in it.
  const bool stale = entry.info.has_space &&
                     entry.space_session == entry.session &&
                     space.command_number() < entry.info.space.command_number();
  // An agent whose disk has not answered yet has nothing to say of its space.
  if (space.size_bytes() > 0 && !stale) {
    entry.info.space = space;
    entry.info.has_space = true;
    entry.space_session = entry.session;
    const int64_t session = entry.session;
    const bool attached = entry.info.attached;
    DropPromisesLocked(i, [&](const Promise& promise) {
      if (promise.command_number == 0) {
        return false;
      }
      // From an earlier session: what the agent still holds of it was named
      // when the mount attached, and is in the ledger since.
      return promise.session == session
                 ? promise.command_number <= space.command_number()
                 : attached;
    });
  }
  UpdateGroupLocked(entry.group);
  for (const size_t member : groups_[entry.group].members) {
    MountView& view = views_[member];
    view.was_near_full = IsNearFull(view, options_.placement);
    view.was_full = IsFull(view, options_.placement);
    rows_[member] =
        MakeRow(view, static_cast<int>(entry.group), options_.placement);
  }
}

void MountRegistry::DropPromisesLocked(
    size_t i, const std::function<bool(const Promise&)>& done) {
  Entry& entry = entries_[i];
  for (size_t p = 0; p < entry.promises.size();) {
    if (!done(entry.promises[p])) {
      ++p;
      continue;
    }
    const int64_t bytes = entry.promises[p].bytes;
    promises_.erase(entry.promises[p].id);
    entry.promises[p] = entry.promises.back();
    entry.promises.pop_back();
    PromisedLocked(i, -bytes, -1);
  }
}

}  // namespace predella::server
