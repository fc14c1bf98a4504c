// MountAdmin: scrubs that an operator asks for.
#include <string>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/mount_admin.h"

namespace predella::server {

absl::StatusOr<v1::Mount> MountAdmin::Scrub(
    const v1::ScrubMountRequest& request) {
  ASSIGN_OR_RETURN(const MountInfo info, Find(request.name()));
  if (info.row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountRetired,
        absl::StrCat(request.name(), " was retired: nothing on it counts"),
        {{"mount", request.name()}});
  }
  if (request.bytes_per_second() < 0) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat("bytes_per_second is ", request.bytes_per_second(),
                     ": a number from 0 on"));
  }
  RETURN_IF_ERROR(scrubs_->Start(Uuid::FromBytesOrNone(info.row.mount_uid()),
                                 request.bytes_per_second(), request.restart(),
                                 "an operator asked for it"));
  return ToApi(info);
}

absl::StatusOr<v1::Mount> MountAdmin::PauseScrub(
    const v1::PauseScrubRequest& request) {
  ASSIGN_OR_RETURN(const MountInfo info, Find(request.name()));
  RETURN_IF_ERROR(
      Annotate(scrubs_->Pause(Uuid::FromBytesOrNone(info.row.mount_uid())),
               request.name()));
  return ToApi(info);
}

}  // namespace predella::server
