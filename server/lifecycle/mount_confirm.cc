// Taking in a mount that was away when the index was rebuilt: the command, and
// the listings that follow from it.
#include <optional>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/mount_admin.h"

namespace predella::server {

absl::Status Inventory::TakeIn(const storage::v1::MountRow& old) {
  RETURN_IF_ERROR(trust_->TakeIn(old).status());
  Tick();
  return absl::OkStatus();
}

absl::StatusOr<v1::Mount> MountAdmin::Confirm(
    const v1::ConfirmMountRequest& request) {
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(MountInfo info, Find(request.name()));
    if (!info.row.unconfirmed()) {
      return ToApi(info);  // also when it was asked twice
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
