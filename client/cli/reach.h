// Whether anybody answers under an address.
#ifndef PREDELLA_CLIENT_CLI_REACH_H_
#define PREDELLA_CLIENT_CLI_REACH_H_

#include <string>

#include "absl/status/status.h"

namespace predella::cli {

// Dials it; UNAVAILABLE when there is no connection within 3 s.
absl::Status ReachByChannel(const std::string& address);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_REACH_H_
