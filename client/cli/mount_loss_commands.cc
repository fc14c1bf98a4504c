// What the loss of mounts means, and the commands that accept it.
#include <algorithm>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/glance_command.h"
#include "client/cli/mount_report.h"
#include "client/cli/output.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

struct LossArguments {
  std::vector<std::string> names;
  std::string name;
  std::string new_uid;
  std::string reason;
  std::string accept_lost = "0";
  bool images = false;
  bool glance = false;
  std::string glance_conf;
  std::string glance_database;
  std::vector<std::string> glance_exports;
  bool dry_run = false;
  bool yes = false;
  bool accept_unlisted = false;
};

constexpr int kImpactPage = 1000;
constexpr int kNamedAtOnce = 20;  // the rest is in `image ls`

void PrintImages(const v1::ExplainImpactResponse& impact, bool header,
                 std::ostream* out) {
  Table table({"ID", "SIZE", "ELSEWHERE", "MOUNTS"});
  for (const v1::ImpactedImage& image : impact.images()) {
    std::vector<std::string> mounts;
    for (const std::string& mount : image.mounts()) {
      mounts.push_back(Bare(mount));
    }
    table.Add({Bare(image.name()), ShortSize(image.size_bytes()),
               absl::StrCat(image.other_readable_copies()),
               absl::StrJoin(mounts, ",")});
  }
  table.Print(out, header);
}

std::string CountAndBytes(int64_t count, int64_t bytes) {
  return absl::StrCat(count, count == 1 ? " image, " : " images, ",
                      FormatSize(bytes));
}

void PrintDeletes(const v1::ExplainImpactResponse& impact, std::ostream* out) {
  const int64_t count = impact.only_delete_copy_count();
  if (count > 0) {
    *out << "noted nowhere else: " << count
         << (count == 1 ? " delete that another mount has"
                        : " deletes that other mounts have")
         << " still to carry out; without it the index alone knows, until "
            "another mount has noted it\n";
  }
}

