// The roster of mounts that lies at every mount, for the day the index is lost.
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/errors.h"
#include "common/logging.h"
#include "server/lifecycle/session_manager.h"
#include "server/lifecycle/session_state.h"

namespace predella::server {

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
  deps_.pool->Post([this] { SendRosters(); });
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
