#include "server/index/placement_index.h"

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rocksdb/env.h"

#include "common/errors.h"
#include "server/index/index_keys.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/mem_kv_store.h"
#include "server/index/rocksdb_kv_store.h"
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
using testing::StatusIs;

class PlacementIndexTest : public ::testing::Test {
 protected:
  PlacementIndexTest() { kv_ = std::make_unique<MemKvStore>(); }

  absl::StatusOr<std::unique_ptr<PlacementIndex>> TryOpen() {
    return PlacementIndex::Open(kv_.get(), &file_, &clock_, &ids_, options_);
  }
  // A start after whatever happened to rows and file.
  void Start() {
    index_.reset();
    kv_->ClearFaults();
    ASSERT_OK_AND_ASSIGN(index_, TryOpen());
  }
  void PutBack(MemKvStore::Rows rows) {
    index_.reset();
    kv_ = std::make_unique<MemKvStore>(std::move(rows));
  }
  storage::v1::FenceEntry Heard() {
    const Generation pair = index_->synced_pair();
    return Known(pair.epoch, pair.nonce, pair.n);
  }
  bool Covers(const storage::v1::FenceEntry& known) {
    return index_->Covers({known});
  }
  absl::Status PutImage(const Uuid& id, int64_t size, const Uuid& mount) {
    IndexTxn txn = index_->Begin();
    txn.RequireNoImage(id);
    txn.PutImage(TestImage(id, txn.pair(), size, {mount}));
    return index_->Commit(std::move(txn));
  }
  absl::Status CommitNothing() { return index_->Commit(index_->Begin()); }

  testing::FakeClock clock_;
  testing::FakeIds ids_;
  MemEpochFile file_;
  PlacementIndex::OpenOptions options_;
  std::unique_ptr<MemKvStore> kv_;
  std::unique_ptr<PlacementIndex> index_;
  const Uuid store1_ = TestId(1001);
  const Uuid store2_ = TestId(1002);
};

TEST_F(PlacementIndexTest, AFirstStartMakesTheCluster) {
  Start();
  EXPECT_TRUE(index_->created());
  EXPECT_EQ(index_->cluster().cluster_uid().size(), 16);
  EXPECT_EQ(index_->cluster().cluster_key().size(), 32);
  EXPECT_EQ(index_->epoch(), 1);
  EXPECT_EQ(index_->synced_pair().n, 1);
  ASSERT_TRUE(file_.table().has_value());
  EXPECT_EQ(file_.table()->current_epoch(), 1);
  const std::string key = index_->cluster().cluster_key();

  Start();
  EXPECT_FALSE(index_->created());
  EXPECT_EQ(index_->cluster().cluster_key(), key);
  EXPECT_EQ(index_->epoch(), 2);
}

