// Rules of a running fault file system, over a Unix socket beside the mount:
// a mount that hangs is still steered.
#ifndef PREDELLA_TESTS_FAULTFS_CONTROL_H_
#define PREDELLA_TESTS_FAULTFS_CONTROL_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tests/faultfs/rules.h"

namespace predella::faultfs {

// Commands are lines, each answered by lines of which the last is `ok ...` or
// `error ...`:
//
//   add RULE     ok NUMBER
//   remove N     that rule
//   clear        every rule
//   disarm       every rule, for good
//   status       what RuleTable::Report says
//
// The thread that answers lives as long as the process, and so must `rules`.
absl::Status StartControl(const std::string& socket_path, RuleTable* rules);

// Sends one line to such a socket; returns the whole answer.
absl::StatusOr<std::string> TellControl(const std::string& socket_path,
                                        const std::string& line);

// The answer to one line, without its newline.
std::string AnswerCommand(const std::string& line, RuleTable* rules);

}  // namespace predella::faultfs

#endif  // PREDELLA_TESTS_FAULTFS_CONTROL_H_
