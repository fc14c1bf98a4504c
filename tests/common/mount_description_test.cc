#include "common/mount_description.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;
using testing::StatusIs;

MountDescription Sample(const std::string& name) {
  MountDescription out;
  out.path = "/mnt/a b\n" + name;
  out.label.set_mount_name(name);
  out.label.set_mount_uid(std::string(16, '\xfe'));
  out.known.add_entries()->set_epoch(7);
  out.deletes.add_tombstones()->set_image_id(std::string(16, '\0'));
  out.deletes.add_roster()->set_mount_name("other");
  out.image_count = 12;
  out.image_bytes = int64_t{1} << 40;
  out.warnings = {"first", "second\nline"};
  return out;
}

TEST(MountDescriptionTest, SeveralStandBehindOneAnother) {
  const std::string text =
      EncodeDescription(Sample("a")) + EncodeDescription(Sample("b"));
  for (const char c : text) {
    EXPECT_TRUE(c == '\n' || (c >= ' ' && c <= '~'));
  }
  ASSERT_OK_AND_ASSIGN(const auto all, ParseDescriptions(text));
  ASSERT_THAT(all, SizeIs(2));
  const MountDescription& b = all[1];
  EXPECT_EQ(b.path, "/mnt/a b\nb");
  EXPECT_EQ(b.label.SerializeAsString(), Sample("b").label.SerializeAsString());
  EXPECT_EQ(b.known.entries(0).epoch(), 7);
  EXPECT_EQ(b.deletes.SerializeAsString(),
            Sample("b").deletes.SerializeAsString());
  EXPECT_EQ(b.image_count, 12);
  EXPECT_EQ(b.image_bytes, int64_t{1} << 40);
  EXPECT_THAT(b.warnings, ElementsAre("first", "second\nline"));
}

TEST(MountDescriptionTest, NoByteMayDiffer) {
  const std::string text = EncodeDescription(Sample("a"));
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = damaged[i] == '1' ? '2' : '1';
    EXPECT_THAT(ParseDescriptions(damaged).status(),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << i;
    if (i > 0) {
      EXPECT_THAT(ParseDescriptions(text.substr(0, i)).status(),
                  StatusIs(absl::StatusCode::kInvalidArgument))
          << i;
    }
  }
  ASSERT_OK_AND_ASSIGN(const auto none, ParseDescriptions(""));
  EXPECT_THAT(none, SizeIs(0));
}

}  // namespace
}  // namespace predella
