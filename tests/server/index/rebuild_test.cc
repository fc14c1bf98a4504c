#include "server/index/rebuild.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/generation.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/mem_kv_store.h"
#include "server/index/placement_index.h"
#include "tests/server/index/index_test_rows.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

using ::testing::ElementsAre;
using testing::HasReason;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::SizeIs;
using testing::StatusIs;

const Uuid kCluster = TestId(900);

class RebuildTest : public ::testing::Test {
 protected:
  static MountDescription Mount(const std::string& name, int uid,
                                const Uuid& cluster = kCluster) {
    MountDescription out;
    out.path = "/mnt/" + name;
    out.label.set_mount_uid(TestId(uid).bytes());
    out.label.set_mount_name(name);
    out.label.set_cluster_uid(cluster.none() ? "" : cluster.bytes());
    *out.known.add_entries() = Known(4, 44, 100);
    return out;
  }
  static void Remember(const std::string& name, int uid,
                       MountDescription* mount) {
    storage::v1::RosterEntry* entry = mount->deletes.add_roster();
    entry->set_mount_name(name);
    entry->set_mount_uid(TestId(uid).bytes());
  }
  static storage::v1::Tombstone Deleted(int image, int64_t n) {
    storage::v1::Tombstone out;
    out.set_image_id(TestId(image).bytes());
    *out.mutable_generation() = Generation{4, n, 44}.ToProto();
    out.set_create_time_us(77);
    return out;
  }

  testing::FakeClock clock_;
  testing::FakeIds ids_;
  MemKvStore kv_;
  MemEpochFile epoch_file_;
};

TEST_F(RebuildTest, TheIndexHasClusterMountsAndDeletesAndIsRecovering) {
  RebuildInput input;
  input.mounts = {Mount("store-1", 1), Mount("store-2", 2)};
  *input.mounts[1].known.add_entries() = Known(6, 66, 3);
  Remember("store-1", 1, &input.mounts[0]);
  Remember("store-2", 2, &input.mounts[0]);
  Remember("store-3", 3, &input.mounts[0]);
  *input.mounts[0].deletes.add_tombstones() = Deleted(50, 9);
  *input.mounts[1].deletes.add_tombstones() = Deleted(50, 9);
  *input.mounts[1].deletes.add_tombstones() = Deleted(51, 10);
  ASSERT_OK_AND_ASSIGN(const RebuildPlan plan, PlanRebuild(input));
  EXPECT_EQ(plan.highest_epoch, 6);
  ASSERT_OK_AND_ASSIGN(const storage::v1::EpochTable epochs,
                       WriteRebuiltIndex(plan, &kv_, &clock_, &ids_));
  ASSERT_THAT(epoch_file_.Write(epochs), IsOk());

  ASSERT_OK_AND_ASSIGN(
      const auto index,
      PlacementIndex::Open(&kv_, &epoch_file_, &clock_, &ids_, {}));
  EXPECT_EQ(index->cluster().cluster_uid(), kCluster.bytes());
  EXPECT_THAT(index->cluster().cluster_key(), SizeIs(32));
  EXPECT_TRUE(index->rebuilt());
  EXPECT_FALSE(index->created());
  EXPECT_FALSE(index->clean_start().has_value());
  EXPECT_GT(index->epoch(), 6);
  ASSERT_OK_AND_ASSIGN(const auto recovering, index->GetRecovering());
  ASSERT_TRUE(recovering.has_value());
  EXPECT_TRUE(recovering->by_command());

  ASSERT_OK_AND_ASSIGN(const auto mounts, index->ListMounts());
  ASSERT_THAT(mounts, SizeIs(3));
  for (const storage::v1::MountRow& row : mounts) {
    EXPECT_EQ(row.unconfirmed(), row.mount_name() == "store-3");
    EXPECT_EQ(row.admin_state(), storage::v1::ADMIN_STATE_ACTIVE);
  }
  ASSERT_OK_AND_ASSIGN(const auto twice, index->TombstonesOf(TestId(50)));
  ASSERT_THAT(twice, SizeIs(1));
  EXPECT_THAT(twice[0].copy_mount_uids(),
              ElementsAre(TestId(1).bytes(), TestId(2).bytes()));
  // Any of the three may hold the file still.
  EXPECT_THAT(twice[0].pending_mount_uids(), SizeIs(3));
  EXPECT_EQ(twice[0].create_time_us(), 77);
  ASSERT_OK_AND_ASSIGN(const auto once, index->TombstonesOf(TestId(51)));
  ASSERT_THAT(once, SizeIs(1));
  EXPECT_THAT(once[0].copy_mount_uids(), ElementsAre(TestId(2).bytes()));
}

