// Files that RECOVERING found, and whose records could not vouch for them.
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
using ::testing::Not;

class UnadoptedTest : public RecoveringFixture {
 protected:
  // `image_` was stored on a by a history that was lost, and its record can
  // not be read.
  void Lose() {
    a_ = AddConnected("a", 1);
    old_ = kv_->Contents();
    Upload(a_, image_, upload_);
    RestartFrom(old_);
    a_->Behave([](FakeAgent::Behaviour* b) { b->records_readable = false; });
    Connect(a_);
    List();
    ASSERT_FALSE(recovering());
    ASSERT_THAT(Get(), HasReason(reason::kReplicaMissing));
  }
  absl::Status Get() { return lifecycle_->images().Get(image_).status(); }
  size_t Rows() {
    size_t rows = 0;
    EXPECT_OK(
        index_->ScanUnadopted([&](const storage::v1::ImageRow&) { ++rows; }));
    return rows;
  }

  FakeAgent* a_ = nullptr;
  server::MemKvStore::Rows old_;
};

// Every later start knows it before the mount was listed: an answer between is
// no NOT_FOUND.
TEST_F(UnadoptedTest, IsTheSameAfterARestart) {
  Lose();
  Restart();
  EXPECT_THAT(Get(), AllOf(StatusIs(absl::StatusCode::kDataLoss),
                           HasReason(reason::kReplicaMissing)));
  Connect(a_);
  EXPECT_THAT(Get(), HasReason(reason::kReplicaMissing));
  EXPECT_THAT(Checks(), Contains("FILES_NOT_ADOPTED"));
  List();
  EXPECT_FALSE(recovering());
  EXPECT_THAT(Get(), HasReason(reason::kReplicaMissing));
  EXPECT_THAT(Checks(), Contains("FILES_NOT_ADOPTED"));
  // As long as it lies there.
  ASSERT_TRUE(a_->Take(image_).has_value());
  Restart();
  Connect(a_);
  EXPECT_THAT(Get(), HasReason(reason::kReplicaMissing));
  List();
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  EXPECT_THAT(Checks(), Not(Contains("FILES_NOT_ADOPTED")));
  EXPECT_EQ(Rows(), 0u);
}

TEST_F(UnadoptedTest, IsAdoptedWhenItsRecordIsBack) {
  Lose();
  a_->Behave([](FakeAgent::Behaviour* b) { b->records_readable = true; });
  RestartFrom(old_);
  Connect(a_);
  List();
  EXPECT_OK(Get());
  // Also where RECOVERING has ended meanwhile.
  ASSERT_OK(Delete(image_));
  EXPECT_EQ(Rows(), 0u);
}

TEST_F(UnadoptedTest, AnOperatorPutsItAway) {
  Lose();
  v1::RemoveOrphanRequest remove;
  remove.set_mount("mounts/a");
  remove.set_image("images/" + image_.ToString());
  List();  // once more, after RECOVERING
  ASSERT_OK(lifecycle_->orphans().Remove(remove));
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  EXPECT_EQ(Rows(), 0u);
  Restart();
  Connect(a_);
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
}

// The disk answers again: nobody has to start anything, or to say so.
TEST_F(UnadoptedTest, IsAdoptedByALaterListing) {
  Lose();
  List();
  ASSERT_THAT(Get(), HasReason(reason::kReplicaMissing));
  a_->Behave([](FakeAgent::Behaviour* b) { b->records_readable = true; });
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(options_.rescan_interval);
    a_->Beat();
    List();
  }
  EXPECT_OK(Get());
  EXPECT_EQ(Rows(), 0u);
  EXPECT_THAT(Checks(), Not(Contains("FILES_NOT_ADOPTED")));
  // It is an image as any other: a delete is one.
  ASSERT_OK(Delete(image_));
  a_->Beat();
  List();
  EXPECT_FALSE(a_->Has(image_));
}

// Its directory may be another one by then.
TEST_F(UnadoptedTest, ALaterSessionWaitsForAnOperator) {
  Lose();
  a_->Lose();
  Settle();
  a_->Behave([](FakeAgent::Behaviour* b) { b->records_readable = true; });
  Connect(a_);
  List();
  List();
  EXPECT_THAT(Get(), HasReason(reason::kReplicaMissing));
  EXPECT_THAT(Checks(), Contains("FILES_NOT_ADOPTED"));
  v1::AdoptOrphanRequest adopt;
  adopt.set_mount("mounts/a");
  adopt.set_image("images/" + image_.ToString());
  adopt.set_generation(
      Generation::FromProto(a_->file(image_)->generation).ToString());
  ASSERT_OK(lifecycle_->orphans().Adopt(adopt));
  EXPECT_OK(Get());
  EXPECT_EQ(Rows(), 0u);
}

