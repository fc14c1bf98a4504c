// A thin mount: runs of zeros are holes, and nothing else of an upload changes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "agent/store/sparse_write.h"
#include "common/errors.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/matchers.h"
#include "tests/testing/mem_file_system.h"

namespace predella::agent {
namespace {

using testing::Fault;
using testing::HasReason;
using Keep = testing::MemFileSystem::Keep;

// As `bytes` with zeros in [from, to).
std::string Zeroed(std::string bytes, int64_t from, int64_t to) {
  std::fill(std::next(bytes.begin(), from), std::next(bytes.begin(), to), '\0');
  return bytes;
}

class ThinTest : public ::testing::Test {
 protected:
  void SetUp() override {
    w_.options.thin = true;
    ASSERT_OK(w_.InitAndOpen());
  }
  int64_t Allocated(const std::string& path) {
    const auto info = w_.mem.Stat(path);
    EXPECT_OK(info);
    return info.ok() ? info->allocated_bytes : -1;
  }
  int64_t AllocatedImage() {
    return Allocated(layout::ImagePath(spec_.image_id));
  }

  World w_;
  UploadSpec spec_ = SpecOf(1, 1, 5);
};

TEST_F(ThinTest, RunsOfZerosAreHolesAndReadAsZeros) {
  // A hole at the begin, one in the middle that ends in no unit, one at the
  // end; 10 KiB of zeros are too few.
  std::string bytes = Zeroed(Pattern(6 * kBlockBytes, 3), 0, kBlockBytes);
  bytes = Zeroed(bytes, 2 * kBlockBytes + 100, 4 * kBlockBytes + 100);
  bytes = Zeroed(bytes, 5 * kBlockBytes, 6 * kBlockBytes);
  bytes = Zeroed(bytes, 4 * kBlockBytes + 300000, 4 * kBlockBytes + 310000);
  for (const bool known : {false, true}) {
    SCOPED_TRACE(known);
    if (known) {
      spec_ = SpecOf(2, 2, 6);
      spec_.size_bytes = static_cast<int64_t>(bytes.size());
    }
    ASSERT_OK_AND_ASSIGN(const PublishedImage image,
                         Upload(w_.store.get(), spec_, bytes));
    EXPECT_EQ(image.size_bytes, 6 * kBlockBytes);
    EXPECT_EQ(AllocatedImage(), 2 * kBlockBytes + kHoleBytes);
    EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes);
    ASSERT_OK(w_.Open());
    EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes);
  }
}

TEST_F(ThinTest, AnyCutOfTheBytesGivesTheSameImage) {
  std::string bytes = Zeroed(Pattern(3 * kBlockBytes + 777, 3), 70000, 900000);
  bytes = Zeroed(bytes, kBlockBytes + 1, 3 * kBlockBytes + 777);
  for (const int64_t chunk : {int64_t{4097}, kHoleBytes, kBlockBytes - 1,
                              kBlockBytes, 2 * kBlockBytes + 5}) {
    SCOPED_TRACE(chunk);
    const UploadSpec spec = SpecOf(static_cast<uint64_t>(chunk), 1, chunk);
    ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec));
    ASSERT_OK(AppendAll(staged.get(), bytes, chunk));
    ASSERT_OK(staged->Publish(CommitOf(bytes)));
    EXPECT_EQ(*ReadAll(w_.store.get(), spec), bytes);
    EXPECT_EQ(w_.mem.GetFile(layout::ImagePath(spec.image_id))->size(),
              bytes.size());
  }
}

TEST_F(ThinTest, NothingButZeros) {
  const std::string bytes(static_cast<size_t>(20 * kBlockBytes), '\0');
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes));
  EXPECT_EQ(AllocatedImage(), 0);
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes);
  EXPECT_EQ(w_.mem.most_dirty_bytes() / kBlockBytes, 0);
}

TEST_F(ThinTest, AMountThatIsNotThinHasNoHoles) {
  w_.options.thin = false;
  ASSERT_OK(w_.Open());
  const std::string bytes(static_cast<size_t>(2 * kBlockBytes), '\0');
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes));
  EXPECT_EQ(AllocatedImage(), 2 * kBlockBytes);
}

