// `predella mount collect-garbage`, and what is shown of held garbage.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/mocks/mock_connection.h"
#include "common/collect_garbage.h"
#include "common/errors.h"
#include "tests/client/cli/command_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Invoke;
using ::testing::Not;
using ::testing::Return;

class GarbageCommandTest : public CommandFixture {
 protected:
  static v1::Mount Holding(int64_t uploads) {
    v1::Mount mount;
    mount.set_name("mounts/store-1");
    mount.set_held_upload_count(uploads);
    mount.set_held_upload_bytes(uploads << 20);
    return mount;
  }
};

TEST_F(GarbageCommandTest, WithoutYesItOnlySaysWhatWouldBe) {
  EXPECT_CALL(*connection_, CollectGarbage)
      .Times(3)
      .WillRepeatedly(Invoke([](const v1::CollectGarbageRequest& request) {
        EXPECT_EQ(request.name(), "mounts/store-1");
        EXPECT_TRUE(request.validate_only());
        return Holding(150);
      }));
  const std::vector<std::vector<const char*>> lines = {
      {"mount", "collect-garbage", "store-1"},
      {"mount", "collect-garbage", "store-1", "--dry-run"},
      {"mount", "collect-garbage", "store-1", "--dry-run", "--yes",
       "--accept-upload-count", "150"}};
  for (const std::vector<const char*>& line : lines) {
    EXPECT_EQ(Run(line), kExitDone);
    EXPECT_EQ(out_.str(),
              "would be store-1: the bytes of 150 ended uploads discarded "
              "(150 MiB)\n");
    EXPECT_EQ(err_.str(),
              "next: predella mount collect-garbage store-1 "
              "--accept-upload-count 150 --yes\n");
  }
  EXPECT_CALL(*connection_, CollectGarbage).WillOnce(Return(Holding(0)));
  EXPECT_EQ(Run(lines[0]), kExitDone);
  EXPECT_EQ(out_.str(), "store-1: nothing is held\n");
  EXPECT_EQ(err_.str(), "");
}

TEST_F(GarbageCommandTest, ItWantsYesAndTheNumber) {
  EXPECT_CALL(*connection_, CollectGarbage).Times(0);
  EXPECT_EQ(Run({"mount", "collect-garbage", "store-1", "--yes"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--accept-upload-count"));
  EXPECT_EQ(Run({"mount", "collect-garbage", "store-1", "--accept-upload-count",
                 "150"}),
            kExitUsage);
  EXPECT_EQ(Run({"mount", "collect-garbage"}), kExitUsage);
  EXPECT_CALL(*connection_, CollectGarbage)
      .WillOnce(Invoke([](const v1::CollectGarbageRequest& request) {
        EXPECT_EQ(request.accept_upload_count(), 150);
        EXPECT_FALSE(request.validate_only());
        return Holding(0);
      }));
  EXPECT_EQ(Run({"mount", "collect-garbage", "store-1", "--accept-upload-count",
                 "150", "--yes"}),
            kExitDone);
  EXPECT_EQ(out_.str(), "store-1: the bytes of 150 ended uploads discarded\n");
}

// Where something is held, the coordinator refuses this number like any other.
TEST_F(GarbageCommandTest, NothingIsHeldAndNothingIsSaidToBeDiscarded) {
  EXPECT_CALL(*connection_, CollectGarbage).WillOnce(Return(Holding(0)));
  EXPECT_EQ(Run({"mount", "collect-garbage", "store-1", "--accept-upload-count",
                 "0", "--yes"}),
            kExitDone);
  EXPECT_EQ(out_.str(), "store-1: nothing is held\n");
  EXPECT_EQ(err_.str(), "");
}

TEST_F(GarbageCommandTest, AnotherNumberIsAConflictWithAHint) {
  EXPECT_CALL(*connection_, CollectGarbage)
      .WillOnce(Return(MakeError(absl::StatusCode::kFailedPrecondition,
                                 reason::kGarbageChanged,
                                 "mounts/store-1 holds 151")));
  EXPECT_EQ(Run({"mount", "collect-garbage", "store-1", "--accept-upload-count",
                 "150", "--yes"}),
            kExitConflict);
  EXPECT_THAT(err_.str(),
              AllOf(HasSubstr("holds 151 (GARBAGE_CHANGED)"),
                    HasSubstr("hint: predella mount collect-garbage NAME")));
  EXPECT_EQ(out_.str(), "");
}

TEST_F(GarbageCommandTest, StatShowsWhatIsHeld) {
  EXPECT_CALL(*connection_, GetMount)
      .WillOnce(Return(Holding(150)))
      .WillOnce(Return(Holding(0)));
  EXPECT_EQ(Run({"mount", "stat", "store-1"}), kExitDone);
  EXPECT_THAT(out_.str(), HasSubstr("150 uploads (150 MiB)"));
  EXPECT_EQ(Run({"mount", "stat", "store-1"}), kExitDone);
  EXPECT_THAT(out_.str(), Not(HasSubstr("held")));
}

}  // namespace
}  // namespace predella::cli
