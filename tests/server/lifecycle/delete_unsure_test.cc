// Deletes while a mount that is away may hold a later generation of the image
// than the index has.
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "server/index/rebuild.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

class DeleteUnsureTest : public LifecycleFixture {
 protected:
  DeleteUnsureTest() : image_(ids_.NextUuid()), upload_(ids_.NextUuid()) {
    a_ = AddConnected("a", 2);
  }

  // As `predella index restore` does.
  void PutBack(const server::MemKvStore::Rows& rows) {
    server::MemKvStore restored(rows);
    ASSERT_OK(server::MarkRestored(&restored, &clock_));
    RestartFrom(restored.Contents());
  }
  // What the lost history stored under the id, after all that the index knows.
  void PlantLater(FakeAgent* agent) {
    storage::v1::Generation later;
    later.set_epoch(index_->epoch());
    later.set_nonce(index_->epoch_nonce());
    later.set_n(index_->synced_pair().n + 100);
    agent->Plant(image_, ids_.NextUuid(), later);
  }
  void List() {
    Tick();
    Tick();
    Tick();
  }
  absl::Status Get() { return lifecycle_->images().Get(image_).status(); }
  void ExpectDeleted(FakeAgent* holder) {
    List();
    EXPECT_FALSE(lifecycle_->trust().recovering());
    EXPECT_FALSE(Get().ok());
    EXPECT_FALSE(holder->Has(image_)) << "the deleted file stays";
    // Nor does it come back later.
    Restart();
    Connect(a_);
    Connect(holder);
    List();
    EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  }

  const Uuid image_;
  const Uuid upload_;
  FakeAgent* a_ = nullptr;
};

TEST_F(DeleteUnsureTest, WhatTheLostHistoryStoredLaterIsDeletedToo) {
  ASSERT_OK(Start(image_, upload_, 4096));
  const auto old = kv_->Contents();
  FakeAgent* const c = AddConnected("c", 1);
  Upload(c, image_, ids_.NextUuid());  // takes over from the first
  c->Lose();
  Settle();
  PutBack(old);
  Connect(a_);
  ASSERT_OK(Delete(image_));
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  Connect(c);
  ExpectDeleted(c);
}

TEST_F(DeleteUnsureTest, TheSameOfAnImageThatTheOlderIndexHas) {
  Upload(a_, image_, upload_);
  FakeAgent* const c = AddAgent("c", 1);
  PlantLater(c);
  PutBack(kv_->Contents());
  Connect(a_);
  ASSERT_OK(Delete(image_));
  Connect(c);
  ExpectDeleted(c);
}

// Nobody has noticed yet that the index is older.
TEST_F(DeleteUnsureTest, TheSameBeforeTheMountWasHeard) {
  FakeAgent* const c = AddConnected("c", 3);
  Upload(a_, image_, upload_);
  c->Lose();
  Settle();
  PlantLater(c);
  Restart();
  Connect(a_);
  Tick();
  ASSERT_FALSE(lifecycle_->trust().recovering());
  ASSERT_OK(Delete(image_));
  Connect(c);
  EXPECT_TRUE(lifecycle_->trust().recovering());
  ExpectDeleted(c);
}

// It is heard between the last look at what is known and the commit.
TEST_F(DeleteUnsureTest, TheSameOfAMountThatIsHeardDuringTheDelete) {
  Upload(a_, image_, upload_);
  FakeAgent* const c = AddAgent("c", 1);
  PlantLater(c);
  std::vector<storage::v1::FenceEntry> known(1);
  known[0].set_epoch(index_->epoch());
  known[0].set_nonce(index_->epoch_nonce());
  known[0].set_max_n(c->file(image_)->generation.n());
  Restart();
  Connect(a_);
  ASSERT_FALSE(lifecycle_->trust().recovering());
  kv_->BeforeNextCommit(
      [&] { EXPECT_OK(lifecycle_->trust().Compare(c->uid(), known)); });
  ASSERT_OK(Delete(image_));
  ASSERT_TRUE(lifecycle_->trust().recovering());
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  Connect(c);
  ExpectDeleted(c);
}

