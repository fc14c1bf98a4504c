#include "common/ids.h"

#include <sys/random.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "common/errors.h"

namespace predella {
namespace {

constexpr absl::string_view kPattern = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

int HexValue(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  return -1;
}

class SystemIds final : public IdGenerator {
 public:
  std::string RandomBytes(size_t n) override {
    std::string out(n, '\0');
    size_t done = 0;
    while (done < n) {
      const ssize_t got = getrandom(out.data() + done, n - done, 0);
      if (got > 0) {
        done += static_cast<size_t>(got);
      }
    }
    return out;
  }
};

}  // namespace

absl::StatusOr<Uuid> Uuid::Parse(absl::string_view text) {
  const auto bad = [&](absl::string_view why) {
    return InvalidArgument(
        absl::StrCat("\"", absl::CHexEscape(text.substr(0, 64)),
                     "\" is not a canonical lower-case UUID such as "
                     "7f4c0c1e-3a52-4f0e-9a53-0c5f3f9f2b11: ",
                     why));
  };
  if (text.size() != kPattern.size()) {
    return bad(absl::StrCat(text.size(), " characters, not 36"));
  }
  Uuid uuid;
  size_t nibble = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (kPattern[i] == '-') {
      if (text[i] != '-') {
        return bad(absl::StrCat("no dash at position ", i));
      }
      continue;
    }
    const int value = HexValue(text[i]);
    if (value < 0) {
      return bad(absl::StrCat("position ", i, " is not one of 0-9a-f"));
    }
    uint8_t& byte = uuid.raw_[nibble / 2];
    byte = static_cast<uint8_t>(nibble % 2 == 0 ? value << 4 : byte | value);
    ++nibble;
  }
  return uuid;
}

absl::StatusOr<Uuid> Uuid::FromBytes(absl::string_view bytes) {
  Uuid uuid;
  if (bytes.size() != uuid.raw_.size()) {
    return InvalidArgument(
        absl::StrCat("an identity has 16 bytes, not ", bytes.size()));
  }
  std::memcpy(uuid.raw_.data(), bytes.data(), bytes.size());
  return uuid;
}

Uuid Uuid::FromBytesOrNone(absl::string_view bytes) {
  auto uuid = FromBytes(bytes);
  return uuid.ok() ? *uuid : Uuid();
}

std::string Uuid::ToString() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(36);
  for (size_t i = 0; i < raw_.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) {
      text.push_back('-');
    }
    text.push_back(kDigits[raw_[i] >> 4]);
    text.push_back(kDigits[raw_[i] & 0xf]);
  }
  return text;
}

Uuid IdGenerator::NextUuid() {
  std::string bytes = RandomBytes(16);
  bytes[6] = static_cast<char>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<char>((bytes[8] & 0x3f) | 0x80);
  return Uuid::FromBytesOrNone(bytes);
}

uint64_t IdGenerator::NextUint64() {
  const std::string bytes = RandomBytes(sizeof(uint64_t));
  uint64_t value = 0;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

IdGenerator* RandomIds() {
  static SystemIds* const ids = new SystemIds();
  return ids;
}

std::string ToHex(absl::string_view bytes) {
  return absl::BytesToHexString(bytes);
}

absl::StatusOr<std::string> FromHex(absl::string_view hex) {
  std::string out;
  out.reserve(hex.size() / 2);
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    const int high = HexValue(hex[i]);
    const int low = HexValue(hex[i + 1]);
    if (high < 0 || low < 0) {
      return InvalidArgument(
          "not lower-case hexadecimal: a digit is not one of 0-9a-f");
    }
    out.push_back(static_cast<char>(high * 16 + low));
  }
  if (hex.size() % 2 != 0) {
    return InvalidArgument("not hexadecimal: an odd number of digits");
  }
  return out;
}

}  // namespace predella
