// What stands between options and the first child: directories, labels, the
// state directory, and what an earlier serve left running.
#ifndef PREDELLA_CLIENT_CLI_SERVE_PREPARE_H_
#define PREDELLA_CLIENT_CLI_SERVE_PREPARE_H_

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/cli/serve/datadirs.h"
#include "client/cli/serve/plan.h"
#include "client/cli/serve/serve_state.h"

namespace predella::cli {

// From --datadirs or --glance-conf, whichever is given.
absl::StatusOr<std::vector<Datadir>> ReadDatadirs(const ServeOptions& options);

// Looks at the directories; prints warnings. Changes nothing. Returns the names
// of those in which nothing can be seen now: of mounts that `state` knows, or
// of directories that hang.
absl::StatusOr<std::set<std::string>> CheckDirectories(
    const std::vector<Datadir>& datadirs, const ServeState& state);

// Has the coordinator and one agent (they differ by what MakePlan checked) say
// whether they could run as they are to be started: INVALID_ARGUMENT after
// what they said.
absl::Status CheckChildren(const Plan& plan);

// Waits up to 1 s for the children of a serve that was killed, then ends
// those that are provably of this state directory. FAILED_PRECONDITION,
// MOUNT_IN_USE names a process that is not. `away` is not looked at.
absl::Status AwaitOldChildren(const ServeOptions& options,
                              const std::vector<Datadir>& datadirs,
                              const std::set<std::string>& away);

// Reads the labels of all but `away`, refuses mixed-up clusters, and with
// --init labels empty directories. A directory from which `state` knows a mount
// is served all the same when it bears no label, or one that cannot be read,
// and never labelled: its agent says how it is. Notes the mounts it saw in
// `state`.
absl::Status PrepareLabels(const ServeOptions& options,
                           const std::vector<Datadir>& datadirs,
                           const std::set<std::string>& away,
                           const std::string& agent_binary, ServeState* state);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_PREPARE_H_
