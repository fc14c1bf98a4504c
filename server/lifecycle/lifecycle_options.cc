#include "server/lifecycle/lifecycle_options.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/errors.h"

namespace predella::server {

absl::Status CheckWritable(const PlacementIndex& index) {
  const std::string error = index.write_error();
  if (error.empty()) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kUnavailable, reason::kIndexReadOnly,
                   absl::StrCat("the coordinator's index takes no writes: ",
                                error, "; reads go on"));
}

absl::Status RetiredError(const std::string& mount_name) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kMountRetired,
                   absl::StrCat(mount_name,
                                " was retired: stop its agent, and take it out "
                                "of the configuration"),
                   {{"mount", mount_name}});
}

absl::Status TooManyConflicts(absl::string_view what) {
  return MakeError(absl::StatusCode::kAborted, reason::kCommitConflict,
                   absl::StrCat(what, " was changed by others at each of ",
                                kMaxCommitTries, " tries; try again"));
}

}  // namespace predella::server