TEST_F(PlacementIndexTest, AnImageGoesWithItsRowsByMount) {
  Start();
  const Uuid id = TestId(1);
  ASSERT_OK(PutImage(id, 100, store1_));
  ASSERT_OK_AND_ASSIGN(const auto row, index_->GetImage(id));
  ASSERT_TRUE(row.has_value());
  EXPECT_EQ(row->size_bytes(), 100);
  EXPECT_THAT(index_->ListMountImages(store1_, Uuid(), 0),
              testing::IsOkAndHolds(ElementsAre(id)));
  EXPECT_EQ(index_->mount_totals(store1_).bytes, 100);

  // The image moves: its row is required, and found again byte by byte though
  // it holds a map.
  storage::v1::ImageRow moved = *row;
  moved.mutable_copies(0)->set_mount_uid(store2_.bytes());
  IndexTxn txn = index_->Begin();
  txn.RequireImage(*row);
  txn.PutImage(moved);
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_THAT(index_->ListMountImages(store1_, Uuid(), 0),
              testing::IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(index_->ListMountImages(store2_, Uuid(), 0),
              testing::IsOkAndHolds(ElementsAre(id)));
  EXPECT_EQ(index_->mount_totals(store1_).count, 0);
  EXPECT_EQ(index_->mount_totals(store2_).bytes, 100);
  EXPECT_EQ(index_->totals().count, 1);

  IndexTxn gone = index_->Begin();
  gone.DeleteImage(moved);
  ASSERT_OK(index_->Commit(std::move(gone)));
  ASSERT_OK_AND_ASSIGN(const auto none, index_->GetImage(id));
  EXPECT_FALSE(none.has_value());
  EXPECT_THAT(index_->ListMountImages(store2_, Uuid(), 0),
              testing::IsOkAndHolds(IsEmpty()));
  EXPECT_EQ(index_->totals().bytes, 0);
}

TEST_F(PlacementIndexTest, APutWithoutARequirementStillReplacesItsRows) {
  Start();
  const Uuid id = TestId(1);
  ASSERT_OK(PutImage(id, 100, store1_));
  IndexTxn txn = index_->Begin();
  txn.PutImage(TestImage(id, txn.pair(), 70, {store1_, store2_}));
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_EQ(index_->mount_totals(store1_).bytes, 70);
  EXPECT_EQ(index_->mount_totals(store2_).bytes, 70);
  EXPECT_EQ(index_->totals().count, 1);
  EXPECT_EQ(index_->totals().bytes, 70);

  // Counted again at a start: the same.
  Start();
  EXPECT_EQ(index_->mount_totals(store2_).count, 1);
  EXPECT_EQ(index_->totals().count, 1);
  EXPECT_EQ(index_->totals().bytes, 70);
}

TEST_F(PlacementIndexTest, ReplacesByDeleteAndPutInOneCommit) {
  Start();
  const Uuid id = TestId(1);
  ASSERT_OK(PutImage(id, 100, store1_));
  ASSERT_OK_AND_ASSIGN(const auto old, index_->GetImage(id));
  IndexTxn txn = index_->Begin();
  txn.DeleteImage(*old);
  txn.PutImage(TestImage(id, txn.pair(), 30, {store1_}));
  const Generation pair = txn.pair();
  ASSERT_OK(index_->Commit(std::move(txn)));
  ASSERT_OK_AND_ASSIGN(const auto row, index_->GetImage(id));
  ASSERT_TRUE(row.has_value());
  EXPECT_EQ(Generation::FromProto(row->generation()), pair);
  EXPECT_THAT(index_->ListMountImages(store1_, Uuid(), 0),
              testing::IsOkAndHolds(ElementsAre(id)));
  EXPECT_EQ(index_->mount_totals(store1_).bytes, 30);
}

TEST_F(PlacementIndexTest, EveryRequirementIsKept) {
  Start();
  const Uuid id = TestId(1);
  storage::v1::UploadRow upload;
  upload.set_upload_id(TestId(2).bytes());
  storage::v1::MountRow mount;
  mount.set_mount_uid(store1_.bytes());
  storage::v1::TombstoneRow tombstone;
  tombstone.set_image_id(id.bytes());
  tombstone.mutable_generation()->set_epoch(1);
  IndexTxn put = index_->Begin();
  put.RequireNoUpload(TestId(2));
  put.RequireNoMount(store1_);
  put.PutUpload(upload);
  put.PutMount(mount);
  put.PutTombstone(tombstone);
  put.PutImage(TestImage(id, put.pair(), 1, {store1_}));
  ASSERT_OK(index_->Commit(std::move(put)));
  ASSERT_OK_AND_ASSIGN(const auto image, index_->GetImage(id));

  storage::v1::UploadRow other_upload = upload;
  other_upload.set_create_time_us(1);
  storage::v1::MountRow other_mount = mount;
  other_mount.set_mount_name("x");
  storage::v1::TombstoneRow other_tombstone = tombstone;
  other_tombstone.set_settle_time_us(1);
  storage::v1::ImageRow other_image = *image;
  other_image.set_size_bytes(2);
  using Step = std::function<void(IndexTxn*)>;
  const std::vector<std::pair<Step, bool>> cases = {
      {[&](IndexTxn* t) { t->RequireImage(*image); }, true},
      {[&](IndexTxn* t) { t->RequireImage(other_image); }, false},
      {[&](IndexTxn* t) { t->RequireNoImage(id); }, false},
      {[&](IndexTxn* t) { t->DeleteImage(other_image); }, false},
      {[&](IndexTxn* t) { t->RequireUpload(upload); }, true},
      {[&](IndexTxn* t) { t->RequireUpload(other_upload); }, false},
      {[&](IndexTxn* t) { t->RequireNoUpload(TestId(2)); }, false},
      {[&](IndexTxn* t) { t->RequireMount(mount); }, true},
      {[&](IndexTxn* t) { t->RequireMount(other_mount); }, false},
      {[&](IndexTxn* t) { t->RequireNoMount(store1_); }, false},
      {[&](IndexTxn* t) { t->RequireTombstone(tombstone); }, true},
      {[&](IndexTxn* t) { t->RequireTombstone(other_tombstone); }, false},
  };
  int number = 0;
  for (const auto& [step, holds] : cases) {
    SCOPED_TRACE(number++);
    IndexTxn txn = index_->Begin();
    step(&txn);
    const absl::Status status = index_->Commit(std::move(txn));
    if (holds) {
      EXPECT_OK(status);
    } else {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted));
      EXPECT_THAT(status, HasReason(reason::kCommitConflict));
    }
  }
}

