// Images that somebody moved or copied from one mount to another.

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/orphans_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::HasSubstr;

using OrphanMovesTest = OrphansFixture;

// Whichever of the two is listed first, with its record or without.
TEST_F(OrphanMovesTest, TheRowFollowsAnImageThatWasMovedByHand) {
  ListBoth();
  for (const bool record : {false, true}) {
    for (const bool source_first : {false, true}) {
      SCOPED_TRACE(absl::StrCat(record, source_first));
      FakeAgent* const from = HolderOf(image_) == "a" ? a_ : b_;
      FakeAgent* const to = from == a_ ? b_ : a_;
      FakeAgent::File file = *from->Take(image_);
      file.has_record = record;
      to->Put(image_, file);
      ASSERT_TRUE(to->Has(image_));
      Again(source_first ? from : to);
      EXPECT_EQ(HolderOf(image_), from->name())
          << "the other one may hold it still";
      Again(source_first ? to : from);
      EXPECT_EQ(HolderOf(image_), to->name());
      ASSERT_TRUE(to->Has(image_));
      EXPECT_TRUE(to->file(image_)->has_record);
      EXPECT_EQ(index_->fault_count(from->uid()), 0);
      EXPECT_EQ(Count(to), 0);
      EXPECT_EQ(index_->mount_totals(to->uid()).count, 1);
      EXPECT_EQ(index_->mount_totals(from->uid()).count, 0);
      EXPECT_OK(lifecycle_->images().Get(image_));
    }
  }
}

TEST_F(OrphanMovesTest, ACopyBesideTheImageIsOnlyNamed) {
  FakeAgent::File file = *a_->file(image_);
  file.has_record = false;
  b_->Put(image_, file);
  Again(b_);
  Again(a_);
  EXPECT_EQ(HolderOf(image_), "a");
  EXPECT_EQ(Count(b_), 1);
  EXPECT_THAT(List().orphans(0).detail(), HasSubstr("mounts/a"));
}

// Nor does it where somebody made a second copy, whose mount is away.
TEST_F(OrphanMovesTest, ADeletedImageDoesNotRiseFromASecondCopy) {
  b_->Put(image_, *a_->file(image_));
  Again(b_);
  Again(a_);
  ASSERT_EQ(Count(b_), 1);
  b_->Lose();
  Settle();
  ASSERT_OK(Delete(image_));
  Tick();
  clock_.Advance(absl::Hours(24 * 60));
  a_->Beat();
  Tick();
  Tick();
  Again(b_);
  Tick();
  EXPECT_FALSE(b_->Has(image_));
}

TEST_F(OrphanMovesTest, OtherBytesUnderTheNameStayForeign) {
  FakeAgent::File file = *a_->Take(image_);
  file.has_record = false;
  b_->Put(image_, file);
  b_->Behave([](FakeAgent::Behaviour* b) { b->other_bytes = true; });
  Again(b_);
  Again(a_);
  EXPECT_EQ(HolderOf(image_), "a");
  EXPECT_EQ(index_->fault_count(a_->uid()), 1);
  ASSERT_EQ(Count(b_), 1);
  EXPECT_THAT(List().orphans(0).detail(), HasSubstr("other bytes"));
  EXPECT_FALSE(b_->file(image_)->has_record);
  // Another size needs no look at the bytes.
  const size_t asked = b_->commands().size();
  file.size_bytes += 1;
  b_->Put(image_, file);
  Again(b_);
  for (size_t i = asked; i < b_->commands().size(); ++i) {
    EXPECT_FALSE(b_->commands()[i].has_adopt_file());
  }
}

