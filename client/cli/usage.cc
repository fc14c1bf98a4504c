#include "client/cli/usage.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace predella::cli {
namespace {

const CLI::App& Deepest(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands()[0];
  }
  return *at;
}

}  // namespace

std::string CommandPath(const CLI::App& app) {
  std::string path = app.get_name();
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands()[0];
    absl::StrAppend(&path, " ", at->get_name());
  }
  return path;
}

std::string DescribeUsageError(const CLI::App& app,
                               const CLI::ParseError& error) {
  const std::string path = CommandPath(app);
  const std::vector<std::string> extra = app.remaining(/*recurse=*/true);
  std::vector<std::string> names;
  for (const CLI::App* command : Deepest(app).get_subcommands({})) {
    names.push_back(command->get_name());
  }
  if (!names.empty() && !extra.empty()) {
    return absl::StrCat("\"", extra[0], "\" is not a command of ", path,
                        ": there are ", absl::StrJoin(names, ", "));
  }
  if (!names.empty() && error.get_name() == "RequiredError") {
    return absl::StrCat(path, " wants a command: ", absl::StrJoin(names, ", "));
  }
  if (!extra.empty()) {
    return absl::StrCat(path, " does not take \"", absl::StrJoin(extra, " "),
                        "\"");
  }
  return absl::StrCat(path, ": ", error.what());
}

}  // namespace predella::cli
