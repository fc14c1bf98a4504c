#include "client/cli/serve/prepare.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "client/cli/serve/directory_check.h"
#include "client/cli/serve/glance_conf.h"
#include "client/cli/serve/process_runner.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

constexpr absl::Duration kDirectoryTimeout = absl::Seconds(5);
// For a clean end; nobody drains for a serve that is gone.
constexpr absl::Duration kOldChildrenWait = absl::Seconds(1);
constexpr int kExitNoLabel = 3;

// A child of a serve on this state directory has its sockets on its command
// line.
bool IsOurs(int64_t pid, const std::string& state_dir) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/cmdline"));
  std::stringstream text;
  text << file.rdbuf();
  return absl::StrContains(text.str(),
                           absl::StrCat("unix:", state_dir, "/run/"));
}

absl::Status AwaitRelease(const std::string& lock, const std::string& state_dir,
                          absl::Duration deadline, const std::string& what) {
  std::optional<int64_t> holder = LockHolder(lock);
  while (holder.has_value() && RealClock()->Boot() < deadline) {
    absl::SleepFor(absl::Milliseconds(50));
    holder = LockHolder(lock);
  }
  if (!holder.has_value()) {
    return absl::OkStatus();
  }
  if (*holder > 0 && IsOurs(*holder, state_dir)) {
    // It drains for a serve that is gone. Being killed is what all of this
    // is made for.
    LogWarning("old_child_killed", {{"pid", *holder}, {"of", what}});
    kill(static_cast<pid_t>(*holder), SIGKILL);
    for (int i = 0; i < 40 && LockHolder(lock).has_value(); ++i) {
      absl::SleepFor(absl::Milliseconds(50));
    }
    holder = LockHolder(lock);
  }
  if (!holder.has_value()) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountInUse,
      absl::StrCat(what, " is held by another process",
                   *holder > 0 ? absl::StrCat(" (", *holder, ")")
                               : std::string(" that cannot be named")),
      {{"pid", absl::StrCat(*holder)}});
}

// What is not known of a label checks nothing.
Label Unseen(const Datadir& datadir) { return Label{datadir.name, "", ""}; }

// `known`: the mount that was served from it, empty for none.
absl::StatusOr<std::optional<Label>> ReadLabel(const std::string& agent_binary,
                                               const Datadir& datadir,
                                               const std::string& known) {
  const std::vector<std::string> command = {
      agent_binary, "label", absl::StrCat("--path=", datadir.path)};
  absl::StatusOr<Captured> run =
      RunAndCapture(command, kDirectoryTimeout, /*quiet=*/true);
  if (absl::IsDeadlineExceeded(run.status())) {
    std::cerr << "warning: " << datadir.path
              << " does not answer; its label was not checked\n";
    return std::optional<Label>(Unseen(datadir));
  }
  RETURN_IF_ERROR(run.status());
  if (run->exit_code == kExitNoLabel) {
    return std::optional<Label>();
  }
  if (run->exit_code != 0) {
    // Once more, for its sentence.
    LogIfError(RunAndCapture(command, kDirectoryTimeout).status(),
               "what it means is said all the same");
    if (!known.empty()) {
      std::cerr << "warning: the label of " << datadir.path
                << " cannot be read; what predella-agent said stands above. "
                   "Mount "
                << datadir.name << " (" << known
                << ") was served from it, and takes part as soon as it can\n";
      return std::optional<Label>(Unseen(datadir));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("the label of ", datadir.path,
                     " cannot be read; what predella-agent said "
                     "stands above"));
  }
  ASSIGN_OR_RETURN(Label label, ParseLabel(run->out));
  return std::optional<Label>(std::move(label));
}

// The mount that was served under this name, empty for none.
std::string KnownUid(const ServeState& state, const std::string& name) {
  const auto known = state.mount_uids.find(name);
  return known == state.mount_uids.end() ? "" : known->second;
}

// Whether something is mounted on the directory itself.
bool IsMountpoint(const std::string& path) {
  std::error_code error;
  const std::string real = std::filesystem::canonical(path, error).string();
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  while (!error && std::getline(mounts, line)) {
    // Fields: id, parent, device, root, mount point, ...
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    std::string point;
    if (fields.size() > 4 && absl::CUnescape(fields[4], &point) &&
        point == real) {
      return true;
    }
  }
  return false;
}

absl::Status InitDirectory(const std::string& agent_binary,
                           const Datadir& datadir, bool init,
                           bool require_mountpoint) {
  if (init && require_mountpoint && !IsMountpoint(datadir.path)) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
        absl::StrCat("nothing is mounted on ", datadir.path,
                     ", and --require-mountpoint was given: mount it first; "
                     "nothing was written there"));
  }
  if (!init) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
        absl::StrCat(datadir.path,
                     " is not a mount of Predella: nothing is mounted there, "
                     "or it is new. If it is the right directory, run "
                     "predella mount init ",
                     datadir.path, " --name ", datadir.name,
                     " or start serve with --init"));
  }
  if (const int64_t count = CountEntries(datadir.path); count > 0) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountNotEmpty,
        absl::StrCat("--init labels empty directories only, and ", datadir.path,
                     " holds ", count, count == 1 ? " entry" : " entries",
                     ". Move them away, or give an empty directory: files that "
                     "are there "
                     "already cannot be taken over yet"),
        {{"count", absl::StrCat(count)}});
  }
  ASSIGN_OR_RETURN(const Captured run,
                   RunAndCapture({agent_binary, "init",
                                  absl::StrCat("--path=", datadir.path),
                                  absl::StrCat("--name=", datadir.name)},
                                 absl::Minutes(1)));
  if (run.exit_code != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(datadir.path,
                     " could not be made a mount; what "
                     "predella-agent said stands above"));
  }
  LogInfo("mount_initialised",
          {{"path", datadir.path}, {"mount", datadir.name}});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Datadir>> ReadDatadirs(const ServeOptions& options) {
  if (!options.datadirs.empty() && !options.glance_conf.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     "give --datadirs or --glance-conf, not both");
  }
  if (options.glance_conf.empty()) {
    return ParseDatadirs(options.datadirs);
  }
  std::ifstream file(options.glance_conf);
  if (!file.is_open()) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     absl::StrCat("the file ", options.glance_conf,
                                  " cannot be read: ", std::strerror(errno)));
  }
  std::stringstream text;
  text << file.rdbuf();
  ASSIGN_OR_RETURN(const std::string value,
                   FindDatadirs(text.str(), options.glance_conf));
  return ParseDatadirs(value);
}

