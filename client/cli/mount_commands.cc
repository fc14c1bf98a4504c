#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <ostream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/local_mount.h"
#include "client/cli/mount_report.h"
#include "client/cli/output.h"
#include "client/cli/serve/process_runner.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

struct MountArguments {
  std::string name;
  std::string path;
  std::string reason;
  std::string duration;
  bool dry_run = false;
  bool with_images = false;
};

// Where NFS is dead a call to it may never come back.
constexpr absl::Duration kInitLookTimeout = absl::Seconds(5);
// Hundreds of directories are made and synced; on a slow mount that takes long.
constexpr absl::Duration kInitTimeout = absl::Minutes(5);

absl::Status DoesNotAnswer(const std::string& path, absl::Duration waited,
                           absl::string_view left) {
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kMountStalled,
      absl::StrCat(path,
                   " does not answer: what was asked of it has not come "
                   "back for ",
                   absl::FormatDuration(waited), left,
                   "; mend what is mounted there, or unmount it (umount -l ",
                   path, "), and try again"));
}

// The agent's binary knows the format on disk; this one does not.
absl::StatusOr<int> Init(const MountArguments& a, const Context& context) {
  const LocalMount seen = LookAtMount(a.path, kInitLookTimeout);
  if (!seen.answered) {
    return DoesNotAnswer(a.path, kInitLookTimeout,
                         seen.left == 0 ? ""
                                        : absl::StrCat(" (process ", seen.left,
                                                       ", which looked, ends "
                                                       "when it does)"));
  }
  if (!seen.directory) {
    return absl::InvalidArgumentError(absl::StrCat(
        a.path,
        seen.error != 0
            ? absl::StrCat(": ", std::generic_category().message(seen.error),
                           "; mount it, or make it")
            : std::string(" is not a directory")));
  }
  std::vector<std::string> arguments = {SiblingBinary("predella-agent"), "init",
                                        "--path", a.path};
  if (!a.name.empty()) {
    arguments.insert(arguments.end(), {"--name", a.name});
  }
  if (a.with_images) {
    arguments.emplace_back("--with-images");
  }
  const absl::StatusOr<Captured> run = RunAndCapture(arguments, kInitTimeout);
  if (absl::IsDeadlineExceeded(run.status())) {
    return DoesNotAnswer(a.path, kInitTimeout, "");
  }
  RETURN_IF_ERROR(run.status());
  *context.out << run->out;
  return run->exit_code;
}

absl::StatusOr<int> List(const MountArguments& /*a*/, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::ListMountsResponse mounts, client.ListMounts());
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(mounts, context.out));
  } else {
    PrintMounts(mounts, context.format() == Format::kWide, absl::Now(),
                context.out);
  }
  return kExitDone;
}

absl::StatusOr<int> Stat(const MountArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Mount mount, client.GetMount(a.name));
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(mount, context.out));
  } else {
    PrintMount(mount, absl::Now(), context.out);
  }
  return kExitDone;
}

// A mount is excused or cordoned: the one ends the other.
absl::StatusOr<int> Cordon(const MountArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Mount before, client.GetMount(a.name));
  ASSIGN_OR_RETURN(const v1::Mount mount,
                   client.CordonMount(a.name, a.reason, a.dry_run));
  const bool excused = before.admin_state() == v1::ADMIN_STATE_MAINTENANCE;
  return ReportMount(
      context, a.dry_run,
      absl::StrCat("takes no new images",
                   excused
                       ? absl::StrCat(", and its maintenance until ",
                                      Moment(before.maintenance_until_time()),
                                      " ends: it is not excused any more")
                       : ""),
      mount,
      absl::StrCat("predella mount uncordon ", a.name,
                   " when it shall take images again",
                   excused ? absl::StrCat("; predella mount maintenance ",
                                          a.name, " --for 1h excuses it anew")
                           : ""));
}

absl::StatusOr<int> Uncordon(const MountArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Mount mount,
                   client.UncordonMount(a.name, a.dry_run));
  return ReportMount(context, a.dry_run, "takes new images", mount,
                     "predella mount ls shows how it fills");
}

absl::StatusOr<int> Maintain(const MountArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(const absl::Duration duration, ParseDuration(a.duration));
  if (duration <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        "--for has to be longer than nothing, such as 30m or 2h");
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  const absl::Time until = absl::Now() + duration;
  ASSIGN_OR_RETURN(const v1::Mount mount,
                   client.MaintainMount(a.name, until, a.reason, a.dry_run));
  return ReportMount(
      context, a.dry_run,
      absl::StrCat("excused until ", Moment(mount.maintenance_until_time())),
      mount,
      absl::StrCat("predella mount uncordon ", a.name,
                   " when it is back before that"));
}

