// Identities: 16-byte UUIDs and where random bytes come from.
#ifndef PREDELLA_COMMON_IDS_H_
#define PREDELLA_COMMON_IDS_H_

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace predella {

// A UUID, kept as its bytes. Names of files are printed from the bytes, so a
// name from outside never reaches a path.
class Uuid {
 public:
  Uuid() = default;  // all zeros: "none"

  // Accepts the canonical form only: 36 characters, lower case.
  // INVALID_ARGUMENT names what was wrong.
  static absl::StatusOr<Uuid> Parse(absl::string_view text);
  // Exactly 16 bytes; anything else is INVALID_ARGUMENT.
  static absl::StatusOr<Uuid> FromBytes(absl::string_view bytes);
  // As FromBytes, for bytes that were written by us; "none" if they are not 16.
  static Uuid FromBytesOrNone(absl::string_view bytes);

  bool none() const { return *this == Uuid(); }
  std::string ToString() const;
  std::string bytes() const { return std::string(raw_.begin(), raw_.end()); }

  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 sees a 0 in <=>.
  auto operator<=>(const Uuid&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const Uuid& u) {
    return H::combine(std::move(h), u.raw_);
  }

 private:
  // Unsigned: the order is that of the text and of keys.
  std::array<uint8_t, 16> raw_{};
};

// Source of identities and keys. Safe for concurrent use.
class IdGenerator {
 public:
  virtual ~IdGenerator() = default;
  virtual std::string RandomBytes(size_t n) = 0;
  // A random (version 4) UUID.
  Uuid NextUuid();
  uint64_t NextUint64();
};

// getrandom(2); lives for ever.
IdGenerator* RandomIds();

std::string ToHex(absl::string_view bytes);
// INVALID_ARGUMENT unless `hex` is an even number of hexadecimal digits.
absl::StatusOr<std::string> FromHex(absl::string_view hex);

}  // namespace predella

#endif  // PREDELLA_COMMON_IDS_H_
