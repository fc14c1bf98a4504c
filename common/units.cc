#include "common/units.h"

#include <array>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace predella {
namespace {

struct Unit {
  absl::string_view name;
  double factor;
};

constexpr std::array<Unit, 18> kUnits = {{
    {"", 1},
    {"b", 1},
    {"k", 0x1p10},
    {"kib", 0x1p10},
    {"kb", 1e3},
    {"m", 0x1p20},
    {"mib", 0x1p20},
    {"mb", 1e6},
    {"g", 0x1p30},
    {"gib", 0x1p30},
    {"gb", 1e9},
    {"t", 0x1p40},
    {"tib", 0x1p40},
    {"tb", 1e12},
    {"p", 0x1p50},
    {"pib", 0x1p50},
    {"pb", 1e15},
    {"ki", 0x1p10},
}};

}  // namespace

absl::StatusOr<int64_t> ParseSize(absl::string_view text) {
  const std::string trimmed(absl::StripAsciiWhitespace(text));
  const auto bad = [&] {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\" is not a size such as 4096, 64MiB or 1.5TiB"));
  };
  size_t split = trimmed.find_first_not_of("0123456789.");
  if (split == std::string::npos) {
    split = trimmed.size();
  }
  const std::string unit =
      absl::AsciiStrToLower(absl::StripAsciiWhitespace(trimmed.substr(split)));
  const std::string number = trimmed.substr(0, split);
  for (const Unit& u : kUnits) {
    if (u.name != unit) {
      continue;
    }
    if (int64_t whole = 0; u.factor == 1) {
      return absl::SimpleAtoi(number, &whole) && whole >= 0
                 ? absl::StatusOr<int64_t>(whole)
                 : bad();
    }
    double value = 0;
    if (!absl::SimpleAtod(number, &value) || value < 0 ||
        value * u.factor >= 0x1p63) {
      return bad();
    }
    return static_cast<int64_t>(std::llround(value * u.factor));
  }
  return bad();
}

std::string FormatSize(int64_t bytes) {
  if (bytes < 0) {
    return absl::StrCat("-", FormatSize(-bytes));
  }
  if (bytes < kKiB) {
    return absl::StrCat(bytes, " B");
  }
  constexpr std::array<const char*, 5> kNames = {"KiB", "MiB", "GiB", "TiB",
                                                 "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t i = 0;
  while (value >= 1023.95 && i + 1 < kNames.size()) {
    value /= 1024;
    ++i;
  }
  if (value >= 100 || value == std::floor(value)) {
    return absl::StrFormat("%.0f %s", value, kNames[i]);
  }
  return absl::StrFormat("%.1f %s", value, kNames[i]);
}

absl::StatusOr<absl::Duration> ParseDuration(absl::string_view text) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) ||
      duration < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\" is not a duration such as 100ms, 15s, 2m30s or 24h"));
  }
  return duration;
}

}  // namespace predella
