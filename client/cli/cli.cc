#include <memory>
#include <ostream>
#include <string>

#include "client/cli/context.h"
#include "client/cli/endpoint.h"
#include "client/cli/exit_code.h"
#include "common/status_macros.h"

namespace predella::cli {

absl::StatusOr<Client> ConnectByEndpoint(const Context& context) {
  ClientOptions options;
  ASSIGN_OR_RETURN(options.endpoint,
                   FindEndpoint(context.endpoint, RealEnvironment,
                                PointerFiles(RealEnvironment)));
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
  // --endpoint may also stand behind the command.
  app.fallthrough();
  AddImageCommands(&app, context);
  AddMountCommands(&app, context);
  AddClusterCommands(&app, context);
  AddDoctorCommand(&app, context);
  AddMiscCommands(&app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {  // --help, --version
    return app.exit(done, *context->out, *context->err);
  } catch (const CLI::ParseError& error) {
    *context->err << "error: " << error.what() << "\n"
                  << "hint: predella --help, or --help after a command, shows "
                     "what it takes\n";
    return kExitUsage;
  }
  if (!context->run) {
    *context->err << "error: give a command\n";
    return kExitUsage;
  }
  const absl::StatusOr<int> result = context->run();
  if (!result.ok()) {
    PrintError(result.status(), context->err);
    return ExitCodeOf(result.status());
  }
  return *result;
}

}  // namespace predella::cli
