#include "agent/health/mount_state_machine.h"

#include <cerrno>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/fs/errno_status.h"
#include "common/errors.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

absl::Status Failed() { return ErrnoStatus(EIO, "write the probe"); }
absl::Status ReadOnly() { return ErrnoStatus(EROFS, "write the probe"); }
absl::Status Foreign() {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   reason::kMountIdentityMismatch, "no label");
}

class StateMachineTest : public ::testing::Test {
 protected:
  v1::Health Health() { return machine_.View().health; }
  void Probe(const absl::Status& write, const absl::Status& read,
             absl::Duration takes = absl::ZeroDuration()) {
    machine_.ProbeStarted();
    clock_.Advance(takes);
    machine_.ProbeDone({write, read});
  }
  void CleanProbes(int count, absl::Duration takes = absl::ZeroDuration()) {
    for (int i = 0; i < count; ++i) {
      Probe(absl::OkStatus(), absl::OkStatus(), takes);
      clock_.Advance(absl::Seconds(2) - takes);
    }
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

// It was refused because another call is stuck, which is no sign of life.
TEST_F(StateMachineTest, ACallThatWasNotMadeHidesNoHang) {
  Open();
  machine_.ProbeStarted();
  clock_.Advance(absl::Seconds(9));
  machine_.CallDone(MakeError(absl::StatusCode::kUnavailable,
                              reason::kMountStalled, "the fence is in use"));
  EXPECT_EQ(Health(), v1::HEALTH_HUNG);
  EXPECT_FALSE(machine_.FreshTraffic(absl::Seconds(2)));
  machine_.CallDone(absl::OkStatus());
  EXPECT_TRUE(machine_.FreshTraffic(absl::Seconds(2)));
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
  machine_.ProbeDone({});
  for (int i = 0; i < 3; ++i) {
    CleanProbes(1);
    EXPECT_EQ(Health(), v1::HEALTH_HUNG) << i;
  }
  CleanProbes(1);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

// The thread of the probe is none of them: its success says nothing of theirs.
TEST_F(StateMachineTest, StuckThreadsAreAHangThatEndsAsAnyDoes) {
  Open();
  for (int i = 0; i < 10; ++i) {
    machine_.NoThreadIsLeft("all 16 threads are stuck");
    CleanProbes(1);
    EXPECT_EQ(Health(), v1::HEALTH_HUNG) << i;
  }
  EXPECT_EQ(machine_.View().detail, "all 16 threads are stuck");
  CleanProbes(3);
  EXPECT_EQ(Health(), v1::HEALTH_HUNG);
  CleanProbes(1);
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

TEST_F(StateMachineTest, OneErrorIsSuspectUntilFiveCleanProbes) {
  Open();
  machine_.CallDone(Failed());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  EXPECT_EQ(machine_.View().error, "EIO");
  EXPECT_TRUE(machine_.View().serves_reads);
  CleanProbes(4);
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  machine_.CallDone(Failed());  // and counts anew
  CleanProbes(4);
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  CleanProbes(1);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  EXPECT_EQ(machine_.View().error, "");
}

TEST_F(StateMachineTest, ColdReadsThatFailTwiceInThreeAreFailed) {
  Open();
  Probe(absl::OkStatus(), Failed());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  CleanProbes(2);
  Probe(absl::OkStatus(), Failed());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT) << "the first is out of the window";
  CleanProbes(1);
  Probe(Failed(), Failed());
  EXPECT_EQ(Health(), v1::HEALTH_FAILED);
  EXPECT_TRUE(machine_.View().serves_reads) << "last resort";
  EXPECT_FALSE(machine_.View().serves_writes);
  CleanProbes(4);
  EXPECT_EQ(Health(), v1::HEALTH_FAILED);
  CleanProbes(1);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(StateMachineTest, AColdReadOfOtherBytesIsSuspectAtOnce) {
  Open();
  const absl::Status other = MakeError(
      absl::StatusCode::kDataLoss, reason::kChecksumMismatch, "other bytes");
  Probe(absl::OkStatus(), other);
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  Probe(absl::OkStatus(), other);
  EXPECT_EQ(Health(), v1::HEALTH_FAILED);
}

TEST_F(StateMachineTest, ReadOnlyAtOnceAndReadsGoOn) {
  Open();
  machine_.CallDone(ReadOnly());
  EXPECT_EQ(Health(), v1::HEALTH_READ_ONLY);
  EXPECT_EQ(machine_.View().error, "EROFS");
  EXPECT_TRUE(machine_.View().serves_reads);
  EXPECT_FALSE(machine_.View().serves_writes);
  Probe(ReadOnly(), absl::OkStatus());
  Probe(ReadOnly(), absl::OkStatus());
  EXPECT_EQ(Health(), v1::HEALTH_READ_ONLY);
  CleanProbes(5);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(StateMachineTest, WritesThatFailTwiceInThreeAreReadOnly) {
  Open();
  const absl::Status denied = ErrnoStatus(EPERM, "write the probe");
  Probe(denied, absl::OkStatus());
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  CleanProbes(1);
  Probe(denied, absl::OkStatus());
  EXPECT_EQ(Health(), v1::HEALTH_READ_ONLY);
}

// SUSPECT is the worse one; that nothing can be written holds all the same.
TEST_F(StateMachineTest, WritesThatFailWithAnIoErrorAreBoth) {
  Open();
  Probe(Failed(), absl::OkStatus());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  EXPECT_TRUE(machine_.View().serves_writes);
  Probe(Failed(), absl::OkStatus());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  EXPECT_FALSE(machine_.View().serves_writes);
  EXPECT_TRUE(machine_.View().serves_reads);
}

TEST_F(StateMachineTest, FullIsNoFailure) {
  Open();
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) {
    const absl::Status full = ErrnoStatus(error, "write the probe");
    machine_.CallDone(full);
    for (int i = 0; i < 3; ++i) {
      Probe(full, absl::OkStatus());
    }
    EXPECT_EQ(Health(), v1::HEALTH_ONLINE) << error;
  }
}

TEST_F(StateMachineTest, WantOfMemoryOrDescriptorsIsNoFailureOfTheDisk) {
  Open();
  const absl::Status ours = ErrnoStatus(EMFILE, "open the probe");
  for (int i = 0; i < 4; ++i) {
    Probe(ours, ours);
  }
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(StateMachineTest, WhatCanNeverAnswerAgainIsAbsent) {
  for (const int error :
       {ENOTCONN, ESTALE, ENODEV, ENXIO, ENOMEDIUM, ESHUTDOWN, ENOENT}) {
    Open();
    machine_.IdentityChecked(ErrnoStatus(error, "look at"));
    EXPECT_EQ(Health(), v1::HEALTH_ABSENT) << error;
    EXPECT_FALSE(machine_.View().serves_reads);
  }
  EXPECT_EQ(machine_.View().error, "");  // a missing label is no errno's
  Open();
  machine_.IdentityChecked(Failed());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
}

// The old store's files hold the lock for a moment when a mount comes back.
TEST_F(StateMachineTest, InUseAfterAnAbsenceIsStillAbsent) {
  Open();
  machine_.IdentityChecked(Foreign());
  machine_.OpenStarted();
  machine_.OpenDone(MakeError(absl::StatusCode::kFailedPrecondition,
                              reason::kMountInUse, "in use"));
  EXPECT_EQ(Health(), v1::HEALTH_ABSENT);
}

TEST_F(StateMachineTest, TheWorstIsShown) {
  Open();
  machine_.CallDone(ReadOnly());
  machine_.DamageSeen("block 3 of images/x does not agree with its record");
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  machine_.IdentityChecked(Foreign());
  EXPECT_EQ(Health(), v1::HEALTH_ABSENT);
  // A check that began before it went away does not bring it back.
  machine_.IdentityChecked(absl::OkStatus());
  EXPECT_EQ(Health(), v1::HEALTH_ABSENT);
  Open();
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(StateMachineTest, SlowProbesForAMinute) {
  Open();
  const absl::Duration slow = absl::Milliseconds(1500);
  CleanProbes(30, slow);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  CleanProbes(1, slow);
  EXPECT_EQ(Health(), v1::HEALTH_SLOW);
  EXPECT_THAT(machine_.View().detail, ::testing::HasSubstr("1500 ms"));
  EXPECT_TRUE(machine_.View().serves_writes);
  CleanProbes(4);
  CleanProbes(1, slow);
  EXPECT_EQ(Health(), v1::HEALTH_SLOW) << "five in a row are wanted";
  CleanProbes(5);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  CleanProbes(20);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

// A probe is many calls: each has its limit, and together they are slow.
TEST_F(StateMachineTest, ManySlowCallsAreSlowNotHung) {
  machine_.OpenStarted();
  const auto calls = [this](int count, absl::Duration each) {
    for (int i = 0; i < count; ++i) {
      clock_.Advance(each);
      EXPECT_NE(Health(), v1::HEALTH_HUNG);
      machine_.CallReturned();
    }
  };
  calls(300, absl::Seconds(1));
  EXPECT_EQ(Health(), v1::HEALTH_UNKNOWN);
  machine_.OpenDone(absl::OkStatus());
  for (int i = 0; i < 8; ++i) {
    machine_.ProbeStarted();
    calls(10, absl::Milliseconds(2500));
    machine_.ProbeDone({absl::OkStatus(), absl::OkStatus()});
  }
  EXPECT_EQ(Health(), v1::HEALTH_SLOW);
  EXPECT_TRUE(machine_.View().serves_reads);
  EXPECT_THAT(machine_.View().detail, ::testing::HasSubstr("25000 ms"));
  // One that does not come back is another matter, seen or not meanwhile.
  for (const bool seen : {false, true}) {
    machine_.ProbeStarted();
    calls(3, absl::Seconds(2));
    clock_.Advance(absl::Seconds(9));
    if (seen) {
      EXPECT_EQ(Health(), v1::HEALTH_HUNG);
    }
    machine_.CallReturned();
    machine_.ProbeDone({absl::OkStatus(), absl::OkStatus()});
    EXPECT_EQ(Health(), v1::HEALTH_HUNG);
    CleanProbes(5);
    EXPECT_NE(Health(), v1::HEALTH_HUNG);
  }
}

TEST_F(StateMachineTest, OneSlowProbeAmongFewIsNotSlow) {
  Open();
  for (int i = 0; i < 12; ++i) {
    CleanProbes(1, i == 5 ? absl::Seconds(2) : absl::ZeroDuration());
    clock_.Advance(absl::Seconds(8));  // traffic stood for the others
    EXPECT_EQ(Health(), v1::HEALTH_ONLINE) << i;
  }
}

}  // namespace
}  // namespace predella::agent
