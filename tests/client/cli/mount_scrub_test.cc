// `predella mount scrub`.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/mocks/mock_connection.h"
#include "tests/client/cli/command_fixture.h"

namespace predella::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Return;

class MountScrubTest : public CommandFixture {
 protected:
  MountScrubTest() : CommandFixture({"mount", "scrub"}) {}
  static v1::Mount Store(v1::ScrubState state, int64_t faults) {
    v1::Mount mount;
    mount.set_name("mounts/m-01");
    mount.set_image_bytes(int64_t{4} << 30);
    mount.mutable_scrub()->set_state(state);
    mount.mutable_scrub()->set_image_count(12);
    mount.mutable_scrub()->set_bytes(int64_t{2} << 30);
    mount.mutable_scrub()->set_fault_count(faults);
    return mount;
  }
};

TEST_F(MountScrubTest, WhatIsAskedFor) {
  EXPECT_CALL(*connection_, ScrubMount)
      .WillOnce([](const v1::ScrubMountRequest& request) {
        EXPECT_EQ(request.name(), "mounts/m-01");
        EXPECT_EQ(request.bytes_per_second(), int64_t{50} << 20);
        EXPECT_TRUE(request.restart());
        return Store(v1::SCRUB_STATE_RUNNING, 0);
      });
  EXPECT_EQ(Run({"m-01", "--rate", "50MiB", "--restart"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("m-01: RUNNING, 12 images"));
  EXPECT_CALL(*connection_, PauseScrub)
      .WillOnce(Return(Store(v1::SCRUB_STATE_PAUSED, 0)));
  EXPECT_EQ(Run({"m-01", "--pause"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("PAUSED"));
}

TEST_F(MountScrubTest, FaultsAreExitCodeSix) {
  ON_CALL(*connection_, ScrubMount)
      .WillByDefault(Return(Store(v1::SCRUB_STATE_RUNNING, 0)));
  ON_CALL(*connection_, GetMount)
      .WillByDefault(Return(Store(v1::SCRUB_STATE_DONE, 3)));
  EXPECT_EQ(Run({"m-01"}), 0);
  EXPECT_EQ(Run({"m-01", "--wait"}), kExitUnhealthy);
  EXPECT_THAT(out_.str(), HasSubstr("3 not whole"));
  ON_CALL(*connection_, GetMount)
      .WillByDefault(Return(Store(v1::SCRUB_STATE_DONE, 0)));
  EXPECT_EQ(Run({"m-01", "--wait"}), 0);
  ON_CALL(*connection_, GetMount)
      .WillByDefault(Return(Store(v1::SCRUB_STATE_PAUSED, 0)));
  EXPECT_EQ(Run({"m-01", "--wait"}), kExitFailed);
}

TEST_F(MountScrubTest, TheTableOfAll) {
  v1::ListMountsResponse mounts;
  *mounts.add_mounts() = Store(v1::SCRUB_STATE_RUNNING, 3);
  v1::Mount* never = mounts.add_mounts();
  never->set_name("mounts/m-02");
  never->mutable_scrub()->set_required(true);
  never->mutable_scrub()->set_detail("it waits\x1b[31m");
  ON_CALL(*connection_, ListMounts).WillByDefault(Return(mounts));
  EXPECT_EQ(Run({}), 0);
  EXPECT_EQ(out_.str(),
            "NAME  SCRUB    REQUIRED  IMAGES  READ  OF  FAULTS  RATE     BEGAN"
            "  LAST\n"
            "m-01  RUNNING  no        12      2G    4G  3       default  -    "
            "  -\n"
            "m-02  NEVER    yes       0       0     0   0       default  -    "
            "  -\n"
            "m-02: it waits\\x1b[31m\n");
}

TEST_F(MountScrubTest, WhatDoesNotGoTogether) {
  EXPECT_CALL(*connection_, ScrubMount).Times(0);
  EXPECT_EQ(Run({"m-01", "--pause", "--wait"}), kExitUsage);
  EXPECT_EQ(Run({"--wait"}), kExitUsage);
  EXPECT_EQ(Run({"m-01", "--rate", "0"}), kExitUsage);
  EXPECT_EQ(Run({"m-01", "--rate", "fast"}), kExitUsage);
}

}  // namespace
}  // namespace predella::cli
