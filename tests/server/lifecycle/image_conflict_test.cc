// Two generations of one image, of which clients may have been told of either.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/recovering_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ConflictTest : public RecoveringFixture {
 protected:
  // `image_` on a, of a history that was lost, and on b, of the present one.
  void TwoHistories() {
    a_ = AddConnected("a", 1);
    b_ = AddConnected("b", 2);
    old_ = kv_->Contents();
    Upload(a_, image_, upload_);
    lost_ = GenerationOf(image_);
    RestartFrom(old_);
    Connect(b_);
    Upload(b_, image_, second_);
    present_ = GenerationOf(image_);
    Connect(a_);
    ASSERT_TRUE(recovering());
  }

  FakeAgent* a_ = nullptr;
  FakeAgent* b_ = nullptr;
  server::MemKvStore::Rows old_;
  const Uuid second_ = ids_.NextUuid();
  Generation lost_;
  Generation present_;
};

TEST_F(ConflictTest, BothAreKeptAndNamed) {
  TwoHistories();
  EXPECT_THAT(lifecycle_->images().Choose(image_, lost_, false),
              HasReason(reason::kRecovering))
      << "another mount may hold a third";
  List();
  EXPECT_FALSE(recovering());
  ASSERT_OK_AND_ASSIGN(const v1::Image image, lifecycle_->images().Get(image_));
  EXPECT_EQ(image.generation(), present_.ToString());
  ASSERT_EQ(image.conflicts_size(), 1);
  EXPECT_EQ(image.conflicts(0).generation(), lost_.ToString());
  EXPECT_EQ(image.conflicts(0).mount(), "mounts/a");
  EXPECT_EQ(image.conflicts(0).size_bytes(), 4096);
  EXPECT_THAT(Checks(), Contains("IMAGE_CONFLICT"));
  EXPECT_THAT(Delete(image_),
              AllOf(HasReason(reason::kImageConflict),
                    StatusIs(absl::StatusCode::kFailedPrecondition)));
  Tick();
  EXPECT_TRUE(a_->Has(image_));
  EXPECT_TRUE(b_->Has(image_));
  // It is the index that knows.
  Restart();
  Connect(a_);
  Connect(b_);
  EXPECT_EQ(lifecycle_->images().Get(image_)->conflicts_size(), 1);
}

TEST_F(ConflictTest, TheOneThatIsChosenStays) {
  TwoHistories();
  List();
  EXPECT_THAT(lifecycle_->images().Choose(image_, Generation{77, 1, 0}, false),
              AllOf(StatusIs(absl::StatusCode::kNotFound),
                    HasReason(reason::kGenerationMismatch)));
  ASSERT_OK(lifecycle_->images().Choose(image_, lost_, /*validate_only=*/true));
  EXPECT_EQ(GenerationOf(image_), present_);
  ASSERT_OK_AND_ASSIGN(const v1::Image image,
                       lifecycle_->images().Choose(image_, lost_, false));
  EXPECT_EQ(image.generation(), lost_.ToString());
  EXPECT_TRUE(image.conflicts().empty());
  EXPECT_EQ(image.copies(0).mount(), "mounts/a");
  Settle();
  Tick();
  EXPECT_TRUE(a_->Has(image_));
  EXPECT_FALSE(b_->Has(image_));
  EXPECT_EQ(StateOf(second_), v1::UPLOAD_STATE_SUPERSEDED);
  EXPECT_EQ(index_->mount_totals(a_->uid()).count, 1);
  EXPECT_EQ(index_->mount_totals(b_->uid()).count, 0);
  EXPECT_THAT(Checks(), Not(Contains("IMAGE_CONFLICT")));
  EXPECT_OK(lifecycle_->images().Choose(image_, lost_, false))
      << "a repeated choice has nothing left to do";
  EXPECT_OK(Delete(image_));
}

TEST_F(ConflictTest, RetirementCountsWhatWaitsForAChoice) {
  TwoHistories();
  List();
  v1::RetireMountRequest retire;
  retire.set_name("mounts/a");
  const auto refused = lifecycle_->mounts().Retire(retire);
  EXPECT_THAT(refused, HasReason(reason::kMountNotEmpty));
  EXPECT_EQ(MetadataOf(refused.status())["image_count"], "1");
  AcceptLoss(&retire);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  EXPECT_THAT(lifecycle_->images().Choose(image_, lost_, false),
              HasReason(reason::kMountRetired));
  EXPECT_OK(lifecycle_->images().Choose(image_, present_, false));
}

