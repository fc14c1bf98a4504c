#include "common/resource_name.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/errors.h"

namespace predella {
namespace {

constexpr size_t kMaxMountName = 63;

absl::StatusOr<Uuid> ParseUuidName(absl::string_view prefix,
                                   absl::string_view name) {
  auto id = Uuid::Parse(absl::StripPrefix(name, prefix));
  if (!id.ok()) {
    return InvalidArgument(
        absl::StrCat("expected ", prefix, "UUID: ", id.status().message()));
  }
  // Inside, all zeros mean that there is none.
  if (id->none()) {
    return InvalidArgument(absl::StrCat("expected ", prefix, "UUID: \"",
                                        id->ToString(), "\" names nothing"));
  }
  return *id;
}

}  // namespace

absl::StatusOr<Uuid> ParseImageName(absl::string_view name) {
  return ParseUuidName("images/", name);
}

absl::StatusOr<Uuid> ParseUploadName(absl::string_view name) {
  return ParseUuidName("uploads/", name);
}

absl::StatusOr<std::string> ParseMountName(absl::string_view name) {
  const absl::string_view bare = absl::StripPrefix(name, "mounts/");
  if (absl::Status status = ValidateMountName(bare); !status.ok()) {
    return status;
  }
  return std::string(bare);
}

absl::Status ValidateMountName(absl::string_view name) {
  const bool valid =
      !name.empty() && name.size() <= kMaxMountName &&
      absl::ascii_isalnum(static_cast<unsigned char>(name[0])) &&
      std::all_of(name.begin(), name.end(), [](char c) {
        return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' ||
               c == '_' || c == '-';
      });
  if (!valid) {
    return InvalidArgument(absl::StrCat(
        "\"", absl::CHexEscape(name.substr(0, 80)),
        "\" is not a mount name: 1 to 63 of A-Z a-z 0-9 . _ - beginning with "
        "a letter or digit"));
  }
  return absl::OkStatus();
}

}  // namespace predella
