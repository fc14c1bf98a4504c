#include "common/config/config.h"

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

#include "common/errors.h"
#include "common/status_macros.h"
#include "common/units.h"
#include <CLI/CLI.hpp>
#include <yaml-cpp/yaml.h>

namespace predella {
namespace {

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   message);
}

std::string EnvironmentName(const std::string& option) {
  return absl::StrCat("PREDELLA_", absl::AsciiStrToUpper(absl::StrReplaceAll(
                                       option, {{"-", "_"}})));
}

// Exact, unlike FormatSize: what is printed is read again.
std::string ShowSize(int64_t bytes) {
  constexpr std::pair<int64_t, const char*> kUnits[] = {
      {kTiB, "TiB"}, {kGiB, "GiB"}, {kMiB, "MiB"}, {kKiB, "KiB"}};
  for (const auto& [factor, name] : kUnits) {
    if (bytes != 0 && bytes % factor == 0) {
      return absl::StrCat(bytes / factor, name);
    }
  }
  return absl::StrCat(bytes);
}

}  // namespace

struct Config::Option {
  std::string name;
  std::string help;
  bool list = false;
  bool flag = false;
  // One string but for lists.
  std::function<absl::Status(const std::vector<std::string>&)> set;
  std::function<std::vector<std::string>()> show;
  // Instead of what `show` says, where it is not the same everywhere.
  std::string default_text = {};

  std::string Default() const {
    return default_text.empty() ? absl::StrJoin(show(), ",") : default_text;
  }
};

struct Config::Impl {
  std::string program;
  std::string description;
  std::string default_file;
  std::vector<Option> options;

  void Add(Option option) { options.push_back(std::move(option)); }

  // Values by name of option, as one source gives them.
  using Values = std::map<std::string, std::vector<std::string>>;

  absl::StatusOr<Values> ReadFile(const std::string& path) const;
  absl::StatusOr<std::vector<std::string>> ReadNode(
      const std::string& path, const std::string& key,
      const YAML::Node& node) const;
  Values ReadEnvironment() const;
  absl::Status Apply(const Values& values, absl::string_view source) const;
  void PrintConfig(std::ostream* out) const;
  void PrintFlags(std::ostream* out) const;

  Option* Find(const std::string& name) {
    for (Option& option : options) {
      if (option.name == name) {
        return &option;
      }
    }
    return nullptr;
  }
  const Option* Find(const std::string& name) const {
    for (const Option& option : options) {
      if (option.name == name) {
        return &option;
      }
    }
    return nullptr;
  }
};

Config::Config(std::string program, std::string description,
               std::string default_file)
    : impl_(std::make_unique<Impl>()) {
  impl_->program = std::move(program);
  impl_->description = std::move(description);
  impl_->default_file = std::move(default_file);
}

Config::~Config() = default;

void Config::Add(const std::string& name, std::string* target,
                 const std::string& help) {
  impl_->Add({name, help, false, false,
              [target](const std::vector<std::string>& v) {
                *target = v[0];
                return absl::OkStatus();
              },
              [target] { return std::vector<std::string>{*target}; }});
}

void Config::Add(const std::string& name, bool* target,
                 const std::string& help) {
  impl_->Add({name, help, false, true,
              [target](const std::vector<std::string>& v) -> absl::Status {
                const bool on = absl::EqualsIgnoreCase(v[0], "on");
                if (on || absl::EqualsIgnoreCase(v[0], "off")) {
                  *target = on;  // as YAML has them
                } else if (!absl::SimpleAtob(v[0], target)) {
                  return absl::InvalidArgumentError(
                      absl::StrCat("\"", v[0], "\" is not true or false"));
                }
                return absl::OkStatus();
              },
              [target] {
                return std::vector<std::string>{*target ? "true" : "false"};
              }});
}

void Config::Add(const std::string& name, int* target,
                 const std::string& help) {
  impl_->Add(
      {name, help, false, false,
       [target](const std::vector<std::string>& v) -> absl::Status {
         if (!absl::SimpleAtoi(v[0], target)) {
           return absl::InvalidArgumentError(
               absl::StrCat("\"", v[0], "\" is not a whole number"));
         }
         return absl::OkStatus();
       },
       [target] { return std::vector<std::string>{absl::StrCat(*target)}; }});
}

void Config::Add(const std::string& name, double* target,
                 const std::string& help) {
  impl_->Add(
      {name, help, false, false,
       [target](const std::vector<std::string>& v) -> absl::Status {
         if (!absl::SimpleAtod(v[0], target)) {
           return absl::InvalidArgumentError(
               absl::StrCat("\"", v[0], "\" is not a number"));
         }
         return absl::OkStatus();
       },
       [target] { return std::vector<std::string>{absl::StrCat(*target)}; }});
}

