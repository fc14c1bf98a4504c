#include "agent/control/space_ledger.h"

#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/units.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::StatusIs;

SpaceInfo Disk(int64_t size, int64_t available) {
  SpaceInfo space;
  space.size_bytes = size;
  space.free_bytes = available;
  space.available_bytes = available;
  space.size_inodes = 1000;
  space.available_inodes = 500;
  return space;
}

TEST(SpaceLedgerTest, DefaultReserve) {
  EXPECT_EQ(DefaultReserve(kTiB), kTiB / 100);
  EXPECT_EQ(DefaultReserve(50 * kGiB), kGiB);
  EXPECT_EQ(DefaultReserve(10 * kGiB), 10 * kGiB / 20);
}

class LedgerTest : public ::testing::Test {
 protected:
  testing::FakeIds ids_;
  const Uuid a_ = ids_.NextUuid();
  const Uuid b_ = ids_.NextUuid();
  const Uuid c_ = ids_.NextUuid();
  SpaceLedger ledger_{kGiB};
};

TEST_F(LedgerTest, PromisesNothingBeforeTheSpaceIsKnown) {
  EXPECT_THAT(ledger_.Promise(a_, 1, 0), HasReason(reason::kNotReady));
}

TEST_F(LedgerTest, CountsWhatIsPromisedAndNotAllocated) {
  ledger_.SetSpace(Disk(100 * kGiB, 50 * kGiB));
  ASSERT_OK(ledger_.Promise(a_, 30 * kGiB, 0));
  EXPECT_EQ(ledger_.Take().available_bytes, 19 * kGiB);
  EXPECT_THAT(ledger_.Promise(b_, 20 * kGiB, 0),
              StatusIs(absl::StatusCode::kResourceExhausted));
  ASSERT_OK(ledger_.Promise(b_, 19 * kGiB, 0));
  EXPECT_EQ(ledger_.Take().available_bytes, 0);
  // Allocated bytes and f_bavail are of one moment.
  ledger_.SetAllocated(a_, 10 * kGiB);
  EXPECT_EQ(ledger_.Take().available_bytes, 0);
  ledger_.SetSpace(Disk(100 * kGiB, 40 * kGiB));
  EXPECT_EQ(ledger_.Take().available_bytes, 0);
  EXPECT_EQ(ledger_.Take().promised_bytes, 39 * kGiB);
}

TEST_F(LedgerTest, AReleaseGivesBackOnlyWhatWasNotWritten) {
  ledger_.SetSpace(Disk(100 * kGiB, 50 * kGiB));
  ASSERT_OK(ledger_.Promise(a_, 10 * kGiB, 0));
  ledger_.SetAllocated(a_, 4 * kGiB);
  ledger_.Release(a_);
  EXPECT_EQ(ledger_.Take().available_bytes, 45 * kGiB);
  ledger_.SetSpace(Disk(100 * kGiB, 46 * kGiB));
  EXPECT_EQ(ledger_.Take().available_bytes, 45 * kGiB);
}

TEST_F(LedgerTest, HolesFulfilAPromiseAtOnce) {
  ledger_.SetSpace(Disk(100 * kGiB, 50 * kGiB));
  ASSERT_OK(ledger_.Promise(a_, 30 * kGiB, 0));
  ledger_.SetAllocated(a_, 4 * kGiB, 20 * kGiB);
  EXPECT_EQ(ledger_.Take().promised_bytes, 10 * kGiB);
  EXPECT_EQ(ledger_.Take().available_bytes, 39 * kGiB);
  ledger_.SetSpace(Disk(100 * kGiB, 46 * kGiB));
  EXPECT_EQ(ledger_.Take().promised_bytes, 6 * kGiB);
  EXPECT_EQ(ledger_.Take().available_bytes, 39 * kGiB);
  // Asked again, it is not promised twice.
  ASSERT_OK(ledger_.Promise(a_, 45 * kGiB, 0));
  EXPECT_EQ(ledger_.Take().promised_bytes, 21 * kGiB);
  EXPECT_THAT(ledger_.Promise(a_, 80 * kGiB, 0),
              StatusIs(absl::StatusCode::kResourceExhausted));
  // What was never written comes back at once.
  ledger_.Release(a_);
  EXPECT_EQ(ledger_.Take().available_bytes, 45 * kGiB);
}

TEST_F(LedgerTest, HolesThatWereTakenForBytesCountOnce) {
  ledger_.SetSpace(Disk(100 * kGiB, 50 * kGiB));
  ledger_.PromiseAgain(a_, 30 * kGiB, 0, /*on_disk=*/20 * kGiB);
  EXPECT_EQ(ledger_.Take().promised_bytes, 10 * kGiB);
  ledger_.SetAllocated(a_, 5 * kGiB, 15 * kGiB);
  EXPECT_EQ(ledger_.Take().promised_bytes, 10 * kGiB);
}

TEST_F(LedgerTest, UnknownSizesGrowByStepsUntilNothingIsLeft) {
  ledger_.SetSpace(Disk(200 * kGiB, 4 * kGiB));
  ASSERT_OK(ledger_.Promise(a_, std::nullopt, 0));
  EXPECT_EQ(ledger_.Take().promised_bytes, kGiB);
  ASSERT_OK(ledger_.Grow(a_, kGiB));
  EXPECT_EQ(ledger_.Take().promised_bytes, kGiB);
  ASSERT_OK(ledger_.Grow(a_, kGiB + 1));
  EXPECT_EQ(ledger_.Take().promised_bytes, 2 * kGiB);
  ASSERT_OK(ledger_.Grow(a_, 3 * kGiB));
  EXPECT_THAT(ledger_.Grow(a_, 3 * kGiB + 1), HasReason(reason::kMountFull));
}

