// Each finding of a check of the index against itself, by a row that somebody
// wrote by hand.
#include "server/index/index_check.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/index/index_keys.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/mem_kv_store.h"
#include "tests/server/index/index_test_rows.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr IndexSection kAllSections[] = {
    IndexSection::kMounts,  IndexSection::kImages,     IndexSection::kByMount,
    IndexSection::kUploads, IndexSection::kTombstones, IndexSection::kConflicts,
    IndexSection::kScrubs,  IndexSection::kUnadopted,  IndexSection::kEvents,
    IndexSection::kMeta,    IndexSection::kUnknown,    IndexSection::kTotals,
    IndexSection::kFaults};

class IndexCheckTest : public ::testing::Test {
 protected:
  IndexCheckTest() {
    auto index = PlacementIndex::Open(&kv_, &file_, &clock_, &ids_, {});
    EXPECT_OK(index);
    index_ = *std::move(index);
    PutMount(store1_, "store-1");
    PutMount(store2_, "store-2");
  }
  void PutMount(const Uuid& uid, const std::string& name) {
    storage::v1::MountRow row;
    row.set_mount_uid(uid.bytes());
    row.set_mount_name(name);
    row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
    IndexTxn txn = index_->Begin();
    txn.PutMount(row);
    EXPECT_OK(index_->Commit(std::move(txn)));
  }
  storage::v1::ImageRow PutImage(const std::vector<Uuid>& mounts) {
    IndexTxn txn = index_->Begin();
    const storage::v1::ImageRow row =
        TestImage(ids_.NextUuid(), txn.pair(), 10, mounts);
    txn.PutImage(row);
    EXPECT_OK(index_->Commit(std::move(txn)));
    return row;
  }
  // Behind the index's back, as a bug or a broken disk would.
  void Write(const std::string& key, const std::string& value) {
    KvTransaction kv;
    kv.puts.emplace_back(key, value);
    EXPECT_OK(kv_.Commit(std::move(kv)));
  }
  void Erase(const std::string& key) {
    KvTransaction kv;
    kv.deletes.push_back(key);
    EXPECT_OK(kv_.Commit(std::move(kv)));
  }
  std::vector<Finding> Check(int64_t limit = 1000) {
    std::vector<Finding> all;
    IndexCheck check(index_.get());
    for (const IndexSection section : kAllSections) {
      std::string after;
      do {
        auto page = check.Check(section, after, limit);
        EXPECT_OK(page);
        if (!page.ok()) {
          return all;
        }
        rows_ += page->rows;
        all.insert(all.end(), page->findings.begin(), page->findings.end());
        after = page->last;
      } while (!after.empty());
    }
    return all;
  }
  std::vector<std::string> Codes() {
    std::vector<std::string> codes;
    for (const Finding& finding : Check()) {
      EXPECT_FALSE(finding.detail.empty());
      EXPECT_FALSE(finding.next_step.empty());
      codes.push_back(finding.code);
    }
    return codes;
  }
  static Uuid IdOf(const storage::v1::ImageRow& row) {
    return Uuid::FromBytesOrNone(row.image_id());
  }

  testing::FakeClock clock_;
  testing::FakeIds ids_;
  MemKvStore kv_;
  MemEpochFile file_;
  std::unique_ptr<PlacementIndex> index_;
  int64_t rows_ = 0;
  const Uuid store1_ = TestId(1001);
  const Uuid store2_ = TestId(1002);
  const Uuid unknown_ = TestId(1003);
};

TEST_F(IndexCheckTest, AnIndexThatWasLeftAloneIsClean) {
  const auto image = PutImage({store1_});
  PutImage({store1_, store2_});
  const auto gone = PutImage({store2_});
  IndexTxn txn = index_->Begin();
  txn.DeleteImage(gone);
  storage::v1::TombstoneRow tombstone;
  tombstone.set_image_id(gone.image_id());
  *tombstone.mutable_generation() = gone.generation();
  tombstone.add_pending_mount_uids(store2_.bytes());
  txn.PutTombstone(tombstone);
  // An older one of an image that was stored anew is as it should be.
  tombstone.set_image_id(image.image_id());
  tombstone.mutable_generation()->set_n(image.generation().n() - 1);
  txn.PutTombstone(tombstone);
  storage::v1::EventRow event;
  event.set_kind("image_deleted");
  txn.PutEvent(event);
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_THAT(Codes(), IsEmpty());
  EXPECT_GT(rows_, 10);
}

