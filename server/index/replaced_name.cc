#include "server/index/replaced_name.h"

#include <cstddef>

#include "absl/strings/str_cat.h"

namespace predella::server {
namespace {

// Of the longest name that ValidateMountName takes.
constexpr size_t kLongestName = 63;

}  // namespace

std::string ReplacedName(const std::string& name, const Uuid& uid) {
  const std::string suffix =
      absl::StrCat(".replaced-", uid.ToString().substr(0, 8));
  return absl::StrCat(name.substr(0, kLongestName - suffix.size()), suffix);
}

}  // namespace predella::server
