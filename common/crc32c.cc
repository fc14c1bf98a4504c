#include "common/crc32c.h"

#include <array>

#include <isa-l/crc.h>

namespace predella {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected
// crc32_iscsi takes its length as int.
constexpr size_t kSlice = size_t{1} << 30;

// a * b modulo the polynomial, both reflected.
uint32_t Multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t mask = uint32_t{1} << 31; mask != 0; mask >>= 1) {
    if ((a & mask) != 0) {
      product ^= b;
    }
    b = (b & 1) != 0 ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

// x^(2^k) modulo the polynomial, for every k that a 64-bit length of bits
// can need.
constexpr int kPowers = 67;
const std::array<uint32_t, kPowers>& Powers() {
  static const std::array<uint32_t, kPowers> table = [] {
    std::array<uint32_t, kPowers> t{};
    t[0] = uint32_t{1} << 30;  // x
    for (int k = 1; k < kPowers; ++k) {
      t[k] = Multiply(t[k - 1], t[k - 1]);
    }
    return t;
  }();
  return table;
}

}  // namespace

uint32_t ExtendCrc32c(uint32_t crc, absl::string_view data) {
  uint32_t state = ~crc;
  while (!data.empty()) {
    const absl::string_view slice = data.substr(0, kSlice);
    // The library does not write through the pointer.
    state = crc32_iscsi(
        reinterpret_cast<unsigned char*>(const_cast<char*>(slice.data())),
        static_cast<int>(slice.size()), state);
    data.remove_prefix(slice.size());
  }
  return ~state;
}

uint32_t CombineCrc32c(uint32_t crc_a, uint32_t crc_b, uint64_t length_b) {
  uint32_t shifted = crc_a;
  for (int bit = 0; length_b != 0; ++bit, length_b >>= 1) {
    if ((length_b & 1) != 0) {
      shifted = Multiply(Powers()[bit + 3], shifted);  // + 3: bytes to bits
    }
  }
  return shifted ^ crc_b;
}

}  // namespace predella
