// The house's table from errno to status. absl::ErrnoToStatus is not used:
// it calls a lost disk NOT_FOUND.
#ifndef PREDELLA_AGENT_FS_ERRNO_STATUS_H_
#define PREDELLA_AGENT_FS_ERRNO_STATUS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace predella::agent {

// With a reason comes the metadata errno ("EIO"). `what` says what was
// attempted on what: "write 4096 bytes at 0 of x in y".
absl::Status ErrnoStatus(int error, absl::string_view what);

// As the kernel would say of what was not tried for it (EACCES).
absl::Status DeniedStatus(absl::string_view what);
// `path` ("x in y") is a file of several names (EMLINK), and no name of ours
// alone: who writes to it by another one changes it.
absl::Status SeveralNamesStatus(absl::string_view path, int64_t links);

// "EIO"; empty where the status bears none.
std::string ErrorName(const absl::Status& status);

// A FUSE server that died, an NFS export that is another one now, a device
// that was pulled: what was opened there never answers again.
bool MeansGone(const absl::Status& status);

// Something else lies where a file or a directory of ours should: a file for a
// directory on the way, a symbolic link, another file system.
bool MeansInTheWay(const absl::Status& status);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_ERRNO_STATUS_H_