absl::StatusOr<int> Impact(const LossArguments& a, const Context& context) {
  if (a.glance || !a.glance_conf.empty() || !a.glance_database.empty() ||
      !a.glance_exports.empty()) {
    std::vector<std::string> arguments = {"impact"};
    if (!a.glance_conf.empty()) {
      arguments.insert(arguments.end(), {"--config", a.glance_conf});
    }
    if (!a.glance_database.empty()) {
      arguments.insert(arguments.end(), {"--database", a.glance_database});
    }
    for (const std::string& path : a.glance_exports) {
      arguments.insert(arguments.end(), {"--export", path});
    }
    if (context.format() == Format::kJson) {
      arguments.insert(arguments.end(), {"--output", "json"});
    }
    arguments.insert(arguments.end(), a.names.begin(), a.names.end());
    return BecomeGlanceTool(arguments, context);
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  const bool json = context.format() == Format::kJson;
  v1::ExplainImpactResponse all;
  std::string token;
  bool first = true;
  do {
    ASSIGN_OR_RETURN(v1::ExplainImpactResponse page,
                     client.ExplainImpact(a.names, kImpactPage, token));
    token = page.next_page_token();
    if (first) {
      all = page;
      all.clear_images();
      all.clear_next_page_token();
      if (!json) {
        std::vector<std::string> names;
        for (const std::string& name : a.names) {
          if (std::find(names.begin(), names.end(), name) == names.end()) {
            names.push_back(name);
          }
        }
        *context.out << "on " << absl::StrJoin(names, ", ") << ": "
                     << CountAndBytes(page.image_count(), page.image_bytes())
                     << "\nno copy elsewhere: "
                     << CountAndBytes(page.only_copy_count(),
                                      page.only_copy_bytes())
                     << "\n";
        PrintDeletes(page, context.out);
      }
    }
    if (json) {
      all.mutable_images()->MergeFrom(page.images());
    } else if (a.images) {
      PrintImages(page, first, context.out);
    }
    first = false;
  } while (!token.empty() && (json || a.images));
  if (json) {
    RETURN_IF_ERROR(PrintJson(all, context.out));
  }
  return kExitDone;
}

// Whether another mount has a copy, be it one that can not be read now.
absl::StatusOr<bool> IsElsewhere(Client* client, const std::string& mount,
                                 const v1::ImpactedImage& image) {
  if (image.other_readable_copies() > 0) {
    return true;
  }
  absl::StatusOr<v1::Image> found = client->GetImage(Bare(image.name()));
  if (absl::IsNotFound(found.status())) {
    return true;  // it was deleted meanwhile
  }
  RETURN_IF_ERROR(found.status());
  return std::any_of(
      found->copies().begin(), found->copies().end(),
      [&](const v1::Copy& copy) { return Bare(copy.mount()) != Bare(mount); });
}

// The first images without another copy. Where every image of the mount is one
// of them no copy is asked for.
absl::StatusOr<v1::ExplainImpactResponse> FirstLost(Client* client,
                                                    const std::string& name) {
  ASSIGN_OR_RETURN(v1::ExplainImpactResponse lost,
                   client->ExplainImpact({name}, kNamedAtOnce));
  if (lost.only_copy_count() == lost.image_count() ||
      lost.only_copy_count() == 0) {
    return lost;
  }
  lost.clear_images();
  const auto wanted =
      static_cast<int>(std::min<int64_t>(kNamedAtOnce, lost.only_copy_count()));
  std::string token;
  do {
    ASSIGN_OR_RETURN(v1::ExplainImpactResponse page,
                     client->ExplainImpact({name}, kImpactPage, token));
    token = page.next_page_token();
    for (v1::ImpactedImage& image : *page.mutable_images()) {
      if (lost.images_size() >= wanted) {
        break;
      }
      ASSIGN_OR_RETURN(const bool elsewhere, IsElsewhere(client, name, image));
      if (!elsewhere) {
        *lost.add_images() = std::move(image);
      }
    }
  } while (!token.empty() && lost.images_size() < wanted);
  return lost;
}

// Names what is lost with a mount, so that nobody accepts a mere number.
absl::Status PrintLoss(Client* client, const std::string& name,
                       const Context& context) {
  ASSIGN_OR_RETURN(const v1::ExplainImpactResponse impact,
                   FirstLost(client, name));
  PrintDeletes(impact, context.out);
  if (impact.only_copy_count() == 0) {
    return absl::OkStatus();
  }
  *context.out << "lost with " << name << ": "
               << CountAndBytes(impact.only_copy_count(),
                                impact.only_copy_bytes())
               << "\n";
  PrintImages(impact, /*header=*/true, context.out);
  if (impact.only_copy_count() > impact.images_size()) {
    *context.out << "and " << impact.only_copy_count() - impact.images_size()
                 << " more: predella mount impact " << name
                 << " --images names all\n";
  }
  return absl::OkStatus();
}

// An image that was never taken in has no row: the files that the last listing
// of the mount showed, or that there was none.
absl::Status PrintUnnamed(Client* client, const std::string& name,
                          const Context& context) {
  ASSIGN_OR_RETURN(v1::ListOrphansResponse files, client->ListOrphans(name));
  const int count = files.orphans_size();
  if (count > 0) {
    *context.out << "besides " << count << (count == 1 ? " file" : " files")
                 << " that the index does not name:\n";
    const int named = std::min(count, kNamedAtOnce);
    files.mutable_orphans()->DeleteSubrange(named, count - named);
    PrintOrphans(files, context.out);
    if (count > named) {
      *context.out << "and " << count - named << " more: predella orphan ls "
                   << name << " names all\n";
    }
  }
  if (files.unlisted_size() > 0) {
    *context.out << (count > 0 ? "other files" : "files")
                 << " that the index does not name: not known, " << name
                 << " was not compared with it since the coordinator started, "
                    "or since RECOVERING; they go with it unseen, unless its "
                    "agent is started and the mount is listed first\n";
  }
  return absl::OkStatus();
}

// "28:9fa3...": how many images, and a digest of which. A number alone would
// give up images that nobody looked at, where some came and others went.
absl::StatusOr<AcceptedLoss> ParseAccepted(const LossArguments& a,
                                           absl::string_view command) {
  const std::string help =
      absl::StrCat("look at them with predella mount ", command, " ", a.name,
                   " --dry-run, which prints the --accept-lost NUMBER:DIGEST "
                   "that gives up exactly these");
  AcceptedLoss loss;
  const absl::string_view text = a.accept_lost;
  const size_t colon = text.find(':');
  if (!absl::SimpleAtoi(text.substr(0, colon), &loss.count) || loss.count < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--accept-lost \"", text, "\" is not NUMBER:DIGEST; ", help));
  }
  if (colon != absl::string_view::npos) {
    loss.digest = std::string(text.substr(colon + 1));
  }
  if (loss.count > 0 && loss.digest.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--accept-lost ", loss.count,
                     " is a number, and does not say which images: ", help));
  }
  return loss;
}