// The delete was of all that was known; what comes later is another question.
TEST_F(DeleteUnsureTest, ADeleteOfEarlierAnswersForNothingThatIsHeardLater) {
  Upload(a_, image_, upload_);
  FakeAgent* const c = AddAgent("c", 1);
  PlantLater(c);
  Restart();
  Connect(a_);
  ASSERT_OK(Delete(image_));
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  c->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_listing = absl::UnavailableError("not yet");
  });
  Connect(c);
  ASSERT_TRUE(lifecycle_->trust().recovering());
  EXPECT_THAT(Get(), HasReason(reason::kRecovering));
  c->Behave(
      [](FakeAgent::Behaviour* b) { b->refuse_listing = absl::OkStatus(); });
  List();
  EXPECT_OK(Get());
}

// As a listing finds a second generation while the uploads are asked.
TEST_F(DeleteUnsureTest, AConflictThatIsFoundMeanwhileStopsTheDelete) {
  PutBack(kv_->Contents());
  AddConnected("c", 3)->Lose();
  Connect(a_);
  ASSERT_OK(Start(image_, upload_, 4096));
  ASSERT_TRUE(lifecycle_->trust().recovering());
  a_->Behave([&](FakeAgent::Behaviour* b) {
    b->on_command = [&](const control::v1::Command& command) {
      if (!command.has_close_if_idle()) {
        return;
      }
      storage::v1::ConflictRow conflict;
      conflict.mutable_image()->set_image_id(image_.bytes());
      conflict.mutable_image()->mutable_generation()->set_epoch(1);
      conflict.mutable_image()->mutable_generation()->set_n(7);
      server::IndexTxn txn = index_->Begin();
      txn.PutConflict(conflict);
      EXPECT_OK(index_->Commit(std::move(txn)));
    };
  });
  EXPECT_THAT(Delete(image_), HasReason(reason::kImageConflict));
  EXPECT_EQ(index_->TombstonesOf(image_)->size(), 0u);
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
}

// Nothing is removed until RECOVERING ends, and the delete waits for each
// mount: the new upload does not.
TEST_F(DeleteUnsureTest, TheIdIsStoredAnewBeforeRecoveringEnds) {
  Upload(a_, image_, upload_);
  FakeAgent* const b = AddConnected("b", 3);
  FakeAgent* const c = AddConnected("c", 4);
  c->Lose();
  Settle();
  PlantLater(c);
  PutBack(kv_->Contents());
  Connect(a_);
  Connect(b);
  ASSERT_OK(Delete(image_));
  ASSERT_TRUE(a_->Has(image_)) << "nothing is removed now";
  a_->Behave([](FakeAgent::Behaviour* x) { x->name_taken = true; });
  Upload(b, image_, ids_.NextUuid());
  const auto row = *index_->GetImage(image_);
  ASSERT_TRUE(row.has_value());
  Connect(c);
  List();
  EXPECT_FALSE(lifecycle_->trust().recovering());
  List();
  const auto now = *index_->GetImage(image_);
  ASSERT_TRUE(now.has_value());
  EXPECT_EQ(now->upload_id(), row->upload_id());
  EXPECT_TRUE(b->Has(image_));
  EXPECT_FALSE(a_->Has(image_));
  EXPECT_FALSE(c->Has(image_));
}

// Where the deleted file is on the only mount, the upload waits and does not
// end.
TEST_F(DeleteUnsureTest, AnUploadWaitsForAFileThatIsRemovedAfterRecovering) {
  Upload(a_, image_, upload_);
  FakeAgent* const c = AddConnected("c", 4);
  c->Lose();
  Settle();
  PutBack(kv_->Contents());
  Connect(a_);
  ASSERT_OK(Delete(image_));
  a_->Behave([](FakeAgent::Behaviour* x) { x->name_taken = true; });
  const Uuid again = ids_.NextUuid();
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Start(image_, again, 4096),
                HasReason(reason::kLeftoverPending));
  }
  Connect(c);
  List();
  ASSERT_FALSE(lifecycle_->trust().recovering());
  ASSERT_FALSE(a_->Has(image_));
  a_->Behave([](FakeAgent::Behaviour* x) { x->name_taken = false; });
  EXPECT_OK(Start(image_, again, 4096));
}

