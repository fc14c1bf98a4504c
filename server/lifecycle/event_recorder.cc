#include "server/lifecycle/event_recorder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "server/lifecycle/image_health.h"
#include "server/placement/placement_policy.h"

namespace predella::server {
namespace {

constexpr char kHealthChanged[] = "mount_health_changed";
constexpr char kFullnessChanged[] = "mount_fullness_changed";
constexpr char kGarbageHeld[] = "garbage_held";
constexpr char kGarbageReleased[] = "garbage_released";

std::string FullnessName(v1::Fullness fullness) {
  return std::string(
      absl::StripPrefix(v1::Fullness_Name(fullness), "FULLNESS_"));
}

// "ONLINE -> ABSENT: why"; the next start reads it back.
std::string Change(const std::string& from, const std::string& to,
                   const std::string& why) {
  return absl::StrCat(from, " -> ", to, why.empty() ? "" : ": ", why);
}

std::string ChangedTo(absl::string_view detail) {
  const size_t arrow = detail.find(" -> ");
  if (arrow == absl::string_view::npos) {
    return "";
  }
  const absl::string_view to = detail.substr(arrow + 4);
  return std::string(to.substr(0, to.find(':')));
}

bool IsWatched(const MountInfo& info) {
  return !IsRetired(info) && !info.row.mount_name().empty();
}

storage::v1::EventRow Event(absl::string_view kind, int64_t time_us,
                            const std::string& mount, int64_t affected,
                            std::string detail) {
  storage::v1::EventRow row;
  row.set_time_us(time_us);
  row.set_kind(std::string(kind));
  row.set_mount_name(mount);
  row.set_affected_images(affected);
  row.set_detail(std::move(detail));
  return row;
}

}  // namespace

bool EventRecorder::Budget::Take(absl::Duration now) {
  left_ = std::min<double>(kBurst,
                           left_ + absl::FDivDuration(now - filled_, kEvery));
  filled_ = now;
  if (left_ < 1) {
    return false;
  }
  left_ -= 1;
  return true;
}

EventRecorder::EventRecorder(const LifecycleDeps& deps, AgentWatch* watch)
    : deps_(deps), watch_(watch) {}

absl::Status EventRecorder::Load() {
  std::map<std::string, Mount> by_name;
  RETURN_IF_ERROR(
      deps_.index->ScanEvents([&](const storage::v1::EventRow& row) {
        v1::Health health;
        v1::Fullness fullness;
        const std::string to = ChangedTo(row.detail());
        if (row.kind() == kHealthChanged &&
            v1::Health_Parse(absl::StrCat("HEALTH_", to), &health)) {
          by_name[row.mount_name()].health = HealthChanges(health, row.error());
        } else if (row.kind() == kFullnessChanged &&
                   v1::Fullness_Parse(absl::StrCat("FULLNESS_", to),
                                      &fullness)) {
          by_name[row.mount_name()].fullness = fullness;
        } else if (row.kind() == kGarbageHeld ||
                   row.kind() == kGarbageReleased) {
          by_name[row.mount_name()].garbage = row.kind() == kGarbageHeld;
        }
      }));
  MutexLock lock(&mu_);
  for (const MountInfo& info : deps_.registry->List()) {
    const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    Mount& mount = mounts_[uid];
    mount = by_name[info.row.mount_name()];
    mount.fullness_seen = mount.fullness;
    mount.garbage_seen = mount.garbage;
    mount.faults = deps_.index->fault_count(uid);
    mount.faults_seen = mount.faults;
  }
  return absl::OkStatus();
}

void EventRecorder::See(const MountInfo& info, Mount* mount) const {
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const absl::Duration now = deps_.clock->Boot();
  const int64_t now_us = deps_.clock->NowMicros();
  for (SeenHealth& seen : deps_.registry->TakeSeen(uid)) {
    if (seen.health == v1::HEALTH_UNKNOWN) {
      continue;  // not knowing is no state of the mount
    }
    HealthChanges::Change look;
    look.to = seen.health;
    look.time_us = seen.time_us;
    look.why = std::move(seen.detail);
    look.error = std::move(seen.error);
    look.images = deps_.index->mount_totals(uid).count;
    mount->health.See(std::move(look), seen.at);
  }
  if (info.fullness != v1::FULLNESS_UNSPECIFIED &&
      info.fullness != mount->fullness_seen) {
    mount->fullness_seen = info.fullness;
    mount->fullness_us = now_us;
  }
  const int64_t faults = deps_.index->fault_counts(uid).all();
  if (faults != mount->faults_seen) {
    mount->faults_seen = faults;
    mount->faults_us = now_us;
  }
  if (info.held_garbage.has_value() &&
      (info.held_garbage->uploads() > 0) != mount->garbage_seen) {
    mount->garbage_seen = !mount->garbage_seen;
    mount->garbage_since = now;
    mount->garbage_us = now_us;
  }
}

void EventRecorder::LookAtHealth(
    const std::string& name, Mount* mount,
    std::vector<storage::v1::EventRow>* events) const {
  const absl::Duration now = deps_.clock->Boot();
  const std::vector<HealthChanges::Change> due = mount->health.Due(now);
  if (due.empty()) {
    return;
  }
  for (const HealthChanges::Change& change : due) {
    std::string why = change.why;
    if (change.left_out > 0) {
      absl::StrAppend(&why, why.empty() ? "" : "; ", change.left_out,
                      " changes before it are not written");
    }
    events->push_back(
        Event(kHealthChanged, change.time_us, name, change.images,
              Change(HealthName(change.from), HealthName(change.to), why)));
    events->back().set_error(change.error);
  }
  mount->health.Written(now);
}

void EventRecorder::LookAtGarbage(
    const MountInfo& info, Mount* mount,
    std::vector<storage::v1::EventRow>* events) const {
  if (!info.held_garbage.has_value()) {
    return;
  }
  const bool held = mount->garbage_seen;
  const absl::Duration now = deps_.clock->Boot();
  if (held == mount->garbage || now - mount->garbage_since < kGarbageStands ||
      !mount->budget.Take(now)) {
    return;
  }
  events->push_back(
      Event(held ? kGarbageHeld : kGarbageReleased, mount->garbage_us,
            info.row.mount_name(), 0,
            held ? absl::StrCat("the bytes of ", info.held_garbage->uploads(),
                                " uploads that the index does not call open, ",
                                FormatSize(info.held_garbage->bytes()),
                                ", are kept: it may be a mistake of the index")
                 : "no bytes of ended uploads are kept any more"));
  mount->garbage = held;
}

void EventRecorder::LookAtMount(
    const MountInfo& info, Mount* mount,
    std::vector<storage::v1::EventRow>* events) const {
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const std::string& name = info.row.mount_name();
  const int64_t images = deps_.index->mount_totals(uid).count;
  LookAtHealth(name, mount, events);
  LookAtGarbage(info, mount, events);
  if (info.fullness != v1::FULLNESS_UNSPECIFIED &&
      info.fullness != mount->fullness &&
      mount->budget.Take(deps_.clock->Boot())) {
    events->push_back(Event(
        kFullnessChanged, mount->fullness_us, name, images,
        Change(FullnessName(mount->fullness), FullnessName(info.fullness),
               absl::StrFormat(
                   "%.1f %% in use, %s of %s available", UsedPercent(info.view),
                   FormatSize(std::max<int64_t>(0, info.view.available_bytes)),
                   FormatSize(info.space.size_bytes())))));
    mount->fullness = info.fullness;
  }
  const FaultCounts faults = deps_.index->fault_counts(uid);
  if (faults.all() != mount->faults &&
      mount->budget.Take(deps_.clock->Boot())) {
    events->push_back(
        Event("copy_faults_changed", mount->faults_us, name, faults.all(),
              absl::StrCat(faults.missing, " copies are missing and ",
                           faults.damaged, " damaged; before there were ",
                           mount->faults, " in all")));
    mount->faults = faults.all();
  }
}

void EventRecorder::LookAtAgents(
    std::map<std::string, bool>* refused, Budget* budget,
    std::vector<storage::v1::EventRow>* events) const {
  std::map<std::string, bool> now;
  for (const AgentWatch::Agent& agent : watch_->List(deps_.clock->Boot())) {
    if (agent.refusal.ok()) {
      continue;  // it has a session, and its mount is not found
    }
    const std::string reason = ReasonOf(agent.refusal);
    const std::string& name = agent.hello.mount_name();
    const std::string key = absl::StrCat(name, "\n", reason, "\n",
                                         MetadataOf(agent.refusal)["uid"]);
    if (refused->count(key) == 0) {
      if (!budget->Take(deps_.clock->Boot())) {
        continue;
      }
      events->push_back(Event(
          reason == reason::kMountIdentityMismatch ? "mount_identity_refused"
                                                   : "agent_refused",
          deps_.clock->NowMicros(), ValidateMountName(name).ok() ? name : "", 0,
          absl::StrCat("the agent on ", agent.hello.host(), " with pid ",
                       agent.hello.pid(), ", path ", agent.hello.path(), ": ",
                       std::string(agent.refusal.message()))));
    }
    now[key] = true;
  }
  *refused = std::move(now);
}

void EventRecorder::Tick() {
  MutexLock lock(&mu_);
  const std::vector<MountInfo> infos = deps_.registry->List();
  for (const MountInfo& info : infos) {
    if (IsWatched(info)) {
      See(info, &mounts_[Uuid::FromBytesOrNone(info.row.mount_uid())]);
    }
  }
  if (!deps_.index->write_error().empty()) {
    return;
  }
  // Copies: they count when they are written.
  absl::flat_hash_map<Uuid, Mount> mounts = mounts_;
  std::map<std::string, bool> refused = refused_;
  Budget refusals = refusals_;
  std::vector<storage::v1::EventRow> events;
  for (const MountInfo& info : infos) {
    if (IsWatched(info)) {
      LookAtMount(info, &mounts[Uuid::FromBytesOrNone(info.row.mount_uid())],
                  &events);
    }
  }
  LookAtAgents(&refused, &refusals, &events);
  if (!events.empty()) {
    IndexTxn txn = deps_.index->Begin();
    for (const storage::v1::EventRow& event : events) {
      txn.PutEvent(event);
    }
    const absl::Status written = deps_.index->Commit(std::move(txn));
    if (!written.ok()) {
      LogIfError(written, "the events are written at the next look");
      return;
    }
    for (const storage::v1::EventRow& event : events) {
      LogInfo(event.kind(), {{"mount", event.mount_name()},
                             {"images", event.affected_images()},
                             {"error", event.error()},
                             {"detail", event.detail()}});
    }
  }
  mounts_ = std::move(mounts);
  refused_ = std::move(refused);
  refusals_ = refusals;
}

}  // namespace predella::server
