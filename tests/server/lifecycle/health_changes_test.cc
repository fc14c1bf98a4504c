#include "server/lifecycle/health_changes.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace predella::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class HealthChangesTest : public ::testing::Test {
 protected:
  void See(v1::Health health, int64_t second, const std::string& error = "") {
    HealthChanges::Change look;
    look.to = health;
    look.time_us = second;  // as it shall be found again
    look.error = error;
    changes_.See(look, absl::Seconds(second));
  }
  // "FROM>TO@time[error]+left out"
  std::vector<std::string> Take(int64_t second) {
    std::vector<std::string> out;
    const auto name = [](v1::Health health) {
      return absl::StripPrefix(v1::Health_Name(health), "HEALTH_");
    };
    for (const auto& c : changes_.Due(absl::Seconds(second))) {
      out.push_back(absl::StrCat(
          name(c.from), ">", name(c.to), "@", c.time_us,
          c.error.empty() ? "" : " ", c.error, c.left_out == 0 ? "" : " +",
          c.left_out == 0 ? "" : absl::StrCat(c.left_out)));
    }
    changes_.Written(absl::Seconds(second));
    return out;
  }
  // Ten changes, each written: the next one flaps.
  void Burst() {
    for (int i = 0; i < 10; ++i) {
      See(i % 2 == 0 ? v1::HEALTH_SLOW : v1::HEALTH_ONLINE, i);
      EXPECT_EQ(Take(i).size(), 1u);
    }
  }

  HealthChanges changes_;
};

TEST_F(HealthChangesTest, EachChangeIsDueOnce) {
  EXPECT_THAT(Take(0), IsEmpty());
  See(v1::HEALTH_ONLINE, 1);
  EXPECT_THAT(Take(1), IsEmpty());
  See(v1::HEALTH_FAILED, 2, "EIO");
  EXPECT_EQ(changes_.Due(absl::Seconds(2)).size(), 1u) << "until it is written";
  EXPECT_THAT(Take(3), ElementsAre("ONLINE>FAILED@2 EIO"));
  See(v1::HEALTH_FAILED, 4, "EIO");
  EXPECT_THAT(Take(4), IsEmpty());
}

TEST_F(HealthChangesTest, AnotherErrorOfTheSameStateIsAChange) {
  See(v1::HEALTH_SUSPECT, 1);
  See(v1::HEALTH_SUSPECT, 2, "EIO");
  See(v1::HEALTH_SUSPECT, 3, "EIO");
  See(v1::HEALTH_SUSPECT, 4);
  EXPECT_THAT(Take(4),
              ElementsAre("ONLINE>SUSPECT@1", "SUSPECT>SUSPECT@2 EIO"));
  See(v1::HEALTH_SUSPECT, 5, "EIO");
  EXPECT_THAT(Take(5), ElementsAre("SUSPECT>SUSPECT@5 EIO")) << "it came again";
  changes_ = HealthChanges(v1::HEALTH_FAILED, "EIO");
  See(v1::HEALTH_FAILED, 6, "EIO");
  EXPECT_THAT(Take(6), IsEmpty()) << "as before a restart";
}

TEST_F(HealthChangesTest, TheEleventhWithinAMinuteWaitsUntilItStands) {
  Burst();
  See(v1::HEALTH_FAILED, 12, "EIO");
  EXPECT_THAT(changes_.Due(absl::Seconds(21)), IsEmpty());
  EXPECT_THAT(Take(22), ElementsAre("ONLINE>FAILED@12 EIO"));
}

TEST_F(HealthChangesTest, ItDoesNotFlapWhereAMinuteHasPassed) {
  Burst();
  See(v1::HEALTH_FAILED, 60, "EIO");
  EXPECT_THAT(Take(60), ElementsAre("ONLINE>FAILED@60 EIO"))
      << "the first of the ten is a minute old";
}

TEST_F(HealthChangesTest, WhileItFlapsEachStateIsWrittenOnceAMinute) {
  Burst();
  for (int i = 10; i < 69; ++i) {
    See(i % 2 == 0 ? v1::HEALTH_SUSPECT : v1::HEALTH_ONLINE, i, "EIO");
    EXPECT_THAT(changes_.Due(absl::Seconds(i)), IsEmpty()) << i;
  }
  See(v1::HEALTH_ONLINE, 69);
  EXPECT_THAT(Take(69),
              ElementsAre("ONLINE>SUSPECT@10 EIO", "SUSPECT>ONLINE@69 +58"));
}

TEST_F(HealthChangesTest, WhatIsTheSameInTheEndIsCountedByTheNext) {
  Burst();
  See(v1::HEALTH_SLOW, 10);
  See(v1::HEALTH_ONLINE, 11);
  See(v1::HEALTH_SLOW, 12);
  EXPECT_THAT(Take(22), ElementsAre("ONLINE>SLOW@10")) << "and it is SLOW now";
  See(v1::HEALTH_ONLINE, 80);
  EXPECT_THAT(Take(80), ElementsAre("SLOW>ONLINE@80 +2"));
}

}  // namespace
}  // namespace predella::server
