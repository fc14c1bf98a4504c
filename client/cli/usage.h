// Sentences about command lines that do not parse.
#ifndef PREDELLA_CLIENT_CLI_USAGE_H_
#define PREDELLA_CLIENT_CLI_USAGE_H_

#include <string>

#include <CLI/CLI.hpp>

namespace predella::cli {

// The command as far as it was understood: "predella image put".
std::string CommandPath(const CLI::App& app);

// What is wrong, by the state of `app` after the parser threw `error`.
std::string DescribeUsageError(const CLI::App& app,
                               const CLI::ParseError& error);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_USAGE_H_
