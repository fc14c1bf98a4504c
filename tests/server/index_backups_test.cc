#include "server/index_backups.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "server/index/index_keys.h"
#include "server/index/mem_kv_store.h"
#include "server/index/placement_index.h"
#include "server/index/rocksdb_kv_store.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::SizeIs;

class IndexBackupsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/predella-backups-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    top_ = name;
    options_.index = top_ + "/index";
    options_.directory = top_ + "/backups";
    options_.min_free_bytes = 0;
    options_.keep = 3;
    auto kv = RocksDbKvStore::Open(options_.index);
    ASSERT_THAT(kv.status(), IsOk());
    kv_ = *std::move(kv);
    auto index =
        PlacementIndex::Open(kv_.get(), MakeEpochFile(), &clock_, &ids_, {});
    ASSERT_THAT(index.status(), IsOk());
    index_ = *std::move(index);
  }
  void TearDown() override {
    index_.reset();
    kv_.reset();
    std::filesystem::remove_all(top_);
  }
  EpochFile* MakeEpochFile() {
    epoch_file_ = MakePosixEpochFile(top_);
    return epoch_file_.get();
  }
  void Store(const Uuid& id) {
    IndexTxn txn = index_->Begin();
    storage::v1::ImageRow row;
    row.set_image_id(id.bytes());
    txn.PutImage(row);
    ASSERT_THAT(index_->Commit(std::move(txn)), IsOk());
  }
  std::vector<std::string> Paths() {
    std::vector<std::string> out;
    const auto all = ListBackups(options_.directory);
    for (const v1::IndexBackup& one : *all) {
      out.push_back(one.path());
    }
    return out;
  }

  std::string top_;
  testing::FakeClock clock_;
  testing::FakeIds ids_;
  BackupOptions options_;
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<EpochFile> epoch_file_;
  std::unique_ptr<PlacementIndex> index_;
};

TEST_F(IndexBackupsTest, ACopyIsTheIndexAsItWas) {
  EXPECT_THAT(Paths(), IsEmpty());
  Store(ids_.NextUuid());
  IndexBackups backups(kv_.get(), &clock_, options_);
  ASSERT_OK_AND_ASSIGN(const v1::IndexBackup made, backups.Make());
  EXPECT_GT(made.size_bytes(), 0);
  Store(ids_.NextUuid());
  ASSERT_OK_AND_ASSIGN(const KvSummary copy,
                       RocksDbKvStore::Inspect(made.path()));
  EXPECT_EQ(copy.images, 1);
  EXPECT_EQ(copy.cluster, SerializeRow(index_->cluster()));
  // What the index does later changes nothing in it.
  index_.reset();
  kv_.reset();
  std::filesystem::remove_all(options_.index);
  ASSERT_OK_AND_ASSIGN(const KvSummary again,
                       RocksDbKvStore::Inspect(made.path()));
  EXPECT_EQ(again.rows, copy.rows);
}

TEST_F(IndexBackupsTest, TheOldestGoWhenANewerOneIsWhole) {
  IndexBackups backups(kv_.get(), &clock_, options_);
  std::vector<std::string> made;
  for (int i = 0; i < 5; ++i) {
    // Two in one second are two, and a clock that was set back makes none old.
    clock_.JumpWall(i == 3 ? -absl::Hours(5) : absl::ZeroDuration());
    ASSERT_OK_AND_ASSIGN(const v1::IndexBackup one, backups.Make());
    made.insert(made.begin(), one.path());
  }
  made.resize(3);
  EXPECT_EQ(Paths(), made);
  // A stop in the middle leaves what is no copy, and the next one removes it.
  const std::string half = options_.directory + "/20260101T000000Z.making";
  std::filesystem::create_directory(half);
  EXPECT_EQ(Paths(), made);
  ASSERT_THAT(backups.Make().status(), IsOk());
  EXPECT_FALSE(std::filesystem::exists(half));
  EXPECT_THAT(Paths(), SizeIs(3));
}

TEST_F(IndexBackupsTest, NoneIsMadeOrRemovedWithoutRoom) {
  ASSERT_THAT(IndexBackups(kv_.get(), &clock_, options_).Make().status(),
              IsOk());
  const std::vector<std::string> before = Paths();
  options_.keep = 1;
  options_.min_free_bytes = int64_t{1} << 60;
  IndexBackups backups(kv_.get(), &clock_, options_);
  EXPECT_THAT(backups.Make().status(), HasReason(reason::kIndexReadOnly));
  EXPECT_EQ(Paths(), before);
}

TEST_F(IndexBackupsTest, IsDueAfterTheInterval) {
  options_.interval = absl::Hours(1);
  IndexBackups backups(kv_.get(), &clock_, options_);
  clock_.Advance(absl::Minutes(59));
  EXPECT_FALSE(backups.Due());
  clock_.Advance(absl::Minutes(1));
  EXPECT_TRUE(backups.Due());
  ASSERT_THAT(backups.Make().status(), IsOk());
  EXPECT_FALSE(backups.Due());
  options_.interval = absl::ZeroDuration();
  IndexBackups never(kv_.get(), &clock_, options_);
  clock_.Advance(absl::Hours(1000));
  EXPECT_FALSE(never.Due());
}

TEST_F(IndexBackupsTest, ADamagedCopyIsNone) {
  ASSERT_OK_AND_ASSIGN(const v1::IndexBackup made,
                       IndexBackups(kv_.get(), &clock_, options_).Make());
  int damaged = 0;
  for (const auto& file : std::filesystem::directory_iterator(made.path())) {
    if (file.path().extension() == ".sst") {
      std::fstream bytes(file.path(),
                         std::ios::in | std::ios::out | std::ios::binary);
      bytes.seekp(10);
      bytes.put('\xff');
      ++damaged;
    }
  }
  ASSERT_GT(damaged, 0);
  EXPECT_THAT(RocksDbKvStore::Inspect(made.path()).status(),
              testing::StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(RocksDbKvStore::Inspect(top_ + "/nowhere").status(),
              testing::StatusIs(absl::StatusCode::kDataLoss));
}

TEST(DeletesForgottenByTest, OnlyAnOlderCopyForgetsSome) {
  const std::string path = "/b/20260301T120000Z";
  const absl::Time made =
      absl::FromCivil(absl::CivilSecond(2026, 3, 1, 12), absl::UTCTimeZone());
  const absl::Duration day = absl::Hours(24);
  EXPECT_EQ(DeletesForgottenBy(path, made + absl::Hours(23), day), "");
  for (const char* const end : {"", "/"}) {
    EXPECT_THAT(DeletesForgottenBy(path + end, made + absl::Hours(25), day),
                AllOf(HasSubstr("made at 2026-03-01T12:00:00Z"),
                      HasSubstr("for 24 hours"), HasSubstr("COPIES_MISSING"),
                      HasSubstr("predella image rm")));
  }
  // Nobody knows how old it is.
  EXPECT_THAT(DeletesForgottenBy("/b/index.before-restore-1", made, day),
              HasSubstr("does not say when it was made"));
}

}  // namespace
}  // namespace predella::server
