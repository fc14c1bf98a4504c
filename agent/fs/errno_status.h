// The house's table from errno to status. absl::ErrnoToStatus is not used:
// it calls a lost disk NOT_FOUND.
#ifndef PREDELLA_AGENT_FS_ERRNO_STATUS_H_
#define PREDELLA_AGENT_FS_ERRNO_STATUS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace predella::agent {

// `what` says what was attempted on what: "write 4096 bytes at 0 of x in y".
absl::Status ErrnoStatus(int error, absl::string_view what);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_FS_ERRNO_STATUS_H_
