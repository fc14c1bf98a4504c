// What every command is given.
#ifndef PREDELLA_CLIENT_CLI_CONTEXT_H_
#define PREDELLA_CLIENT_CLI_CONTEXT_H_

#include <functional>
#include <iosfwd>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "predella/client.h"
#include <CLI/CLI.hpp>

namespace predella::cli {

// Whether anybody answers under an address.
using Reach = std::function<absl::Status(const std::string& address)>;

enum class Format { kTable, kWide, kJson };

struct Context {
  // --endpoint; empty: environment, then the pointer file.
  std::string endpoint;
  std::string output = "table";
  // auto or never, as ClientOptions::local_reads.
  std::string local_reads = "auto";

  std::ostream* out = nullptr;
  std::ostream* err = nullptr;
  // Whether a bar may be drawn on `err`.
  bool progress = false;
  // Whether standard output is a terminal: images do not belong there.
  bool terminal = false;

  std::function<absl::StatusOr<Client>(const Context&)> connect;
  Reach reach;

  // Set by the command that was chosen; its result is the exit code.
  std::function<absl::StatusOr<int>()> run;

  Format format() const {
    return output == "json"   ? Format::kJson
           : output == "wide" ? Format::kWide
                              : Format::kTable;
  }
  absl::StatusOr<Client> Connect() const { return connect(*this); }
};

// Each adds the commands of one noun to `app`; `context` must outlive it.
void AddImageCommands(CLI::App* app, Context* context);
void AddUploadCommands(CLI::App* app, Context* context);
void AddMountCommands(CLI::App* app, Context* context);
// Of the noun `mount`: what is lost with mounts.
void AddMountLossCommands(CLI::App* mount, Context* context);
void AddEventCommands(CLI::App* app, Context* context);
// `mount scrub`, to the noun's command.
void AddMountScrubCommand(CLI::App* mount, Context* context);
// `mount collect-garbage`, likewise.
void AddMountGarbageCommand(CLI::App* mount, Context* context);
void AddOrphanCommands(CLI::App* app, Context* context);
void AddClusterCommands(CLI::App* app, Context* context);
void AddIndexCommands(CLI::App* app, Context* context);
// `index check`, to the noun's command.
void AddIndexCheckCommand(CLI::App* index, Context* context);
void AddDoctorCommand(CLI::App* app, Context* context);
// `adopt` and `glance`, which the Python package of the Glance driver runs.
void AddGlanceCommands(CLI::App* app, Context* context);
void AddMiscCommands(CLI::App* app, Context* context);

// Adds -o table|wide|json.
void AddOutputOption(CLI::App* command, Context* context);

// The whole program but for `serve`: parses, runs, prints errors, returns the
// exit code.
int RunCli(int argc, const char* const* argv, Context* context);

// Connects to --endpoint, or what the environment or the pointer file names.
absl::StatusOr<Client> ConnectByEndpoint(const Context& context);

// Path of a binary of ours that stands beside this
// one; else the bare name, to be found in PATH.
std::string SiblingBinary(const std::string& name);

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_CONTEXT_H_
