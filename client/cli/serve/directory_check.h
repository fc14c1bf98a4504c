// Whether directories can be served: what the text of --datadirs cannot show.
#ifndef PREDELLA_CLIENT_CLI_SERVE_DIRECTORY_CHECK_H_
#define PREDELLA_CLIENT_CLI_SERVE_DIRECTORY_CHECK_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "client/cli/serve/datadirs.h"

namespace predella::cli {

// What was seen of one directory.
struct DirectoryFacts {
  // False: it did not answer in time, and nothing else is known. It is served
  // all the same; its agent shows it as HUNG.
  bool answered = true;
  // Why it could not be seen, or written where `exists`; as errno.
  int error = 0;
  bool exists = false;
  bool directory = false;
  bool writable = false;
  // Not writable because of a read-only mount, and labelled: what lies there
  // can be read.
  bool read_only = false;
  std::string real_path;
  uint64_t device = 0;
  uint64_t inode = 0;
};

// Looks in a process of its own, left behind after `timeout`: a hung mount must
// keep neither the others from being served nor this process from ending.
DirectoryFacts LookAtDirectory(const std::string& path, absl::Duration timeout);

struct DirectoryReport {
  std::vector<std::string> warnings;
  // Names of those in which there is nothing to be seen: their labels are not
  // read, their agents say how they are.
  std::set<std::string> away;
};

// FAILED_PRECONDITION with a sentence for the first directory that cannot be
// served: missing, not a directory, not writable (a labelled one on a read-only
// mount is a warning), the same as or inside another under a different name.
// One whose name is in `known` was a mount before: what is wrong with it may
// heal, and keeps no other from being served, so it is a warning. `facts` has
// one element a directory.
absl::StatusOr<DirectoryReport> JudgeDirectories(
    const std::vector<Datadir>& datadirs,
    const std::vector<DirectoryFacts>& facts,
    const std::set<std::string>& known);

// The process that holds a flock on `path`: nothing if nobody does, there is no
// such file, or it does not answer; 0 if it cannot be told who.
std::optional<int64_t> LockHolder(const std::string& path);

// Label of a directory, as `predella-agent label` prints it.
struct Label {
  std::string name;
  std::string mount_uid;
  std::string cluster_uid;  // empty: no cluster has taken it yet
};
absl::StatusOr<Label> ParseLabel(const std::string& json);

struct LabelledDirectory {
  Datadir datadir;
  std::optional<Label> label;
};

// Refuses what would mix up clusters, and two directories that bear one label.
// `cluster_uid` is the one that this
// state directory has served, empty if not known; `index_exists` says whether
// there is an index in `state_dir`. FAILED_PRECONDITION, CLUSTER_MISMATCH.
absl::Status CheckLabels(const std::vector<LabelledDirectory>& directories,
                         const std::string& state_dir,
                         const std::string& cluster_uid, bool index_exists);

// Entries of a directory but lost+found and .predella; for messages.
int64_t CountEntries(const std::string& path);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_DIRECTORY_CHECK_H_
