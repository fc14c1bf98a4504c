// Reads what comes through a pipe, for a limited time.
#ifndef PREDELLA_CLIENT_CLI_READ_PIPE_H_
#define PREDELLA_CLIENT_CLI_READ_PIPE_H_

#include <cstddef>
#include <string>

#include "absl/time/time.h"

namespace predella::cli {

// True once `most` bytes came or the writers are gone; false when `deadline`,
// of the clock that runs since boot, passes first. Appends what came.
bool ReadPipe(int fd, absl::Duration deadline, size_t most, std::string* out);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_READ_PIPE_H_
