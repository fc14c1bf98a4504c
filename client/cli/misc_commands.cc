#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"

namespace predella::cli {
namespace {

// Words of `app`'s commands, for the shell: "image put get ..." a line.
std::string CommandWords(const CLI::App* app) {
  std::string words;
  for (const CLI::App* command : app->get_subcommands({})) {
    absl::StrAppend(&words, words.empty() ? "" : " ", command->get_name());
  }
  return words;
}

std::string OptionWords(const CLI::App* command) {
  std::string words;
  for (const CLI::Option* option : command->get_options()) {
    for (const std::string& name : option->get_lnames()) {
      absl::StrAppend(&words, words.empty() ? "" : " ", "--", name);
    }
  }
  return words;
}

constexpr char kServeWords[] =
    "      serve) words=\"$(\"${COMP_WORDS[0]}\" serve --print-flags "
    "2>/dev/null | sed -n 's/^| `\\(--[a-z-]*\\).*/\\1/p')\" ;;\n";

// Made from the parser itself, so that it cannot be out of date.
void PrintCompletion(const CLI::App* app, std::ostream* out) {
  *out << "# bash completion of predella; load it with\n"
          "#   source <(predella completion bash)\n"
          "_predella() {\n"
          "  local cur=\"${COMP_WORDS[COMP_CWORD]}\" words=\"\"\n"
          "  case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n";
  for (const CLI::App* noun : app->get_subcommands({})) {
    for (const CLI::App* verb : noun->get_subcommands({})) {
      *out << "    \"" << noun->get_name() << " " << verb->get_name()
           << "\") words=\"" << OptionWords(verb) << "\" ;;\n";
    }
  }
  *out << "    *) case \"${COMP_WORDS[1]}\" in\n";
  for (const CLI::App* noun : app->get_subcommands({})) {
    if (noun->get_name() == "serve") {
      // It has a parser of its own, which is asked for its options.
      *out << kServeWords;
      continue;
    }
    const std::string verbs = CommandWords(noun);
    *out << "      " << noun->get_name() << ") words=\""
         << (verbs.empty() ? OptionWords(noun) : verbs) << "\" ;;\n";
  }
  *out << "    esac ;;\n"
          "  esac\n"
          "  if [ \"$COMP_CWORD\" -eq 1 ]; then words=\""
       << CommandWords(app)
       << "\"; fi\n"
          "  case \"${COMP_WORDS[COMP_CWORD-1]} ${COMP_WORDS[2]}\" in\n"
          "    \"-o get\") words=\"\" ;;\n"
          "    \"-o \"*|\"--output \"*) words=\"table wide json\" ;;\n"
          "  esac\n"
          "  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
          "  if [ -z \"$words\" ] || [ \"${#COMPREPLY[@]}\" -eq 0 ]; then\n"
          "    COMPREPLY+=($(compgen -f -- \"$cur\"))\n"
          "  fi\n"
          "}\n"
          "complete -F _predella predella\n";
}

}  // namespace

void AddMiscCommands(CLI::App* app, Context* context) {
  CLI::App* version = app->add_subcommand("version", "Print the version.");
  version->callback([context] {
    context->run = [context]() -> absl::StatusOr<int> {
      *context->out << "predella " << PREDELLA_VERSION << "\n";
      return kExitDone;
    };
  });

  // Handled before this parser is; here for --help and completion, and for
  // options that stand before it.
  CLI::App* serve = app->add_subcommand(
      "serve",
      "Run a coordinator and an agent for every directory; see predella "
      "serve --help.");
  serve->callback([context] {
    context->run = []() -> absl::StatusOr<int> {
      return absl::InvalidArgumentError(
          "serve comes first and takes no --endpoint: predella serve "
          "--datadirs ...");
    };
  });

  CLI::App* completion =
      app->add_subcommand("completion", "Print a shell's completion script.");
  completion->require_subcommand(1);
  CLI::App* bash = completion->add_subcommand("bash", "For bash.");
  bash->footer(
      "Example:\n"
      "  source <(predella completion bash)");
  bash->callback([app, context] {
    context->run = [app, context]() -> absl::StatusOr<int> {
      PrintCompletion(app, context->out);
      return kExitDone;
    };
  });
}

}  // namespace predella::cli
