#include "client/cli/glance_command.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace predella::cli {
namespace {

constexpr char kTool[] = "predella-glance";

void AddPassedOn(CLI::App* app, Context* context, const std::string& name,
                 const std::string& help, std::vector<std::string> first) {
  CLI::App* const command = app->add_subcommand(name, help);
  // Also --help: the other program has it.
  command->set_help_flag();
  command->prefix_command();
  command->fallthrough(false);
  command->callback([command, context, first = std::move(first)] {
    std::vector<std::string> arguments = first;
    for (const std::string& one : command->remaining()) {
      arguments.push_back(one);
    }
    context->run = [arguments, context]() -> absl::StatusOr<int> {
      return BecomeGlanceTool(arguments, *context);
    };
  });
}

}  // namespace

absl::Status BecomeGlanceTool(const std::vector<std::string>& arguments,
                              const Context& context) {
  std::error_code error;
  const std::filesystem::path self =
      std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    setenv("PREDELLA_PROGRAM", self.c_str(), /*overwrite=*/1);
  }
  if (!context.endpoint.empty()) {
    setenv("PREDELLA_ENDPOINT", context.endpoint.c_str(), /*overwrite=*/1);
  }
  std::vector<std::string> all = {SiblingBinary(kTool)};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& one : all) {
    argv.push_back(one.data());
  }
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  return absl::NotFoundError(absl::StrCat(
      "cannot run ", kTool, ": ", std::strerror(errno),
      "; it comes with the Python package of the Glance driver, which has to "
      "be installed on this host: docs/glance.md"));
}

void AddGlanceCommands(CLI::App* app, Context* context) {
  AddPassedOn(app, context, "adopt",
              "Take in, in place, what Glance's filesystem store wrote.",
              {"adopt"});
  AddPassedOn(app, context, "glance",
              "Location rows, leaks, exports of Glance: predella glance "
              "--help.",
              {});
}

}  // namespace predella::cli
