#include "agent/store/describe.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/store/layout.h"
#include "common/errors.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::SizeIs;
using testing::StatusIs;

void Overwrite(World* world, absl::string_view path, int64_t at,
               const std::string& bytes) {
  const auto file = world->mem.Open(path, OpenMode::kReadWrite);
  ASSERT_THAT(file.status(), IsOk());
  ASSERT_THAT((*file)->Pwrite(at, bytes), IsOk());
}

TEST(DescribeTest, SaysWhatAMountKnowsWhileItsAgentRuns) {
  World world;
  ASSERT_THAT(world.InitAndOpen(), IsOk());
  ASSERT_THAT(world.store->ClaimLabel(TestId(7).bytes()), IsOk());
  ASSERT_THAT(world.store->Hear(Generation{5, 10, 0xaa}), IsOk());
  ASSERT_THAT(Upload(world.store.get(), SpecOf(1, 1, 40), Pattern(5000, 1)),
              IsOk());
  ASSERT_THAT(Upload(world.store.get(), SpecOf(2, 2, 41), Pattern(100, 2)),
              IsOk());
  // In flight: only its generation counts.
  ASSERT_OK_AND_ASSIGN(const auto staged,
                       world.store->OpenStaged(SpecOf(3, 3, 90)));
  ASSERT_THAT(AppendAll(staged.get(), Pattern(10, 3)), IsOk());
  ASSERT_THAT(staged->Checkpoint(), IsOk());
  storage::v1::Tombstone tombstone;
  tombstone.set_image_id(TestId(9).bytes());
  *tombstone.mutable_generation() = Generation{5, 2, 0xaa}.ToProto();
  ASSERT_THAT(world.store->StoreTombstone(tombstone), IsOk());
  storage::v1::RosterEntry other;
  other.set_mount_name("store-2");
  ASSERT_THAT(world.store->StoreRoster({&other, 1}), IsOk());

  ASSERT_OK_AND_ASSIGN(const MountDescription got, DescribeMount(&world.mem));
  EXPECT_EQ(got.label.SerializeAsString(),
            world.store->label().SerializeAsString());
  EXPECT_EQ(got.image_count, 2);
  EXPECT_EQ(got.image_bytes, 5100);
  EXPECT_THAT(got.warnings, IsEmpty());
  ASSERT_THAT(got.deletes.tombstones(), SizeIs(1));
  EXPECT_EQ(got.deletes.tombstones(0).SerializeAsString(),
            tombstone.SerializeAsString());
  ASSERT_THAT(got.deletes.roster(), SizeIs(1));
  // As the agent itself reports it.
  storage::v1::Fence known;
  for (const storage::v1::FenceEntry& entry : world.store->Known()) {
    *known.add_entries() = entry;
  }
  EXPECT_EQ(got.known.SerializeAsString(), known.SerializeAsString());
  ASSERT_THAT(known.entries(), SizeIs(2));
  EXPECT_EQ(known.entries(0).max_n(), 90);
}

TEST(DescribeTest, NeverWrites) {
  World world;
  ASSERT_THAT(world.InitAndOpen(), IsOk());
  ASSERT_THAT(Upload(world.store.get(), SpecOf(1, 1, 40), Pattern(50, 1)),
              IsOk());
  world.store.reset();
  world.fault.Trace(true);
  EXPECT_THAT(DescribeMount(&world.fault).status(), IsOk());
  const std::set<std::string> reads = {"open", "stat", "fstat", "list",
                                       "pread"};
  const std::vector<std::string> calls = world.fault.trace();
  EXPECT_GT(calls.size(), 256U);
  for (const std::string& call : calls) {
    const std::vector<std::string> words = absl::StrSplit(call, ' ');
    EXPECT_TRUE(words.size() > 1 && reads.count(words[1]) > 0) << call;
  }
}

TEST(DescribeTest, WhatIsDamagedIsNamedAndTheRestIsSaid) {
  World world;
  ASSERT_THAT(world.InitAndOpen(), IsOk());
  ASSERT_THAT(Upload(world.store.get(), SpecOf(1, 1, 40), Pattern(50, 1)),
              IsOk());
  ASSERT_THAT(Upload(world.store.get(), SpecOf(2, 2, 41), Pattern(60, 2)),
              IsOk());
  ASSERT_THAT(world.store->Hear(Generation{5, 10, 0xaa}), IsOk());
  world.store.reset();
  Overwrite(&world, layout::RecordPath(TestId(1)), 40, "x");
  for (int slot = 0; slot < layout::kFenceSlots; ++slot) {
    Overwrite(&world, layout::kFence, slot * layout::kFenceSlotBytes + 30, "x");
  }
  ASSERT_OK_AND_ASSIGN(const MountDescription got, DescribeMount(&world.mem));
  EXPECT_EQ(got.image_count, 1);
  EXPECT_EQ(got.image_bytes, 60);
  EXPECT_THAT(got.warnings,
              ElementsAre(HasSubstr("fence"), HasSubstr("1 records or files")));
  // The records vouch for the epoch of the images all the same.
  ASSERT_THAT(got.known.entries(), SizeIs(1));
  EXPECT_EQ(got.known.entries(0).epoch(), 3);
}

TEST(DescribeTest, WithoutALabelItIsNoMount) {
  World world;
  EXPECT_THAT(DescribeMount(&world.mem).status(),
              StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace predella::agent
