#include "client/cli/serve/glance_conf.h"

#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/errors.h"

namespace predella::cli {
namespace {

constexpr absl::string_view kKey = "multifilesystem_store_datadir";

absl::string_view Unquote(absl::string_view value) {
  if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') &&
      value.front() == value.back()) {
    return value.substr(1, value.size() - 2);
  }
  return value;
}

// Section -> value of our key.
std::map<std::string, std::string> Collect(absl::string_view text) {
  std::map<std::string, std::string> found;
  std::string section = "DEFAULT";
  bool in_our_key = false;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const absl::string_view stripped = absl::StripAsciiWhitespace(line);
    if (stripped.empty() || stripped.front() == '#' ||
        stripped.front() == ';') {
      // An empty line ends a value that went on; a comment does not.
      in_our_key = in_our_key && !stripped.empty();
      continue;
    }
    if (absl::ascii_isspace(static_cast<unsigned char>(line.front()))) {
      if (in_our_key) {
        absl::StrAppend(&found[section], stripped);
      }
      continue;
    }
    in_our_key = false;
    if (stripped.front() == '[') {
      const size_t end = stripped.find(']');
      section = std::string(absl::StripAsciiWhitespace(
          stripped.substr(1, end == absl::string_view::npos ? end : end - 1)));
      continue;
    }
    const size_t separator = stripped.find_first_of("=:");
    if (separator == absl::string_view::npos ||
        absl::StripAsciiWhitespace(stripped.substr(0, separator)) != kKey) {
      continue;
    }
    in_our_key = true;
    const absl::string_view value =
        absl::StripAsciiWhitespace(stripped.substr(separator + 1));
    // Given again, as Glance's own filesystem_store_datadirs is: one more of
    // them. The last alone would drop directories without a word.
    std::string& all = found[section];
    absl::StrAppend(&all, all.empty() ? "" : ",", Unquote(value));
  }
  return found;
}

}  // namespace

absl::StatusOr<std::string> FindDatadirs(absl::string_view text,
                                         const std::string& file) {
  const auto found = Collect(text);
  const std::string* section = nullptr;
  const std::string* value = nullptr;
  for (const auto& [s, v] : found) {
    if (value != nullptr && *value != v) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
          absl::StrCat(file, ": [", *section, "] and [", s,
                       "] have different values of ", kKey,
                       "; give the one that is meant with --datadirs"));
    }
    section = &s;
    value = &v;
  }
  if (value == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": no section has ", kKey,
        "; add it to [glance_store], or give the directories with --datadirs"));
  }
  if (absl::StrContains(*value, "$")) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat(file, ": [", *section, "] ", kKey, " = ", *value,
                     " refers to another option; write the paths out"));
  }
  return std::string(Unquote(*value));
}

}  // namespace predella::cli