void Config::Add(const std::string& name, std::vector<std::string>* target,
                 const std::string& help) {
  impl_->Add({name, help, true, false,
              [target](const std::vector<std::string>& v) {
                *target = v;
                return absl::OkStatus();
              },
              [target] { return *target; }});
}

void Config::AddSize(const std::string& name, int64_t* target,
                     const std::string& help) {
  impl_->Add(
      {name, help, false, false,
       [target](const std::vector<std::string>& v) -> absl::Status {
         ASSIGN_OR_RETURN(*target, ParseSize(v[0]));
         return absl::OkStatus();
       },
       [target] { return std::vector<std::string>{ShowSize(*target)}; }});
}

void Config::AddDuration(const std::string& name, absl::Duration* target,
                         const std::string& help) {
  impl_->Add({name, help, false, false,
              [target](const std::vector<std::string>& v) -> absl::Status {
                ASSIGN_OR_RETURN(*target, ParseDuration(v[0]));
                return absl::OkStatus();
              },
              [target] {
                return std::vector<std::string>{absl::FormatDuration(*target)};
              }});
}

void Config::DescribeDefault(const std::string& name, const std::string& text) {
  if (Option* option = impl_->Find(name); option != nullptr) {
    option->default_text = text;
  }
}

absl::StatusOr<std::vector<std::string>> Config::Impl::ReadNode(
    const std::string& path, const std::string& key,
    const YAML::Node& node) const {
  const std::string where = absl::StrCat(path, ":", node.Mark().line + 1);
  const Option* option = Find(key);
  if (option == nullptr) {
    return Invalid(absl::StrCat(
        where, ": unknown key \"", key, "\"; known are ",
        absl::StrJoin(options, ", ", [](std::string* out, const Option& o) {
          absl::StrAppend(out, o.name);
        })));
  }
  std::vector<std::string> values;
  if (node.IsSequence() && option->list) {
    for (const YAML::Node& item : node) {
      if (!item.IsScalar()) {
        return Invalid(
            absl::StrCat(where, ": ", key, " wants a list of plain values"));
      }
      values.push_back(item.Scalar());
    }
    return values;
  }
  if (!node.IsScalar()) {
    return Invalid(absl::StrCat(
        where, ": ", key,
        option->list ? " wants a value or a list" : " wants one plain value"));
  }
  values.push_back(node.Scalar());
  return values;
}

absl::StatusOr<Config::Impl::Values> Config::Impl::ReadFile(
    const std::string& path) const {
  Values out;
  // yaml-cpp throws; nothing of it leaves this function.
  try {
    const YAML::Node root = YAML::LoadFile(path);
    if (root.IsNull()) {
      return out;
    }
    if (!root.IsMap()) {
      return Invalid(
          absl::StrCat(path, ": expected lines of the form \"option: value\""));
    }
    for (const auto& entry : root) {
      const std::string key = entry.first.Scalar();
      if (out.count(key) > 0) {
        return Invalid(absl::StrCat(path, ":", entry.first.Mark().line + 1,
                                    ": \"", key, "\" is given twice"));
      }
      // The line of the key: an unknown one need not have a value.
      ASSIGN_OR_RETURN(out[key], ReadNode(path, key, entry.second));
    }
  } catch (const YAML::BadFile&) {
    return Invalid(
        absl::StrCat("the configuration file ", path, " cannot be read"));
  } catch (const YAML::Exception& error) {
    return Invalid(
        absl::StrCat(path, ":", error.mark.line + 1, ": ", error.msg));
  }
  return out;
}

Config::Impl::Values Config::Impl::ReadEnvironment() const {
  Values out;
  for (const Option& option : options) {
    const char* value = std::getenv(EnvironmentName(option.name).c_str());
    if (value == nullptr || *value == '\0') {
      continue;
    }
    if (option.list) {
      out[option.name] = absl::StrSplit(value, ',', absl::SkipWhitespace());
    } else {
      out[option.name] = {value};
    }
  }
  return out;
}

absl::Status Config::Impl::Apply(const Values& values,
                                 absl::string_view source) const {
  for (const auto& [name, strings] : values) {
    const Option* option = Find(name);
    if (option == nullptr) {
      continue;
    }
    if (absl::Status status = option->set(strings); !status.ok()) {
      return Invalid(
          absl::StrCat(name, " (from ", source, "): ", status.message()));
    }
  }
  return absl::OkStatus();
}