absl::Status NotAccepted(const LossArguments& a, absl::string_view command,
                         const absl::Status& status) {
  ErrorMetadata metadata = MetadataOf(status);
  const std::string count = metadata["image_count"];
  std::string unnamed = metadata["unnamed_count"];
  unnamed = unnamed == "0" ? "" : unnamed;
  return MakeError(
      status.code(), reason::kMountNotEmpty,
      absl::StrCat(
          a.name, " holds ", count, " images, which would be lost",
          unnamed.empty()
              ? ""
              : absl::StrCat(", ", unnamed,
                             " of them files that the index does not name"),
          a.accept_lost == "0" ? ""
                               : absl::StrCat(" (not the ", a.accept_lost,
                                              " that was accepted)"),
          ": predella mount impact ", a.name,
          unnamed.empty()
              ? " --images names them, and this gives up exactly these: "
              : absl::StrCat(" --images names the images of the index, "
                             "predella orphan ls ",
                             a.name,
                             " the files, of which nothing is known any more "
                             "once they are given up: keep that list. This "
                             "gives up exactly these: "),
          "predella mount ", command, " ", a.name, " --accept-lost ", count,
          ":", metadata["lost_digest"],
          a.new_uid.empty() ? "" : absl::StrCat(" --new-uid ", a.new_uid),
          a.accept_unlisted ? " --accept-unlisted" : "", " --yes"));
}

// What a change of the mount came to; its loss is named where it was refused,
// or only looked at. The images are asked for after the digest was: one that
// comes in between is shown, and not accepted.
absl::StatusOr<v1::Mount> NameLoss(Client* client, const LossArguments& a,
                                   absl::string_view command,
                                   absl::StatusOr<v1::Mount> changed,
                                   const Context& context) {
  const bool refused = HasReason(changed.status(), reason::kMountNotEmpty);
  if (refused || (changed.ok() && a.dry_run)) {
    RETURN_IF_ERROR(PrintLoss(client, a.name, context));
    RETURN_IF_ERROR(PrintUnnamed(client, a.name, context));
  }
  if (refused) {
    return NotAccepted(a, command, changed.status());
  }
  return changed;
}

absl::StatusOr<int> Retire(const LossArguments& a, const Context& context) {
  if (!a.dry_run && !a.yes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a retired mount never comes back: look at predella mount retire ",
        a.name, " --dry-run, then say --yes"));
  }
  ASSIGN_OR_RETURN(const AcceptedLoss accept, ParseAccepted(a, "retire"));
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Mount mount,
                   NameLoss(&client, a, "retire",
                            client.RetireMount(a.name, accept, a.reason,
                                               a.dry_run, a.accept_unlisted),
                            context));
  return ReportMount(
      context, a.dry_run, "given up for good", mount,
      "stop its agent and take it out of the configuration; predella "
      "image ls --lost names the images that the index had there");
}

