// Bytes of an upload: what is accepted, what survives, what is refused.
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/matchers.h"
#include "tests/testing/mem_file_system.h"

namespace predella::agent {
namespace {

using testing::Fault;
using testing::HasReason;
using testing::StatusIs;
using Keep = testing::MemFileSystem::Keep;

class StagedTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(w_.InitAndOpen()); }
  absl::string_view All() const { return bytes_; }

  World w_;
  UploadSpec spec_ = SpecOf(1, 1, 5);
  std::string bytes_ = Pattern(3 * kBlockBytes + 777, 11);
};

TEST_F(StagedTest, AnyCutOfTheBytesGivesTheSameImage) {
  for (const int64_t chunk : {int64_t{4097}, int64_t{65536}, kBlockBytes - 1,
                              kBlockBytes, 2 * kBlockBytes}) {
    SCOPED_TRACE(chunk);
    const UploadSpec spec = SpecOf(static_cast<uint64_t>(chunk), 1, chunk);
    ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec));
    ASSERT_OK(AppendAll(staged.get(), bytes_, chunk));
    ASSERT_OK_AND_ASSIGN(const PublishedImage image,
                         staged->Publish(CommitOf(bytes_)));
    EXPECT_EQ(image.crc32c, Crc32c(bytes_));
    EXPECT_EQ(image.size_bytes, static_cast<int64_t>(bytes_.size()));
    ASSERT_OK_AND_ASSIGN(const std::string read, ReadAll(w_.store.get(), spec));
    EXPECT_EQ(read, bytes_);
    staged.reset();
    ASSERT_OK(w_.store->Remove(spec.image_id, spec.generation, spec.upload_id));
  }
}

TEST_F(StagedTest, SlicesOfOneChunkAreOneChunk) {
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_OK(staged->AppendTail(
      0, {All().substr(0, 10), absl::string_view(), All().substr(10, 90)},
      Crc32c(All().substr(0, 100))));
  EXPECT_EQ(staged->tail_next(), 100);
}

TEST_F(StagedTest, AnEmptyImageIsAnImage) {
  ASSERT_OK(Upload(w_.store.get(), spec_, ""));
  ASSERT_OK_AND_ASSIGN(const std::string read, ReadAll(w_.store.get(), spec_));
  EXPECT_EQ(read, "");
}

TEST_F(StagedTest, AWrongChunkIsRefusedBeforeItIsWritten) {
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  const auto wrong = staged->AppendTail(0, {All().substr(0, 50)}, 1234);
  EXPECT_THAT(wrong, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(wrong, HasReason(reason::kChecksumMismatch));
  EXPECT_EQ(staged->tail_next(), 0);
  EXPECT_EQ(*w_.mem.GetFile(layout::InflightPath(spec_.upload_id)), "");
  ASSERT_OK(staged->AppendTail(0, {All().substr(0, 50)}, {}));
  const auto gap = staged->AppendTail(51, {All().substr(51, 5)}, {});
  EXPECT_THAT(gap, HasReason(reason::kOffsetMismatch));
  EXPECT_EQ(MetadataOf(gap)["expected_offset"], "50");
}

TEST_F(StagedTest, AnAnnouncedSizeBindsAndIsAllocated) {
  spec_.size_bytes = 100;
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  EXPECT_EQ(staged->allocated_bytes(), 100);
  EXPECT_THAT(staged->AppendTail(0, {All().substr(0, 101)}, {}),
              HasReason(reason::kSizeMismatch));
  ASSERT_OK(staged->AppendTail(0, {All().substr(0, 99)}, {}));
  EXPECT_THAT(staged->Publish(CommitOf(All().substr(0, 99))),
              HasReason(reason::kSizeMismatch));
  ASSERT_OK(staged->AppendTail(99, {All().substr(99, 1)}, {}));
  EXPECT_THAT(staged->Publish(CommitOf(All().substr(0, 99))),
              StatusIs(absl::StatusCode::kOutOfRange));
  CommitRequest wrong = CommitOf(All().substr(0, 100));
  wrong.crc32c = 5;
  EXPECT_THAT(staged->Publish(wrong), HasReason(reason::kChecksumMismatch));
  // Nothing of that spoilt it.
  ASSERT_OK(staged->Publish(CommitOf(All().substr(0, 100))));
}

TEST_F(StagedTest, ResumesAfterAKillAtTheLastCheckpoint) {
  {
    ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
    ASSERT_OK(AppendAll(staged.get(), All().substr(0, kBlockBytes + 50)));
    EXPECT_EQ(staged->tail_safe(), 0);
    ASSERT_OK(staged->Checkpoint());
    EXPECT_EQ(staged->tail_safe(), kBlockBytes + 50);
    ASSERT_OK(AppendAll(staged.get(), All().substr(0, 2 * kBlockBytes)));
  }
  ASSERT_OK(w_.Open());
  EXPECT_EQ(w_.store->InflightBytes(spec_.upload_id), kBlockBytes + 50);
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  EXPECT_EQ(staged->tail_next(), kBlockBytes + 50);
  EXPECT_EQ(staged->tail_safe(), kBlockBytes + 50);
  ASSERT_OK(AppendAll(staged.get(), bytes_));
  ASSERT_OK(staged->Publish(CommitOf(bytes_)));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes_);
  EXPECT_EQ(w_.store->InflightBytes(spec_.upload_id), std::nullopt);
}