// Copied by hand while the mount that the row names can not be read, whichever
// way, and whichever was first: the listing or the failure.
TEST_F(OrphanMovesTest, TheRowFollowsToAWholeFileWhileItsMountIsAway) {
  ListBoth();
  for (const v1::Health health : {v1::HEALTH_ABSENT, v1::HEALTH_FAILED,
                                  v1::HEALTH_HUNG, v1::HEALTH_UNREACHABLE}) {
    for (const bool record : {false, true}) {
      for (const bool listed_first : {false, true}) {
        SCOPED_TRACE(absl::StrCat(health, record, listed_first));
        FakeAgent* const from = HolderOf(image_) == "a" ? a_ : b_;
        FakeAgent* const to = from == a_ ? b_ : a_;
        FakeAgent::File file = *from->file(image_);
        file.has_record = record;
        to->Put(image_, file);
        if (listed_first) {
          Again(to);
          ASSERT_EQ(Count(to), 1);
          EXPECT_EQ(HolderOf(image_), from->name()) << "it can be read there";
        }
        if (health == v1::HEALTH_UNREACHABLE) {
          from->Lose();
          clock_.Advance(absl::Seconds(16));
          to->Beat();
        } else {
          Say(from, health);
        }
        Settle();
        listed_first ? Tick() : Again(to);
        EXPECT_EQ(HolderOf(image_), to->name());
        EXPECT_EQ(Count(to), 0);
        ASSERT_OK_AND_ASSIGN(const v1::Image image,
                             lifecycle_->images().Get(image_));
        EXPECT_EQ(image.health(), v1::IMAGE_HEALTH_HEALTHY);
        // The other one is only named when it is back, and is removed alone.
        Say(from, v1::HEALTH_ONLINE);
        Again(from);
        EXPECT_EQ(HolderOf(image_), to->name());
        ASSERT_EQ(Count(from), 1);
        EXPECT_TRUE(from->Has(image_));
        ASSERT_OK(lifecycle_->orphans().Remove(RemovalOf(List().orphans(0))));
        EXPECT_FALSE(from->Has(image_));
        EXPECT_TRUE(to->Has(image_));
        EXPECT_EQ(HolderOf(image_), to->name());
      }
    }
  }
}

// Its first file is still on the mount that was away.
TEST_F(OrphanMovesTest, ADeletedImageDoesNotRiseWhereItsRowWasBefore) {
  ListBoth();
  for (const bool back_first : {false, true}) {
    SCOPED_TRACE(back_first);
    const Uuid image = ids_.NextUuid();
    Upload(a_, image, ids_.NextUuid());
    b_->Put(image, *a_->file(image));
    a_->Lose();
    clock_.Advance(absl::Seconds(16));
    b_->Beat();
    Again(b_);
    ASSERT_EQ(HolderOf(image), "b");
    if (back_first) {
      Again(a_);
      ASSERT_EQ(Count(a_), 1) << "named while the image is there";
    }
    ASSERT_OK(Delete(image));
    Tick();
    EXPECT_FALSE(b_->Has(image));
    if (!back_first) {
      clock_.Advance(absl::Hours(24 * 90));
      b_->Beat();
      Tick();
      Tick();
      EXPECT_EQ(lifecycle_->tombstones().OfImage(image).size(), 1u)
          << "it waits for the mount that may hold the file";
      Again(a_);
    }
    Tick();
    EXPECT_FALSE(a_->Has(image));
    Again(a_);
    EXPECT_EQ(Count(a_), 0);
    EXPECT_FALSE(lifecycle_->images().Get(image).ok());
  }
}

TEST_F(OrphanMovesTest, AnImageThatWasLostIsFoundAgain) {
  ListBoth();
  v1::RetireMountRequest retire;
  retire.set_name("mounts/a");
  AcceptLoss(&retire);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  ASSERT_OK_AND_ASSIGN(v1::Image image, lifecycle_->images().Get(image_));
  ASSERT_EQ(image.health(), v1::IMAGE_HEALTH_LOST);
  b_->Put(image_, *a_->file(image_));
  Again(b_);
  EXPECT_EQ(HolderOf(image_), "b");
  ASSERT_OK_AND_ASSIGN(image, lifecycle_->images().Get(image_));
  EXPECT_EQ(image.health(), v1::IMAGE_HEALTH_HEALTHY);
}

