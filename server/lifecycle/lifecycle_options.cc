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

absl::Status TooManyConflicts(absl::string_view what) {
  return MakeError(absl::StatusCode::kAborted, reason::kCommitConflict,
                   absl::StrCat(what, " was changed by others at each of ",
                                kMaxCommitTries, " tries; try again"));
}

}  // namespace predella::server