TEST_F(ThinTest, HolesAreToldFromWhatIsAllocated) {
  const std::string bytes(static_cast<size_t>(kBlockBytes), '\0');
  spec_.size_bytes = 2 * kBlockBytes;
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  EXPECT_EQ(staged->allocated_bytes(), 0);
  EXPECT_EQ(Allocated(layout::InflightPath(spec_.upload_id)), 0);
  ASSERT_OK(AppendAll(staged.get(), bytes));
  EXPECT_EQ(staged->allocated_bytes(), 0);
  EXPECT_EQ(staged->hole_bytes(), kBlockBytes);
  // A later opening can not tell them from bytes.
  ASSERT_OK(staged->Checkpoint());
  ASSERT_OK_AND_ASSIGN(staged, w_.store->OpenStaged(spec_));
  EXPECT_EQ(staged->allocated_bytes(), kBlockBytes);
  EXPECT_EQ(staged->hole_bytes(), 0);
}

TEST_F(ThinTest, GoesOnAfterAKillInAHole) {
  const std::string bytes =
      Zeroed(Pattern(4 * kBlockBytes, 3), 1000, 3 * kBlockBytes + 1000);
  const absl::string_view all(bytes);
  {
    ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
    ASSERT_OK(AppendAll(staged.get(), all.substr(0, kBlockBytes + 99999)));
    ASSERT_OK(staged->Checkpoint());
    // Lost with the process.
    ASSERT_OK(AppendAll(staged.get(), all.substr(0, 2 * kBlockBytes)));
  }
  ASSERT_OK(w_.Open());
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  EXPECT_EQ(staged->tail_next(), kBlockBytes + 99999);
  ASSERT_OK(AppendAll(staged.get(), bytes));
  ASSERT_OK(staged->Publish(CommitOf(bytes)));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes);
  EXPECT_LT(AllocatedImage(), 2 * kBlockBytes);
}

// The prefix of an upload that moved here: a process took more of it than it
// had written down, so what lies below the tail is not known to be empty.
TEST_F(ThinTest, AHoleShowsNothingThatLayThereBefore) {
  const std::string bytes =
      Zeroed(Pattern(4 * kBlockBytes, 3), kBlockBytes, 3 * kBlockBytes);
  const absl::string_view all(bytes);
  spec_.tail_start = 2 * kBlockBytes;
  {
    ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
    ASSERT_OK(AppendAll(staged.get(), bytes));
    ASSERT_OK(staged->AppendPrefix(0, {all.substr(0, kBlockBytes)}, {}));
    ASSERT_OK(staged->Checkpoint());
  }
  const std::string path = layout::InflightPath(spec_.upload_id);
  {
    ASSERT_OK_AND_ASSIGN(auto file, w_.mem.Open(path, OpenMode::kReadWrite));
    ASSERT_OK(file->Pwrite(kBlockBytes, Pattern(kBlockBytes, 99)));
  }
  ASSERT_OK(w_.Open());
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_EQ(staged->prefix_next(), kBlockBytes);
  ASSERT_OK(staged->AppendPrefix(kBlockBytes,
                                 {all.substr(kBlockBytes, kBlockBytes)}, {}));
  ASSERT_OK(staged->Publish(CommitOf(bytes)));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes);
}

TEST_F(ThinTest, APrefixOfZerosUnderATailIsAHole) {
  const std::string bytes =
      Zeroed(Pattern(4 * kBlockBytes, 3), 0, 2 * kBlockBytes);
  const absl::string_view all(bytes);
  spec_.tail_start = 2 * kBlockBytes;
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_OK(AppendAll(staged.get(), bytes));
  ASSERT_OK(staged->AppendPrefix(0, {all.substr(0, 2 * kBlockBytes)}, {}));
  ASSERT_OK(staged->Publish(CommitOf(bytes)));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes);
  EXPECT_EQ(AllocatedImage(), 2 * kBlockBytes);
}

