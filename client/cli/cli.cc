#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"

#include "client/cli/context.h"
#include "client/cli/endpoint.h"
#include "client/cli/exit_code.h"
#include "client/cli/progress.h"
#include "client/cli/usage.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

constexpr char kFooter[] =
    "Exit codes: 0 done, 1 failed, 2 used wrongly, 3 not found, 4 not\n"
    "reachable or not now, 5 in conflict with what there is, 6 not healthy,\n"
    "130 interrupted.\n"
    "Examples:\n"
    "  predella image put disk.qcow2\n"
    "  predella image ls -o json | jq -r '.images[].name'\n"
    "  predella doctor";

// What gRPC says of a dead socket names no coordinator and no way out.
absl::Status NameEndpoint(const absl::Status& status, const Context& context) {
  if ((!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) ||
      !ReasonOf(status).empty()) {
    return status;
  }
  const auto endpoint = FindEndpoint(context.endpoint, RealEnvironment,
                                     PointerFiles(RealEnvironment));
  return endpoint.ok()
             ? Annotate(status, absl::StrCat("the coordinator at ", *endpoint,
                                             " does not answer"))
             : status;
}

bool ReaderIsGone() {
  pollfd out = {STDOUT_FILENO, 0, 0};
  return poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

// Data that never arrived is not success: `predella image ls > full-disk`.
int Flushed(int code, const Context& context) {
  errno = 0;
  context.out->flush();
  if (context.out->good()) {
    return code;
  }
  if (ReaderIsGone()) {
    return kExitBrokenPipe;  // `predella image ls | head`: nothing went wrong
  }
  *context.err << "error: standard output could not be written"
               << (errno != 0 ? absl::StrCat(": ", std::strerror(errno)) : "")
               << "\n";
  return code == kExitDone ? kExitFailed : code;
}

}  // namespace

absl::StatusOr<Client> ConnectByEndpoint(const Context& context) {
  ClientOptions options;
  ASSIGN_OR_RETURN(options.endpoint,
                   FindEndpoint(context.endpoint, RealEnvironment,
                                PointerFiles(RealEnvironment)));
  if (context.local_reads == "never") {
    options.local_reads = ClientOptions::LocalReads::kNever;
  }
  // One for all copies of the options: what was said is said.
  options.on_waiting =
      [notice = std::make_shared<WaitingNotice>(context.err, context.progress)](
          const absl::Status& why, absl::Duration waited) {
        (*notice)(why, waited);
      };
  return Client::Connect(options);
}

void AddOutputOption(CLI::App* command, Context* context) {
  command->add_option("-o,--output", context->output, "table, wide or json.")
      ->check(CLI::IsMember({"table", "wide", "json"}));
}

int RunCli(int argc, const char* const* argv, Context* context) {
  CLI::App app("Images over many mounted directories.", "predella");
  app.require_subcommand(1);
  app.set_version_flag("--version", "predella " PREDELLA_VERSION);
  app.add_option("--endpoint", context->endpoint,
                 "Coordinator, unix:/path or HOST:PORT; else "
                 "PREDELLA_ENDPOINT, else that of predella serve.");
  app.footer(kFooter);
  // --endpoint may also stand behind the command.
  app.fallthrough();
  AddImageCommands(&app, context);
  AddUploadCommands(&app, context);
  AddMountCommands(&app, context);
  AddOrphanCommands(&app, context);
  AddClusterCommands(&app, context);
  AddEventCommands(&app, context);
  AddIndexCommands(&app, context);
  AddDoctorCommand(&app, context);
  AddGlanceCommands(&app, context);
  AddMiscCommands(&app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {  // --help, --version
    return Flushed(app.exit(done, *context->out, *context->err), *context);
  } catch (const CLI::ParseError& error) {
    *context->err << "error: " << DescribeUsageError(app, error) << "\n"
                  << "hint: " << CommandPath(app)
                  << " --help shows what it takes\n";
    return kExitUsage;
  }
  absl::StatusOr<int> result = context->run();
  if (!result.ok()) {
    const absl::Status status = NameEndpoint(result.status(), *context);
    PrintError(status, CommandPath(app), context->err);
    return Flushed(ExitCodeOf(status), *context);
  }
  return Flushed(*result, *context);
}

}  // namespace predella::cli
