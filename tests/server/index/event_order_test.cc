// Events in the order in which they can be read, whatever order their commits
// end in.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

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
using ::testing::IsEmpty;

class EventOrderTest : public ::testing::Test {
 protected:
  EventOrderTest() { Start(); }
  void Start() {
    index_.reset();
    kv_ = std::make_unique<MemKvStore>(kv_ == nullptr ? MemKvStore::Rows()
                                                      : kv_->Contents());
    auto index = PlacementIndex::Open(kv_.get(), &file_, &clock_, &ids_, {});
    ASSERT_OK(index.status());
    index_ = *std::move(index);
  }
  IndexTxn WithEvent(IndexTxn txn, const std::string& kind) {
    storage::v1::EventRow row;
    row.set_time_us(clock_.NowMicros());  // a start drops old ones
    row.set_kind(kind);
    txn.PutEvent(row);
    return txn;
  }
  void Put(const std::string& kind) {
    ASSERT_OK(index_->Commit(WithEvent(index_->Begin(), kind)));
  }
  static std::vector<std::string> Kinds(
      const absl::StatusOr<std::vector<StoredEvent>>& events) {
    EXPECT_OK(events.status());
    std::vector<std::string> kinds;
    if (events.ok()) {
      for (const StoredEvent& event : *events) {
        EXPECT_EQ(event.id.size(), PlacementIndex::kEventIdBytes);
        kinds.push_back(event.row.kind());
      }
    }
    return kinds;
  }

  testing::FakeClock clock_;
  testing::FakeIds ids_;
  MemEpochFile file_;
  std::unique_ptr<MemKvStore> kv_;
  std::unique_ptr<PlacementIndex> index_;
};

TEST_F(EventOrderTest, ReadsBothWaysFromAnyEventAndOverRestarts) {
  Put("a");
  IndexTxn two = WithEvent(index_->Begin(), "b");
  ASSERT_OK(index_->Commit(WithEvent(std::move(two), "c")));
  Start();
  Put("d");
  EXPECT_THAT(Kinds(index_->EventsBefore("", 10)),
              ElementsAre("d", "c", "b", "a"));
  ASSERT_OK_AND_ASSIGN(const auto newest, index_->EventsBefore("", 2));
  EXPECT_THAT(Kinds(index_->EventsBefore(newest[1].id, 1)), ElementsAre("b"));
  EXPECT_THAT(Kinds(index_->EventsAfter(newest[1].id, 10)), ElementsAre("d"));
  EXPECT_THAT(Kinds(index_->EventsAfter(newest[0].id, 10)), IsEmpty());
  EXPECT_THAT(Kinds(index_->EventsAfter(
                  std::string(PlacementIndex::kEventIdBytes, '\0'), 3)),
              ElementsAre("a", "b", "c"));
}

// The n of a commit is taken when it begins; it may be written long after.
TEST_F(EventOrderTest, ACommitThatBeganEarlyAndEndsLateIsNotPassedOver) {
  IndexTxn early = WithEvent(index_->Begin(), "early");
  Put("late");
  ASSERT_OK_AND_ASSIGN(const auto seen, index_->EventsBefore("", 1));
  ASSERT_OK(index_->Commit(std::move(early)));
  EXPECT_THAT(Kinds(index_->EventsAfter(seen[0].id, 10)), ElementsAre("early"));
}

TEST_F(EventOrderTest, NothingIsShownBehindACommitUnderWay) {
  kv_->BeforeNextCommit([&] {
    // "first" is under way; this one overtakes it.
    Put("second");
    EXPECT_THAT(Kinds(index_->EventsBefore("", 10)), IsEmpty());
    EXPECT_THAT(Kinds(index_->EventsAfter(
                    std::string(PlacementIndex::kEventIdBytes, '\0'), 10)),
                IsEmpty());
  });
  Put("first");
  EXPECT_THAT(Kinds(index_->EventsBefore("", 10)),
              ElementsAre("second", "first"));
}

TEST_F(EventOrderTest, AnIndexThatTakesNoWritesShowsItsEvents) {
  Put("a");
  MemKvStore full(kv_->Contents());
  full.FailCommit(1, MemKvStore::Fault::kBeforeApplying, /*disk_full=*/true);
  ASSERT_FALSE(full.Commit({}).ok());
  MemEpochFile file = file_;
  ASSERT_OK_AND_ASSIGN(const auto index,
                       PlacementIndex::Open(&full, &file, &clock_, &ids_, {}));
  EXPECT_TRUE(index->read_only());
  EXPECT_THAT(Kinds(index->EventsBefore("", 10)), ElementsAre("a"));
}

TEST_F(EventOrderTest, FaultsAreCountedByKind) {
  const Uuid store = TestId(900);
  const auto fault = [&](int n, storage::v1::CopyFault kind) {
    IndexTxn txn = index_->Begin();
    const auto known = index_->GetImage(TestId(n));
    const storage::v1::ImageRow image =
        (*known).value_or(TestImage(TestId(n), txn.pair(), 1, {store}));
    if ((*known).has_value()) {
      txn.RequireImage(image);
    } else {
      txn.PutImage(image);
    }
    storage::v1::FaultRow row;
    row.set_mount_uid(store.bytes());
    row.set_image_id(image.image_id());
    *row.mutable_generation() = image.generation();
    row.set_fault(kind);
    txn.PutFault(row);
    ASSERT_OK(index_->Commit(std::move(txn)));
  };
  fault(1, storage::v1::COPY_FAULT_MISSING);
  fault(2, storage::v1::COPY_FAULT_DAMAGED);
  fault(3, storage::v1::COPY_FAULT_MISSING);
  fault(3, storage::v1::COPY_FAULT_DAMAGED);  // found to be another
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(index_->fault_counts(store).missing, 1);
    EXPECT_EQ(index_->fault_counts(store).damaged, 2);
    Start();
  }
  IndexTxn txn = index_->Begin();
  txn.DeleteFault(store, TestId(1));
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_EQ(index_->fault_counts(store).missing, 0);
  EXPECT_EQ(index_->fault_count(store), 2);
}

}  // namespace
}  // namespace predella::server
