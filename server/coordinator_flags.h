// Options of predella-coordinator: flags, environment, file.
#ifndef PREDELLA_SERVER_COORDINATOR_FLAGS_H_
#define PREDELLA_SERVER_COORDINATOR_FLAGS_H_

#include "absl/status/statusor.h"

#include "common/config/config.h"
#include "server/coordinator.h"

namespace predella::server {

struct CoordinatorFlags {
  CoordinatorOptions options;
  int parent_watch_fd = -1;
  bool die_with_parent = false;
};

// INVALID_ARGUMENT says which option is wrong.
absl::StatusOr<Config::Outcome> ParseCoordinatorFlags(int argc,
                                                      const char* const* argv,
                                                      CoordinatorFlags* flags);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_COORDINATOR_FLAGS_H_