TEST_F(StagedTest, ResumeCutsAtTheLastGoodBlock) {
  {
    ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
    ASSERT_OK(AppendAll(staged.get(), bytes_));
    ASSERT_OK(staged->Checkpoint());
  }
  ASSERT_OK(
      w_.mem.FlipByte(layout::InflightPath(spec_.upload_id), kBlockBytes + 3));
  ASSERT_OK(w_.Open());
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  EXPECT_EQ(staged->tail_next(), kBlockBytes);
  ASSERT_OK(AppendAll(staged.get(), bytes_));
  ASSERT_OK(staged->Publish(CommitOf(bytes_)));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes_);
}

TEST_F(StagedTest, TheStateIsWrittenOnItsOwnAndDirtyPagesAreBounded) {
  const std::string chunk = Pattern(kBlockBytes, 5);
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  for (int i = 0; i < 40; ++i) {
    ASSERT_OK(staged->AppendTail(i * kBlockBytes, {chunk}, {}));
    EXPECT_LE(staged->tail_next() - staged->tail_safe(), kStateIntervalBytes);
  }
  EXPECT_GE(staged->tail_safe(), 32 * kBlockBytes);
  EXPECT_LE(w_.mem.most_dirty_bytes(), 17 * kBlockBytes);
}

TEST_F(StagedTest, WithoutRangeSyncDirtyPagesAreBoundedToo) {
  w_.mem.SetRangeSync(false);
  w_.mem.SetAllocate(false);
  const std::string chunk = Pattern(kBlockBytes, 5);
  spec_.size_bytes = 40 * kBlockBytes;
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  for (int i = 0; i < 40; ++i) {
    ASSERT_OK(staged->AppendTail(i * kBlockBytes, {chunk}, {}));
  }
  EXPECT_LE(w_.mem.most_dirty_bytes(), 17 * kBlockBytes);
}

