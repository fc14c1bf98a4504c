// Where the coordinator is.
#ifndef PREDELLA_CLIENT_CLI_ENDPOINT_H_
#define PREDELLA_CLIENT_CLI_ENDPOINT_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace predella::cli {

// Value of an environment variable, empty if unset.
using Environment = std::function<std::string(const std::string&)>;
std::string RealEnvironment(const std::string& name);

// Pointer files that `predella serve` may have written, best first:
// /run/predella/endpoint, $XDG_RUNTIME_DIR/predella/endpoint,
// ~/.local/state/predella/endpoint.
std::vector<std::string> PointerFiles(const Environment& environment);

// `flag`, else PREDELLA_ENDPOINT, else the first pointer file that exists.
// NOT_FOUND is never said: UNAVAILABLE with a sentence that names them all.
absl::StatusOr<std::string> FindEndpoint(const std::string& flag,
                                         const Environment& environment,
                                         const std::vector<std::string>& files);

// Writes `endpoint` to the first of `files` whose directory exists or can be
// made, by rename, and returns that path.
absl::StatusOr<std::string> WritePointerFile(
    const std::vector<std::string>& files, const std::string& endpoint);
// Removes it if it still says `endpoint`.
void RemovePointerFile(const std::string& file, const std::string& endpoint);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_ENDPOINT_H_