// The delete is remembered for as long as the file is there.
TEST_F(UnadoptedTest, IsForgottenWithADelete) {
  Lose();
  FakeAgent* const b = AddConnected("b", 0);
  Upload(b, image_, ids_.NextUuid());
  ASSERT_OK(Delete(image_));
  Tick();
  EXPECT_EQ(Rows(), 0u);
  for (int i = 0; i < 4; ++i) {
    clock_.Advance(options_.tombstone_ttl);
    a_->Beat();
    b->Beat();
    List();
    List();
  }
  EXPECT_EQ(lifecycle_->tombstones().count(), 1);
  EXPECT_THAT(Checks(), Not(Contains("FILES_NOT_ADOPTED")));
  a_->Behave([](FakeAgent::Behaviour* own) { own->records_readable = true; });
  for (int i = 0; i < 4; ++i) {
    clock_.Advance(options_.rescan_interval);
    a_->Beat();
    b->Beat();
    List();
  }
  EXPECT_FALSE(Get().ok()) << "a deleted image has risen";
  EXPECT_FALSE(a_->Has(image_));
}

// A mount is given up by what is known of it, listed since or not.
TEST_F(UnadoptedTest, IsAmongTheOrphansBeforeAListing) {
  Lose();
  a_->Lose();
  Restart();
  v1::ListOrphansRequest list;
  list.set_mount("mounts/a");
  const auto files = lifecycle_->orphans().List(list);
  ASSERT_OK(files);
  EXPECT_EQ(files->unlisted_size(), 1);
  ASSERT_EQ(files->orphans_size(), 1);
  EXPECT_EQ(files->orphans(0).image(), "images/" + image_.ToString());
  EXPECT_GT(files->orphans(0).size_bytes(), 0);
}

// What was stored under the id since, and deleted, was later than it.
TEST_F(UnadoptedTest, ALaterDeleteRulesOverIt) {
  Lose();
  FakeAgent* const b = AddConnected("b", 0);
  Upload(b, image_, ids_.NextUuid());
  ASSERT_OK(Delete(image_));
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  Restart();
  Connect(a_);
  Connect(b);
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  List();
  List();
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  EXPECT_TRUE(a_->Has(image_));
}

// A delete of the lost history may have been of an earlier generation.
TEST_F(UnadoptedTest, AnEarlierDeleteDoesNot) {
  Lose();
  a_->Lose();
  storage::v1::Tombstone tombstone;
  tombstone.set_image_id(image_.bytes());
  *tombstone.mutable_generation() = a_->file(image_)->generation;
  tombstone.mutable_generation()->set_n(1);
  tombstone.set_create_time_us(1);
  a_->Behave(
      [&](FakeAgent::Behaviour* b) { b->extra_tombstones = {tombstone}; });
  Connect(a_);
  List();
  EXPECT_THAT(Get(), HasReason(reason::kReplicaMissing));
}

TEST_F(UnadoptedTest, IsGivenUpWithItsMount) {
  Lose();
  AddConnected("b", 2);
  Tick();
  v1::RetireMountRequest retire;
  retire.set_name("mounts/a");
  const auto refused = lifecycle_->mounts().Retire(retire);
  EXPECT_THAT(refused, HasReason(reason::kMountNotEmpty));
  EXPECT_EQ(MetadataOf(refused.status())["unnamed_count"], "1");
  AcceptLoss(&retire);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  EXPECT_THAT(Checks(), Not(Contains("FILES_NOT_ADOPTED")));
}

// The damaged file of an image that was deleted is to go, and not a riddle.
TEST_F(UnadoptedTest, NotWhatALostHistoryDeleted) {
  a_ = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  old_ = kv_->Contents();
  Upload(a_, image_, upload_);
  a_->Lose();
  ASSERT_OK(Delete(image_));
  FakeAgent::File file = *a_->file(image_);
  file.record_size_bytes = file.size_bytes;
  --file.size_bytes;
  a_->Put(image_, file);
  RestartFrom(old_);
  Connect(b);
  Connect(a_);
  List();
  ASSERT_FALSE(recovering());
  EXPECT_EQ(Rows(), 0u);
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  List();
  EXPECT_FALSE(a_->Has(image_));
}

}  // namespace
}  // namespace predella::testing