TEST_F(PlacementIndexTest, ListsPageByPage) {
  Start();
  for (int i = 1; i <= 5; ++i) {
    ASSERT_OK(PutImage(TestId(i), i, i % 2 == 0 ? store2_ : store1_));
  }
  std::vector<Uuid> seen;
  ASSERT_OK(
      index_->ScanImages(Uuid(), [&seen](const storage::v1::ImageRow& row) {
        seen.push_back(Uuid::FromBytesOrNone(row.image_id()));
        return seen.size() < 2;
      }));
  EXPECT_THAT(seen, ElementsAre(TestId(1), TestId(2)));
  seen.clear();
  ASSERT_OK(
      index_->ScanImages(TestId(2), [&seen](const storage::v1::ImageRow& row) {
        seen.push_back(Uuid::FromBytesOrNone(row.image_id()));
        EXPECT_EQ(row.copies_size(), 1) << "nothing is left of the row before";
        return true;
      }));
  EXPECT_THAT(seen, ElementsAre(TestId(3), TestId(4), TestId(5)));
  EXPECT_THAT(index_->ListMountImages(store1_, TestId(1), 1),
              testing::IsOkAndHolds(ElementsAre(TestId(3))));
  EXPECT_THAT(index_->ListMountImages(TestId(1003), Uuid(), 0),
              testing::IsOkAndHolds(IsEmpty()));
}

TEST_F(PlacementIndexTest, TombstonesOfAnImageBearTheirGenerations) {
  Start();
  for (int n = 1; n <= 3; ++n) {
    storage::v1::TombstoneRow row;
    row.set_image_id(TestId(n == 3 ? 2 : 1).bytes());
    row.mutable_generation()->set_epoch(1);
    row.mutable_generation()->set_n(n);
    IndexTxn txn = index_->Begin();
    txn.PutTombstone(row);
    ASSERT_OK(index_->Commit(std::move(txn)));
  }
  ASSERT_OK_AND_ASSIGN(const auto rows, index_->TombstonesOf(TestId(1)));
  ASSERT_EQ(rows.size(), 2);
  IndexTxn txn = index_->Begin();
  txn.DeleteTombstone(rows[0]);
  ASSERT_OK(index_->Commit(std::move(txn)));
  int left = 0;
  ASSERT_OK(index_->ScanTombstones(
      [&](const storage::v1::TombstoneRow&) { ++left; }));
  EXPECT_EQ(left, 2);
}

// --- epochs

TEST_F(PlacementIndexTest, AnEpochIsNeverGivenTwice) {
  Start();
  const MemKvStore::Rows copy = kv_->Contents();
  const auto old_file = file_.table();
  std::set<std::pair<int64_t, uint32_t>> seen;
  const auto fresh = [&] {
    return seen.emplace(index_->epoch(), index_->epoch_nonce()).second;
  };
  fresh();
  Start();
  EXPECT_TRUE(fresh());
  EXPECT_EQ(index_->epoch(), 2);
  // The index is put back: the file still knows.
  PutBack(copy);
  Start();
  EXPECT_TRUE(fresh());
  EXPECT_EQ(index_->epoch(), 3);
  // The file is lost: the index knows.
  file_.Replace(std::nullopt);
  Start();
  EXPECT_TRUE(fresh());
  EXPECT_EQ(index_->epoch(), 4);
  // Both: the number may come again, the nonce does not.
  PutBack(copy);
  file_.Replace(old_file);
  Start();
  EXPECT_EQ(index_->epoch(), 2);
  EXPECT_TRUE(fresh());
  PutBack(copy);
  file_.Replace(std::nullopt);
  Start();
  EXPECT_TRUE(fresh());
}

