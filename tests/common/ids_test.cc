#include "common/ids.h"

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/resource_name.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::predella::testing::IsOkAndHolds;
using ::predella::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kUuid[] = "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0";

TEST(UuidTest, CanonicalFormRoundTrips) {
  ASSERT_OK_AND_ASSIGN(const Uuid id, Uuid::Parse(kUuid));
  EXPECT_EQ(id.ToString(), kUuid);
  EXPECT_FALSE(id.none());
  EXPECT_THAT(Uuid::FromBytes(id.bytes()), IsOkAndHolds(id));
  EXPECT_EQ(id.bytes().size(), 16u);
}

TEST(UuidTest, AnythingElseIsRefused) {
  const std::vector<std::string> cases = {
      "",
      "7f4c2b1e",
      "7F4C2B1E-93D5-4A6F-8E01-5C9BE2A4D7F0",
      "7f4c2b1e93d54a6f8e015c9be2a4d7f0",
      "{7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0}",
      "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f",
      "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f00",
      "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7fg",
      "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7 0",
      "7f4c2b1e_93d5_4a6f_8e01_5c9be2a4d7f0",
      "../../../../../../etc/passwd-0000000",
      std::string("7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f\0", 36),
  };
  for (const std::string& text : cases) {
    EXPECT_THAT(Uuid::Parse(text), StatusIs(absl::StatusCode::kInvalidArgument))
        << text;
  }
}

TEST(UuidTest, WrongLengthOfBytes) {
  EXPECT_THAT(Uuid::FromBytes("short"),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_TRUE(Uuid::FromBytesOrNone("short").none());
  EXPECT_TRUE(Uuid::FromBytesOrNone("").none());
}

TEST(IdGeneratorTest, RandomUuidsAreVersionFourAndDiffer) {
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    const std::string text = RandomIds()->NextUuid().ToString();
    EXPECT_EQ(text[14], '4');
    EXPECT_TRUE(absl::StrContains("89ab", text.substr(19, 1)));
    EXPECT_TRUE(seen.insert(text).second);
  }
}

TEST(HexTest, RoundTripAndErrors) {
  EXPECT_EQ(ToHex(std::string("\x00\x9f\xff", 3)), "009fff");
  EXPECT_THAT(FromHex("009fff"), IsOkAndHolds(std::string("\x00\x9f\xff", 3)));
  EXPECT_THAT(FromHex("009fFF"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(FromHex("abc"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(FromHex("zz"), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(GenerationTest, TextRoundTrips) {
  const Generation generation{12, 345, 0x9fa3c1d2};
  EXPECT_EQ(generation.ToString(), "12-345-9fa3c1d2");
  EXPECT_THAT(Generation::Parse("12-345-9fa3c1d2"), IsOkAndHolds(generation));
  EXPECT_EQ(Generation::FromProto(generation.ToProto()), generation);
  const Generation small{1, 1, 7};
  EXPECT_THAT(Generation::Parse(small.ToString()), IsOkAndHolds(small));
}

TEST(GenerationTest, WrongTextIsRefused) {
  for (const char* text : {"", "1", "1-2", "1-2-", "1-2-xyz", "a-2-00000001",
                           "-1-2-00000001", "1-2-00000001-3", "1--00000001"}) {
    EXPECT_THAT(Generation::Parse(text),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << text;
  }
}

// What a client sends is refused with a reason, as the API promises.
TEST(BadTextTest, CarriesAReason) {
  for (const absl::Status& status :
       {Uuid::Parse("x").status(), Uuid::FromBytes("x").status(),
        FromHex("zz").status(), FromHex("abc").status(),
        Generation::Parse("x").status()}) {
    EXPECT_EQ(ReasonOf(status), reason::kInvalidArgument) << status;
  }
}

TEST(GenerationTest, TheNonceNeverOrders) {
  const Generation a{2, 5, 1};
  const Generation b{2, 5, 9};
  EXPECT_FALSE(a.After(b));
  EXPECT_FALSE(b.After(a));
  EXPECT_NE(a, b);
  EXPECT_TRUE((Generation{3, 1, 0}).After(b));
  EXPECT_TRUE((Generation{2, 6, 0}).After(b));
  EXPECT_TRUE(Generation().none());
}

TEST(ResourceNameTest, FullAndBareNamesParse) {
  ASSERT_OK_AND_ASSIGN(const Uuid id, Uuid::Parse(kUuid));
  EXPECT_THAT(ParseImageName(ImageName(id)), IsOkAndHolds(id));
  EXPECT_THAT(ParseImageName(kUuid), IsOkAndHolds(id));
  EXPECT_THAT(ParseUploadName(UploadName(id)), IsOkAndHolds(id));
  EXPECT_THAT(
      ParseImageName(UploadName(id)),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("images/UUID")));
  EXPECT_THAT(ParseMountName("mounts/store-1"), IsOkAndHolds("store-1"));
}

// All zeros are "none" inside: an image or upload of that name could not be
// told from none.
TEST(ResourceNameTest, TheNilUuidNamesNothing) {
  const std::string nil = Uuid().ToString();
  for (const std::string& name : {nil, ImageName(Uuid())}) {
    EXPECT_THAT(ParseImageName(name),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(nil)));
  }
  EXPECT_THAT(ParseUploadName(nil),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(nil)));
}

TEST(ResourceNameTest, MountNames) {
  for (const std::string& good :
       {std::string("a"), std::string("Store_1.b-c"), std::string(63, 'x')}) {
    EXPECT_OK(ValidateMountName(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("-a"), std::string(".a"), std::string("a b"),
        std::string("a/b"), std::string(64, 'x'), std::string("a\0b", 3),
        std::string("\xc3\xa9")}) {
    EXPECT_THAT(ValidateMountName(bad),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << bad;
  }
}

TEST(UuidTest, OrderIsThatOfTheText) {
  const auto low = Uuid::Parse("7fffffff-ffff-4fff-bfff-ffffffffffff");
  const auto high = Uuid::Parse("80000000-0000-4000-8000-000000000000");
  ASSERT_OK(low);
  ASSERT_OK(high);
  EXPECT_LT(*low, *high);
  EXPECT_LT(low->bytes(), high->bytes());
}

}  // namespace
}  // namespace predella
