// A crash before or after each commit, at every commit of a run: whatever was
// acknowledged is there, whatever is there is whole.
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "server/index/index_keys.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/mem_kv_store.h"
#include "server/index/placement_index.h"
#include "tests/server/index/index_test_rows.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

class IndexCrashTest : public ::testing::Test {
 protected:
  // Steps of one run; stops at the first that fails. Records what was
  // acknowledged.
  void Run(PlacementIndex* index) {
    for (int step = 0; step < 12; ++step) {
      const Uuid id = TestId(step % 4);
      const Uuid mount = TestId(100 + step % 3);
      ASSERT_OK_AND_ASSIGN(const auto row, index->GetImage(id));
      IndexTxn txn = index->Begin();
      std::optional<storage::v1::ImageRow> now;
      if (!row.has_value()) {
        txn.RequireNoImage(id);
        now = TestImage(id, txn.pair(), 10 + step, {mount});
        txn.PutImage(*now);
      } else if (step % 2 == 0) {
        txn.RequireImage(*row);
        now = TestImage(id, txn.pair(), 10 + step, {mount, TestId(103)});
        txn.PutImage(*now);
      } else {
        storage::v1::TombstoneRow tombstone;
        tombstone.set_image_id(row->image_id());
        *tombstone.mutable_generation() = row->generation();
        txn.DeleteImage(*row);
        txn.PutTombstone(tombstone);
      }
      const absl::Status status = index->Commit(std::move(txn));
      if (!status.ok()) {
        unknown_ = {id, now};
        return;
      }
      acknowledged_[id] = now;
      heard_ = index->synced_pair();
    }
  }

  void CheckInvariants(PlacementIndex* index) {
    std::map<Uuid, ImageTotals> by_mount;
    ImageTotals all;
    ASSERT_OK(index->ScanImages(Uuid(), [&](const storage::v1::ImageRow& row) {
      ++all.count;
      all.bytes += row.size_bytes();
      for (const storage::v1::CopyRow& copy : row.copies()) {
        const Uuid mount = Uuid::FromBytesOrNone(copy.mount_uid());
        ++by_mount[mount].count;
        by_mount[mount].bytes += row.size_bytes();
      }
      return true;
    }));
    EXPECT_EQ(index->totals().count, all.count);
    EXPECT_EQ(index->totals().bytes, all.bytes);
    for (int m = 100; m <= 103; ++m) {
      const Uuid mount = TestId(m);
      EXPECT_EQ(index->mount_totals(mount).count, by_mount[mount].count);
      EXPECT_EQ(index->mount_totals(mount).bytes, by_mount[mount].bytes);
      ASSERT_OK_AND_ASSIGN(const auto ids,
                           index->ListMountImages(mount, Uuid(), 0));
      EXPECT_EQ(static_cast<int64_t>(ids.size()), by_mount[mount].count);
    }
    for (const auto& [id, row] : acknowledged_) {
      ASSERT_OK_AND_ASSIGN(const auto found, index->GetImage(id));
      const auto same = [&](const std::optional<storage::v1::ImageRow>& want) {
        return want.has_value() == found.has_value() &&
               (!want.has_value() ||
                SerializeRow(*want) == SerializeRow(*found));
      };
      EXPECT_TRUE(same(row) || (unknown_.has_value() && unknown_->first == id &&
                                same(unknown_->second)))
          << id.ToString();
    }
    if (!heard_.none()) {
      EXPECT_TRUE(index->Covers({Known(heard_.epoch, heard_.nonce, heard_.n)}));
    }
  }

  std::map<Uuid, std::optional<storage::v1::ImageRow>> acknowledged_;
  std::optional<std::pair<Uuid, std::optional<storage::v1::ImageRow>>> unknown_;
  Generation heard_;
};

TEST_F(IndexCrashTest, EveryCommitMayBeTheLast) {
  for (const auto fault : {MemKvStore::Fault::kBeforeApplying,
                           MemKvStore::Fault::kAfterApplying}) {
    for (int at = 1; at <= 13; ++at) {
      SCOPED_TRACE(absl::StrCat(
          "crash ",
          fault == MemKvStore::Fault::kAfterApplying ? "after" : "before",
          " commit ", at));
      acknowledged_.clear();
      unknown_.reset();
      heard_ = Generation();
      testing::FakeClock clock;
      testing::FakeIds ids(static_cast<uint64_t>(at));
      MemEpochFile file;
      MemKvStore kv;
      kv.FailCommit(at, fault);
      if (auto index = PlacementIndex::Open(&kv, &file, &clock, &ids, {});
          index.ok()) {
        Run(index->get());
      }
      MemKvStore after(kv.Contents());
      ASSERT_OK_AND_ASSIGN(
          auto index, PlacementIndex::Open(&after, &file, &clock, &ids, {}));
      CheckInvariants(index.get());
      unknown_.reset();
      acknowledged_.clear();
      // And it goes on working.
      Run(index.get());
      EXPECT_FALSE(unknown_.has_value());
      CheckInvariants(index.get());
    }
  }
}

}  // namespace
}  // namespace predella::server
