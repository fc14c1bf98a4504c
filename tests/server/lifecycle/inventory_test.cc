// RECOVERING from its begin to its end.
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
using ::testing::IsEmpty;
using ::testing::Not;

using InventoryTest = RecoveringFixture;

TEST_F(InventoryTest, RecoveringEndsWhenEveryMountWasListed) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  std::vector<Uuid> more;
  for (int i = 0; i < 5; ++i) {
    more.push_back(ids_.NextUuid());
    Upload(a, more.back(), ids_.NextUuid());
  }
  const auto before = lifecycle_->images().Get(image_);
  ASSERT_OK(before);
  RestartFrom(old);
  Connect(a);
  ASSERT_TRUE(recovering());
  List();
  // Read again at once, although the other mount is still away.
  EXPECT_TRUE(recovering());
  EXPECT_THAT(lifecycle_->inventory().Awaited(), ElementsAre("b"));
  EXPECT_THAT(Checks(), Contains("RECOVERING"));
  ASSERT_OK_AND_ASSIGN(const v1::Image after, lifecycle_->images().Get(image_));
  EXPECT_EQ(after.generation(), before->generation());
  EXPECT_EQ(after.location_key(), before->location_key());
  EXPECT_EQ(after.upload(), before->upload());
  EXPECT_EQ(after.size_bytes(), before->size_bytes());
  EXPECT_EQ(after.crc32c_hex(), before->crc32c_hex());
  EXPECT_EQ(index_->totals().count, 6);
  Connect(b);
  List();
  EXPECT_FALSE(recovering());
  EXPECT_THAT(lifecycle_->inventory().Awaited(), IsEmpty());
  EXPECT_THAT(Checks(), Not(Contains("RECOVERING")));
  EXPECT_TRUE(registry_->FindByName("a")->trusted);
  EXPECT_TRUE(registry_->FindByName("b")->trusted);
  // The upload that brought it answers as it did.
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_COMMITTED);
  // Removals go on.
  EXPECT_OK(Delete(more[0]));
  EXPECT_FALSE(a->Has(more[0]));
  EXPECT_TRUE(absl::IsNotFound(lifecycle_->images().Get(more[0]).status()));
  // The table was raised: the same knowledge proves nothing any more.
  Restart();
  Connect(a);
  Connect(b);
  EXPECT_FALSE(recovering());
  EXPECT_TRUE(registry_->FindByName("a")->trusted);
  EXPECT_OK(lifecycle_->images().Get(image_));
}

TEST_F(InventoryTest, ARetiredMountIsNotWaitedFor) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  RestartFrom(old);
  Connect(a);
  List();
  ASSERT_TRUE(recovering());
  v1::RetireMountRequest retire;
  retire.set_name("mounts/b");
  EXPECT_THAT(lifecycle_->mounts().Retire(retire),
              HasReason(reason::kRecovering))
      << "nobody knows what is on it";
  retire.set_accept_unlisted(true);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  List();
  EXPECT_FALSE(recovering());
}

TEST_F(InventoryTest, AListingThatFailsIsAskedForAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  RestartFrom(old);
  a->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_listing = absl::UnavailableError("the disk is slow");
  });
  Connect(a);
  List();
  EXPECT_TRUE(recovering());
  EXPECT_FALSE(index_->GetImage(image_)->has_value());
  a->Behave(
      [](FakeAgent::Behaviour* b) { b->refuse_listing = absl::OkStatus(); });
  List();
  EXPECT_FALSE(recovering());
  EXPECT_OK(lifecycle_->images().Get(image_));
}

TEST_F(InventoryTest, AListingThatNeverEndsIsGivenUpAndAskedForAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  RestartFrom(old);
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  Connect(a);
  List();
  const size_t asked = a->commands().size();
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = false; });
  const auto after = [&](absl::Duration time) {
    clock_.Advance(time);
    a->Beat();
    List();
  };
  after(absl::Minutes(4));
  EXPECT_EQ(a->commands().size(), asked);
  after(absl::Minutes(1));
  EXPECT_EQ(a->commands().size(), asked) << "not at once: it may still run";
  EXPECT_THAT(lifecycle_->inventory().Awaited(), ElementsAre("a"));
  after(absl::Minutes(1));
  EXPECT_FALSE(recovering());
  EXPECT_OK(lifecycle_->images().Get(image_));
}