TEST_F(PlacementIndexTest, AStartThatBreaksAnywhereGivesNoEpochTwice) {
  Start();
  int64_t highest = index_->epoch();
  kv_->FailCommit(1, MemKvStore::Fault::kAfterApplying);
  EXPECT_THAT(TryOpen(), HasReason(reason::kIndexUnavailable));
  kv_->ClearFaults();
  file_.FailWrites(absl::UnavailableError("a fault for a test"));
  EXPECT_THAT(TryOpen(), StatusIs(absl::StatusCode::kUnavailable));
  file_.FailWrites(absl::OkStatus());
  Start();
  EXPECT_GT(index_->epoch(), highest);
  highest = index_->epoch();
  kv_->FailCommit(1, MemKvStore::Fault::kBeforeApplying);
  EXPECT_FALSE(TryOpen().ok());
  Start();
  EXPECT_GT(index_->epoch(), highest);
}

TEST_F(PlacementIndexTest, AFirstStartThatBreaksIsNotALostIndex) {
  kv_->FailCommit(1, MemKvStore::Fault::kBeforeApplying);
  EXPECT_FALSE(TryOpen().ok());
  EXPECT_FALSE(file_.table().has_value());
  kv_->ClearFaults();
  kv_->FailCommit(1, MemKvStore::Fault::kAfterApplying);
  EXPECT_FALSE(TryOpen().ok());
  Start();
  EXPECT_FALSE(index_->created());
}

TEST_F(PlacementIndexTest, ALostIndexIsRefused) {
  Start();
  PutBack({});
  EXPECT_THAT(TryOpen(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("the index was lost")));
  EXPECT_TRUE(kv_->Contents().empty());
  file_.Replace(std::nullopt);
  options_.create = false;
  EXPECT_THAT(TryOpen(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("no new cluster")));
  PutBack({{"other", "x"}});
  EXPECT_THAT(TryOpen(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("not an index of Predella")));
}

TEST_F(PlacementIndexTest, ANewerFormatIsRefused) {
  Start();
  storage::v1::ClusterRow row = index_->cluster();
  row.set_format_version(kIndexFormatVersion + 1);
  MemKvStore::Rows rows = kv_->Contents();
  rows[std::string(keys::kCluster)] = SerializeRow(row);
  PutBack(rows);
  EXPECT_THAT(TryOpen(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("start the newer one")));
  EXPECT_EQ(kv_->Contents(), rows);
}

