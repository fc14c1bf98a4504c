#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/image_json.h"
#include "client/cli/output.h"
#include "client/cli/transfer.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::cli {
namespace {

struct ImageArguments {
  std::string id;  // of the commands that need one
  std::optional<std::string> chosen_id;
  std::vector<std::string> ids;
  std::string generation;
  std::string file;
  std::optional<std::string> size;
  std::string offset = "0";
  std::string length = "0";
  std::string mount;
  int page_size = 1000;  // as few calls as can be
  bool degraded = false;
  bool lost = false;
  bool dry_run = false;
  bool yes = false;
};

constexpr int kRowsAtOnce = 1000;

absl::StatusOr<int> Put(const ImageArguments& a, const Context& context) {
  PutOptions put;
  put.file = a.file;
  if (a.size.has_value()) {
    ASSIGN_OR_RETURN(put.size_bytes, ParseSize(*a.size));
  }
  if (a.chosen_id.has_value()) {
    RETURN_IF_ERROR(Annotate(ParseImageName(*a.chosen_id).status(), "--id"));
  }
  put.image = a.chosen_id.value_or(RandomIds()->NextUuid().ToString());
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Image image, PutImage(&client, put, context));
  *context.err << "stored " << FormatSize(image.size_bytes()) << " on "
               << (image.copies().empty() ? "its mount"
                                          : Bare(image.copies(0).mount()))
               << "; predella image explain " << Bare(image.name())
               << " says why there\n";
  *context.out << Bare(image.name()) << "\n";
  return kExitDone;
}

absl::StatusOr<int> Get(const ImageArguments& a, const Context& context) {
  GetOptions get;
  get.read.image = a.id;
  ASSIGN_OR_RETURN(get.read.offset, ParseSize(a.offset));
  ASSIGN_OR_RETURN(get.read.length, ParseSize(a.length));
  if (a.file.empty() && context.terminal) {
    return absl::InvalidArgumentError(
        "standard output is a terminal: name a file with -o FILE, or say -o - "
        "if you mean it");
  }
  get.file = a.file.empty() ? "-" : a.file;
  ASSIGN_OR_RETURN(Client client, context.Connect());
  RETURN_IF_ERROR(GetImageBytes(&client, get, context));
  return kExitDone;
}

absl::StatusOr<int> List(const ImageArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ImageList list = client.ListImages(a.mount, a.page_size,
                                     a.degraded ? v1::IMAGE_HEALTH_DEGRADED
                                     : a.lost   ? v1::IMAGE_HEALTH_LOST
                                                : v1::IMAGE_HEALTH_UNSPECIFIED);
  const bool json = context.format() == Format::kJson;
  ImageTable table(context.format() == Format::kWide, absl::Now(), context.out);
  ImageJson text(context.out);
  v1::ListImagesResponse some;
  while (true) {
    ASSIGN_OR_RETURN(std::optional<v1::Image> image, list.Next());
    if (!image.has_value()) {
      break;
    }
    *some.add_images() = *std::move(image);
    // What is there is shown: a list of a million begins at once.
    if (some.images_size() == kRowsAtOnce) {
      if (json) {
        RETURN_IF_ERROR(text.Print(some));
      } else {
        table.Print(some);
      }
      some.clear_images();
    }
  }
  if (json) {
    RETURN_IF_ERROR(text.Print(some));
    some.clear_images();
  }
  for (const std::string& name : list.unreachable()) {
    some.add_unreachable(name);
  }
  if (json) {
    RETURN_IF_ERROR(text.Finish(some));
  } else {
    table.Print(some);
  }
  return kExitDone;
}

absl::StatusOr<int> Stat(const ImageArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Image image, client.GetImage(a.id));
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(image, context.out));
  } else {
    PrintImage(image, context.out);
  }
  return kExitDone;
}

absl::StatusOr<int> Explain(const ImageArguments& a, const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::Image image, client.GetImage(a.id));
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(image.placement(), context.out));
  } else {
    *context.out << Bare(image.name()) << " was placed "
                 << Moment(image.placement().decide_time()) << "\n";
    PrintDecision(image.placement(), context.format() == Format::kWide,
                  context.out);
  }
  return kExitDone;
}

absl::StatusOr<int> Choose(const ImageArguments& a, const Context& context) {
  if (!a.yes && !a.dry_run) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the other generations are removed for good: look at predella image "
        "stat ",
        a.id, " first, then say --yes"));
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  absl::StatusOr<v1::Image> chosen =
      client.ChooseImage(a.id, a.generation, a.dry_run);
  if (HasReason(chosen.status(), reason::kCommitConflict)) {
    *context.err << "what is kept is read whole first\n";
  }
  // Each call waits for some seconds by itself. Whoever asks late is told to
  // have it read again.
  while (HasReason(chosen.status(), reason::kCommitConflict)) {
    chosen = client.ChooseImage(a.id, a.generation, a.dry_run);
  }
  ASSIGN_OR_RETURN(const v1::Image image, std::move(chosen));
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(image, context.out));
  } else {
    PrintImage(image, context.out);
  }
  return kExitDone;
}

absl::Status RemoveOne(const std::string& id, bool dry_run, Client* client,
                       const Context& context) {
  if (!dry_run) {
    RETURN_IF_ERROR(client->DeleteImage(id));
    *context.out << "deleted " << Bare(id) << "\n";
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const v1::Image image, client->GetImage(id));
  std::string mounts;
  for (const v1::Copy& copy : image.copies()) {
    absl::StrAppend(&mounts, mounts.empty() ? "" : ",", Bare(copy.mount()));
  }
  *context.out << "would delete " << Bare(image.name()) << " ("
               << FormatSize(image.size_bytes()) << " on " << mounts << ")\n";
  return absl::OkStatus();
}