// What a mount remembers counts also where it registered before RECOVERING
// began.
TEST_F(InventoryTest, RostersOfMountsThatWereThereBeforeAreRead) {
  FakeAgent* const a = AddConnected("a", 2);
  FakeAgent* const b = AddConnected("b", 3);
  const auto old = kv_->Contents();
  FakeAgent* const c = AddConnected("c", 1);
  Upload(c, image_, upload_);
  Upload(c, ids_.NextUuid(), ids_.NextUuid());
  b->Beat();  // it has heard of that, a has not
  Settle();
  a->Behave([&](FakeAgent::Behaviour* behaviour) {
    behaviour->roster.emplace_back();
    behaviour->roster.back().set_mount_uid(c->uid().bytes());
    behaviour->roster.back().set_mount_name("c");
  });
  RestartFrom(old);
  Connect(a);
  ASSERT_FALSE(recovering());
  Connect(b);
  List();
  EXPECT_TRUE(recovering()) << "c was not listed";
  EXPECT_THAT(lifecycle_->inventory().Awaited(), ElementsAre("c"));
  EXPECT_THAT(lifecycle_->images().Get(image_), HasReason(reason::kRecovering));
  Connect(c);
  List();
  EXPECT_FALSE(recovering());
  EXPECT_OK(lifecycle_->images().Get(image_));
}

// The index lost the mount too: others remember it, and it is waited for.
TEST_F(InventoryTest, AMountThatWasAddedSinceIsWaitedFor) {
  FakeAgent* const a = AddConnected("a", 2);
  const auto old = kv_->Contents();
  FakeAgent* const c = AddConnected("c", 1);
  Upload(c, image_, upload_);
  c->Lose();
  Upload(a, ids_.NextUuid(), ids_.NextUuid());
  for (const bool roster : {true, false}) {
    SCOPED_TRACE(roster);
    RestartFrom(old);
    a->Behave([&](FakeAgent::Behaviour* b) {
      b->roster.clear();
      if (roster) {
        b->roster.emplace_back();
        b->roster.back().set_mount_uid(c->uid().bytes());
        b->roster.back().set_mount_name("c");
      }
    });
    Connect(a);
    List();
    EXPECT_EQ(recovering(), roster);
    if (roster) {
      EXPECT_THAT(lifecycle_->inventory().Awaited(), ElementsAre("c"));
    }
    // Whoever knows something and is known to nobody was taken in by the
    // history that was lost, whatever the others' knowledge covers.
    Connect(c);
    List();
    EXPECT_FALSE(recovering());
    EXPECT_TRUE(registry_->FindByName("c")->trusted);
    EXPECT_OK(lifecycle_->images().Get(image_));
    a->Lose();
    c->Lose();
  }
}

// A file whose record cannot vouch for it is neither adopted nor missing.
TEST_F(InventoryTest, WhatCannotBeAdoptedIsNamed) {
  FakeAgent* const a = AddConnected("a", 1);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  const Uuid other = ids_.NextUuid();
  Upload(a, other, ids_.NextUuid());
  RestartFrom(old);
  a->Behave([](FakeAgent::Behaviour* b) { b->records_readable = false; });
  Connect(a);
  List();
  EXPECT_FALSE(recovering());
  EXPECT_THAT(lifecycle_->images().Get(image_),
              AllOf(StatusIs(absl::StatusCode::kDataLoss),
                    HasReason(reason::kReplicaMissing)));
  EXPECT_THAT(Checks(), Contains("FILES_NOT_ADOPTED"));
  EXPECT_EQ(lifecycle_->inventory().ListUnadopted().size(), 2u);
}

TEST_F(InventoryTest, AnAdoptedUploadAnswersWhateverSizeItWasStartedWith) {
  FakeAgent* const a = AddConnected("a", 1);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_, 4096);
  RestartFrom(old);
  Connect(a);
  List();
  for (const std::optional<int64_t> size :
       {std::optional<int64_t>(), std::optional<int64_t>(4096)}) {
    ASSERT_OK_AND_ASSIGN(const v1::Upload upload, Start(image_, upload_, size));
    EXPECT_EQ(upload.state(), v1::UPLOAD_STATE_COMMITTED);
  }
  EXPECT_THAT(Start(image_, upload_, 4097),
              HasReason(reason::kInvalidArgument));
}

