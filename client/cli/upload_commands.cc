#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/time/clock.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

absl::StatusOr<int> List(const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ASSIGN_OR_RETURN(const v1::ListUploadsResponse uploads, client.ListUploads());
  if (context.format() == Format::kJson) {
    RETURN_IF_ERROR(PrintJson(uploads, context.out));
  } else {
    PrintUploads(uploads, context.format() == Format::kWide, absl::Now(),
                 context.out);
  }
  return kExitDone;
}

absl::StatusOr<int> Abort(const std::vector<std::string>& ids,
                          const Context& context) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  int code = kExitDone;
  for (const std::string& id : ids) {
    const absl::Status status = client.AbortUpload(id).status();
    if (!status.ok()) {
      PrintError(status, "predella upload abort", context.err);
      code = code == kExitDone ? ExitCodeOf(status) : code;
    }
  }
  return code;
}

}  // namespace

void AddUploadCommands(CLI::App* app, Context* context) {
  CLI::App* upload = app->add_subcommand("upload", "See and end open uploads.");
  upload->require_subcommand(1);

  CLI::App* ls = upload->add_subcommand(
      "ls", "List open uploads: what they hold, and who was heard last when.");
  ls->footer(
      "QUIET is for how long neither its client nor its agent was heard of\n"
      "it; one that stays quiet has lost its client.\n"
      "Example:\n"
      "  predella upload ls -o wide");
  AddOutputOption(ls, context);
  ls->callback(
      [context] { context->run = [context] { return List(*context); }; });

  const auto ids = std::make_shared<std::vector<std::string>>();
  CLI::App* abort = upload->add_subcommand(
      "abort",
      "End uploads, mostly of clients that are gone: gives their space back.");
  abort->footer(
      "A client that is there after all hears UPLOAD_ABORTED.\n"
      "Example:\n"
      "  predella upload abort ID");
  abort->add_option("ID", *ids, "UUIDs of the uploads.")->required();
  abort->callback([context, ids] {
    context->run = [context, ids] { return Abort(*ids, *context); };
  });
}

}  // namespace predella::cli
