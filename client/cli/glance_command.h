// What needs Glance's database, and is therefore of the Python package.
#ifndef PREDELLA_CLIENT_CLI_GLANCE_COMMAND_H_
#define PREDELLA_CLIENT_CLI_GLANCE_COMMAND_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/cli/context.h"

namespace predella::cli {

// Becomes `predella-glance ARGUMENTS`, with this program and its coordinator.
// Returns only when that could not be run: NOT_FOUND with what helps.
absl::Status BecomeGlanceTool(const std::vector<std::string>& arguments,
                              const Context& context);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_GLANCE_COMMAND_H_
