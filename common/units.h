// Sizes and durations as people write them.
#ifndef PREDELLA_COMMON_UNITS_H_
#define PREDELLA_COMMON_UNITS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace predella {

inline constexpr int64_t kKiB = int64_t{1} << 10;
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kGiB = int64_t{1} << 30;
inline constexpr int64_t kTiB = int64_t{1} << 40;

// "4096", "64KiB", "1.5GiB", "20G" (powers of 1024), "10GB" (powers of 1000).
// Never negative.
absl::StatusOr<int64_t> ParseSize(absl::string_view text);
// "0 B", "512 B", "1.5 GiB", "20 GiB": at most three significant digits, for
// people.
std::string FormatSize(int64_t bytes);
// "15s", "2m30s", "24h", "100ms". Never negative.
absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text);

}  // namespace predella

#endif  // PREDELLA_COMMON_UNITS_H_