TEST_F(ConflictTest, OneThatCanNotBeReadIsNotChosen) {
  TwoHistories();
  List();
  const auto row = *index_->GetImage(image_);
  storage::v1::FaultRow fault;
  fault.set_mount_uid(b_->uid().bytes());
  fault.set_image_id(image_.bytes());
  *fault.mutable_generation() = row->generation();
  fault.set_fault(storage::v1::COPY_FAULT_DAMAGED);
  server::IndexTxn txn = index_->Begin();
  txn.RequireImage(*row);
  txn.PutFault(fault);
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_THAT(lifecycle_->images().Choose(image_, present_, false),
              HasReason(reason::kReplicaMissing));
  a_->Lose();
  Settle();
  EXPECT_THAT(lifecycle_->images().Choose(image_, lost_, false),
              HasReason(reason::kReplicaMissing));
  Connect(a_);
  Tick();
  EXPECT_TRUE(a_->Has(image_));
  EXPECT_TRUE(b_->Has(image_));
  EXPECT_OK(lifecycle_->images().Choose(image_, lost_, false));
}

// Its file was damaged, or taken away, while it waited: no row tells.
TEST_F(ConflictTest, OneThatIsNotWholeIsNotChosen) {
  TwoHistories();
  List();
  const auto behave = [this](bool rotten, bool silent) {
    a_->Behave([&](FakeAgent::Behaviour* b) {
      b->rotten_bytes = rotten;
      b->ignore_commands = silent;
    });
  };
  behave(true, false);
  const auto refused = lifecycle_->images().Choose(image_, lost_, false);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("choose another"), HasSubstr("rotten")));
  Settle();
  Tick();
  EXPECT_TRUE(b_->Has(image_));
  EXPECT_EQ(GenerationOf(image_), present_);
  // What a scrub finds of it is an event.
  control::v1::CopyFaults faults;
  control::v1::CopyFinding* const finding = faults.add_findings();
  finding->set_image_id(image_.bytes());
  *finding->mutable_generation() = lost_.ToProto();
  finding->set_fault(storage::v1::COPY_FAULT_DAMAGED);
  finding->set_detail("the block at 0");
  a_->ReportFindings(faults);
  Settle();
  std::vector<std::string> details;
  EXPECT_OK(index_->ScanEvents([&](const storage::v1::EventRow& row) {
    if (row.kind() == "copy_damaged") {
      details.push_back(row.detail());
    }
  }));
  EXPECT_THAT(details,
              ElementsAre(HasSubstr("waits for a choice: the block at 0")));
  EXPECT_EQ(index_->fault_count(a_->uid()), 0) << "it is no row's";
  behave(false, false);
  EXPECT_OK(lifecycle_->images().Choose(image_, lost_, false));
}

// Nothing is known of it then: to choose another would lose it.
TEST_F(ConflictTest, OneThatWasNotReadToItsEndIsChosenAgain) {
  TwoHistories();
  List();
  a_->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_check = absl::UnavailableError("the agent lost its session");
  });
  const auto refused = lifecycle_->images().Choose(image_, lost_, false);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(
      std::string(refused.status().message()),
      AllOf(HasSubstr("choose it again"), Not(HasSubstr("choose another"))));
  EXPECT_TRUE(b_->Has(image_));
  a_->Behave(
      [](FakeAgent::Behaviour* b) { b->refuse_check = absl::OkStatus(); });
  EXPECT_OK(lifecycle_->images().Choose(image_, lost_, false));
}

TEST_F(ConflictTest, ThePresentOneCanBeChosenToo) {
  TwoHistories();
  List();
  ASSERT_OK(lifecycle_->images().Choose(image_, present_, false));
  Settle();
  Tick();
  EXPECT_FALSE(a_->Has(image_));
  EXPECT_TRUE(b_->Has(image_));
}

// The older index still calls the lost image's upload open: it is no loser, and
// its file is not one to remove.
TEST_F(ConflictTest, AnUploadThatTheOlderIndexCallsOpenIsKeptToo) {
  a_ = AddConnected("a", 1);
  b_ = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_));
  old_ = kv_->Contents();
  ASSERT_TRUE(a_->Write(upload_, 4096, false));
  ASSERT_TRUE(a_->Publish(upload_));
  Settle();
  ASSERT_EQ(StateOf(upload_), v1::UPLOAD_STATE_COMMITTED);
  lost_ = GenerationOf(image_);
  RestartFrom(old_);
  Connect(b_);
  Upload(b_, image_, second_);
  present_ = GenerationOf(image_);
  Connect(a_);
  List();
  EXPECT_FALSE(recovering());
  ASSERT_OK_AND_ASSIGN(const v1::Image image, lifecycle_->images().Get(image_));
  EXPECT_EQ(image.generation(), present_.ToString());
  ASSERT_EQ(image.conflicts_size(), 1);
  EXPECT_EQ(image.conflicts(0).generation(), lost_.ToString());
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_SUPERSEDED);
  EXPECT_TRUE(a_->Has(image_));
  // Chosen, its upload is the one that stored it.
  ASSERT_OK(lifecycle_->images().Choose(image_, lost_, false));
  Settle();
  Tick();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_COMMITTED);
  EXPECT_TRUE(a_->Has(image_));
  EXPECT_FALSE(b_->Has(image_));
}

