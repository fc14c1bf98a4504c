#include "common/crc32c.h"

#include <cstdint>
#include <random>
#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace predella {
namespace {

// Bit by bit, from the definition.
uint32_t SlowCrc32c(absl::string_view data) {
  uint32_t crc = 0xffffffff;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78 : 0);
    }
  }
  return ~crc;
}

std::string RandomString(std::mt19937* random, size_t size) {
  std::string out(size, '\0');
  for (char& c : out) {
    c = static_cast<char>((*random)());
  }
  return out;
}

TEST(Crc32cTest, KnownVectors) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  // RFC 3720, B.4.
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
}

TEST(Crc32cTest, AgreesWithTheDefinition) {
  std::mt19937 random(1);
  for (size_t size = 1; size < 600; size += 7) {
    const std::string data = RandomString(&random, size);
    EXPECT_EQ(Crc32c(data), SlowCrc32c(data)) << size;
  }
}

TEST(Crc32cTest, ExtendAndCombineAreConcatenation) {
  std::mt19937 random(2);
  for (const size_t a_size : {0u, 1u, 3u, 64u, 1000u, 65537u}) {
    for (const size_t b_size : {0u, 1u, 2u, 63u, 4096u, 100003u}) {
      const std::string a = RandomString(&random, a_size);
      const std::string b = RandomString(&random, b_size);
      const uint32_t whole = Crc32c(a + b);
      EXPECT_EQ(ExtendCrc32c(Crc32c(a), b), whole);
      EXPECT_EQ(CombineCrc32c(Crc32c(a), Crc32c(b), b.size()), whole)
          << a_size << " " << b_size;
    }
  }
}

TEST(Crc32cTest, CombineIsAssociativeForHugeLengths) {
  const uint32_t a = Crc32c("a");
  const uint32_t b = Crc32c("b");
  const uint32_t c = Crc32c("c");
  const uint64_t huge = uint64_t{1} << 42;
  EXPECT_EQ(CombineCrc32c(CombineCrc32c(a, b, huge), c, huge + 5),
            CombineCrc32c(a, CombineCrc32c(b, c, huge + 5), 2 * huge + 5));
}

TEST(Crc32cTest, SeesEveryFlippedBit) {
  std::string data = "The row of panels under an altarpiece";
  const uint32_t right = Crc32c(data);
  for (size_t i = 0; i < data.size() * 8; ++i) {
    data[i / 8] = static_cast<char>(data[i / 8] ^ (1 << (i % 8)));
    EXPECT_NE(Crc32c(data), right);
    data[i / 8] = static_cast<char>(data[i / 8] ^ (1 << (i % 8)));
  }
}

}  // namespace
}  // namespace predella
