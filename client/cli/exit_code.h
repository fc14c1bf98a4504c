// Exit codes and error messages.
#ifndef PREDELLA_CLIENT_CLI_EXIT_CODE_H_
#define PREDELLA_CLIENT_CLI_EXIT_CODE_H_

#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace predella::cli {

// Scripts rely on the numbers.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitUnavailable = 4;
inline constexpr int kExitConflict = 5;
inline constexpr int kExitUnhealthy = 6;
// What a shell shows for a process that SIGINT ended.
inline constexpr int kExitInterrupted = 130;
// And for one that SIGPIPE ended.
inline constexpr int kExitBrokenPipe = 141;

int ExitCodeOf(const absl::Status& status);

// What to do next about an error of `command` ("predella image put"); empty if
// there is nothing to say.
std::string HintFor(const absl::Status& status, const std::string& command);

// "error: sentence (REASON)" and, on a line of its own, "hint: ...".
void PrintError(const absl::Status& status, const std::string& command,
                std::ostream* err);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_EXIT_CODE_H_
