// RECOVERING from its begin to its end: the index was put back from an older
// copy, and the mounts tell what it lacks.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class InventoryTest : public LifecycleFixture {
 protected:
  InventoryTest() : image_(ids_.NextUuid()), upload_(ids_.NextUuid()) {}

  // What asks for listings, takes them in, and ends RECOVERING.
  void List() {
    Tick();
    Tick();
  }
  bool recovering() { return lifecycle_->trust().recovering(); }
  std::vector<std::string> Checks() {
    std::vector<std::string> codes;
    const v1::Cluster cluster = lifecycle_->cluster().Get();
    for (const v1::HealthCheck& check : cluster.checks()) {
      codes.push_back(check.code());
    }
    return codes;
  }
  Generation GenerationOf(const Uuid& image) {
    const auto row = index_->GetImage(image);
    return row.ok() && row->has_value()
               ? Generation::FromProto((*row)->generation())
               : Generation();
  }

  const Uuid image_;
  const Uuid upload_;
};

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

class UnadoptedTest : public InventoryTest {
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

TEST_F(UnadoptedTest, AnOperatorAdoptsItOrPutsItAway) {
  Lose();
  const auto file = *a_->file(image_);
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
  // The same again, with its record back.
  RestartFrom(old_);
  a_->Put(image_, file);
  Connect(a_);
  List();
  ASSERT_EQ(Rows(), 1u);
  a_->Behave([](FakeAgent::Behaviour* b) { b->records_readable = true; });
  Restart();
  Connect(a_);
  List();
  v1::AdoptOrphanRequest adopt;
  adopt.set_mount("mounts/a");
  adopt.set_image("images/" + image_.ToString());
  adopt.set_generation(Generation::FromProto(file.generation).ToString());
  ASSERT_OK(lifecycle_->orphans().Adopt(adopt));
  EXPECT_OK(Get());
  EXPECT_EQ(Rows(), 0u);
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

class ConflictTest : public InventoryTest {
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
