// `predella mount collect-garbage`.
#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

struct GarbageArguments {
  std::string name;
  std::optional<int64_t> accept;
  bool dry_run = false;
  bool yes = false;
};

std::string EndedUploads(int64_t count) {
  return absl::StrCat("the bytes of ", count, " ended upload",
                      count == 1 ? "" : "s");
}

int NothingIsHeld(const v1::Mount& mount, const Context& context) {
  *context.out << Bare(mount.name()) << ": nothing is held\n";
  return kExitDone;
}

absl::StatusOr<int> ShowGarbage(const GarbageArguments& a,
                                const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Mount mount,
                   client.CollectGarbage(a.name, 0, /*validate_only=*/true));
  const int64_t count = mount.held_upload_count();
  if (count == 0) {
    return NothingIsHeld(mount, context);
  }
  *context.out << "would be " << Bare(mount.name()) << ": "
               << EndedUploads(count) << " discarded ("
               << FormatSize(mount.held_upload_bytes()) << ")\n";
  *context.err << "next: predella mount collect-garbage " << Bare(mount.name())
               << " --accept-upload-count " << count << " --yes\n";
  return kExitDone;
}

absl::StatusOr<int> CollectGarbage(const GarbageArguments& a,
                                   const Context& context) {
  if (a.dry_run || (!a.yes && !a.accept.has_value())) {
    return ShowGarbage(a, context);
  }
  // More may be held than when it was looked at.
  if (!a.yes || !a.accept.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "what is discarded never comes back: look at predella mount "
        "collect-garbage ",
        a.name,
        ", then say --yes and the --accept-upload-count that it names"));
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Mount mount,
                   client.CollectGarbage(a.name, *a.accept));
  if (*a.accept == 0) {
    // Refused where any is: the count is not that.
    return NothingIsHeld(mount, context);
  }
  *context.out << Bare(mount.name()) << ": " << EndedUploads(*a.accept)
               << " discarded\n";
  *context.err << "next: predella mount stat " << Bare(mount.name())
               << " shows the space there is now\n";
  return kExitDone;
}

}  // namespace

void AddMountGarbageCommand(CLI::App* mount, Context* context) {
  const auto a = std::make_shared<GarbageArguments>();
  CLI::App* collect = mount->add_subcommand(
      "collect-garbage", "Discard bytes of ended uploads that a mount holds.");
  collect->footer(
      "An agent discards what ended uploads left by itself, but not so much\n"
      "at once that the index may be mistaken (GARBAGE_HELD). Without --yes "
      "it\n"
      "only says what would be.\n"
      "Examples:\n"
      "  predella mount collect-garbage store-1\n"
      "  predella mount collect-garbage store-1 --accept-upload-count 150 "
      "--yes");
  collect->add_option("NAME", a->name, "Name of the mount.")->required();
  collect->add_option("--accept-upload-count", a->accept,
                      "How many uploads, as the dry run names them.");
  collect->add_flag("--yes", a->yes, "Do it.");
  collect->add_flag("--dry-run", a->dry_run, "Only say what would be.");
  collect->callback([context, a] {
    context->run = [context, a] { return CollectGarbage(*a, *context); };
  });
}

}  // namespace predella::cli