// The old disk is given, the new one that replaced it is only remembered; and
// the other way around.
TEST_F(RebuildTest, AMountRememberedUnderAGivenNameIsWaitedForUnderAnother) {
  RebuildInput input;
  input.mounts = {Mount("store-1", 1), Mount("store-2", 2),
                  Mount("store-3", 3)};
  Remember("store-2", 7, &input.mounts[0]);
  Remember("store-2", 7, &input.mounts[2]);
  const std::string other =
      "store-2.replaced-" + TestId(7).ToString().substr(0, 8);
  ASSERT_OK_AND_ASSIGN(const RebuildPlan plan, PlanRebuild(input));
  ASSERT_THAT(plan.mounts, SizeIs(4));
  int found = 0;
  for (const RebuildPlan::Mount& mount : plan.mounts) {
    if (mount.identity.mount_uid() == TestId(7).bytes()) {
      EXPECT_EQ(mount.identity.mount_name(), other);
      EXPECT_FALSE(mount.given.has_value());
      ++found;
    }
  }
  EXPECT_EQ(found, 1);
  ASSERT_THAT(plan.notes, SizeIs(1));
  EXPECT_THAT(plan.notes[0], HasSubstr(other));
}

TEST_F(RebuildTest, NeverOverAnIndexThatIsThere) {
  ASSERT_OK_AND_ASSIGN(
      auto index, PlacementIndex::Open(&kv_, &epoch_file_, &clock_, &ids_, {}));
  index.reset();
  RebuildInput input;
  input.mounts = {Mount("store-1", 1)};
  ASSERT_OK_AND_ASSIGN(const RebuildPlan plan, PlanRebuild(input));
  const MemKvStore::Rows before = kv_.Contents();
  EXPECT_THAT(WriteRebuiltIndex(plan, &kv_, &clock_, &ids_).status(),
              StatusIs(absl::StatusCode::kAborted));
  EXPECT_EQ(kv_.Contents(), before);
}

TEST_F(RebuildTest, TheEpochIsAboveFencesFileAndWhatWasSaid) {
  RebuildInput input;
  input.mounts = {Mount("store-1", 1)};
  EXPECT_EQ(PlanRebuild(input)->epoch, 5);
  input.epoch_file.emplace().set_current_epoch(9);
  EXPECT_EQ(PlanRebuild(input)->epoch, 10);
  *input.epoch_file->add_past() = Known(12, 1, 1);
  EXPECT_EQ(PlanRebuild(input)->epoch, 13);
  input.above_epoch = 40;
  EXPECT_EQ(PlanRebuild(input)->epoch, 41);
}

TEST_F(RebuildTest, SeveralClustersAreRefusedByName) {
  RebuildInput input;
  input.mounts = {Mount("store-1", 1), Mount("store-2", 2, TestId(901))};
  const absl::Status mixed = PlanRebuild(input).status();
  EXPECT_THAT(mixed, HasReason(reason::kClusterMismatch));
  EXPECT_THAT(std::string(mixed.message()), HasSubstr(kCluster.ToString()));
  EXPECT_THAT(std::string(mixed.message()), HasSubstr(TestId(901).ToString()));
  input.mounts.pop_back();
  input.cluster_uid = TestId(901);
  EXPECT_THAT(PlanRebuild(input).status(), HasReason(reason::kClusterMismatch));
}

TEST_F(RebuildTest, WithoutAClustersLabelThereIsNothingToRebuildFrom) {
  RebuildInput input;
  input.mounts = {Mount("store-1", 1, Uuid())};
  EXPECT_THAT(PlanRebuild(input).status(), HasReason(reason::kClusterMismatch));
  // By hand: the mounts then come as they register.
  input.cluster_uid = kCluster;
  ASSERT_OK_AND_ASSIGN(const RebuildPlan plan, PlanRebuild(input));
  EXPECT_THAT(plan.mounts, IsEmpty());
  EXPECT_THAT(plan.notes, ElementsAre(HasSubstr("registers like a new mount")));
}

TEST_F(RebuildTest, ACopyOfAMountIsRefused) {
  RebuildInput input;
  input.mounts = {Mount("store-1", 1), Mount("store-1", 1)};
  input.mounts[1].path = "/mnt/copy";
  const absl::Status copy = PlanRebuild(input).status();
  EXPECT_THAT(copy, HasReason(reason::kMountIdentityMismatch));
  EXPECT_THAT(std::string(copy.message()), HasSubstr("/mnt/copy"));
  input.mounts[1] = Mount("store-1", 2);
  EXPECT_THAT(PlanRebuild(input).status(),
              HasReason(reason::kMountIdentityMismatch));
}

}  // namespace
}  // namespace predella::server
