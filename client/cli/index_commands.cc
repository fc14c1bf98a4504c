// predella index: the coordinator's own data. What works on a state directory
// is done by the coordinator's binary, what reads a mount by the agent's: this
// one knows neither format.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <ostream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/local_mount.h"
#include "client/cli/output.h"
#include "client/cli/serve/datadirs.h"
#include "client/cli/serve/process_runner.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

// A million records on a slow disk; a mount that hangs says nothing for ever.
constexpr absl::Duration kDescribeTimeout = absl::Minutes(30);
constexpr absl::Duration kRebuildLookTimeout = absl::Seconds(5);

struct IndexArguments {
  std::string state_dir;
  std::vector<std::string> datadirs;
  std::vector<std::string> descriptions;
  std::string cluster_uid;
  std::string epoch_above;
  std::string from;
  std::string backup_dir;
  bool yes = false;
};

absl::StatusOr<std::string> Describe(const Datadir& datadir,
                                     const Context& context) {
  *context.err << "reading " << datadir.path << "\n" << std::flush;
  const absl::Status hangs = absl::UnavailableError(absl::StrCat(
      datadir.path,
      " does not answer: leave it out, the others remember it and it is "
      "taken in later (predella mount confirm)"));
  // To read all of a large one may take long; to look at it does not.
  if (!LookAtMount(datadir.path, kRebuildLookTimeout).answered) {
    return hangs;
  }
  const auto run = RunAndCapture({SiblingBinary("predella-agent"), "describe",
                                  absl::StrCat("--path=", datadir.path)},
                                 kDescribeTimeout);
  if (absl::IsDeadlineExceeded(run.status())) {
    return hangs;
  }
  RETURN_IF_ERROR(run.status());
  if (run->exit_code != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        datadir.path,
        " could not be read; what predella-agent said stands above. Mount what "
        "belongs there, or leave it out: the others remember it and it is "
        "taken in later (predella mount confirm)"));
  }
  return run->out;
}

// A file without a name, which the program that follows this one inherits.
absl::StatusOr<std::string> Unnamed(const std::string& content) {
  const int fd = memfd_create("descriptions", 0);
  if (fd < 0) {
    return absl::InternalError(
        absl::StrCat("cannot make a file in memory: ", std::strerror(errno)));
  }
  for (size_t at = 0; at < content.size();) {
    const ssize_t put = write(fd, content.data() + at, content.size() - at);
    if (put < 0 && errno != EINTR) {
      return absl::InternalError(absl::StrCat(
          "cannot write to a file in memory: ", std::strerror(errno)));
    }
    at += put > 0 ? static_cast<size_t>(put) : 0;
  }
  return absl::StrCat("/proc/self/fd/", fd);
}

// The coordinator's binary in the place of this one: its output and its exit
// code are ours.
absl::StatusOr<int> BecomeCoordinator(std::vector<std::string> arguments,
                                      const Context& context) {
  context.out->flush();
  arguments.insert(arguments.begin(), SiblingBinary("predella-coordinator"));
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  return absl::NotFoundError(
      absl::StrCat("cannot run ", arguments[0], ": ", std::strerror(errno)));
}

// What the directories and files say, for the coordinator's command line.
absl::StatusOr<std::vector<std::string>> Descriptions(const IndexArguments& a,
                                                      const Context& context) {
  std::vector<std::string> arguments;
  for (const std::string& file : a.descriptions) {
    arguments.push_back(absl::StrCat("--descriptions=", file));
  }
  std::string described;
  for (const std::string& list : a.datadirs) {
    ASSIGN_OR_RETURN(const std::vector<Datadir> datadirs, ParseDatadirs(list));
    for (const Datadir& datadir : datadirs) {
      ASSIGN_OR_RETURN(const std::string one, Describe(datadir, context));
      absl::StrAppend(&described, one);
    }
  }
  if (!described.empty()) {
    ASSIGN_OR_RETURN(const std::string file, Unnamed(described));
    arguments.push_back(absl::StrCat("--descriptions=", file));
  }
  if (!a.state_dir.empty()) {
    arguments.push_back(absl::StrCat("--state-dir=", a.state_dir));
  }
  if (!a.epoch_above.empty()) {
    arguments.push_back(absl::StrCat("--epoch-above=", a.epoch_above));
  }
  if (a.yes) {
    arguments.emplace_back("--yes");
  }
  return arguments;
}

absl::StatusOr<int> Rebuild(const IndexArguments& a, const Context& context) {
  if (a.datadirs.empty() && a.descriptions.empty() && a.cluster_uid.empty()) {
    return absl::InvalidArgumentError(
        "give the directories of the mounts (--datadirs), what predella-agent "
        "describe wrote of those on other hosts (--descriptions), or the UUID "
        "of the cluster (--cluster-uid)");
  }
  ASSIGN_OR_RETURN(std::vector<std::string> arguments,
                   Descriptions(a, context));
  arguments.insert(arguments.begin(), "rebuild");
  if (!a.cluster_uid.empty()) {
    arguments.push_back(absl::StrCat("--cluster-uid=", a.cluster_uid));
  }
  return BecomeCoordinator(std::move(arguments), context);
}