void Config::Impl::PrintConfig(std::ostream* out) const {
  for (const Option& option : options) {
    // An emitter each: yaml-cpp puts a comment behind the value before it.
    const std::vector<std::string> values = option.show();
    YAML::Emitter yaml;
    yaml << YAML::BeginMap << YAML::Key << option.name << YAML::Value;
    if (option.list) {
      yaml << YAML::Flow << values;
    } else if (values[0].empty()) {
      yaml << YAML::DoubleQuoted << "";
    } else {
      yaml << values[0];
    }
    yaml << YAML::EndMap;
    *out << "# " << option.help << "\n" << yaml.c_str() << "\n";
  }
}

// Defaults as built in: neither environment nor file is read.
void Config::Impl::PrintFlags(std::ostream* out) const {
  *out << "| flag | environment | default | meaning |\n"
          "|---|---|---|---|\n";
  for (const Option& option : options) {
    const std::string flag = option.flag   ? ""
                             : option.list ? " VALUE ..."
                                           : " VALUE";
    const std::string value = option.Default();
    const std::string help = absl::StrReplaceAll(option.help, {{"|", "\\|"}});
    *out << "| `--" << option.name << flag << "` | `"
         << EnvironmentName(option.name) << "` | "
         << (value.empty()                 ? ""
             : option.default_text.empty() ? absl::StrCat("`", value, "`")
                                           : value)
         << " | " << help << " |\n";
  }
}

absl::StatusOr<Config::Outcome> Config::Parse(int argc,
                                              const char* const* argv) {
  CLI::App app(impl_->description, impl_->program);
  app.set_version_flag("--version", impl_->program + " " PREDELLA_VERSION);
  app.footer(
      "Every option is also read from the environment (PREDELLA_ and its name "
      "in capitals) and from\nthe configuration file, under the same name; "
      "the command line wins, then the environment.");
  std::map<std::string, CLI::Option*> handles;
  // CLI11 wants somewhere to write; what counts is results().
  std::map<std::string, std::vector<std::string>> sink;
  for (const Option& option : impl_->options) {
    const std::string flag = "--" + option.name;
    CLI::Option* handle = nullptr;
    if (option.flag) {
      handle =
          app.add_flag(absl::StrCat(flag, ",!--no-", option.name), option.help);
    } else {
      handle = app.add_option(flag, sink[option.name], option.help);
      handle->expected(1)->type_name(option.list ? "VALUE ..." : "VALUE");
      handle->multi_option_policy(option.list ? CLI::MultiOptionPolicy::TakeAll
                                              : CLI::MultiOptionPolicy::Throw);
      handle->default_str(option.Default());
    }
    handles[option.name] = handle;
  }
  std::string file;
  bool print_config = false;
  bool print_flags = false;
  Outcome outcome;
  CLI::Option* config_option =
      app.add_option("--config", file,
                     impl_->default_file.empty()
                         ? std::string("Configuration file (YAML).")
                         : absl::StrCat("Configuration file (YAML); ",
                                        impl_->default_file, " if it exists."));
  app.add_flag("--print-config", print_config,
               "Print all options as a configuration file and exit.");
  app.add_flag("--print-flags", print_flags,
               "Print a table of all options in Markdown and exit.");
  app.add_flag("--check-config", outcome.check_only,
               "Check the configuration and exit.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {  // --help, --version
    outcome.run = false;
    outcome.exit_code = app.exit(done, std::cout, std::cerr);
    return outcome;
  } catch (const CLI::ParseError& error) {
    return Invalid(
        absl::StrCat(error.what(), " (see ", impl_->program, " --help)"));
  }

  if (print_flags) {
    impl_->PrintFlags(&std::cout);
    outcome.run = false;
    return outcome;
  }
  if (const char* env = std::getenv("PREDELLA_CONFIG");
      config_option->count() == 0 && env != nullptr && *env != '\0') {
    file = env;
  }
  std::error_code ignored;
  if (file.empty() && !impl_->default_file.empty() &&
      std::filesystem::exists(impl_->default_file, ignored)) {
    file = impl_->default_file;
  }
  if (!file.empty()) {
    ASSIGN_OR_RETURN(const Impl::Values values, impl_->ReadFile(file));
    RETURN_IF_ERROR(impl_->Apply(values, file));
  }
  RETURN_IF_ERROR(impl_->Apply(impl_->ReadEnvironment(), "the environment"));
  Impl::Values given;
  for (const auto& [name, handle] : handles) {
    if (handle->count() > 0) {
      given[name] = handle->results();
      if (impl_->Find(name)->flag) {
        given[name] = {handle->results().back()};
      }
    }
  }
  RETURN_IF_ERROR(impl_->Apply(given, "the command line"));
  if (print_config) {
    impl_->PrintConfig(&std::cout);
    outcome.run = false;
  }
  return outcome;
}

}  // namespace predella