TEST_F(StagedTest, PrefixAndTailMeet) {
  spec_.tail_start = 2 * kBlockBytes;
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  EXPECT_EQ(staged->tail_next(), 2 * kBlockBytes);
  EXPECT_EQ(staged->prefix_next(), 0);
  ASSERT_OK(AppendAll(staged.get(), bytes_));
  EXPECT_THAT(staged->Publish(CommitOf(bytes_)),
              HasReason(reason::kSizeMismatch));
  ASSERT_OK(staged->AppendPrefix(0, {All().substr(0, kBlockBytes + 9)}, {}));
  ASSERT_OK(staged->Checkpoint());
  staged.reset();
  ASSERT_OK(w_.Open());
  ASSERT_OK_AND_ASSIGN(staged, w_.store->OpenStaged(spec_));
  EXPECT_EQ(staged->prefix_next(), kBlockBytes + 9);
  EXPECT_EQ(staged->tail_next(), static_cast<int64_t>(bytes_.size()));
  const int64_t rest = kBlockBytes - 9;
  EXPECT_THAT(
      staged->AppendPrefix(kBlockBytes + 9,
                           {All().substr(kBlockBytes + 9, rest + 1)}, {}),
      HasReason(reason::kSizeMismatch));
  ASSERT_OK(staged->AppendPrefix(kBlockBytes + 9,
                                 {All().substr(kBlockBytes + 9, rest)}, {}));
  // Across the seam.
  EXPECT_EQ(*staged->ReadBack(2 * kBlockBytes - 5, 10),
            All().substr(2 * kBlockBytes - 5, 10));
  ASSERT_OK(staged->Publish(CommitOf(bytes_)));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes_);
}

// The mount that an upload moves to, cut off at every call of the sync that
// lets the mount before drop its bytes.
TEST_F(StagedTest, WhatWasSyncedSurvivesAPowerCutAtAnyCallAfter) {
  spec_.tail_start = 2 * kBlockBytes;
  const absl::string_view prefix = All().substr(0, 2 * kBlockBytes);
  for (const Keep keep : {Keep::kNothing, Keep::kSome, Keep::kEverything}) {
    for (int64_t n = 1; n < 100; ++n) {
      SCOPED_TRACE(absl::StrCat("cut at call ", n));
      World w;
      ASSERT_OK(w.InitAndOpen());
      ASSERT_OK_AND_ASSIGN(auto staged, w.store->OpenStaged(spec_));
      ASSERT_OK(AppendAll(staged.get(), bytes_));
      ASSERT_OK(staged->AppendPrefix(0, {prefix}, {}));
      w.fault.Reset();
      w.fault.CrashAt(n);
      const bool synced = staged->Sync().ok();
      const bool reached = w.fault.injected();
      staged.reset();
      w.fault.Reset();
      w.PowerCut(keep, static_cast<uint64_t>(n));
      ASSERT_OK(w.Open());
      ASSERT_OK_AND_ASSIGN(staged, w.store->OpenStaged(spec_));
      EXPECT_EQ(synced, !reached);
      if (synced) {
        EXPECT_EQ(staged->prefix_next(), 2 * kBlockBytes);
        EXPECT_EQ(staged->tail_next(), static_cast<int64_t>(bytes_.size()));
        ASSERT_OK(staged->Publish(CommitOf(bytes_)));
        EXPECT_EQ(*ReadAll(w.store.get(), spec_), bytes_);
      }
      if (!reached) {
        break;
      }
    }
  }
}

TEST_F(StagedTest, AFailedSyncCondemnsAndAFullDiskDoesNot) {
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_OK(AppendAll(staged.get(), bytes_));
  Fault fault;
  fault.op = "pwrite";  // of the state
  fault.status =
      MakeError(absl::StatusCode::kResourceExhausted, reason::kMountFull, "");
  w_.fault.Inject(fault);
  EXPECT_THAT(staged->Sync(), HasReason(reason::kMountFull));
  EXPECT_FALSE(staged->condemned());
  ASSERT_OK(staged->Sync());
  w_.mem.FailNextDatasync("inflight");
  EXPECT_FALSE(staged->Sync().ok());
  EXPECT_TRUE(staged->condemned());
  EXPECT_FALSE(staged->Publish(CommitOf(bytes_)).ok());
}

