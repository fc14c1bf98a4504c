#include "client/cli/serve/datadirs.h"

#include <cstddef>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/errors.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

struct Entry {
  Datadir datadir;
  std::optional<int> priority;
};

absl::StatusOr<Entry> ParseEntry(absl::string_view text) {
  Entry entry;
  absl::string_view rest = text;
  const size_t equals = rest.find('=');
  const size_t slash = rest.find('/');
  if (equals != absl::string_view::npos && equals < slash) {
    entry.datadir.name =
        std::string(absl::StripAsciiWhitespace(rest.substr(0, equals)));
    if (entry.datadir.name.empty()) {
      return InvalidArgument(
          absl::StrCat("\"", text,
                       "\": there is no name before the =; write "
                       "NAME=PATH, or the path alone"));
    }
    rest.remove_prefix(equals + 1);
  }
  // A path may hold colons itself; behind the last one a priority stands
  // unless it goes on as a path.
  const size_t colon = rest.rfind(':');
  if (colon != absl::string_view::npos &&
      !absl::StrContains(rest.substr(colon), "/")) {
    const absl::string_view number =
        absl::StripAsciiWhitespace(rest.substr(colon + 1));
    int priority = 0;
    if (!absl::SimpleAtoi(number, &priority) || priority < 0) {
      return InvalidArgument(
          absl::StrCat("\"", text, "\": the priority \"", number,
                       "\" is not a number from 0 to 2147483647; "
                       "write PATH:PRIORITY, such as /var/glance/store-1:100"));
    }
    entry.priority = priority;
    rest = rest.substr(0, colon);
  }
  rest = absl::StripAsciiWhitespace(rest);
  if (!absl::StartsWith(rest, "/")) {
    return InvalidArgument(
        absl::StrCat("\"", text, "\": the path must begin with a slash"));
  }
  std::string path =
      std::filesystem::path(std::string(rest)).lexically_normal().string();
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  entry.datadir.path = std::move(path);
  const std::string last =
      std::filesystem::path(entry.datadir.path).filename().string();
  if (entry.datadir.name.empty()) {
    entry.datadir.name = last;
    if (!ValidateMountName(last).ok()) {
      return InvalidArgument(
          absl::StrCat("\"", last, "\" cannot be the name of ",
                       entry.datadir.path, "; give it one: NAME=", text));
    }
  }
  RETURN_IF_ERROR(ValidateMountName(entry.datadir.name));
  return entry;
}

absl::Status CheckPriorities(std::vector<Entry>* entries) {
  const Entry* with = nullptr;
  const Entry* without = nullptr;
  for (const Entry& entry : *entries) {
    (entry.priority.has_value() ? with : without) = &entry;
  }
  if (with != nullptr && without != nullptr) {
    return InvalidArgument(absl::StrCat(
        "the priority is missing on ", without->datadir.path, " but given on ",
        with->datadir.path,
        "; give one on every directory, or on none to make them equal"));
  }
  for (Entry& entry : *entries) {
    entry.datadir.priority = entry.priority.value_or(kEqualPriority);
  }
  return absl::OkStatus();
}

absl::Status CheckPair(const Datadir& a, const Datadir& b) {
  if (a.path == b.path) {
    return InvalidArgument(absl::StrCat(a.path, " is given twice"));
  }
  if (IsInside(a.path, b.path) || IsInside(b.path, a.path)) {
    const bool a_inside = IsInside(a.path, b.path);
    return InvalidArgument(absl::StrCat(
        a_inside ? a.path : b.path, " lies inside ", a_inside ? b.path : a.path,
        "; one directory cannot hold another"));
  }
  if (a.name == b.name) {
    return InvalidArgument(
        absl::StrCat(a.path, " and ", b.path, " would both be named \"", a.name,
                     "\"; give one another name: NAME=", b.path));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsInside(const std::string& inner, const std::string& outer) {
  return outer == "/" ? inner != "/"
                      : absl::StartsWith(inner, absl::StrCat(outer, "/"));
}

absl::StatusOr<std::vector<Datadir>> ParseDatadirs(absl::string_view text) {
  std::vector<Entry> entries;
  for (const absl::string_view part :
       absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    ASSIGN_OR_RETURN(Entry entry, ParseEntry(absl::StripAsciiWhitespace(part)));
    entries.push_back(std::move(entry));
  }
  if (entries.empty()) {
    return InvalidArgument(
        "no directories are given; write --datadirs "
        "\"/var/glance/store-1:100,/var/glance/store-2:200\" or --glance-conf "
        "FILE");
  }
  RETURN_IF_ERROR(CheckPriorities(&entries));
  std::vector<Datadir> datadirs;
  for (Entry& entry : entries) {
    for (const Datadir& earlier : datadirs) {
      RETURN_IF_ERROR(CheckPair(earlier, entry.datadir));
    }
    datadirs.push_back(std::move(entry.datadir));
  }
  return datadirs;
}

}  // namespace predella::cli
