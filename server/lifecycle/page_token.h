// Opaque page tokens: where to go on, and which list it was.
#ifndef PREDELLA_SERVER_LIFECYCLE_PAGE_TOKEN_H_
#define PREDELLA_SERVER_LIFECYCLE_PAGE_TOKEN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace predella::server {

// `arguments` are the request's other fields: a token goes with one list.
std::string EncodePageToken(absl::string_view arguments,
                            absl::string_view last_key);
// The last key; "" for an empty token. INVALID_ARGUMENT if the token is not
// one, or belongs to a list with other arguments.
absl::StatusOr<std::string> DecodePageToken(absl::string_view arguments,
                                            absl::string_view token);

// 0 means 50, more than 1,000 means 1,000; INVALID_ARGUMENT below 0.
absl::StatusOr<int64_t> CheckPageSize(int32_t page_size);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_PAGE_TOKEN_H_