// What one listing said is of the process that said it.
TEST_F(InventoryTest, AMountThatComesBackWithAnotherAgentIsListedAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  RestartFrom(old);
  Connect(a);
  List();
  a->Lose();
  Connect(b);
  List();
  EXPECT_TRUE(recovering()) << "a mount that is away is waited for";
  a->Behave([](FakeAgent::Behaviour* behaviour) {
    behaviour->incarnation = "another";
    behaviour->refuse_listing = absl::UnavailableError("not yet");
  });
  Connect(a);
  List();
  EXPECT_TRUE(recovering());
  a->Behave([](FakeAgent::Behaviour* behaviour) {
    behaviour->refuse_listing = absl::OkStatus();
  });
  List();
  EXPECT_FALSE(recovering());
}

TEST_F(InventoryTest, OnlyAListingThatWasAskedForIsTakenIn) {
  FakeAgent* const a = AddConnected("a", 1);
  control::v1::InventoryPart part;
  part.set_mount_uid(a->uid().bytes());
  part.set_listing_id("nobody's");
  EXPECT_THAT(lifecycle_->inventory().Take(part),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

// A delete of the history that was lost: a copy of its tombstone lies on a
// mount, and rules whichever of the two registers first.
TEST_F(InventoryTest, WhatWasDeletedStaysDeleted) {
  for (const bool file_first : {true, false}) {
    SCOPED_TRACE(file_first);
    const std::string suffix = file_first ? "1" : "2";
    FakeAgent* const a = AddConnected("a" + suffix, 1);
    FakeAgent* const b = AddConnected("b" + suffix, 2);
    const Uuid image = ids_.NextUuid();
    const auto old = kv_->Contents();
    Upload(a, image, ids_.NextUuid());
    a->Lose();
    ASSERT_OK(Delete(image));
    RestartFrom(old);
    for (const auto& agent : agents_) {
      if (agent.get() != a && agent.get() != b) {
        Connect(agent.get());
      }
    }
    Connect(file_first ? a : b);
    List();
    Connect(file_first ? b : a);
    List();
    List();
    EXPECT_FALSE(recovering());
    EXPECT_TRUE(absl::IsNotFound(lifecycle_->images().Get(image).status()));
    EXPECT_FALSE(a->Has(image));
    for (const auto& agent : agents_) {
      agent->Lose();
    }
    Settle();
  }
}

TEST_F(InventoryTest, StoredAgainAfterADeleteTheLaterOneIsTheImage) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  a->Lose();
  ASSERT_OK(Delete(image_));
  const Uuid second = ids_.NextUuid();
  Upload(b, image_, second);
  RestartFrom(old);
  Connect(a);
  List();
  Connect(b);
  List();
  List();
  EXPECT_FALSE(recovering());
  ASSERT_OK_AND_ASSIGN(const v1::Image image, lifecycle_->images().Get(image_));
  EXPECT_EQ(image.upload(), "uploads/" + second.ToString());
  EXPECT_TRUE(image.conflicts().empty());
  EXPECT_FALSE(a->Has(image_));
}

// An upload that lost in the history that was lost: its file is adopted only
// where nothing better is known.
TEST_F(InventoryTest, AnUploadThatTheIndexEndedIsRemovedAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  ASSERT_OK(Start(image_, upload_));
  ASSERT_OK(lifecycle_->uploads().Abort(upload_));
  Settle();
  Tick();
  const auto old = kv_->Contents();  // aborted, and confirmed clean
  const Uuid other = ids_.NextUuid();
  Upload(a, other, ids_.NextUuid());
  RestartFrom(old);
  // It was published all the same.
  a->Plant(image_, upload_, index_->GetUpload(upload_)->value().generation());
  Connect(a);
  List();
  List();
  EXPECT_FALSE(recovering());
  EXPECT_TRUE(index_->GetImage(other)->has_value());
  EXPECT_FALSE(index_->GetImage(image_)->has_value());
  EXPECT_FALSE(a->Has(image_)) << "its outcome stands";
}

}  // namespace
}  // namespace predella::testing
