#include <iterator>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "client/cli/plain_file.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

struct OrphanArguments {
  std::string mount;
  std::string image;
  std::string generation;
  std::string file;
  std::optional<int64_t> size;
  std::vector<std::string> hashes;
  bool dry_run = false;
  bool yes = false;
};

absl::StatusOr<int> List(const OrphanArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::ListOrphansResponse orphans,
                   client.ListOrphans(a.mount));
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(orphans, context.out));
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

// What Glance keeps of every image.
constexpr absl::string_view kGlanceHashes[] = {"md5", "sha512"};
constexpr absl::Duration kAdoptPoll = absl::Seconds(1);

absl::Status NotAsExpected(const OrphanArguments& a, absl::string_view what,
                           absl::string_view is, absl::string_view expected) {
  return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                   absl::StrCat(a.file, " has ", what, " ", is, ", and not ",
                                expected, ": it is not taken in"));
}

// The file, read, when it is what --size and --hash expect.
absl::StatusOr<v1::PlainFile> ReadExpected(const OrphanArguments& a) {
  std::vector<v1::Hash> expected;
  std::vector<std::string> algorithms(std::begin(kGlanceHashes),
                                      std::end(kGlanceHashes));
  for (const std::string& text : a.hashes) {
    ASSIGN_OR_RETURN(const v1::Hash hash, ParseHash(text));
    expected.push_back(hash);
    if (!absl::c_linear_search(algorithms, hash.algorithm())) {
      algorithms.push_back(hash.algorithm());
    }
  }
  ASSIGN_OR_RETURN(const v1::PlainFile plain,
                   ReadPlainFile(a.file, algorithms));
  if (a.size.has_value() && plain.size_bytes() != *a.size) {
    return NotAsExpected(a, "size", absl::StrCat(plain.size_bytes()),
                         absl::StrCat(*a.size));
  }
  for (const v1::Hash& wanted : expected) {
    for (const v1::Hash& hash : plain.hashes()) {
      if (hash.algorithm() == wanted.algorithm() &&
          hash.hex() != wanted.hex()) {
        return NotAsExpected(a, hash.algorithm(), hash.hex(), wanted.hex());
      }
    }
  }
  return plain;
}

// Asks until the agent has read the file.
absl::StatusOr<v1::Orphan> AdoptRead(Client* client, const OrphanArguments& a) {
  ASSIGN_OR_RETURN(const v1::PlainFile plain, ReadExpected(a));
  while (true) {
    absl::StatusOr<v1::Orphan> orphan =
        client->AdoptOrphan(a.mount, a.image, a.dry_run, &plain);
    if (HasReason(orphan.status(), reason::kGenerationMismatch)) {
      // An earlier try came as far as its record.
      return client->AdoptOrphan(a.mount, a.image, a.dry_run);
    }
    if (!HasReason(orphan.status(), reason::kCommitConflict)) {
      return orphan;
    }
    absl::SleepFor(kAdoptPoll);
  }
}

absl::StatusOr<int> Adopt(const OrphanArguments& a, const Context& context) {
  if (a.file.empty() && (a.size.has_value() || !a.hashes.empty())) {
    return absl::InvalidArgumentError(
        "--size and --hash are compared with what --read FILE finds");
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Orphan orphan,
                   a.file.empty()
                       ? client.AdoptOrphan(a.mount, a.image, a.dry_run)
                       : AdoptRead(&client, a));
  *context.out << (a.dry_run ? "would be " : "") << Bare(orphan.mount()) << "/"
               << Bare(orphan.image())
               << ": "
               // Of what was an image before.
               << (orphan.detail().empty() ? "made an image"
                                           : Shown(orphan.detail()))
               << ", generation " << orphan.generation() << "\n";
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
      "adopt", "Make an image of one, with its record or by what it holds.");
  adopt->footer(
      "Refused when the index has another image of that id, or a copy of it\n"
      "there that can be read. A file without a record\n"
      "is read twice: here, and by its agent, which makes it an image when "
      "both\n"
      "found the same. One that the index names here, and whose record is\n"
      "lost, gets it back in the same way; damaged bytes are refused.\n"
      "Examples:\n"
      "  predella orphan adopt store-1 ID\n"
      "  predella orphan adopt store-1 ID --read /var/glance/store-1/ID");
  add_file(adopt);
  adopt->add_option("--read", a->file,
                    "It has no record: this is the file, as seen here.");
  adopt->add_option("--size", a->size, "Only when it has so many bytes.");
  adopt->add_option("--hash", a->hashes,
                    "ALGORITHM:HEX; only when it has this hash.");
  adopt->callback(run(Adopt));
}

}  // namespace predella::cli