TEST_F(StagedTest, AFullMountKeepsTheLastGoodByteAndTheCallCanBeRepeated) {
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_OK(staged->AppendTail(0, {All().substr(0, kBlockBytes)}, {}));
  ASSERT_OK_AND_ASSIGN(const SpaceInfo space, w_.store->Space());
  const int64_t used = space.size_bytes - space.available_bytes;
  w_.mem.SetCapacity(used + 8192, 100000);
  const absl::string_view next = All().substr(kBlockBytes, kBlockBytes);
  const auto full = staged->AppendTail(kBlockBytes, {next}, Crc32c(next));
  EXPECT_THAT(full, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(full, HasReason(reason::kMountFull));
  EXPECT_FALSE(staged->condemned());
  EXPECT_EQ(staged->tail_next(), kBlockBytes);
  EXPECT_EQ(w_.mem.GetFile(layout::InflightPath(spec_.upload_id))->size(),
            static_cast<size_t>(kBlockBytes));
  EXPECT_EQ(*staged->ReadBack(0, kBlockBytes), All().substr(0, kBlockBytes));
  w_.mem.SetCapacity(int64_t{1} << 30, 100000);
  ASSERT_OK(AppendAll(staged.get(), bytes_));
  ASSERT_OK(staged->Publish(CommitOf(bytes_)));
}

TEST_F(StagedTest, AKnownSizeThatDoesNotFitLeavesNothing) {
  ASSERT_OK_AND_ASSIGN(const SpaceInfo before, w_.store->Space());
  spec_.size_bytes = before.available_bytes + 1;
  EXPECT_THAT(w_.store->OpenStaged(spec_), HasReason(reason::kMountFull));
  EXPECT_EQ(w_.store->Space()->available_bytes, before.available_bytes);
  EXPECT_EQ(w_.store->InflightBytes(spec_.upload_id), std::nullopt);
  w_.mem.SetCapacity(before.size_bytes, 1);
  spec_.size_bytes.reset();
  EXPECT_THAT(w_.store->OpenStaged(spec_), HasReason(reason::kMountFull));
}

struct SyncCase {
  const char* op;
  const char* path;  // how it begins
};
class FailedSyncTest : public ::testing::TestWithParam<SyncCase> {};

TEST_P(FailedSyncTest, CondemnsTheFileForEver) {
  World w;
  ASSERT_OK(w.InitAndOpen());
  const UploadSpec spec = SpecOf(1, 1, 5);
  // More than the window of dirty pages.
  static const std::string bytes = Pattern(18 * kBlockBytes, 2);
  ASSERT_OK_AND_ASSIGN(auto staged, w.store->OpenStaged(spec));
  Fault fault;
  fault.op = GetParam().op;
  fault.path = GetParam().path;
  fault.at = fault.op == "pwrite" ? 3 : 1;  // after some bytes came
  fault.status =
      MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
  w.fault.Inject(fault);
  absl::Status failed = AppendAll(staged.get(), bytes);
  if (failed.ok()) {
    failed = staged->Publish(CommitOf(bytes)).status();
  }
  EXPECT_THAT(failed, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(failed, HasReason(reason::kMountFailed));
  EXPECT_TRUE(w.fault.injected());
  EXPECT_TRUE(staged->condemned());
  // What it has may still be copied away, and no more.
  EXPECT_EQ(*staged->ReadBack(0, 1000), bytes.substr(0, 1000));
  const int64_t next = staged->tail_next();
  EXPECT_THAT(staged->AppendTail(next, {"x"}, {}),
              HasReason(reason::kMountFailed));
  EXPECT_FALSE(staged->Publish(CommitOf(bytes.substr(0, next))).ok());
  EXPECT_FALSE(w.mem.Exists(layout::ImagePath(spec.image_id)));
  staged.reset();
  const auto again = w.store->OpenStaged(spec);
  if (again.ok()) {  // its bytes are still there: to be read, not published
    EXPECT_TRUE((*again)->condemned());
    EXPECT_FALSE((*again)->Publish(CommitOf(bytes.substr(0, next))).ok());
  }
  // Discarded, the same upload begins anew.
  ASSERT_OK(w.store->Discard(spec.upload_id));
  ASSERT_OK(Upload(w.store.get(), spec, bytes));
}
INSTANTIATE_TEST_SUITE_P(
    Syncs, FailedSyncTest,
    ::testing::Values(SyncCase{"datasync", ".predella/inflight"},
                      SyncCase{"start_writeback", ""},
                      SyncCase{"wait_writeback", ""},
                      SyncCase{"datasync", ".predella/records"},
                      SyncCase{"sync_dir", ".predella/records"},
                      SyncCase{"sync_dir", ""},
                      SyncCase{"pwrite", ".predella/inflight"}),
    [](const auto& each) { return absl::StrCat("Case", each.index); });

// The kernel reports a failed sync once; the page cache goes on showing what
// the disk has not.
TEST_F(StagedTest, ALaterProcessDoesNotBelieveTheCacheAfterAFailedSync) {
  {
    ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
    ASSERT_OK(AppendAll(staged.get(), bytes_));
    ASSERT_OK(staged->Checkpoint());
    // Even where the state could not be taken away.
    Fault fault;
    fault.op = "unlink";
    fault.forever = true;
    w_.fault.Inject(fault);
    w_.mem.FailNextDatasync("inflight");
    EXPECT_FALSE(staged->Publish(CommitOf(bytes_)).ok());
    w_.fault.Reset();
  }
  ASSERT_OK(w_.Open());  // kill -9 and a new process
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  EXPECT_EQ(staged->tail_next(), 0);
  ASSERT_OK(AppendAll(staged.get(), bytes_));
  ASSERT_OK(staged->Publish(CommitOf(bytes_)));
  staged.reset();
  w_.PowerCut(Keep::kNothing);
  ASSERT_OK(w_.Open());
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes_);
}

TEST_F(StagedTest, AnotherGenerationOrImageIsNotContinued) {
  ASSERT_OK(w_.store->OpenStaged(spec_));
  UploadSpec other = spec_;
  other.generation.n = 6;
  EXPECT_THAT(w_.store->OpenStaged(other),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  other = spec_;
  other.image_id = TestId(9);
  EXPECT_THAT(w_.store->OpenStaged(other),
              HasReason(reason::kGenerationMismatch));
  other = spec_;
  other.tail_start = kBlockBytes;
  EXPECT_THAT(w_.store->OpenStaged(other),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  other = SpecOf(2, 2, 7);
  other.tail_start = 5;
  EXPECT_THAT(w_.store->OpenStaged(other),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(StagedTest, BytesRemovedUnderAnUploadAreNotPublished) {
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_OK(AppendAll(staged.get(), bytes_));
  ASSERT_OK(w_.store->Discard(spec_.upload_id));
  ASSERT_OK(w_.store->Discard(spec_.upload_id));
  EXPECT_THAT(staged->Checkpoint(), HasReason(reason::kUploadAborted));
  EXPECT_THAT(staged->Publish(CommitOf(bytes_)),
              HasReason(reason::kUploadAborted));
  // Nor is another opening's file.
  ASSERT_OK_AND_ASSIGN(auto next, w_.store->OpenStaged(spec_));
  EXPECT_THAT(staged->AppendTail(staged->tail_next(), {"x"}, {}),
              HasReason(reason::kUploadAborted));
  EXPECT_THAT(staged->Publish(CommitOf(bytes_)),
              HasReason(reason::kUploadAborted));
  EXPECT_EQ(next->tail_next(), 0);
}

TEST_F(StagedTest, ReadBackGivesOnlyWhatCameAndIsGood) {
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_OK(AppendAll(staged.get(), All().substr(0, kBlockBytes + 100)));
  EXPECT_EQ(*staged->ReadBack(kBlockBytes - 10, 500),
            All().substr(kBlockBytes - 10, 110));
  EXPECT_THAT(staged->ReadBack(kBlockBytes + 101, 1),
              HasReason(reason::kReadPastEnd));
  ASSERT_OK(w_.mem.FlipByte(layout::InflightPath(spec_.upload_id), 17));
  EXPECT_THAT(staged->ReadBack(500, 10), HasReason(reason::kChecksumMismatch));
  EXPECT_OK(staged->ReadBack(kBlockBytes, 10));
}

}  // namespace
}  // namespace predella::agent