TEST_F(IndexCheckTest, RowsOfNoTableAreNamed) {
  PutImage({store1_});
  for (const char* key :
       {"a", "image", "imagf/1", "meta/surprise", "zz/1", "zz/2", "\xff"}) {
    Write(key, "?");
  }
  for (const int64_t limit : {1000, 1}) {
    std::vector<std::string> rows;
    for (const Finding& finding : Check(limit)) {
      EXPECT_EQ(finding.code, "ROW_UNKNOWN");
      rows.push_back(finding.row);
    }
    EXPECT_EQ(rows.size(), 7u) << limit;
  }
}

// A client was told that it is stored.
TEST_F(IndexCheckTest, ACommittedUploadWithoutItsImageIsNamed) {
  storage::v1::UploadRow upload;
  upload.set_upload_id(TestId(1).bytes());
  upload.set_image_id(TestId(2).bytes());
  upload.mutable_generation()->set_epoch(index_->epoch());
  upload.mutable_generation()->set_n(1);
  upload.mutable_generation()->set_nonce(index_->epoch_nonce());
  upload.add_targets()->set_mount_uid(store1_.bytes());
  upload.set_outcome(storage::v1::UPLOAD_OUTCOME_DELETED);
  Write(keys::Upload(TestId(1)), SerializeRow(upload));
  EXPECT_THAT(Codes(), IsEmpty());
  upload.set_outcome(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  Write(keys::Upload(TestId(1)), SerializeRow(upload));
  EXPECT_THAT(Codes(), ElementsAre("UPLOAD_WITHOUT_IMAGE"));
  // A delete that a mount brought tells as much.
  storage::v1::TombstoneRow tombstone;
  tombstone.set_image_id(upload.image_id());
  *tombstone.mutable_generation() = upload.generation();
  Write(keys::Tombstone(TestId(2), Generation::FromProto(upload.generation())),
        SerializeRow(tombstone));
  EXPECT_THAT(Codes(), IsEmpty());
}

TEST_F(IndexCheckTest, AFileThatWasNotAdoptedIsOfAMountThatIsKnown) {
  IndexTxn txn = index_->Begin();
  txn.PutUnadopted(TestImage(TestId(1), txn.pair(), 10, {store1_}));
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_THAT(Codes(), IsEmpty());
  txn = index_->Begin();
  txn.PutUnadopted(TestImage(TestId(1), txn.pair(), 10, {unknown_}));
  ASSERT_OK(index_->Commit(std::move(txn)));
  Write(keys::Unadopted(TestId(3), store1_), "");
  EXPECT_THAT(Codes(),
              UnorderedElementsAre("COPY_ON_UNKNOWN_MOUNT", "ROW_MISPLACED"));
}

TEST_F(IndexCheckTest, RowsThatCanNotBeReadAreNamedByTheirKeys) {
  const auto image = PutImage({store1_});
  Write(keys::Image(IdOf(image)), "\xff\xff\xff");
  Write(keys::Upload(TestId(1)), "\xff\xff\xff");
  const std::vector<Finding> findings = Check();
  std::vector<std::string> codes;
  for (const Finding& finding : findings) {
    codes.push_back(finding.code);
  }
  // The mount lists an image that nobody can read, and counts differ.
  EXPECT_THAT(codes,
              UnorderedElementsAre("ROW_DAMAGED", "ROW_DAMAGED",
                                   "LISTED_WITHOUT_IMAGE", "COUNTER_WRONG"));
  EXPECT_THAT(findings[0].row, HasSubstr("image/"));
  EXPECT_EQ(findings[0].finding_class, FindingClass::kFatalRepairable);
}

TEST_F(IndexCheckTest, ARowUnderTheKeyOfAnother) {
  const auto image = PutImage({store1_});
  storage::v1::ConflictRow conflict;
  *conflict.mutable_image() = image;
  Write(keys::Conflict(TestId(7), Generation{1, 2, 3}), SerializeRow(conflict));
  EXPECT_THAT(Codes(), ElementsAre("ROW_MISPLACED"));
}

TEST_F(IndexCheckTest, CopiesThatTheirMountDoesNotList) {
  const auto image = PutImage({store1_, store2_});
  Erase(keys::MountImage(store2_, IdOf(image)));
  storage::v1::MountImageRow there;
  *there.mutable_generation() = image.generation();
  there.set_size_bytes(11);
  Write(keys::MountImage(store1_, IdOf(image)), SerializeRow(there));
  EXPECT_THAT(Codes(), ElementsAre("COPY_NOT_LISTED", "COPY_NOT_LISTED",
                                   "COUNTER_WRONG", "COUNTER_WRONG"));
}

TEST_F(IndexCheckTest, AListedImageThatIsNotThere) {
  storage::v1::MountImageRow there;
  there.set_size_bytes(11);
  Write(keys::MountImage(store1_, TestId(5)), SerializeRow(there));
  EXPECT_THAT(Codes(), ElementsAre("LISTED_WITHOUT_IMAGE", "COUNTER_WRONG"));
}

TEST_F(IndexCheckTest, CopiesOnMountsThatNobodyKnows) {
  PutImage({unknown_});
  PutImage({});
  EXPECT_THAT(Codes(), UnorderedElementsAre("COPY_ON_UNKNOWN_MOUNT",
                                            "IMAGE_WITHOUT_COPY"));
}

TEST_F(IndexCheckTest, ACopyNamedTwice) {
  auto image = PutImage({store1_});
  *image.add_copies() = image.copies(0);
  Write(keys::Image(IdOf(image)), SerializeRow(image));
  EXPECT_THAT(Codes(), ElementsAre("COPY_TWICE"));
}

TEST_F(IndexCheckTest, AGenerationThatWasNotGivenOutYet) {
  auto image = PutImage({store1_});
  image.mutable_generation()->set_n(index_->synced_pair().n + 1000);
  Write(keys::Image(IdOf(image)), SerializeRow(image));
  EXPECT_THAT(Codes(), ElementsAre("GENERATION_AHEAD", "COPY_NOT_LISTED"));
}

TEST_F(IndexCheckTest, UploadsOnMountsThatNobodyKnows) {
  storage::v1::UploadRow upload;
  upload.set_upload_id(TestId(2).bytes());
  upload.set_image_id(TestId(3).bytes());
  upload.add_targets()->set_mount_uid(unknown_.bytes());
  Write(keys::Upload(TestId(2)), SerializeRow(upload));
  EXPECT_THAT(Codes(), ElementsAre("UPLOAD_ON_UNKNOWN_MOUNT"));
}

TEST_F(IndexCheckTest, ATombstoneThatIsNotOlderThanItsImage) {
  const auto image = PutImage({store1_});
  storage::v1::TombstoneRow tombstone;
  tombstone.set_image_id(image.image_id());
  *tombstone.mutable_generation() = image.generation();
  tombstone.add_pending_mount_uids(unknown_.bytes());
  tombstone.set_settle_time_us(1);
  Write(keys::Tombstone(IdOf(image), Generation::FromProto(image.generation())),
        SerializeRow(tombstone));
  EXPECT_THAT(Codes(),
              ElementsAre("IMAGE_WAS_DELETED", "TOMBSTONE_SETTLED_EARLY",
                          "TOMBSTONE_ON_UNKNOWN_MOUNT"));
}

TEST_F(IndexCheckTest, ConflictsWaitForAChoice) {
  const auto image = PutImage({store1_});
  storage::v1::ConflictRow conflict;
  *conflict.mutable_image() = image;
  IndexTxn txn = index_->Begin();
  txn.PutConflict(conflict);
  conflict.mutable_image()->mutable_generation()->set_n(1);
  txn.PutConflict(conflict);
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_THAT(Codes(),
              UnorderedElementsAre("IMAGE_CONFLICT", "CONFLICT_WITH_ITSELF"));
}

TEST_F(IndexCheckTest, AScrubOfNoMount) {
  storage::v1::ScrubRow scrub;
  scrub.set_mount_uid(unknown_.bytes());
  Write(keys::Scrub(unknown_), SerializeRow(scrub));
  EXPECT_THAT(Codes(), ElementsAre("SCRUB_OF_UNKNOWN_MOUNT"));
}

TEST_F(IndexCheckTest, TwoMountsOfOneName) {
  PutMount(unknown_, "store-1");
  EXPECT_THAT(Codes(), ElementsAre("MOUNT_NAME_TWICE"));
}

TEST_F(IndexCheckTest, ATableOfEpochsThatIsBehind) {
  storage::v1::EpochTable table;
  Write(std::string(keys::kEpochs), SerializeRow(table));
  EXPECT_THAT(Codes(), ElementsAre("EPOCH_BEHIND"));
}

// Fatal where no other copy is known to be good.
TEST_F(IndexCheckTest, FaultsByWhatTheyCost) {
  const auto one = PutImage({store1_});
  const auto two = PutImage({store1_, store2_});
  for (const auto& image : {one, two}) {
    storage::v1::FaultRow fault;
    fault.set_mount_uid(store1_.bytes());
    fault.set_image_id(image.image_id());
    *fault.mutable_generation() = image.generation();
    fault.set_fault(storage::v1::COPY_FAULT_MISSING);
    fault.set_detail("no file");
    IndexTxn txn = index_->Begin();
    txn.RequireImage(image);
    txn.PutFault(fault);
    ASSERT_OK(index_->Commit(std::move(txn)));
  }
  storage::v1::FaultRow stray;
  stray.set_mount_uid(store1_.bytes());
  stray.set_image_id(TestId(9).bytes());
  Write(keys::Fault(store1_, TestId(9)), SerializeRow(stray));
  int fatal = 0;
  for (const Finding& finding : Check()) {
    if (IdOf(one) == finding.image_id) {
      EXPECT_EQ(finding.code, "COPY_MISSING");
      EXPECT_EQ(finding.finding_class, FindingClass::kFatal);
      ++fatal;
    } else if (IdOf(two) == finding.image_id) {
      EXPECT_EQ(finding.code, "COPY_MISSING");
      EXPECT_EQ(finding.finding_class, FindingClass::kError);
    } else {
      EXPECT_EQ(finding.code, "FAULT_WITHOUT_COPY");
    }
  }
  EXPECT_EQ(fatal, 1);
  EXPECT_THAT(Check(), ::testing::SizeIs(3));
}

TEST_F(IndexCheckTest, PagesGoOnWhereTheLastOneEnded) {
  for (int i = 0; i < 25; ++i) {
    PutImage({});
  }
  for (const int64_t limit : {1, 7, 25, 26}) {
    SCOPED_TRACE(limit);
    EXPECT_THAT(Check(limit), ::testing::SizeIs(25));
  }
}

// A page is one message: it ends early where nearly every row is a finding.
TEST_F(IndexCheckTest, APageEndsAtAThousandFindings) {
  for (int i = 0; i < 1500; ++i) {
    PutImage({});
  }
  IndexCheck check(index_.get());
  ASSERT_OK_AND_ASSIGN(const IndexCheck::Page first,
                       check.Check(IndexSection::kImages, "", 10'000));
  EXPECT_EQ(first.findings.size(), 1000u);
  ASSERT_OK_AND_ASSIGN(const IndexCheck::Page second,
                       check.Check(IndexSection::kImages, first.last, 10'000));
  EXPECT_EQ(second.findings.size(), 500u);
  EXPECT_EQ(second.last, "");
}

}  // namespace
}  // namespace predella::server
