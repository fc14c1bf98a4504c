// Taking in a mount that was away when the index was rebuilt: the command, and
// the listings that follow from it. And a directory that is an older copy.
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/mount_admin.h"

namespace predella::server {

absl::Status Inventory::TakeIn(const storage::v1::MountRow& old) {
  RETURN_IF_ERROR(trust_->TakeIn(old).status());
  Tick();
  return absl::OkStatus();
}

// Also when it was asked twice, or there is nothing to confirm.
absl::StatusOr<v1::Mount> MountAdmin::ConfirmCopy(const MountInfo& info,
                                                  bool validate_only) {
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  const bool refused = stale_->Refused(uid);
  if (stale_->Accepted(uid)) {
    return ToApi(info);
  }
  const std::string name = MountName(info.row.mount_name());
  if (!refused && info.attached && info.health == v1::HEALTH_ABSENT) {
    // The agent that lives refuses an earlier copy itself, and goes on to.
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountStale,
        absl::StrCat(name, " is ABSENT (", info.health_detail,
                     "), and its agent takes no other directory in while it "
                     "runs: put the right one back, and it is used by itself; "
                     "where an older copy is all there is, start the agent "
                     "again, and confirm when it is named MOUNT_STALE"),
        {{"mount", name}});
  }
  if (!refused && !info.attached) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kAgentUnreachable,
        absl::StrCat(name,
                     " is not there, and no directory waits to be confirmed as "
                     "it: start its agent again, it then brings the one that "
                     "is mounted now, and an older copy is named MOUNT_STALE"),
        {{"mount", name}});
  }
  if (!refused || validate_only) {
    return ToApi(info);
  }
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  storage::v1::EventRow event;
  event.set_time_us(deps_.clock->NowMicros());
  event.set_kind("mount_confirmed");
  event.set_mount_name(info.row.mount_name());
  event.set_detail(
      "the directory is an older copy of the mount; what it lacks is missing");
  IndexTxn txn = deps_.index->Begin();
  txn.PutEvent(event);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  stale_->Accept(uid);
  LogInfo("mount_confirmed",
          {{"mount", event.mount_name()}, {"detail", event.detail()}});
  return ToApi(info);
}

absl::StatusOr<v1::Mount> MountAdmin::Confirm(
    const v1::ConfirmMountRequest& request) {
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(MountInfo info, Find(request.name()));
    if (!info.row.unconfirmed()) {
      return ConfirmCopy(info, request.validate_only());
    }
    const std::string name = MountName(info.row.mount_name());
    // RECOVERING waits for it from here on.
    if (!info.attached) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition, reason::kAgentUnreachable,
          absl::StrCat(name,
                       " is not there: what is on it can only be taken in "
                       "from itself; start its agent, then confirm it"),
          {{"mount", name}});
    }
    if (request.validate_only()) {
      info.row.set_unconfirmed(false);
      return ToApi(info);
    }
    RETURN_IF_ERROR(CheckWritable(*deps_.index));
    const absl::Status status = inventory_->TakeIn(info.row);
    if (status.ok()) {
      changed_->Notify();
      ASSIGN_OR_RETURN(const MountInfo now, Find(request.name()));
      return ToApi(now);
    }
    if (!absl::IsAborted(status)) {
      return status;
    }
  }
  return TooManyConflicts(request.name());
}

}  // namespace predella::server