absl::StatusOr<std::set<std::string>> CheckDirectories(
    const std::vector<Datadir>& datadirs, const ServeState& state) {
  // All at once: each that hangs takes the whole limit.
  std::vector<DirectoryFacts> facts(datadirs.size());
  std::vector<std::thread> looks;
  for (size_t i = 0; i < datadirs.size(); ++i) {
    looks.emplace_back([&facts, &datadirs, i] {
      facts[i] = LookAtDirectory(datadirs[i].path, kDirectoryTimeout);
    });
  }
  for (std::thread& look : looks) {
    look.join();
  }
  std::set<std::string> known;
  for (const Datadir& datadir : datadirs) {
    if (!KnownUid(state, datadir.name).empty()) {
      known.insert(datadir.name);
    }
  }
  ASSIGN_OR_RETURN(DirectoryReport report,
                   JudgeDirectories(datadirs, facts, known));
  for (const std::string& warning : report.warnings) {
    std::cerr << "warning: " << warning << "\n";
  }
  return std::move(report.away);
}

absl::Status CheckChildren(const Plan& plan) {
  for (size_t i = 0; i < std::min<size_t>(2, plan.children.size()); ++i) {
    std::vector<std::string> command = plan.children[i].argv;
    command.emplace_back("--check-config");
    ASSIGN_OR_RETURN(const Captured run,
                     RunAndCapture(command, absl::Minutes(1)));
    if (run.exit_code != 0) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
          absl::StrCat(plan.children[i].name,
                       " cannot run with the options that it would be given; "
                       "what it said stands above"));
    }
  }
  return absl::OkStatus();
}

absl::Status AwaitOldChildren(const ServeOptions& options,
                              const std::vector<Datadir>& datadirs,
                              const std::set<std::string>& away) {
  const absl::Duration deadline = RealClock()->Boot() + kOldChildrenWait;
  RETURN_IF_ERROR(AwaitRelease(absl::StrCat(options.state_dir, "/lock"),
                               options.state_dir, deadline, options.state_dir));
  for (const Datadir& datadir : datadirs) {
    if (away.count(datadir.name) == 0) {
      RETURN_IF_ERROR(
          AwaitRelease(absl::StrCat(datadir.path, "/.predella/lock"),
                       options.state_dir, deadline, datadir.path));
    }
  }
  return absl::OkStatus();
}

absl::Status PrepareLabels(const ServeOptions& options,
                           const std::vector<Datadir>& datadirs,
                           const std::set<std::string>& away,
                           const std::string& agent_binary, ServeState* state) {
  std::vector<LabelledDirectory> labelled;
  labelled.reserve(datadirs.size());
  for (const Datadir& datadir : datadirs) {
    std::optional<Label> label = Unseen(datadir);
    if (away.count(datadir.name) == 0) {
      ASSIGN_OR_RETURN(label, ReadLabel(agent_binary, datadir,
                                        KnownUid(*state, datadir.name)));
    }
    labelled.push_back({datadir, std::move(label)});
  }
  std::error_code error;
  const bool index_exists =
      std::filesystem::exists(options.state_dir + "/index", error);
  RETURN_IF_ERROR(CheckLabels(labelled, options.state_dir, state->cluster_uid,
                              index_exists));
  for (LabelledDirectory& directory : labelled) {
    const Datadir& datadir = directory.datadir;
    const std::string known = KnownUid(*state, datadir.name);
    if (!directory.label.has_value() && !known.empty()) {
      // Never labelled anew: what bears its label is not mounted.
      std::cerr << "warning: " << datadir.path << " bears no label, but mount "
                << datadir.name << " (" << known
                << ") was served from it: is it not mounted? It takes part "
                   "as soon as it is back\n";
      continue;
    }
    if (!directory.label.has_value()) {
      RETURN_IF_ERROR(InitDirectory(agent_binary, datadir, options.init,
                                    options.require_mountpoint));
      ASSIGN_OR_RETURN(directory.label, ReadLabel(agent_binary, datadir, ""));
    }
    if (!directory.label.has_value() || directory.label->mount_uid.empty()) {
      continue;
    }
    const std::string& uid = directory.label->mount_uid;
    if (!known.empty() && known != uid) {
      // The name is bound: the coordinator refuses it, and what is remembered
      // stays what belongs here.
      std::cerr << "warning: " << datadir.path << " is mount " << uid
                << ", but " << known << " was served as " << datadir.name
                << ": put the right disk back, or give this one another name "
                   "(NAME=PATH:PRIORITY)\n";
      continue;
    }
    state->mount_uids[datadir.name] = uid;
  }
  return absl::OkStatus();
}

}  // namespace predella::cli
