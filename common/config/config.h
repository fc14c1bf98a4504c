// Options of a daemon from flags, environment and a YAML file, under the same
// names: flag > environment (PREDELLA_ + flag in capitals, dashes as
// underscores) > file > default. An unknown key in the file is an error that
// names it and the line.
//
//   Config config("predella-agent", "Serves one mount.");
//   config.Add("path", &options.path, "Directory to serve.");
//   config.Add("file-mode", &options.file_mode, "...");
//   switch (config.Parse(argc, argv)) { ... }
#ifndef PREDELLA_COMMON_CONFIG_CONFIG_H_
#define PREDELLA_COMMON_CONFIG_CONFIG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace predella {

class Config {
 public:
  // `default_file` is read when it exists and no --config names another
  // ("/etc/predella/agent.yaml"); empty: none.
  Config(std::string program, std::string description,
         std::string default_file);
  ~Config();

  // The value present in `target` is the default that help shows. `target`
  // must outlive Parse.
  void Add(const std::string& name, std::string* target,
           const std::string& help);
  void Add(const std::string& name, bool* target, const std::string& help);
  void Add(const std::string& name, int* target, const std::string& help);
  void Add(const std::string& name, double* target, const std::string& help);
  // Repeatable on the command line, comma-separated in the environment, a
  // list in the file.
  void Add(const std::string& name, std::vector<std::string>* target,
           const std::string& help);
  // "64MiB".
  void AddSize(const std::string& name, int64_t* target,
               const std::string& help);
  // "15s".
  void AddDuration(const std::string& name, absl::Duration* target,
                   const std::string& help);

  // What --help and --print-flags show as the default of an option whose value
  // depends on who asks, instead of the value.
  void DescribeDefault(const std::string& name, const std::string& text);

  struct Outcome {
    // Go on; or stop with this exit code, output already printed (help,
    // --version, --print-config, --print-flags).
    bool run = true;
    int exit_code = 0;
    // --check-config was given: validate further, then exit 0.
    bool check_only = false;
  };
  // Also handles --help, --version, --config FILE, --print-config (YAML of
  // all options, readable as a configuration file), --print-flags (their
  // table in Markdown, for docs/flags.md) and --check-config.
  // INVALID_ARGUMENT says where the value came from and what is wrong.
  absl::StatusOr<Outcome> Parse(int argc, const char* const* argv);

 private:
  struct Option;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace predella

#endif  // PREDELLA_COMMON_CONFIG_CONFIG_H_