TEST_F(PlacementIndexTest, ADamagedRowIsAnErrorAndNotAbsent) {
  Start();
  ASSERT_OK(PutImage(TestId(1), 1, store1_));
  MemKvStore::Rows rows = kv_->Contents();
  rows[keys::Image(TestId(1))] = "\xff\xff\xff";
  PutBack(rows);
  Start();
  EXPECT_THAT(index_->GetImage(TestId(1)),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(index_->ScanImages(
                  Uuid(), [](const storage::v1::ImageRow&) { return true; }),
              StatusIs(absl::StatusCode::kDataLoss));
}

// --- trust

TEST_F(PlacementIndexTest, CoversWhatWasHeardAndNothingBeyond) {
  Start();
  ASSERT_OK(CommitNothing());
  const storage::v1::FenceEntry first = Heard();
  EXPECT_EQ(first.max_n(), 2);
  EXPECT_TRUE(Covers(first));
  EXPECT_FALSE(Covers(Known(first.epoch(), first.nonce(), 3)));
  EXPECT_FALSE(Covers(Known(first.epoch(), first.nonce() + 1, 1)));
  EXPECT_FALSE(Covers(Known(9, 1, 1)));
  const MemKvStore::Rows copy = kv_->Contents();
  ASSERT_OK(CommitNothing());
  const storage::v1::FenceEntry second = Heard();
  Start();
  EXPECT_TRUE(Covers(first));
  EXPECT_TRUE(Covers(second));
  EXPECT_FALSE(Covers(Known(second.epoch(), second.nonce(), 4)));

  // Rolled back by one commit: seen, though the epoch file knows the epochs.
  const storage::v1::FenceEntry third = Heard();
  PutBack(copy);
  Start();
  EXPECT_TRUE(Covers(first));
  EXPECT_FALSE(Covers(second));
  EXPECT_FALSE(Covers(third));
  ASSERT_OK(index_->RaiseTo({second, third}));
  EXPECT_TRUE(Covers(second));
  EXPECT_TRUE(Covers(third));
  Start();
  EXPECT_TRUE(Covers(second));
  EXPECT_TRUE(Covers(third));
}

TEST_F(PlacementIndexTest, RaisingAboveTheEpochMovesTheNextStartAboveIt) {
  Start();
  ASSERT_OK(index_->RaiseTo({Known(40, 7, 12)}));
  EXPECT_TRUE(Covers(Known(40, 7, 12)));
  file_.Replace(std::nullopt);
  Start();
  EXPECT_EQ(index_->epoch(), 41);
}

TEST_F(PlacementIndexTest, ANumberIsHeardOnlyWhenItsCommitIsSynced) {
  Start();
  IndexTxn first = index_->Begin();
  IndexTxn second = index_->Begin();
  EXPECT_TRUE(second.pair().After(first.pair()));
  EXPECT_EQ(index_->synced_pair().n, 1);
  ASSERT_OK(index_->Commit(std::move(second)));
  EXPECT_EQ(index_->synced_pair().n, 3);
  // An overtaken commit takes a further number: losing it alone is seen.
  const MemKvStore::Rows without_first = kv_->Contents();
  ASSERT_OK(index_->Commit(std::move(first)));
  EXPECT_EQ(index_->synced_pair().n, 4);
  const storage::v1::FenceEntry heard = Heard();
  PutBack(without_first);
  Start();
  EXPECT_FALSE(Covers(heard));
}

TEST_F(PlacementIndexTest, TheLastNumberIsFoundAmongSlots) {
  Start();
  for (int i = 0; i < 600; ++i) {
    ASSERT_OK(CommitNothing());
  }
  const storage::v1::FenceEntry heard = Heard();
  EXPECT_EQ(heard.max_n(), 601);
  Start();
  EXPECT_TRUE(Covers(heard));
  EXPECT_FALSE(Covers(Known(heard.epoch(), heard.nonce(), 602)));
}

TEST_F(PlacementIndexTest, ACleanCloseIsMarkedOnce) {
  Start();
  EXPECT_FALSE(index_->clean_start().has_value());
  ASSERT_OK(CommitNothing());
  const Generation last = index_->synced_pair();
  ASSERT_OK(index_->CloseCleanly());
  EXPECT_THAT(CommitNothing(), StatusIs(absl::StatusCode::kUnavailable));
  Start();
  ASSERT_TRUE(index_->clean_start().has_value());
  EXPECT_EQ(Generation::FromProto(index_->clean_start()->last()), last);
  EXPECT_TRUE(Covers(Known(last.epoch, last.nonce, last.n)));
  Start();
  EXPECT_FALSE(index_->clean_start().has_value());
}

TEST_F(PlacementIndexTest, ACleanCloseThatWasPutBackFromACopyDoesNotCount) {
  Start();
  ASSERT_OK(CommitNothing());
  ASSERT_OK(index_->CloseCleanly());
  const auto copy = kv_->Contents();
  Start();
  ASSERT_OK(CommitNothing());
  PutBack(copy);
  Start();
  EXPECT_FALSE(index_->clean_start().has_value());
}

TEST_F(PlacementIndexTest, RecoveringIsARow) {
  Start();
  storage::v1::RecoveringRow row;
  row.set_since_us(5);
  IndexTxn txn = index_->Begin();
  txn.PutRecovering(row);
  ASSERT_OK(index_->Commit(std::move(txn)));
  Start();
  ASSERT_OK_AND_ASSIGN(const auto found, index_->GetRecovering());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->since_us(), 5);
  IndexTxn end = index_->Begin();
  end.DeleteRecovering();
  ASSERT_OK(index_->Commit(std::move(end)));
  ASSERT_OK_AND_ASSIGN(const auto none, index_->GetRecovering());
  EXPECT_FALSE(none.has_value());
}

