#include "agent/store/file_place.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/file_system.h"
#include "common/errors.h"

namespace predella::agent {

absl::Status FilePlace::Check() const {
  const uint64_t opened = inode_.load();
  if (opened == 0) {
    return absl::OkStatus();
  }
  const auto found = fs_->Stat(path_);
  const bool replaced = found.ok() || MeansInTheWay(found.status());
  if (!replaced && !absl::IsNotFound(found.status())) {
    return found.status();
  }
  if (found.ok() && found->inode == opened) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
      absl::StrCat(path_, " in ", fs_->root(),
                   replaced ? " is another file than the one that is open"
                            : " was removed while it is in use"));
}

}  // namespace predella::agent
