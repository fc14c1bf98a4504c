// Work on a state directory while no coordinator runs on it.
#ifndef PREDELLA_SERVER_INDEX_COMMANDS_H_
#define PREDELLA_SERVER_INDEX_COMMANDS_H_

#include <optional>

namespace predella::server {

// "rebuild": a new index from what the mounts say of themselves. The exit
// code; absent when argv names no such command.
std::optional<int> RunSubCommand(int argc, const char* const* argv);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_COMMANDS_H_
