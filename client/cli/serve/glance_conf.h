// The directories out of a glance-api.conf.
#ifndef PREDELLA_CLIENT_CLI_SERVE_GLANCE_CONF_H_
#define PREDELLA_CLIENT_CLI_SERVE_GLANCE_CONF_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace predella::cli {

// The value of multifilesystem_store_datadir in [glance_store] or whichever
// other section has it, for ParseDatadirs. Reads oslo.config's INI: comments
// with # or ;, "key = value" or "key : value", lines that begin with white
// space go on with the one before, quotes around a value fall away, of a key
// given twice in a section the last counts. NOT_FOUND when no section has it;
// INVALID_ARGUMENT when two sections say different things. `file` is for the
// messages.
absl::StatusOr<std::string> FindDatadirs(absl::string_view text,
                                         const std::string& file);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_GLANCE_CONF_H_
