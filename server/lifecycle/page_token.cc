#include "server/lifecycle/page_token.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/crc32c.h"
#include "common/errors.h"

namespace predella::server {
namespace {

constexpr size_t kHashDigits = 8;
constexpr int64_t kDefaultPageSize = 50;
constexpr int64_t kMaxPageSize = 1000;

std::string ChecksumOf(absl::string_view arguments, absl::string_view key) {
  return absl::StrFormat(
      "%08x", ExtendCrc32c(Crc32c(absl::StrCat("v1\n", arguments, "\n")), key));
}

}  // namespace

std::string EncodePageToken(absl::string_view arguments,
                            absl::string_view last_key) {
  return absl::WebSafeBase64Escape(
      absl::StrCat(ChecksumOf(arguments, last_key), last_key));
}

absl::StatusOr<std::string> DecodePageToken(absl::string_view arguments,
                                            absl::string_view token) {
  if (token.empty()) {
    return std::string();
  }
  std::string decoded;
  if (absl::WebSafeBase64Unescape(token, &decoded) &&
      decoded.size() >= kHashDigits) {
    std::string key = decoded.substr(kHashDigits);
    if (decoded.substr(0, kHashDigits) == ChecksumOf(arguments, key)) {
      return key;
    }
  }
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   "page_token is not from a list with these arguments: begin "
                   "again without one");
}

absl::StatusOr<int64_t> CheckPageSize(int32_t page_size) {
  if (page_size < 0) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat("page_size is ", page_size, ": it cannot be negative"));
  }
  return page_size == 0 ? kDefaultPageSize
                        : std::min<int64_t>(page_size, kMaxPageSize);
}

}  // namespace predella::server
