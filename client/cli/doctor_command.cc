#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "client/cli/context.h"
#include "client/cli/doctor.h"
#include "client/cli/endpoint.h"
#include "client/cli/local_mount.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

constexpr absl::Duration kLookTimeout = absl::Seconds(3);

absl::StatusOr<int> Doctor(bool write_test, const Context& context) {
  Findings found(context.out);
  const auto endpoint = FindEndpoint(context.endpoint, RealEnvironment,
                                     PointerFiles(RealEnvironment));
  if (!endpoint.ok()) {
    found.Fail(std::string(endpoint.status().message()),
               "predella serve --help");
    return found.Sum();
  }
  if (!CheckEndpoint(*endpoint, &found)) {
    return found.Sum();
  }
  ASSIGN_OR_RETURN(Client client, context.Connect());
  DoctorOptions options;
  options.reach = context.reach;
  char name[256] = {};
  options.host = gethostname(name, sizeof(name) - 1) == 0 ? name : "";
  options.look = [](const std::string& path) {
    return LookAtMount(path, kLookTimeout);
  };
  options.now = absl::Now();
  options.write_test = write_test;
  Diagnose(&client, options, &found);
  return found.Sum();
}

}  // namespace

void AddDoctorCommand(CLI::App* app, Context* context) {
  CLI::App* doctor = app->add_subcommand(
      "doctor",
      "Check what stands between this host and its images: the socket, the\n"
      "coordinator, versions, clock, mounts, agents, space.");
  doctor->footer(
      "Every line is OK, WARN or FAIL; exit code 6 when one of them is FAIL.\n"
      "Example:\n"
      "  predella doctor --write-test");
  const auto write_test = std::make_shared<bool>(false);
  doctor->add_flag("--write-test", *write_test,
                   "Also store, read back and delete an image of 1 MiB.");
  doctor->callback([context, write_test] {
    context->run = [context, write_test] {
      return Doctor(*write_test, *context);
    };
  });
}

}  // namespace predella::cli