// The copy that is away may be the only whole one.
TEST_F(OrphanMovesTest, TheRowDoesNotFollowToBytesThatAreNotWhole) {
  ListBoth();
  b_->Put(image_, *a_->file(image_));
  b_->Behave([](FakeAgent::Behaviour* b) { b->rotten_bytes = true; });
  Say(a_, v1::HEALTH_ABSENT);
  Again(b_);
  EXPECT_EQ(HolderOf(image_), "a");
  ASSERT_EQ(Count(b_), 1);
  const v1::Orphan orphan = List().orphans(0);
  EXPECT_THAT(orphan.detail(), HasSubstr("rotten"));
  EXPECT_THAT(lifecycle_->orphans().Adopt(AdoptionOf(orphan)),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(HolderOf(image_), "a");
  EXPECT_TRUE(b_->Has(image_));
}

// With the record of the whole one, as a copy that was torn has it; and its row
// is said to have lost the file.
TEST_F(OrphanMovesTest, TheRowOfAMissingFileDoesNotFollowUnread) {
  ListBoth();
  b_->Put(image_, *a_->Take(image_));
  b_->Behave([](FakeAgent::Behaviour* b) { b->rotten_bytes = true; });
  Again(a_);
  Again(b_);
  EXPECT_EQ(HolderOf(image_), "a");
  ASSERT_EQ(Count(b_), 1);
  EXPECT_THAT(List().orphans(0).detail(), HasSubstr("rotten"));
  EXPECT_EQ(lifecycle_->images().Get(image_)->health(),
            v1::IMAGE_HEALTH_DEGRADED);
}

// The place of one that is damaged; of one that is well never, and another
// generation never.
TEST_F(OrphanMovesTest, ACopyTakesThePlaceOfADamagedOneByCommand) {
  ListBoth();
  FakeAgent::File file = *a_->file(image_);
  b_->Put(image_, file);
  Again(b_);
  v1::Orphan orphan = List().orphans(0);
  EXPECT_THAT(lifecycle_->orphans().Adopt(AdoptionOf(orphan)),
              HasReason(reason::kImageExists));
  PutFault(image_, a_, storage::v1::COPY_FAULT_DAMAGED);
  ASSERT_OK(lifecycle_->orphans().Adopt(AdoptionOf(orphan, /*dry=*/true)));
  EXPECT_EQ(HolderOf(image_), "a");
  ASSERT_OK_AND_ASSIGN(const v1::Orphan adopted,
                       lifecycle_->orphans().Adopt(AdoptionOf(orphan)));
  EXPECT_EQ(adopted.generation(), orphan.generation());
  EXPECT_EQ(HolderOf(image_), "b");
  EXPECT_TRUE(a_->Has(image_));
  Generation other = Generation::FromProto(file.generation);
  ++other.n;
  file.generation = other.ToProto();
  a_->Put(image_, file);
  Again(a_);
  ASSERT_EQ(Count(a_), 1);
  EXPECT_THAT(lifecycle_->orphans().Adopt(AdoptionOf(List().orphans(0))),
              HasReason(reason::kImageExists));
}

// Whatever becomes of the mount, or of the file.
TEST_F(OrphanMovesTest, AsManyAreCountedAsAreListed) {
  ListBoth();
  b_->Plant(ids_.NextUuid(), ids_.NextUuid(),
            index_->GetImage(image_)->value().generation());
  b_->Put(image_, *a_->file(image_));
  Again(b_);
  const auto expect = [&](int count, int checks) {
    v1::GetMountRequest get;
    get.set_name("mounts/b");
    EXPECT_EQ(List().orphans_size(), count);
    EXPECT_EQ(lifecycle_->mounts().Get(get)->orphan_count(), count);
    int said = 0;
    const v1::Cluster cluster = lifecycle_->cluster().Get();
    for (const v1::HealthCheck& check : cluster.checks()) {
      said += check.code() == "ORPHANS" ? 1 : 0;
    }
    EXPECT_EQ(said, checks);
  };
  expect(2, 1);
  b_->Lose();
  Settle();
  expect(2, 1);
  // The mount of its row is away: the file takes its place.
  Connect(b_);
  a_->Lose();
  Settle();
  clock_.Advance(absl::Seconds(30));
  b_->Beat();
  Tick();
  Tick();
  ASSERT_EQ(HolderOf(image_), "b");
  expect(1, 1);
  v1::RetireMountRequest retire;
  retire.set_name("mounts/b");
  AcceptLoss(&retire);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  Settle();
  expect(0, 0);
}

}  // namespace
}  // namespace predella::testing
