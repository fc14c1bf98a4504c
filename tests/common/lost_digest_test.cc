#include "common/lost_digest.h"

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "common/hash_sum.h"

namespace predella {
namespace {

Uuid LostId(char last) {
  return *Uuid::FromBytes(std::string(15, '\0') + last);
}

std::string DigestOf(const std::vector<std::pair<Uuid, Generation>>& images) {
  LostDigest digest;
  for (const auto& [id, generation] : images) {
    digest.Add(id, generation);
  }
  EXPECT_EQ(digest.count(), static_cast<int64_t>(images.size()));
  return digest.ToString();
}

TEST(LostDigestTest, SaysWhichImagesInAnyOrder) {
  const Generation g{3, 14, 15};
  const Generation h{3, 14, 16};
  const std::string digest = DigestOf({{LostId(1), g}, {LostId(2), h}});
  EXPECT_EQ(digest.size(), 32u);
  EXPECT_EQ(DigestOf({{LostId(2), h}, {LostId(1), g}}), digest);
  EXPECT_NE(DigestOf({{LostId(1), h}, {LostId(2), g}}), digest)
      << "each generation belongs to its id";
  EXPECT_NE(DigestOf({{LostId(1), g}, {LostId(3), h}}), digest);
  EXPECT_NE(DigestOf({{LostId(1), g}, {LostId(2), {3, 14, 17}}}), digest);
  EXPECT_NE(DigestOf({{LostId(1), g}, {LostId(2), {4, 14, 16}}}), digest);
  EXPECT_NE(DigestOf({{LostId(1), g}, {LostId(2), {3, 15, 16}}}), digest);
  EXPECT_NE(DigestOf({{LostId(1), g}}), digest);
  EXPECT_EQ(DigestOf({}), "");
}

TEST(HashSumTest, IsTheSumOfTheFirstHalvesOfSha256) {
  HashSum one;
  one.Add("abc");
  // FIPS 180-4: ba7816bf 8f01cfea 414140de 5dae2223 ...
  EXPECT_EQ(ToHex(one.bytes()), "ba7816bf8f01cfea414140de5dae2223");
  one.Add("abc");
  EXPECT_EQ(ToHex(one.bytes()), "74f02d7f1e039fd4828281bcbb5c4446")
      << "twice is not nothing, and the carry is lost";
  EXPECT_EQ(one.count(), 2);
  EXPECT_EQ(ToHex(HashSum().bytes()), std::string(32, '0'));
}

}  // namespace
}  // namespace predella