absl::StatusOr<int> Replace(const LossArguments& a, const Context& context) {
  if (!a.dry_run && !a.yes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the mount that has the name now never comes back: look "
                     "at predella mount replace ",
                     a.name, " --dry-run, then say --yes"));
  }
  ASSIGN_OR_RETURN(const AcceptedLoss accept, ParseAccepted(a, "replace"));
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Mount mount,
                   NameLoss(&client, a, "replace",
                            client.ReplaceMount(a.name, a.new_uid, accept,
                                                a.reason, a.dry_run),
                            context));
  return ReportMount(
      context, a.dry_run, absl::StrCat("is now ", mount.uid()), mount,
      "its agent registers by itself; predella image ls --lost names "
      "what was lost with the old one");
}

}  // namespace

void AddMountLossCommands(CLI::App* mount, Context* context) {
  const auto a = std::make_shared<LossArguments>();
  const auto run = [context, a](absl::StatusOr<int> (*f)(const LossArguments&,
                                                         const Context&)) {
    return [context, a, f] {
      context->run = [context, a, f] { return f(*a, *context); };
    };
  };
  const auto add_change = [&a](CLI::App* command) {
    command->add_option("NAME", a->name, "Name of the mount.")->required();
    command->add_option("--accept-lost", a->accept_lost,
                        "Which images are lost with it: NUMBER:DIGEST, as "
                        "--dry-run prints it.");
    command->add_flag("--yes", a->yes, "Do it.");
    command->add_option("--reason", a->reason, "Shown with the mount.");
    command->add_flag("--dry-run", a->dry_run, "Only say what would be.");
  };

  CLI::App* impact = mount->add_subcommand(
      "impact", "Say what the loss of mounts would mean, or means.");
  impact->footer(
      "Several mounts: as if all of them were lost together.\n"
      "Examples:\n"
      "  predella mount impact store-1 store-2\n"
      "  predella mount impact store-1 --glance\n"
      "  predella mount impact store-1 -o json | jq -r '.images[].name'");
  impact->add_option("NAME", a->names, "Names of the mounts.")->required();
  impact->add_flag("--images", a->images, "Name every image, too.");
  impact->add_flag("--glance", a->glance,
                   "Name every image with name, owner and status in Glance.");
  impact->add_option("--config", a->glance_conf,
                     "The glance-api.conf; default: /etc/glance/...");
  impact->add_option("--database", a->glance_database,
                     "Instead: SQLAlchemy URL of Glance's database.");
  impact
      ->add_option("--export", a->glance_exports,
                   "Instead: what predella glance export printed, or a list of "
                   "images; may be repeated.")
      ->allow_extra_args(false);
  AddOutputOption(impact, context);
  impact->callback(run(Impact));

  CLI::App* retire =
      mount->add_subcommand("retire", "Give a mount up for good.");
  retire->footer(
      "--dry-run names the images on it and prints the --accept-lost that "
      "gives\n"
      "up exactly these; they are LOST then (predella image ls --lost). Where\n"
      "others lie there by then, it is refused. Files that the index does not\n"
      "name are counted as the last listing since the coordinator's start\n"
      "showed them, and have no row to be LOST: keep what --dry-run lists.\n"
      "Examples:\n"
      "  predella mount retire store-1 --dry-run\n"
      "  predella mount retire store-1 --accept-lost \\\n"
      "    12:4c9e0b6d1f0a3e57a8d2c41b9f6e7035 --yes");
  add_change(retire);
  retire->add_flag("--accept-unlisted", a->accept_unlisted,
                   "In RECOVERING, or UNCONFIRMED: also when nobody knows all "
                   "that is on it.");
  retire->callback(run(Retire));

  CLI::App* replace = mount->add_subcommand(
      "replace", "Give a mount's name to a new directory, the old one up.");
  replace->footer(
      "For a new disk in the place of a broken one: prepare it with predella\n"
      "mount init, start its agent (which is refused), then replace. What was\n"
      "on the old one is LOST.\n"
      "Examples:\n"
      "  predella mount replace store-1 --dry-run\n"
      "  predella mount replace store-1 --accept-lost \\\n"
      "    12:4c9e0b6d1f0a3e57a8d2c41b9f6e7035 --yes");
  add_change(replace);
  replace->add_option("--new-uid", a->new_uid,
                      "UUID on the new label; default: the directory whose "
                      "agent was refused last.");
  replace->callback(run(Replace));
}

}  // namespace predella::cli
