// predella-agent init, label and describe.
#ifndef PREDELLA_AGENT_COMMANDS_H_
#define PREDELLA_AGENT_COMMANDS_H_

#include <optional>

namespace predella::agent {

// Runs the sub-command that stands first on the command line and returns its
// exit code; absent: there is none. Prints one line of JSON, or a sentence to
// standard error.
//
//   init --path DIR [--name NAME]   labels an empty directory; 1 on error
//   label --path DIR                prints the label; 3 when there is none
//   describe --path DIR             prints a MountDescription instead of JSON
std::optional<int> RunSubCommand(int argc, const char* const* argv);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_COMMANDS_H_