// A publish that has begun ends before a delete of all that may come does.
TEST_F(DeleteUnsureTest, APublishAndADeleteOfAllBelowAreOneAfterTheOther) {
  ASSERT_OK(Start(image_, upload_, 4096));
  ASSERT_TRUE(a_->Write(upload_, 4096, false));
  std::thread deleter;
  absl::Notification entered;
  kv_->BeforeNextCommit([&] {
    deleter = std::thread([&] {
      const server::MountGate::Counting alone(
          lifecycle_->tombstones().adopting(), Uuid());
      entered.Notify();
    });
    // Time enough for one that is not kept out.
    EXPECT_FALSE(
        entered.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  });
  ASSERT_TRUE(a_->Publish(upload_));
  Settle();
  ASSERT_TRUE(deleter.joinable());
  deleter.join();
  EXPECT_TRUE(entered.HasBeenNotified());
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_COMMITTED);
}

// Nor does one that knows all come between an operator's look at an orphan and
// its adoption.
TEST_F(DeleteUnsureTest, ADeleteAndAnAdoptionByHandAreOneAfterTheOther) {
  Upload(a_, image_, upload_);
  std::thread adopter;
  absl::Notification entered;
  kv_->BeforeNextCommit([&] {
    adopter = std::thread([&] {
      const server::MountGate::Counting alone(
          lifecycle_->tombstones().adopting(), Uuid());
      entered.Notify();
    });
    EXPECT_FALSE(
        entered.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  });
  ASSERT_OK(Delete(image_));
  ASSERT_TRUE(adopter.joinable());
  adopter.join();
}

TEST_F(DeleteUnsureTest, ADeleteOfOneGenerationTakesNoOther) {
  Upload(a_, image_, upload_);
  FakeAgent* const c = AddAgent("c", 1);
  PlantLater(c);
  PutBack(kv_->Contents());
  Connect(a_);
  const auto row = index_->GetImage(image_);
  ASSERT_TRUE(row.ok() && row->has_value());
  server::ImageCatalog::DeleteRequest request;
  request.image_id = image_;
  request.generation = Generation::FromProto((*row)->generation());
  ASSERT_OK(lifecycle_->images().Delete(request));
  EXPECT_THAT(Get(), HasReason(reason::kRecovering));
  Connect(c);
  List();
  EXPECT_OK(Get());
  EXPECT_TRUE(c->Has(image_));
}

// One upload of the image goes on: the delete is refused, and took nothing.
TEST_F(DeleteUnsureTest, OneThatIsRefusedEndsNoUpload) {
  ASSERT_OK(Start(image_, upload_, 4096));
  FakeAgent* const c = AddConnected("c", 3);
  Restart();  // whether a published it is not known before a is back
  Connect(c);
  Tick();
  const Uuid later = ids_.NextUuid();
  ASSERT_OK(Start(image_, later, 4096));
  ASSERT_TRUE(c->Write(later, 4096, /*leave_open=*/true));
  ASSERT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
  EXPECT_THAT(Delete(image_), HasReason(reason::kUploadInProgress));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
  EXPECT_EQ(index_->TombstonesOf(image_)->size(), 0u);
  ASSERT_TRUE(c->Publish(later));
  Settle();
  EXPECT_EQ(StateOf(later), v1::UPLOAD_STATE_COMMITTED);
  EXPECT_OK(Get());
}

// The index knows all there is: one tombstone, for one generation.
TEST_F(DeleteUnsureTest, OtherwiseOneTombstoneIsWritten) {
  Upload(a_, image_, upload_);
  ASSERT_OK(Delete(image_));
  EXPECT_EQ(index_->TombstonesOf(image_)->size(), 1u);
}

}  // namespace
}  // namespace predella::testing