// A prefix whose write stopped half-way, and comes again as zeros.
TEST_F(ThinTest, WhatAFullMountTookInPartIsWrittenOver) {
  const std::string other = Pattern(kBlockBytes, 98);
  const std::string bytes = Zeroed(Pattern(2 * kBlockBytes, 3), 0, kBlockBytes);
  const absl::string_view all(bytes);
  spec_.tail_start = kBlockBytes;
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_OK(AppendAll(staged.get(), bytes));
  Fault fault;
  fault.op = "pwrite";
  fault.path = ".predella/inflight";
  fault.perform = true;
  fault.status =
      MakeError(absl::StatusCode::kResourceExhausted, reason::kMountFull, "");
  w_.fault.Inject(fault);
  EXPECT_THAT(staged->AppendPrefix(0, {other}, {}),
              HasReason(reason::kMountFull));
  w_.fault.Reset();
  ASSERT_OK(staged->AppendPrefix(0, {all.substr(0, kBlockBytes)}, {}));
  ASSERT_OK(staged->Publish(CommitOf(bytes)));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes);
}

TEST_F(ThinTest, AFullMountIsCutBackToTheLastGoodByte) {
  const std::string bytes =
      Zeroed(Pattern(2 * kBlockBytes, 3), 1000, kBlockBytes + 300000);
  const absl::string_view all(bytes);
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_OK(AppendAll(staged.get(), all.substr(0, kBlockBytes)));
  ASSERT_OK_AND_ASSIGN(const SpaceInfo space, w_.store->Space());
  w_.mem.SetCapacity(space.size_bytes - space.available_bytes + 8192, 100000);
  EXPECT_THAT(staged->AppendTail(kBlockBytes, {all.substr(kBlockBytes)}, {}),
              HasReason(reason::kMountFull));
  const std::string path = layout::InflightPath(spec_.upload_id);
  EXPECT_EQ(w_.mem.GetFile(path)->size(), static_cast<size_t>(kBlockBytes));
  // Zeros alone still have room.
  ASSERT_OK(staged->AppendTail(kBlockBytes,
                               {all.substr(kBlockBytes, 3 * kHoleBytes)}, {}));
  w_.mem.SetCapacity(int64_t{1} << 30, 100000);
  ASSERT_OK(AppendAll(staged.get(), bytes));
  ASSERT_OK(staged->Publish(CommitOf(bytes)));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes);
}

TEST_F(ThinTest, WhatCanNotBeMadeLongerCondemns) {
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  Fault fault;
  fault.op = "truncate";
  fault.status =
      MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
  w_.fault.Inject(fault);
  const std::string zeros(static_cast<size_t>(kBlockBytes), '\0');
  EXPECT_THAT(staged->AppendTail(0, {zeros}, {}),
              HasReason(reason::kMountFailed));
  EXPECT_TRUE(staged->condemned());
  EXPECT_EQ(staged->tail_next(), 0);
}

TEST_F(ThinTest, WhatWasSyncedSurvivesAPowerCutAtAnyCallAfter) {
  const std::string bytes =
      Zeroed(Pattern(2 * kBlockBytes + 777, 3), 5000, 2 * kBlockBytes);
  for (const Keep keep : {Keep::kNothing, Keep::kSome, Keep::kEverything}) {
    for (int64_t n = 1; n < 200; ++n) {
      SCOPED_TRACE(absl::StrCat("cut at call ", n));
      World w;
      w.options.thin = true;
      ASSERT_OK(w.InitAndOpen());
      w.fault.Reset();
      w.fault.CrashAt(n);
      const bool published = Upload(w.store.get(), spec_, bytes).ok();
      const bool reached = w.fault.injected();
      w.fault.Reset();
      w.PowerCut(keep, static_cast<uint64_t>(n));
      ASSERT_OK(w.Open());
      ASSERT_OK_AND_ASSIGN(const auto found, w.store->Find(spec_.image_id));
      EXPECT_TRUE(found.has_value() || !published);
      ASSERT_OK(Upload(w.store.get(), spec_, bytes));
      EXPECT_EQ(*ReadAll(w.store.get(), spec_), bytes);
      if (!reached) {
        break;
      }
    }
  }
}

}  // namespace
}  // namespace predella::agent