// A wrong id is an error before anything is deleted; after that it goes on
// after an error, so that one missing image does not keep the rest.
absl::StatusOr<int> Remove(const ImageArguments& a, const Context& context) {
  for (const std::string& id : a.ids) {
    RETURN_IF_ERROR(ParseImageName(id).status());
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  absl::Status first_error;
  for (const std::string& id : a.ids) {
    const absl::Status status = RemoveOne(id, a.dry_run, &client, context);
    if (!status.ok()) {
      PrintError(status, "predella image rm", context.err);
      first_error.Update(status);
    }
  }
  return ExitCodeOf(first_error);
}

}  // namespace

void AddImageCommands(CLI::App* app, Context* context) {
  CLI::App* image = app->add_subcommand("image", "Store and read images.");
  image->require_subcommand(1);
  // Lives as long as the callbacks that share it.
  const auto a = std::make_shared<ImageArguments>();
  const auto run = [context, a](absl::StatusOr<int> (*f)(const ImageArguments&,
                                                         const Context&)) {
    return [context, a, f] {
      context->run = [context, a, f] { return f(*a, *context); };
    };
  };

  CLI::App* put = image->add_subcommand(
      "put",
      "Store a file as an image; the last line of standard output is its id.");
  put->footer(
      "The image is there as a whole when this ends with 0, and not at all\n"
      "otherwise. Ctrl-C gives it up.\n"
      "Examples:\n"
      "  predella image put disk.qcow2\n"
      "  qemu-img convert -O raw disk.qcow2 /dev/stdout | predella image put "
      "-");
  put->add_option("FILE", a->file, "File to store, - for standard input.")
      ->required();
  put->add_option("--id", a->chosen_id,
                  "UUID of the image; default: a random one.");
  put->add_option("--size", a->size,
                  "Size, where the input is a pipe and it is known.");
  put->callback(run(Put));

  CLI::App* get = image->add_subcommand(
      "get", "Read an image, or a part of it; every byte is checked.");
  get->footer(
      "FILE takes its name when all bytes are there; a device or a fifo is\n"
      "written straight to.\n"
      "Examples:\n"
      "  predella image get ID -o disk.qcow2\n"
      "  predella image get ID --length 64KiB | file -");
  get->add_option("ID", a->id, "UUID of the image.")->required();
  get->add_option("-o,--output-file", a->file,
                  "File to write; default: standard output.");
  get->add_option("--offset", a->offset, "First byte (4096, 1MiB).");
  get->add_option("--length", a->length, "Bytes to read; 0: to the end.");
  get->add_option("--local-reads", context->local_reads,
                  "auto: through the open file, where an agent on this host "
                  "gives it; never: always through the agent.")
      ->check(CLI::IsMember({"auto", "never"}))
      ->capture_default_str();
  get->callback(run(Get));

  CLI::App* ls = image->add_subcommand("ls", "List images by their ids.");
  ls->footer(
      "DEGRADED: a copy is on a mount that cannot be read, or is missing or\n"
      "damaged. LOST: its last mount was retired. -o wide says why.\n"
      "Examples:\n"
      "  predella image ls --mount store-1 -o wide\n"
      "  predella image ls --degraded -o json | jq -r '.images[].name'");
  ls->add_option("--mount", a->mount, "Only images with a copy there.");
  CLI::Option* const degraded =
      ls->add_flag("--degraded", a->degraded, "Only DEGRADED images.");
  ls->add_flag("--lost", a->lost, "Only LOST images.")->excludes(degraded);
  ls->add_option("--page-size", a->page_size, "Images fetched at a time.")
      ->check(CLI::Range(1, 1000));
  AddOutputOption(ls, context);
  ls->callback(run(List));

  CLI::App* stat = image->add_subcommand(
      "stat", "Show one image: size, checksum, copies and their health.");
  stat->footer(
      "Example:\n"
      "  predella image stat ID -o json | jq -r .crc32cHex");
  stat->add_option("ID", a->id, "UUID of the image.")->required();
  AddOutputOption(stat, context);
  stat->callback(run(Stat));

  CLI::App* rm = image->add_subcommand(
      "rm", "Delete images for good; goes on after one that is missing.");
  rm->footer(
      "The exit code is that of the first error.\n"
      "Example:\n"
      "  predella image rm --dry-run ID ID");
  rm->add_option("ID", a->ids, "UUIDs of the images.")->required();
  rm->add_flag("--dry-run", a->dry_run, "Only say what would be deleted.");
  rm->callback(run(Remove));

  CLI::App* choose = image->add_subcommand(
      "choose", "Keep one of several generations of an image.");
  choose->footer(
      "After an index was put back from an older copy two images may lie "
      "under\n"
      "one id: both are kept until one is chosen (cluster status names them).\n"
      "Example:\n"
      "  predella image stat ID\n"
      "  predella image choose ID GENERATION --yes");
  choose->add_option("ID", a->id, "UUID of the image.")->required();
  choose
      ->add_option("GENERATION", a->generation,
                   "The one to keep, as image stat shows it.")
      ->required();
  choose->add_flag("--yes", a->yes, "Do it.");
  choose->add_flag("--dry-run", a->dry_run, "Only check that it can be done.");
  AddOutputOption(choose, context);
  choose->callback(run(Choose));

  CLI::App* explain = image->add_subcommand(
      "explain", "Say why an image lies where it lies, as decided then.");
  explain->footer(
      "Example:\n"
      "  predella image explain ID -o wide");
  explain->add_option("ID", a->id, "UUID of the image.")->required();
  AddOutputOption(explain, context);
  explain->callback(run(Explain));
}

}  // namespace predella::cli