TEST_F(ConflictTest, ATombstoneRulesOverTheConflictOfTwoAdoptedOnes) {
  TwoHistories();
  RestartFrom(old_);
  Connect(a_);
  List();
  Connect(b_);
  List();
  ASSERT_EQ(GenerationOf(image_), present_);
  b_->Lose();
  b_->Behave([&](FakeAgent::Behaviour* b) {
    storage::v1::Tombstone tombstone;
    tombstone.set_image_id(image_.bytes());
    *tombstone.mutable_generation() = lost_.ToProto();
    tombstone.set_create_time_us(1);
    b->extra_tombstones = {tombstone};
  });
  Connect(b_);
  Settle();
  Tick();
  ASSERT_OK_AND_ASSIGN(const v1::Image image, lifecycle_->images().Get(image_));
  EXPECT_EQ(image.generation(), present_.ToString());
  EXPECT_TRUE(image.conflicts().empty()) << "the tombstone ruled over it";
  EXPECT_FALSE(a_->Has(image_));
}

// Both histories were lost: neither row is one that clients were told of.
TEST_F(ConflictTest, OfTwoLostGenerationsTheHigherIsTheImage) {
  TwoHistories();
  RestartFrom(old_);
  Connect(a_);
  List();
  EXPECT_EQ(GenerationOf(image_), lost_);
  Connect(b_);
  List();
  EXPECT_FALSE(recovering());
  ASSERT_OK_AND_ASSIGN(const v1::Image image, lifecycle_->images().Get(image_));
  EXPECT_EQ(image.generation(), present_.ToString());
  ASSERT_EQ(image.conflicts_size(), 1);
  EXPECT_EQ(image.conflicts(0).generation(), lost_.ToString());
  EXPECT_EQ(index_->mount_totals(a_->uid()).count, 0);
  EXPECT_EQ(index_->mount_totals(b_->uid()).count, 1);
}

// A tombstone that a mount brings later ends the conflict with what it covers.
TEST_F(ConflictTest, ATombstoneRulesOverBoth) {
  TwoHistories();
  List();
  a_->Lose();
  a_->Behave([&](FakeAgent::Behaviour* b) {
    storage::v1::Tombstone tombstone;
    tombstone.set_image_id(image_.bytes());
    *tombstone.mutable_generation() = lost_.ToProto();
    tombstone.set_create_time_us(1);
    b->extra_tombstones = {tombstone};
  });
  Connect(a_);
  Settle();
  Tick();
  ASSERT_OK_AND_ASSIGN(const v1::Image image, lifecycle_->images().Get(image_));
  EXPECT_TRUE(image.conflicts().empty());
  EXPECT_EQ(image.generation(), present_.ToString());
  EXPECT_FALSE(a_->Has(image_));
  EXPECT_TRUE(b_->Has(image_));
}

// What remains then is the image; there is nothing to choose from.
TEST_F(ConflictTest, ATombstoneOfTheRowLeavesTheOther) {
  a_ = AddConnected("a", 1);
  b_ = AddConnected("b", 2);
  Upload(a_, image_, upload_);
  old_ = kv_->Contents();
  b_->Lose();
  ASSERT_OK(Delete(image_));
  a_->Lose();
  Connect(b_);
  Upload(b_, image_, second_);
  present_ = GenerationOf(image_);
  RestartFrom(old_);
  Connect(b_);
  List();
  ASSERT_OK_AND_ASSIGN(v1::Image image, lifecycle_->images().Get(image_));
  ASSERT_EQ(image.conflicts_size(), 1);
  EXPECT_EQ(image.conflicts(0).generation(), present_.ToString());
  Connect(a_);
  List();
  ASSERT_OK_AND_ASSIGN(image, lifecycle_->images().Get(image_));
  EXPECT_TRUE(image.conflicts().empty());
  EXPECT_EQ(image.generation(), present_.ToString());
  Tick();
  EXPECT_FALSE(a_->Has(image_));
  EXPECT_TRUE(b_->Has(image_));
}

}  // namespace
}  // namespace predella::testing