TEST_F(PlacementIndexTest, AFullDiskAtTheStartLeavesReads) {
  Start();
  ASSERT_OK(PutImage(TestId(1), 10, store1_));
  const storage::v1::FenceEntry heard = Heard();
  const MemKvStore::Rows rows = kv_->Contents();
  index_.reset();
  kv_->FailCommit(1, MemKvStore::Fault::kBeforeApplying, /*disk_full=*/true);
  EXPECT_FALSE(kv_->Commit({}).ok());
  ASSERT_OK_AND_ASSIGN(index_, TryOpen());
  EXPECT_TRUE(index_->read_only());
  EXPECT_EQ(index_->epoch(), heard.epoch());
  EXPECT_EQ(index_->totals().bytes, 10);
  EXPECT_TRUE(Covers(heard));
  ASSERT_OK_AND_ASSIGN(const auto row, index_->GetImage(TestId(1)));
  EXPECT_TRUE(row.has_value());
  // Also when the store works again: no epoch was begun.
  kv_->ClearFaults();
  EXPECT_THAT(CommitNothing(), HasReason(reason::kIndexReadOnly));
  EXPECT_NE(index_->write_error(), "");
  EXPECT_EQ(kv_->Contents(), rows);
  Start();
  EXPECT_EQ(index_->epoch(), heard.epoch() + 1);
  EXPECT_OK(CommitNothing());
}

TEST_F(PlacementIndexTest, AFaultLastsAsLongAsTheCopyItIsOf) {
  Start();
  for (const int n : {1, 2, 3, 4}) {
    ASSERT_OK(PutImage(TestId(n), 10, store1_));
  }
  const auto image = [&](int n) { return **index_->GetImage(TestId(n)); };
  for (const int n : {3, 1, 2, 4}) {
    IndexTxn txn = index_->Begin();
    storage::v1::FaultRow row;
    row.set_mount_uid(store1_.bytes());
    row.set_image_id(TestId(n).bytes());
    *row.mutable_generation() = image(n).generation();
    row.set_fault(storage::v1::COPY_FAULT_MISSING);
    txn.RequireImage(image(n));
    txn.PutFault(row);
    ASSERT_OK(index_->Commit(std::move(txn)));
  }
  const storage::v1::ImageRow first = image(1);
  EXPECT_TRUE(index_->FaultOf(first, store1_).has_value());
  EXPECT_FALSE(index_->FaultOf(first, store2_).has_value());
  EXPECT_EQ(index_->fault_count(store1_), 4);
  EXPECT_EQ(index_->fault_count(store2_), 0);
  const auto page = index_->ListFaults(store1_, TestId(1), 2);
  ASSERT_EQ(page.size(), 2);
  EXPECT_EQ(page[0].image_id(), TestId(2).bytes());
  EXPECT_EQ(page[1].image_id(), TestId(3).bytes());

  // Deleted, moved away, replaced, found whole again.
  IndexTxn txn = index_->Begin();
  txn.DeleteImage(first);
  ASSERT_OK(index_->Commit(std::move(txn)));
  txn = index_->Begin();
  storage::v1::ImageRow moved = image(2);
  moved.mutable_copies(0)->set_mount_uid(store2_.bytes());
  txn.RequireImage(image(2));
  txn.PutImage(moved);
  ASSERT_OK(index_->Commit(std::move(txn)));
  txn = index_->Begin();
  txn.PutImage(TestImage(TestId(3), txn.pair(), 10, {store1_}));
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_EQ(index_->fault_count(store1_), 1);
  Start();
  EXPECT_EQ(index_->fault_count(store1_), 1);
  EXPECT_TRUE(index_->FaultOf(image(4), store1_).has_value());
  txn = index_->Begin();
  txn.DeleteFault(store1_, TestId(4));
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_FALSE(index_->FaultOf(image(4), store1_).has_value());
  Start();
  EXPECT_EQ(index_->fault_count(store1_), 0);
}