absl::StatusOr<int> Confirm(const MountArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Mount before, client.GetMount(a.name));
  ASSIGN_OR_RETURN(const v1::Mount mount,
                   client.ConfirmMount(a.name, a.dry_run));
  if (before.unconfirmed()) {
    return ReportMount(context, a.dry_run, "taken in as soon as it is listed",
                       mount,
                       "predella cluster status says RECOVERING until it is");
  }
  if (before.stale()) {
    return ReportMount(context, a.dry_run,
                       "the copy that is there is used at its agent's next try",
                       mount, "predella cluster status names what it lacks");
  }
  return ReportMount(context, a.dry_run,
                     "in use already, there is nothing to confirm", mount,
                     "predella mount ls shows how it is");
}

}  // namespace

std::string SiblingBinary(const std::string& name) {
  std::error_code error;
  const std::filesystem::path self =
      std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path beside = self.parent_path() / name;
  if (!error && access(beside.c_str(), X_OK) == 0) {
    return beside.string();
  }
  return name;
}

void AddMountCommands(CLI::App* app, Context* context) {
  CLI::App* mount = app->add_subcommand("mount", "See and steer mounts.");
  mount->require_subcommand(1);
  const auto a = std::make_shared<MountArguments>();
  const auto run = [context, a](absl::StatusOr<int> (*f)(const MountArguments&,
                                                         const Context&)) {
    return [context, a, f] {
      context->run = [context, a, f] { return f(*a, *context); };
    };
  };
  const auto add_name = [&a](CLI::App* command) {
    command->add_option("NAME", a->name, "Name of the mount.")->required();
  };
  const auto add_change = [&a](CLI::App* command) {
    command->add_flag("--dry-run", a->dry_run, "Only say what would be.");
  };
  const auto add_reason = [&a](CLI::App* command) {
    command->add_option("--reason", a->reason, "Shown with the mount.");
  };

  CLI::App* init = mount->add_subcommand(
      "init", "Make a directory a mount: writes the label that names it.");
  init->footer(
      "Prints the label as JSON. What is a mount already stays as it is.\n"
      "Example:\n"
      "  predella mount init /var/glance/store-1");
  init->add_option("PATH", a->path, "The mounted directory.")->required();
  init->add_option("--name", a->name, "Default: the last part of PATH.");
  init->add_flag("--with-images", a->with_images,
                 "It may hold files of Glance's own store; they stay.");
  init->callback(run(Init));

  CLI::App* ls =
      mount->add_subcommand("ls", "List mounts: health, space, images.");
  ls->footer(
      "Example:\n"
      "  predella mount ls -o wide");
  AddOutputOption(ls, context);
  ls->callback(run(List));

  CLI::App* stat = mount->add_subcommand("stat", "Show all about one mount.");
  stat->footer(
      "Example:\n"
      "  predella mount stat store-1");
  add_name(stat);
  AddOutputOption(stat, context);
  stat->callback(run(Stat));

  CLI::App* cordon =
      mount->add_subcommand("cordon", "Keep new images away from a mount.");
  cordon->footer(
      "What lies on it stays readable. It ends a maintenance, and says so.\n"
      "Example:\n"
      "  predella mount cordon store-1 --reason \"disk is swapped on Friday\"");
  add_name(cordon);
  add_reason(cordon);
  add_change(cordon);
  cordon->callback(run(Cordon));

  CLI::App* uncordon = mount->add_subcommand(
      "uncordon", "Take a mount back from cordon or maintenance.");
  uncordon->footer(
      "Example:\n"
      "  predella mount uncordon store-1");
  add_name(uncordon);
  add_change(uncordon);
  uncordon->callback(run(Uncordon));

  CLI::App* maintenance = mount->add_subcommand(
      "maintenance", "Excuse a mount for a time: nothing waits for it.");
  maintenance->footer(
      "Example:\n"
      "  predella mount maintenance store-1 --for 2h --reason \"new cable\"");
  add_name(maintenance);
  maintenance->add_option("--for", a->duration, "For how long (30m, 2h).")
      ->required();
  add_reason(maintenance);
  add_change(maintenance);
  maintenance->callback(run(Maintain));

  CLI::App* confirm = mount->add_subcommand(
      "confirm",
      "Take in a mount that was away when the index was rebuilt, or an older "
      "copy of one.");
  confirm->footer(
      "MOUNT_UNCONFIRMED: its images are taken in, but for those that are\n"
      "known to be deleted; its agent must be there.\n"
      "MOUNT_STALE: the directory is used although it is an older copy of the\n"
      "mount; the images it lacks are named as missing.\n"
      "Example:\n"
      "  predella mount confirm store-3");
  add_name(confirm);
  add_change(confirm);
  confirm->callback(run(Confirm));

  AddMountScrubCommand(mount, context);
  AddMountGarbageCommand(mount, context);
  AddMountLossCommands(mount, context);
}

}  // namespace predella::cli