absl::StatusOr<int> Restore(const IndexArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(std::vector<std::string> arguments,
                   Descriptions(a, context));
  arguments.insert(arguments.begin(), "restore");
  std::error_code error;
  arguments.push_back(absl::StrCat(
      "--from=", std::filesystem::absolute(a.from, error).string()));
  return BecomeCoordinator(std::move(arguments), context);
}

absl::StatusOr<int> ListBackups(const IndexArguments& a,
                                const Context& context) {
  std::vector<std::string> arguments = {"backups"};
  if (!a.state_dir.empty()) {
    arguments.push_back(absl::StrCat("--state-dir=", a.state_dir));
  }
  if (!a.backup_dir.empty()) {
    arguments.push_back(absl::StrCat("--backup-dir=", a.backup_dir));
  }
  return BecomeCoordinator(std::move(arguments), context);
}

absl::StatusOr<int> Backup(const IndexArguments& /*a*/,
                           const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::IndexBackup made, client.BackupIndex());
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(made, context.out));
  } else {
    *context.out << made.path() << "  " << FormatSize(made.size_bytes())
                 << "\n";
  }
  return kExitDone;
}

constexpr char kStateDirHelp[] =
    "State directory of the coordinator; default: /var/lib/predella for root, "
    "else ~/.local/state/predella.";

// What works on a directory whose coordinator is stopped.
void AddOfflineOptions(CLI::App* command,
                       const std::shared_ptr<IndexArguments>& a) {
  command->add_option("--state-dir", a->state_dir, kStateDirHelp);
  command->add_option(
      "--datadirs", a->datadirs,
      "Directories of the mounts on this host: PATH[,PATH...], or as serve "
      "takes them.");
  command->add_option("--descriptions", a->descriptions,
                      "File with what predella-agent describe --path DIR wrote "
                      "on another host; repeatable.");
  command->add_option("--epoch-above", a->epoch_above,
                      "Begin above this epoch, where a mount that is not given "
                      "has heard of a later one.");
  command->add_flag("--yes", a->yes,
                    "Do it; without, only say what would be done.");
}

}  // namespace

void AddIndexCommands(CLI::App* app, Context* context) {
  CLI::App* index = app->add_subcommand(
      "index",
      "The coordinator's index: check it, copy it, put it back, make it anew.");
  index->require_subcommand(1);
  const auto a = std::make_shared<IndexArguments>();
  const auto run = [context, a](absl::StatusOr<int> (*f)(const IndexArguments&,
                                                         const Context&)) {
    return [context, a, f] {
      context->run = [context, a, f] { return f(*a, *context); };
    };
  };

  AddIndexCheckCommand(index, context);
  CLI::App* rebuild = index->add_subcommand(
      "rebuild",
      "Make the index anew from the directories alone; the coordinator must be "
      "stopped. An index that is there is moved aside.");
  rebuild->footer(
      "Example:\n"
      "  predella index rebuild --datadirs "
      "/var/glance/store-1,/var/glance/store-2\n"
      "  predella index rebuild --datadirs "
      "/var/glance/store-1,/var/glance/store-2 --yes");
  AddOfflineOptions(rebuild, a);
  rebuild->add_option("--cluster-uid", a->cluster_uid,
                      "UUID of the cluster; the labels must agree.");
  rebuild->callback(run(&Rebuild));

  CLI::App* backup = index->add_subcommand(
      "backup", "Copy the index as it is now, beside the running coordinator.");
  backup->footer(
      "The coordinator makes one every hour by itself (--backup-interval).\n"
      "Example:\n"
      "  predella index backup");
  AddOutputOption(backup, context);
  backup->callback(run(&Backup));

  CLI::App* backups = index->add_subcommand(
      "backups", "List the copies of the index on this host, newest first.");
  backups->footer(
      "Example:\n"
      "  predella index backups --state-dir /var/lib/predella");
  backups->add_option("--state-dir", a->state_dir, kStateDirHelp);
  backups->add_option("--backup-dir", a->backup_dir,
                      "Where the coordinator puts them; default: backups in "
                      "the state directory.");
  backups->callback(run(&ListBackups));

  CLI::App* restore = index->add_subcommand(
      "restore",
      "Put a copy of the index back; the coordinator must be stopped. What was "
      "stored since is taken in from the mounts.");
  restore->footer(
      "The index that is there is moved aside.\n"
      "Example:\n"
      "  predella index restore --from "
      "/var/lib/predella/backups/20260301T120000Z \\\n"
      "    --datadirs /var/glance/store-1,/var/glance/store-2 --yes");
  AddOfflineOptions(restore, a);
  restore->add_option("--from", a->from, "Directory of the copy.")->required();
  restore->callback(run(&Restore));
}

}  // namespace predella::cli
