#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

struct OrphanArguments {
  std::string mount;
  std::string image;
  std::string generation;
  bool dry_run = false;
  bool yes = false;
};

absl::StatusOr<int> List(const OrphanArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::ListOrphansResponse orphans,
                   client.ListOrphans(a.mount));
  if (context.format() == Format::kJson) {
    PrintJson(orphans, context.out);
    return kExitDone;
  }
  PrintOrphans(orphans, context.out);
  for (const std::string& mount : orphans.unlisted()) {
    *context.err << "note: " << Bare(mount)
                 << " was not listed since the coordinator started\n";
  }
  return kExitDone;
}

// What the option says of a file without a record.
constexpr char kNoGeneration[] = "none";

std::optional<std::string> GenerationOf(const OrphanArguments& a) {
  if (a.generation.empty()) {
    return std::nullopt;
  }
  return a.generation == kNoGeneration ? "" : a.generation;
}

absl::StatusOr<int> Remove(const OrphanArguments& a, const Context& context) {
  // Another file may bear the name since it was looked at.
  if (!a.dry_run && (!a.yes || a.generation.empty())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "look at predella orphan rm ", a.mount, " ", a.image,
        " --dry-run, then say --yes and the --generation that it names: it is "
        "unlinked after 7 days"));
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(
      const v1::Orphan orphan,
      client.RemoveOrphan(a.mount, a.image, a.dry_run, GenerationOf(a)));
  *context.out << (a.dry_run ? "would be " : "") << Bare(orphan.mount()) << "/"
               << Bare(orphan.image()) << ": put into the quarantine ("
               << orphan.size_bytes() << " bytes)\n";
  if (a.dry_run) {
    *context.err << "next: predella orphan rm " << Bare(orphan.mount()) << " "
                 << Bare(orphan.image()) << " --generation "
                 << (orphan.generation().empty() ? kNoGeneration
                                                 : orphan.generation())
                 << " --yes\n";
  } else {
    *context.err << "next: it stays in .predella/quarantine of the mount for 7 "
                    "days; move it back by hand if it was wanted\n";
  }
  return kExitDone;
}

absl::StatusOr<int> Adopt(const OrphanArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Orphan orphan,
                   client.AdoptOrphan(a.mount, a.image, a.dry_run));
  *context.out << (a.dry_run ? "would be " : "") << Bare(orphan.mount()) << "/"
               << Bare(orphan.image()) << ": made an image of generation "
               << orphan.generation() << "\n";
  if (!a.dry_run) {
    *context.err << "next: predella image stat " << Bare(orphan.image())
                 << "\n";
  }
  return kExitDone;
}

}  // namespace

void AddOrphanCommands(CLI::App* app, Context* context) {
  CLI::App* orphan = app->add_subcommand(
      "orphan", "Files on mounts that the index does not know.");
  orphan->require_subcommand(1);
  const auto a = std::make_shared<OrphanArguments>();
  const auto run = [context, a](absl::StatusOr<int> (*f)(const OrphanArguments&,
                                                         const Context&)) {
    return [context, a, f] {
      context->run = [context, a, f] { return f(*a, *context); };
    };
  };
  const auto add_file = [&a](CLI::App* command) {
    command->add_option("MOUNT", a->mount, "Name of the mount.")->required();
    command->add_option("ID", a->image, "UUID that the file bears.")
        ->required();
    command->add_flag("--dry-run", a->dry_run, "Only say what would be.");
  };

  CLI::App* ls = orphan->add_subcommand("ls", "List them, and what they are.");
  ls->footer(
      "As of the last listing of each mount: one is made after every start,\n"
      "every 10 minutes, and by predella index check.\n"
      "Example:\n"
      "  predella orphan ls store-1");
  ls->add_option("MOUNT", a->mount, "Only of this mount.");
  AddOutputOption(ls, context);
  ls->callback(run(List));

  CLI::App* rm = orphan->add_subcommand(
      "rm", "Put one into the quarantine of its mount for 7 days.");
  rm->footer(
      "Examples:\n"
      "  predella orphan rm store-1 ID --dry-run\n"
      "  predella orphan rm store-1 ID --generation 7-20-00000003 --yes");
  add_file(rm);
  rm->add_option("--generation", a->generation,
                 "That of the file, as --dry-run and ls name it; \"none\": it "
                 "has no record.");
  rm->add_flag("--yes", a->yes, "Do it.");
  rm->callback(run(Remove));

  CLI::App* adopt = orphan->add_subcommand(
      "adopt", "Make an image of one that has its record.");
  adopt->footer(
      "Refused when the index has an image of that id.\n"
      "Example:\n"
      "  predella orphan adopt store-1 ID");
  add_file(adopt);
  adopt->callback(run(Adopt));
}

}  // namespace predella::cli
