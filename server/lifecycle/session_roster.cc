// The rows of mounts, and the roster of them that lies at every mount, for the
// day the index is lost.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "common/collect_garbage.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/index/replaced_name.h"
#include "server/lifecycle/session_manager.h"
#include "server/lifecycle/session_state.h"

namespace predella::server {

absl::StatusOr<storage::v1::MountRow> SessionManager::EnsureMountRow(
    const Uuid& mount_uid, const std::string& wanted, bool absent,
    bool remembered) {
  // Mounts are added one after the other: a name belongs to one of them.
  MutexLock lock(&rows_mu_);
  const std::optional<MountInfo> known = deps_.registry->Find(mount_uid);
  if (known.has_value()) {
    return known->row;
  }
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  std::string name = wanted;
  if (remembered && deps_.registry->FindByName(name).has_value()) {
    // The history that was lost gave the name to another mount than the index
    // has it for. Whose it is, an operator says (MountAdmin::Replace); what is
    // on this one may be nowhere else.
    name = ReplacedName(wanted, mount_uid);
  }
  if (deps_.registry->FindByName(name).has_value()) {
    return absl::AbortedError(
        absl::StrCat(MountName(name), " was given to another mount just now"));
  }
  storage::v1::MountRow row;
  row.set_mount_uid(mount_uid.bytes());
  row.set_mount_name(name);
  row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
  row.set_create_time_us(deps_.clock->NowMicros());
  row.set_update_time_us(row.create_time_us());
  row.set_unconfirmed(absent);
  storage::v1::EventRow event;
  event.set_time_us(row.create_time_us());
  event.set_kind("mount_registered");
  event.set_mount_name(name);
  if (name != wanted) {
    event.set_detail(
        absl::StrCat("others remember the mount ", mount_uid.ToString(), " as ",
                     MountName(wanted), ", and that name is bound to another"));
  }
  IndexTxn txn = deps_.index->Begin();
  txn.RequireNoMount(mount_uid);
  txn.PutMount(row);
  txn.PutEvent(event);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  deps_.registry->SetRow(row);
  LogInfo("mount_registered", {{"mount", name},
                               {"uid", mount_uid.ToString()},
                               {"unconfirmed", absent ? 1 : 0}});
  return row;
}

// The index may have lost mounts too; those that others remember are waited
// for like any that is away.
absl::Status SessionManager::TakeInRosters() {
  std::vector<SessionPtr> sessions;
  {
    MutexLock lock(&mu_);
    for (const auto& [number, session] : sessions_) {
      sessions.push_back(session);
    }
  }
  for (const SessionPtr& session : sessions) {
    std::vector<storage::v1::RosterEntry> roster;
    {
      MutexLock lock(&session->mu);
      roster.swap(session->remembered);
    }
    const absl::Status taken = TakeInRoster(roster);
    if (!taken.ok()) {
      MutexLock lock(&session->mu);
      session->remembered = std::move(roster);
      return taken;
    }
  }
  return absl::OkStatus();
}

absl::Status SessionManager::TakeInRoster(
    const std::vector<storage::v1::RosterEntry>& roster) {
  for (const storage::v1::RosterEntry& entry : roster) {
    const Uuid uid = Uuid::FromBytesOrNone(entry.mount_uid());
    if (uid.none() || !ValidateMountName(entry.mount_name()).ok()) {
      continue;
    }
    // Of a rebuilt index nobody but an operator takes in one it does not know.
    const auto row =
        EnsureMountRow(uid, entry.mount_name(), deps_.index->rebuilt(),
                       /*remembered=*/true);
    if (!row.ok()) {
      return Annotate(row.status(),
                      absl::StrCat(MountName(entry.mount_name()),
                                   " of the roster could not be written down"));
    }
  }
  return absl::OkStatus();
}

// A retired mount is left out: a rebuild would call it UNCONFIRMED, and wait
// for what an operator gave up.
control::v1::StoreRoster SessionManager::Roster() {
  control::v1::StoreRoster roster;
  for (const MountInfo& info : deps_.registry->List()) {
    if (info.row.admin_state() != storage::v1::ADMIN_STATE_RETIRED) {
      storage::v1::RosterEntry* entry = roster.add_roster();
      entry->set_mount_uid(info.row.mount_uid());
      entry->set_mount_name(info.row.mount_name());
    }
  }
  return roster;
}

void SessionManager::Tick() {
  deps_.pool->Post([this] {
    // Also where a command began RECOVERING, and what could not be written.
    if (trust_->recovering()) {
      LogIfError(TakeInRosters(), "the next tick tries it again");
    }
    SendRosters();
    SendTrust();
  });
}

void SessionManager::SendTrust() {
  if (trust_->recovering()) {
    return;
  }
  std::vector<std::pair<Uuid, SessionPtr>> sessions;
  {
    MutexLock lock(&mu_);
    sessions.assign(attached_.begin(), attached_.end());
  }
  for (const auto& [uid, session] : sessions) {
    const std::optional<MountInfo> info = deps_.registry->Find(uid);
    if (!info.has_value() || !info->trusted) {
      continue;
    }
    {
      MutexLock lock(&session->mu);
      const auto& can = session->hello.capabilities();
      if (session->may_collect ||
          std::find(can.begin(), can.end(), kCanCollectGarbage) == can.end()) {
        continue;
      }
      session->may_collect = true;
    }
    control::v1::Command command;
    control::v1::CollectGarbage* collect = command.mutable_collect_garbage();
    collect->set_judge(true);
    // A session is in order: what is opened later is named by its own command.
    for (const control::v1::OpenUpload& open : uploads_->OpenUploadsOn(uid)) {
      collect->add_open_upload_ids(open.upload_id());
    }
    SendCommand(session, uid, std::move(command), {},
                [](const absl::StatusOr<control::v1::CommandResult>& result) {
                  LogIfError(result.status(),
                             "what is garbage on the mount is judged when its "
                             "agent registers anew");
                });
  }
}

void SessionManager::SendRosters() {
  const control::v1::StoreRoster roster = Roster();
  const std::string bytes = roster.SerializeAsString();
  std::vector<std::pair<Uuid, SessionPtr>> sessions;
  {
    MutexLock lock(&mu_);
    sessions.assign(attached_.begin(), attached_.end());
  }
  for (const auto& [uid, session] : sessions) {
    {
      MutexLock lock(&session->mu);
      if (session->roster == bytes) {
        continue;
      }
      // Not told twice, even if it fails: the next change or session tells it.
      session->roster = bytes;
    }
    control::v1::Command command;
    *command.mutable_store_roster() = roster;
    SendCommand(session, uid, std::move(command), {},
                [](const absl::StatusOr<control::v1::CommandResult>& result) {
                  LogIfError(result.status(),
                             "the mount's roster is older until its next "
                             "session or the next change");
                });
  }
}

}  // namespace predella::server