// The fault is committed after the delete looked for one, and before it.
TEST_F(PlacementIndexTest, AFaultThatCrossesTheDeleteOfItsImageIsNotCounted) {
  Start();
  ASSERT_OK(PutImage(TestId(1), 10, store1_));
  const storage::v1::ImageRow image = **index_->GetImage(TestId(1));
  const auto put_fault = [&] {
    storage::v1::FaultRow row;
    row.set_mount_uid(store1_.bytes());
    row.set_image_id(image.image_id());
    *row.mutable_generation() = image.generation();
    row.set_fault(storage::v1::COPY_FAULT_DAMAGED);
    IndexTxn txn = index_->Begin();
    txn.RequireImage(image);
    txn.PutFault(row);
    return index_->Commit(std::move(txn));
  };
  kv_->BeforeNextCommit([&] { EXPECT_OK(put_fault()); });
  IndexTxn txn = index_->Begin();
  txn.DeleteImage(image);
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_FALSE(index_->GetImage(TestId(1))->has_value());
  EXPECT_EQ(index_->fault_count(store1_), 0);
  EXPECT_TRUE(index_->ListFaults(store1_, Uuid(), 10).empty());
  for (const auto& [key, value] : kv_->Contents()) {
    EXPECT_NE(key, keys::Fault(store1_, TestId(1))) << "the row stays";
  }
  EXPECT_TRUE(absl::IsAborted(put_fault()));
}

TEST_F(PlacementIndexTest, OldEventsAreDropped) {
  options_.max_events = 100;
  Start();
  const auto put = [&] {
    storage::v1::EventRow event;
    event.set_time_us(clock_.NowMicros());
    event.set_kind("test");
    IndexTxn txn = index_->Begin();
    txn.PutEvent(event);
    txn.PutEvent(event);
    return index_->Commit(std::move(txn));
  };
  const auto count = [&] {
    int events = 0;
    EXPECT_OK(
        index_->ScanEvents([&](const storage::v1::EventRow&) { ++events; }));
    return events;
  };
  for (int i = 0; i < 549; ++i) {
    ASSERT_OK(put());
  }
  EXPECT_EQ(count(), 1098);
  ASSERT_OK(put());
  EXPECT_EQ(count(), 100);
  clock_.Advance(absl::Hours(24 * 31));
  ASSERT_OK(put());
  Start();
  EXPECT_EQ(count(), 2);
}

TEST_F(PlacementIndexTest, ConcurrentCommitsKeepTotalsAndNumbers) {
  Start();
  constexpr int kThreads = 8;
  constexpr int kEach = 50;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        ASSERT_OK(
            PutImage(TestId(t * kEach + i), 2, i % 2 == 0 ? store1_ : store2_));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(index_->totals().count, kThreads * kEach);
  EXPECT_EQ(index_->mount_totals(store1_).bytes, kThreads * kEach);
  EXPECT_GE(index_->synced_pair().n, kThreads * kEach + 1);
  const storage::v1::FenceEntry heard = Heard();
  Start();
  EXPECT_TRUE(Covers(heard));
  EXPECT_EQ(index_->totals().bytes, 2 * kThreads * kEach);
}

TEST(PlacementIndexOnRocksTest, GoesOnWhereItStopped) {
  const std::unique_ptr<rocksdb::Env> env(
      rocksdb::NewMemEnv(rocksdb::Env::Default()));
  RocksDbOptions options;
  options.env = env.get();
  testing::FakeClock clock;
  testing::FakeIds ids;
  MemEpochFile file;
  for (int start = 1; start <= 3; ++start) {
    ASSERT_OK_AND_ASSIGN(const auto kv,
                         RocksDbKvStore::Open("/index", options));
    ASSERT_OK_AND_ASSIGN(
        const auto index,
        PlacementIndex::Open(kv.get(), &file, &clock, &ids, {}));
    EXPECT_EQ(index->epoch(), start);
    EXPECT_EQ(index->totals().count, start - 1);
    IndexTxn txn = index->Begin();
    txn.PutImage(TestImage(TestId(start), txn.pair(), 1, {TestId(9)}));
    ASSERT_OK(index->Commit(std::move(txn)));
    ASSERT_OK(index->CloseCleanly());
  }
}

}  // namespace
}  // namespace predella::server
