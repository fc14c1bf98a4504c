#include "agent/health/mount_state_machine.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

absl::Status Failed() {
  return MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed,
                   "input/output error");
}
absl::Status ReadOnly() {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   reason::kMountReadOnly, "read-only file system");
}
absl::Status Foreign() {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   reason::kMountIdentityMismatch, "no label");
}

class StateMachineTest : public ::testing::Test {
 protected:
  v1::Health Health() { return machine_.View().health; }
  void Probe(const absl::Status& status,
             absl::Duration takes = absl::ZeroDuration()) {
    machine_.ProbeStarted();
    clock_.Advance(takes);
    machine_.ProbeDone(status);
  }
  void Open() {
    machine_.OpenStarted();
    machine_.OpenDone(absl::OkStatus());
  }

  testing::FakeClock clock_;
  MountStateMachine machine_{&clock_};
};

TEST_F(StateMachineTest, UnknownThenHungThenOnline) {
  machine_.OpenStarted();
  EXPECT_EQ(Health(), v1::HEALTH_UNKNOWN);
  clock_.Advance(absl::Seconds(9));
  EXPECT_EQ(Health(), v1::HEALTH_HUNG);
  EXPECT_FALSE(machine_.View().serves_reads);
  machine_.OpenDone(absl::OkStatus());
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  EXPECT_TRUE(machine_.View().serves_writes);
}

TEST_F(StateMachineTest, AMissingLabelIsAbsentAnythingElseFailed) {
  machine_.OpenStarted();
  machine_.OpenDone(Foreign());
  EXPECT_EQ(Health(), v1::HEALTH_ABSENT);
  machine_.OpenStarted();
  machine_.OpenDone(Failed());
  EXPECT_EQ(Health(), v1::HEALTH_FAILED);
  EXPECT_FALSE(machine_.View().serves_reads);
}

TEST_F(StateMachineTest, AHungProbeEndsOnlyAfterFiveCleanOnes) {
  Open();
  machine_.ProbeStarted();
  clock_.Advance(absl::Seconds(8));
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_EQ(Health(), v1::HEALTH_HUNG);
  machine_.ProbeDone(absl::OkStatus());
  for (int i = 0; i < 3; ++i) {
    Probe(absl::OkStatus());
    EXPECT_EQ(Health(), v1::HEALTH_HUNG) << i;
  }
  Probe(absl::OkStatus());
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(StateMachineTest, DataThatMovesMeansSlowNotHung) {
  Open();
  machine_.ProbeStarted();
  clock_.Advance(absl::Seconds(7));
  machine_.CallDone(absl::OkStatus());
  clock_.Advance(absl::Seconds(5));
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

// A disk that hangs while statfs answers, and while one call that was on its
// way still comes back.
TEST_F(StateMachineTest, NeitherStatfsNorOneLateCallHidesAHang) {
  Open();
  machine_.ProbeStarted();
  clock_.Advance(absl::Milliseconds(10));
  machine_.CallDone(absl::OkStatus());
  for (int i = 0; i < 8; ++i) {
    clock_.Advance(absl::Seconds(1));
    machine_.StatDone(absl::OkStatus());
    EXPECT_EQ(Health(), v1::HEALTH_ONLINE) << i;
  }
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(Health(), v1::HEALTH_HUNG);
  EXPECT_FALSE(machine_.FreshTraffic(absl::Seconds(2)));
}

TEST_F(StateMachineTest, AnErrorOfStatfsCounts) {
  Open();
  machine_.StatDone(Failed());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
}

TEST_F(StateMachineTest, OneErrorIsSuspectTwoOfThreeProbesAreFailed) {
  Open();
  machine_.CallDone(Failed());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  EXPECT_TRUE(machine_.View().serves_reads);
  Probe(Failed());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  Probe(absl::OkStatus());
  Probe(Failed());
  EXPECT_EQ(Health(), v1::HEALTH_FAILED);
  EXPECT_FALSE(machine_.View().serves_writes);
  for (int i = 0; i < 5; ++i) {
    Probe(absl::OkStatus());
  }
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(StateMachineTest, ReadOnlyAtOnceAndReadsGoOn) {
  Open();
  machine_.CallDone(ReadOnly());
  EXPECT_EQ(Health(), v1::HEALTH_READ_ONLY);
  EXPECT_TRUE(machine_.View().serves_reads);
  EXPECT_FALSE(machine_.View().serves_writes);
  Probe(ReadOnly());
  Probe(ReadOnly());
  EXPECT_EQ(Health(), v1::HEALTH_READ_ONLY);
}

TEST_F(StateMachineTest, FullIsNoFailure) {
  Open();
  const absl::Status full = MakeError(absl::StatusCode::kResourceExhausted,
                                      reason::kMountFull, "no space left");
  machine_.CallDone(full);
  for (int i = 0; i < 3; ++i) {
    Probe(full);
  }
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(StateMachineTest, TheWorstIsShown) {
  Open();
  machine_.CallDone(ReadOnly());
  machine_.DamageSeen("block 3 of images/x does not agree with its record");
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  machine_.IdentityChecked(Foreign());
  EXPECT_EQ(Health(), v1::HEALTH_ABSENT);
  machine_.IdentityChecked(absl::OkStatus());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
}

TEST_F(StateMachineTest, SlowProbesForAMinute) {
  Open();
  for (int i = 0; i < 29; ++i) {
    Probe(absl::OkStatus(), absl::Milliseconds(1500));
    EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  }
  Probe(absl::OkStatus(), absl::Milliseconds(1500));
  EXPECT_EQ(Health(), v1::HEALTH_SLOW);
  EXPECT_THAT(machine_.View().detail, ::testing::HasSubstr("1500 ms"));
}

}  // namespace
}  // namespace predella::agent