TEST_F(LedgerTest, SmallDisksGrowByAHundredth) {
  SpaceLedger small{0};
  small.SetSpace(Disk(1000, 1000));
  ASSERT_OK(small.Promise(a_, std::nullopt, 0));
  EXPECT_EQ(small.Take().promised_bytes, 10);
}

TEST_F(LedgerTest, NoInodesIsFull) {
  SpaceInfo space = Disk(100 * kGiB, 50 * kGiB);
  space.available_inodes = 0;
  ledger_.SetSpace(space);
  EXPECT_THAT(ledger_.Promise(a_, 1, 0), HasReason(reason::kMountFull));
  // A file system that does not count them has no limit of them.
  space.size_inodes = 0;
  ledger_.SetSpace(space);
  EXPECT_OK(ledger_.Promise(a_, 1, 0));
}

TEST_F(LedgerTest, WhatIsAllocatedDuringAReadingIsNotTakenForRead) {
  ledger_.SetSpace(Disk(100 * kGiB, 50 * kGiB));
  ASSERT_OK(ledger_.Promise(a_, 10 * kGiB, 0));
  const SpaceLedger::Reading before = ledger_.StartReading();
  ledger_.SetAllocated(a_, 10 * kGiB);  // the file system answered before it
  ASSERT_OK(ledger_.Promise(b_, kGiB, 0));
  const SpaceLedger::Reading after = ledger_.StartReading();
  ledger_.SetSpace(Disk(100 * kGiB, 50 * kGiB), before);
  EXPECT_EQ(ledger_.Take().promised_bytes, 11 * kGiB);
  EXPECT_EQ(ledger_.Take().available_bytes, 38 * kGiB);
  ledger_.SetSpace(Disk(100 * kGiB, 40 * kGiB), after);
  EXPECT_EQ(ledger_.Take().promised_bytes, kGiB);
  EXPECT_EQ(ledger_.Take().available_bytes, 38 * kGiB);
  // A late answer to an earlier look.
  ledger_.SetSpace(Disk(100 * kGiB, 50 * kGiB), before);
  EXPECT_EQ(ledger_.Take().available_bytes, 38 * kGiB);
}

TEST_F(LedgerTest, InodesAreKeptForOpenUploads) {
  SpaceInfo space = Disk(100 * kGiB, 50 * kGiB);
  space.available_inodes = 7;
  ledger_.SetSpace(space);
  ASSERT_OK(ledger_.Promise(a_, 1, 0));
  ASSERT_OK(ledger_.Promise(b_, 1, 0));
  EXPECT_EQ(ledger_.Take().space.available_inodes, 1);
  EXPECT_OK(ledger_.Promise(a_, 1, 0)) << "it has its share already";
  EXPECT_THAT(ledger_.Promise(c_, 1, 0), HasReason(reason::kMountFull));
  // Their bytes and states count on the disk now, their records do not.
  space.available_inodes = 3;
  ledger_.SetSpace(space);
  EXPECT_EQ(ledger_.Take().space.available_inodes, 1);
  ledger_.Release(a_);
  EXPECT_EQ(ledger_.Take().space.available_inodes, 2);
}

TEST_F(LedgerTest, UnknownSizeBeginsWithWhatIsLeft) {
  ledger_.SetSpace(Disk(100 * kGiB, 1 * kGiB + 8 * kMiB));
  ASSERT_EQ(ledger_.Take().available_bytes, 8 * kMiB);
  ASSERT_OK(ledger_.Promise(a_, std::nullopt, 0));
  EXPECT_EQ(ledger_.Take().available_bytes, 0);
  EXPECT_THAT(ledger_.Promise(b_, std::nullopt, 0),
              HasReason(reason::kMountFull));
}

// What an earlier process wrote lies in the file system's numbers already.
TEST_F(LedgerTest, BytesOfAnEarlierProcessAreNotCountedTwice) {
  ledger_.SetSpace(Disk(100 * kGiB, 12 * kGiB));
  const int64_t before = ledger_.Take().available_bytes;
  ledger_.PromiseAgain(a_, std::nullopt, 0, /*on_disk=*/60 * kGiB);
  EXPECT_EQ(ledger_.Take().available_bytes, before);
  EXPECT_OK(ledger_.Grow(a_, 68 * kGiB));
  EXPECT_EQ(ledger_.Take().available_bytes, before - 8 * kGiB);
  EXPECT_THAT(ledger_.Grow(a_, 90 * kGiB), HasReason(reason::kMountFull));
  // Named again by a coordinator that had forgotten it.
  ledger_.Release(a_);
  EXPECT_OK(ledger_.Promise(a_, int64_t{65} * kGiB, 0, 60 * kGiB));
  EXPECT_EQ(ledger_.Take().available_bytes, before - 5 * kGiB);
}

TEST_F(LedgerTest, PromisesOfEarlierSessionsAreNeverRefused) {
  ledger_.SetSpace(Disk(100 * kGiB, 2 * kGiB));
  ledger_.PromiseAgain(a_, 10 * kGiB, 0);
  EXPECT_EQ(ledger_.Take().available_bytes, -9 * kGiB);
}

}  // namespace
}  // namespace predella::agent
