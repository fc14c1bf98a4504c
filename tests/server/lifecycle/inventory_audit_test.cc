// Listings outside of RECOVERING: what is missing, what nobody knows.
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

FakeAgent::File Unrecorded(int64_t bytes) {
  FakeAgent::File file;
  file.size_bytes = bytes;
  file.has_record = false;
  return file;
}

class InventoryAuditTest : public LifecycleFixture {
 protected:
  InventoryAuditTest() : image_(ids_.NextUuid()), upload_(ids_.NextUuid()) {}

  std::optional<storage::v1::FaultRow> FaultOf(const Uuid& image,
                                               FakeAgent* agent) {
    const auto row = index_->GetImage(image);
    return row.ok() && row->has_value() ? index_->FaultOf(**row, agent->uid())
                                        : std::nullopt;
  }
  storage::v1::CopyFault KindOf(const Uuid& image, FakeAgent* agent) {
    const auto fault = FaultOf(image, agent);
    return fault.has_value() ? fault->fault()
                             : storage::v1::COPY_FAULT_UNSPECIFIED;
  }
  std::vector<server::Orphan> Orphans(FakeAgent* agent) {
    return lifecycle_->inventory().ListOrphans(agent->uid(), Uuid(), 1000);
  }
  std::vector<std::string> Checks() {
    std::vector<std::string> codes;
    const v1::Cluster cluster = lifecycle_->cluster().Get();
    for (const v1::HealthCheck& check : cluster.checks()) {
      codes.push_back(check.code());
    }
    return codes;
  }
  // Digests of them included.
  int Listings(FakeAgent* agent) {
    int count = 0;
    for (const control::v1::Command& command : agent->commands()) {
      count += command.has_list_mount() ? 1 : 0;
    }
    return count;
  }
  // The last one that the agent was asked for.
  static std::string ListingOf(FakeAgent* agent) {
    std::string id;
    for (const control::v1::Command& command : agent->commands()) {
      if (command.has_list_mount()) {
        id = command.list_mount().listing_id();
      }
    }
    return id;
  }
  std::vector<std::string> EventKinds() {
    std::vector<std::string> kinds;
    EXPECT_OK(index_->ScanEvents([&](const storage::v1::EventRow& row) {
      kinds.push_back(row.kind());
    }));
    return kinds;
  }
  // A new session of the same agent, and the listing that it brings.
  void Again(FakeAgent* agent) {
    agent->Lose();
    Settle();
    Connect(agent);
    Tick();
  }

  const Uuid image_;
  const Uuid upload_;
};

TEST_F(InventoryAuditTest, EachMountIsListedOnceAfterAStart) {
  FakeAgent* const a = AddConnected("a", 1);
  Tick();
  Tick();
  EXPECT_EQ(Listings(a), 1);
  Restart();
  Connect(a);
  Tick();
  Tick();
  EXPECT_EQ(Listings(a), 2);
  EXPECT_TRUE(lifecycle_->inventory().WasAudited(a->uid()));
}

TEST_F(InventoryAuditTest, TwoMountsAtATime) {
  std::vector<FakeAgent*> agents;
  for (int i = 0; i < 4; ++i) {
    agents.push_back(AddConnected(absl::StrCat("m", i), i));
    // One that takes its time; the next does not wait for its answer here.
    agents.back()->Behave(
        [](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  }
  Tick();
  Tick();
  int asked = 0;
  for (FakeAgent* agent : agents) {
    asked += Listings(agent);
  }
  EXPECT_EQ(asked, 2);
  // Those that go away make room.
  for (FakeAgent* agent : agents) {
    if (Listings(agent) > 0) {
      agent->Lose();
    }
  }
  Settle();
  Tick();
  asked = 0;
  for (FakeAgent* agent : agents) {
    asked += Listings(agent);
  }
  EXPECT_EQ(asked, 4);
}

TEST_F(InventoryAuditTest, MountsThatHangHoldUpNoOther) {
  for (int i = 0; i < 2; ++i) {
    AddConnected(absl::StrCat("m", i), i)->Behave([](FakeAgent::Behaviour* b) {
      b->ignore_commands = true;
    });
  }
  Tick();
  FakeAgent* const other = AddConnected("other", 2);
  Tick();
  EXPECT_EQ(Listings(other), 0) << "two are being listed";
  for (const auto& agent : agents_) {
    if (agent.get() != other) {
      agent->Behave(
          [](FakeAgent::Behaviour* b) { b->health = v1::HEALTH_HUNG; });
      agent->Beat();
    }
  }
  Settle();
  Tick();
  EXPECT_EQ(Listings(other), 1);
  EXPECT_TRUE(lifecycle_->inventory().WasAudited(other->uid()));
}

TEST_F(InventoryAuditTest, AFileThatIsGoneIsMissingUntilItIsBack) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  const Uuid other = ids_.NextUuid();
  Upload(a, other, ids_.NextUuid());
  const auto file = a->Take(image_);
  ASSERT_TRUE(file.has_value());
  Restart();
  Connect(a);
  Tick();
  ASSERT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_MISSING);
  EXPECT_THAT(FaultOf(image_, a)->detail(), HasSubstr("no file"));
  EXPECT_EQ(KindOf(other, a), storage::v1::COPY_FAULT_UNSPECIFIED);
  EXPECT_THAT(EventKinds(), Contains("copy_missing"));
  EXPECT_THAT(Checks(), Contains("COPIES_MISSING"));
  EXPECT_THAT(Checks(), Not(Contains("INVENTORY_SUSPICIOUS")));
  // Nothing is removed for it: the row stands.
  EXPECT_TRUE(index_->GetImage(image_)->has_value());
  EXPECT_EQ(index_->fault_count(a->uid()), 1);
  // Said once.
  Again(a);
  EXPECT_THAT(EventKinds(), Contains("copy_missing").Times(1));
  a->Put(image_, *file);
  Again(a);
  EXPECT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_UNSPECIFIED);
  EXPECT_THAT(EventKinds(), Contains("copy_found"));
  EXPECT_THAT(Checks(), Not(Contains("COPIES_MISSING")));
}

TEST_F(InventoryAuditTest, AFileThatIsNotTheImageIsAFaultWithItsReason) {
  FakeAgent* const a = AddConnected("a", 1);
  std::vector<Uuid> images;
  for (int i = 0; i < 4; ++i) {
    images.push_back(ids_.NextUuid());
    Upload(a, images.back(), ids_.NextUuid());
  }
  FakeAgent::File file = *a->file(images[0]);
  file.size_bytes -= 1;  // its record says otherwise
  file.record_size_bytes = file.size_bytes + 1;
  a->Put(images[0], file);
  file = *a->file(images[1]);
  file.has_record = false;
  a->Put(images[1], file);
  file = *a->file(images[2]);
  file.generation.set_n(file.generation.n() - 1);
  a->Put(images[2], file);
  Again(a);
  EXPECT_EQ(KindOf(images[0], a), storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_THAT(FaultOf(images[0], a)->detail(), HasSubstr("4095"));
  EXPECT_EQ(KindOf(images[1], a), storage::v1::COPY_FAULT_MISSING);
  EXPECT_THAT(FaultOf(images[1], a)->detail(), HasSubstr("without a record"));
  EXPECT_EQ(KindOf(images[2], a), storage::v1::COPY_FAULT_MISSING);
  EXPECT_THAT(FaultOf(images[2], a)->detail(), HasSubstr("generation"));
  EXPECT_EQ(KindOf(images[3], a), storage::v1::COPY_FAULT_UNSPECIFIED);
  EXPECT_TRUE(a->Has(images[2])) << "another generation is kept, and named";
}

TEST_F(InventoryAuditTest, AFileThatMayNotBeReadIsMissingUntilItMay) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  Upload(a, ids_.NextUuid(), ids_.NextUuid());
  const FakeAgent::File whole = *a->file(image_);
  for (const char* error : {"EACCES", "EMLINK", "EISDIR", "ENOTDIR"}) {
    FakeAgent::File file = whole;
    file.has_record = false;
    file.read_error = absl::StrCat(error, ": not for you");
    a->Put(image_, file);
    Again(a);
    EXPECT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_MISSING);
    EXPECT_THAT(FaultOf(image_, a)->detail(), HasSubstr(error));
    a->Put(image_, whole);
    Again(a);
    EXPECT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_UNSPECIFIED);
  }
  // What a read found is such a fault, and ends so, too.
  PutFault(image_, a, storage::v1::COPY_FAULT_MISSING);
  Again(a);
  EXPECT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_UNSPECIFIED);
}

TEST_F(InventoryAuditTest, ARecordThatIsKnownToBeDamagedIsNotFoundAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  Upload(a, ids_.NextUuid(), ids_.NextUuid());
  PutFault(image_, a, storage::v1::COPY_FAULT_DAMAGED);
  FakeAgent::File file = *a->file(image_);
  file.has_record = false;
  a->Put(image_, file);
  Again(a);
  EXPECT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_THAT(EventKinds(), Not(Contains("copy_missing")));
  // Another generation under its name is another thing to say.
  file.has_record = true;
  file.generation.set_n(file.generation.n() - 1);
  a->Put(image_, file);
  Again(a);
  EXPECT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_MISSING);
}

// It was not there when the listing passed, and is not missing.
TEST_F(InventoryAuditTest, WhatIsStoredWhileTheListingRunsIsNotMissing) {
  FakeAgent* const a = AddConnected("a", 1);
  ASSERT_OK(Start(image_, upload_, 4096));
  ASSERT_TRUE(a->Write(upload_, 4096, false));
  a->Behave([&](FakeAgent::Behaviour* b) {
    b->while_listing = [&] {
      a->Behave([](FakeAgent::Behaviour* now) { now->while_listing = {}; });
      EXPECT_TRUE(a->Publish(upload_));
      // Its report waits behind this listing: committed here and now.
      control::v1::Published published;
      published.set_upload_id(upload_.bytes());
      published.set_image_id(image_.bytes());
      *published.mutable_generation() = a->file(image_)->generation;
      published.set_size_bytes(4096);
      published.set_crc32c(0x1234abcd);
      EXPECT_EQ(
          lifecycle_->uploads().OnPublished(a->uid(), published).outcome(),
          storage::v1::UPLOAD_OUTCOME_COMMITTED);
    };
  });
  Again(a);
  EXPECT_TRUE(index_->GetImage(image_)->has_value());
  EXPECT_EQ(index_->fault_count(a->uid()), 0);
  EXPECT_THAT(Orphans(a), IsEmpty());
}

TEST_F(InventoryAuditTest, WhatIsDeletedWhileTheListingRunsIsNoOrphan) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  a->Behave([&](FakeAgent::Behaviour* b) {
    b->while_listing = [&] {
      a->Behave([](FakeAgent::Behaviour* now) { now->while_listing = {}; });
      server::ImageCatalog::DeleteRequest request;
      request.image_id = image_;
      // The copy of its tombstone waits behind this listing; the row is gone.
      EXPECT_THAT(lifecycle_->images().Delete(request),
                  HasReason(reason::kNoTombstoneCopy));
    };
  });
  Again(a);
  Tick();
  EXPECT_EQ(index_->fault_count(a->uid()), 0);
  EXPECT_THAT(Orphans(a), IsEmpty());
  EXPECT_FALSE(a->Has(image_));
}

TEST_F(InventoryAuditTest, WhatNobodyKnowsIsNamedAndLeftAlone) {
  FakeAgent* const a = AddConnected("a", 1);
  const Uuid known = ids_.NextUuid();
  Upload(a, known, ids_.NextUuid());
  a->Plant(image_, upload_, a->file(known)->generation);
  const Uuid foreign = ids_.NextUuid();
  FakeAgent::File file = *a->file(known);
  file.size_bytes = 17;
  file.has_record = false;
  a->Put(foreign, file);
  Again(a);
  ASSERT_THAT(Orphans(a), SizeIs(2));
  for (const server::Orphan& orphan : Orphans(a)) {
    EXPECT_EQ(orphan.record.has_value(), orphan.image_id == image_);
    EXPECT_EQ(orphan.size_bytes, orphan.image_id == image_ ? 4096 : 17);
  }
  EXPECT_THAT(Checks(), Contains("ORPHANS"));
  v1::GetMountRequest get;
  get.set_name("mounts/a");
  EXPECT_EQ(lifecycle_->mounts().Get(get)->orphan_count(), 2);
  // Not adopted: the index is trusted, and says that there is no such image.
  EXPECT_THAT(lifecycle_->images().Get(image_),
              StatusIs(absl::StatusCode::kNotFound));
  // Of a file that nothing vouches for it cannot: it may be what was left of
  // one that could not be adopted.
  EXPECT_THAT(lifecycle_->images().Get(foreign),
              StatusIs(absl::StatusCode::kDataLoss));
  Tick();
  EXPECT_TRUE(a->Has(image_));
  EXPECT_TRUE(a->Has(foreign));
  a->Take(foreign);
  Again(a);
  EXPECT_THAT(Orphans(a), SizeIs(1));
}

TEST_F(InventoryAuditTest, WhatWasDeletedIsRemovedAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  const auto file = a->file(image_);
  ASSERT_OK(Delete(image_));
  ASSERT_FALSE(a->Has(image_));
  a->Put(image_, *file);
  Again(a);
  Tick();
  EXPECT_THAT(Orphans(a), IsEmpty());
  EXPECT_FALSE(a->Has(image_)) << "its tombstone stands";
}

// It was damaged, so nobody could say of what generation it is: it stays, and
// the delete counts.
TEST_F(InventoryAuditTest, ATombstoneRulesOverADamagedFileThatIsLeft) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  a->Put(image_, Unrecorded(4096));
  ASSERT_OK(Delete(image_));
  ASSERT_TRUE(a->Has(image_));
  EXPECT_THAT(lifecycle_->images().Get(image_),
              HasReason(reason::kImageNotFound));
  Restart();
  Connect(a);
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(lifecycle_->images().Get(image_),
                HasReason(reason::kImageNotFound));
    Tick();
  }
  EXPECT_THAT(Orphans(a), SizeIs(1));
}

// Its record is there, and tells that this is what was deleted.
TEST_F(InventoryAuditTest, ADamagedFileOfADeletedImageIsRemovedAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  FakeAgent::File file = *a->file(image_);
  ASSERT_OK(Delete(image_));
  file.record_size_bytes = file.size_bytes + 1;
  a->Put(image_, file);
  Again(a);
  Tick();
  EXPECT_FALSE(a->Has(image_));
}

// An empty listing from a mount that had images is an incident, not a fact.
TEST_F(InventoryAuditTest, ManyMissingAtOnceAreAnAlarm) {
  FakeAgent* const a = AddConnected("a", 1);
  std::vector<Uuid> images;
  std::vector<FakeAgent::File> files;
  for (int i = 0; i < 12; ++i) {
    images.push_back(ids_.NextUuid());
    Upload(a, images.back(), ids_.NextUuid());
  }
  for (const Uuid& image : images) {
    files.push_back(*a->Take(image));
  }
  Again(a);
  EXPECT_THAT(Checks(), AllOf(Contains("INVENTORY_SUSPICIOUS"),
                              Contains("COPIES_MISSING")));
  EXPECT_EQ(index_->fault_count(a->uid()), 12) << "and named all the same";
  EXPECT_THAT(EventKinds(), AllOf(Contains("inventory_suspicious").Times(1),
                                  Not(Contains("copy_missing"))));
  EXPECT_EQ(index_->totals().count, 12);
  for (const control::v1::Command& command : a->commands()) {
    EXPECT_FALSE(command.has_remove());
  }
  for (size_t i = 0; i < images.size(); ++i) {
    a->Put(images[i], files[i]);
  }
  Again(a);
  EXPECT_EQ(index_->fault_count(a->uid()), 0);
  EXPECT_THAT(Checks(), Not(Contains("INVENTORY_SUSPICIOUS")));
}

// A stranger's file, or one that was put there since, is none of them.
TEST_F(InventoryAuditTest, AllMissingIsAnAlarmWhateverStrangersLieThere) {
  FakeAgent* const a = AddConnected("a", 1);
  std::vector<Uuid> images;
  for (int i = 0; i < 3; ++i) {
    images.push_back(ids_.NextUuid());
    Upload(a, images.back(), ids_.NextUuid());
  }
  FakeAgent::File file;
  for (const Uuid& image : images) {
    file = *a->Take(image);
    if (image == images[1]) {
      FakeAgent::File stranger = file;
      stranger.has_record = false;
      a->Put(ids_.NextUuid(), stranger);
    }
    Again(a);
    EXPECT_THAT(Checks(), Contains("COPIES_MISSING"));
    EXPECT_THAT(
        Checks(),
        Contains("INVENTORY_SUSPICIOUS").Times(image == images[2] ? 1 : 0));
  }
  a->Put(images[2], file);
  Again(a);
  EXPECT_THAT(Checks(), Not(Contains("INVENTORY_SUSPICIOUS")));
}

TEST_F(InventoryAuditTest, AListingThatFailsIsAskedForAgainLater) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  a->Take(image_);
  a->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_listing = absl::UnavailableError("the disk is slow");
  });
  Again(a);
  Tick();
  const int asked = Listings(a);
  EXPECT_EQ(index_->fault_count(a->uid()), 0)
      << "an error is no empty directory";
  a->Behave(
      [](FakeAgent::Behaviour* b) { b->refuse_listing = absl::OkStatus(); });
  Tick();
  EXPECT_EQ(Listings(a), asked) << "not every second";
  clock_.Advance(absl::Minutes(1));
  a->Beat();
  Tick();
  EXPECT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_MISSING);
}

// A directory was not where the listing looked and is back: whoever waits for
// a listing, as the end of a scrub does, is not kept for the rest of a minute.
TEST_F(InventoryAuditTest, WhoWaitsForAListingGetsOneAfterOneThatFailed) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  a->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_listing = absl::UnavailableError("the disk is slow");
  });
  Again(a);
  Tick();
  const int asked = Listings(a);
  a->Behave(
      [](FakeAgent::Behaviour* b) { b->refuse_listing = absl::OkStatus(); });
  const int64_t after = lifecycle_->inventory().ListSoon(a->uid());
  Settle();
  Tick();
  EXPECT_EQ(Listings(a), asked + 1);
  EXPECT_TRUE(lifecycle_->inventory().RelistedSince(a->uid(), after).compared);
}

// Its agent is there, and one call of the listing never comes back.
TEST_F(InventoryAuditTest, AListingThatNeverEndsIsGivenUpAndNamed) {
  std::vector<FakeAgent*> stuck;
  for (int i = 0; i < 2; ++i) {
    stuck.push_back(AddConnected(absl::StrCat("m", i), i));
    stuck.back()->Behave(
        [](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  }
  Tick();
  FakeAgent* const other = AddConnected("other", 2);
  const auto after = [&](absl::Duration time) {
    clock_.Advance(time);
    for (const auto& agent : agents_) {
      agent->Beat();
    }
    Settle();
    Tick();
    Tick();
  };
  after(absl::Minutes(4));
  // The first of the two goes on meanwhile, slowly.
  control::v1::InventoryPart part;
  part.set_mount_uid(stuck[0]->uid().bytes());
  part.set_listing_id(ListingOf(stuck[0]));
  ASSERT_OK(lifecycle_->inventory().Take(part));
  EXPECT_EQ(Listings(other), 0);
  after(absl::Minutes(1));
  EXPECT_EQ(Listings(other), 1);
  EXPECT_THAT(EventKinds(), Contains("listing_stalled").Times(1));
  EXPECT_OK(lifecycle_->inventory().Take(part)) << "it is not given up";
  part.set_mount_uid(stuck[1]->uid().bytes());
  part.set_listing_id(ListingOf(stuck[1]));
  EXPECT_THAT(lifecycle_->inventory().Take(part),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  part.clear_listing_id();
  EXPECT_THAT(lifecycle_->inventory().Take(part),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(
      lifecycle_->inventory().RelistedSince(stuck[1]->uid(), 0).error.message(),
      HasSubstr("given up"));
  stuck[1]->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = false; });
  EXPECT_EQ(Listings(stuck[1]), 1);
  after(absl::Minutes(1));
  EXPECT_EQ(Listings(stuck[1]), 2);
  EXPECT_TRUE(lifecycle_->inventory().WasAudited(stuck[1]->uid()));
}

// RECOVERING begins while a listing runs that was asked for before it.
TEST_F(InventoryAuditTest, RecoveringListsAnewAndJudgesNothingMissing) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  const auto old = kv_->Contents();
  const Uuid since = ids_.NextUuid();
  Upload(a, since, ids_.NextUuid());
  // Only b was told of what was stored since.
  b->Beat();
  Settle();
  RestartFrom(old);
  a->Take(image_);
  Connect(a);
  ASSERT_TRUE(lifecycle_->trust().recovering());
  Tick();
  EXPECT_EQ(index_->fault_count(a->uid()), 0) << "not by such an index";
  Connect(b);
  for (int i = 0; i < 4; ++i) {
    Tick();
  }
  EXPECT_FALSE(lifecycle_->trust().recovering());
  EXPECT_TRUE(index_->GetImage(since)->has_value());
  EXPECT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_MISSING)
      << "listed once more after it";
}

// Nothing restarts: what somebody does to the directory is noticed all the
// same.
TEST_F(InventoryAuditTest, ADirectoryThatIsChangedUnderItsAgentIsNoticed) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  Tick();
  ASSERT_EQ(Listings(a), 1);
  const auto file = a->Take(image_);
  const Uuid stranger = ids_.NextUuid();
  a->Put(stranger, Unrecorded(5));
  clock_.Advance(absl::Minutes(10) - absl::Seconds(1));
  a->Beat();
  Tick();
  EXPECT_EQ(Listings(a), 1);
  clock_.Advance(absl::Seconds(1));
  Tick();
  Tick();
  EXPECT_EQ(Listings(a), 3) << "a digest, and a listing since it was another";
  EXPECT_EQ(KindOf(image_, a), storage::v1::COPY_FAULT_MISSING);
  ASSERT_THAT(Orphans(a), SizeIs(1));
  EXPECT_EQ(Orphans(a)[0].image_id, stranger);
  a->Put(image_, *file);
  a->Take(stranger);
  clock_.Advance(absl::Minutes(10));
  a->Beat();
  Tick();
  Tick();
  EXPECT_EQ(index_->fault_count(a->uid()), 0);
  EXPECT_THAT(Orphans(a), IsEmpty());
  EXPECT_THAT(EventKinds(), AllOf(Contains("copy_missing").Times(1),
                                  Contains("copy_found").Times(1)));
}

TEST_F(InventoryAuditTest, MountsAreListedAgainOneAtATimeAndNoneThatHangs) {
  std::vector<FakeAgent*> agents;
  for (int i = 0; i < 4; ++i) {
    agents.push_back(AddConnected(absl::StrCat("m", i), i));
  }
  for (int i = 0; i < 4; ++i) {
    Tick();
  }
  const auto listings = [&] {
    int sum = 0;
    for (FakeAgent* agent : agents) {
      sum += Listings(agent);
    }
    return sum;
  };
  ASSERT_EQ(listings(), 4);
  Say(agents[0], v1::HEALTH_HUNG);
  for (FakeAgent* agent : agents) {
    agent->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  }
  clock_.Advance(absl::Minutes(10));
  for (FakeAgent* agent : agents) {
    agent->Beat();
  }
  Settle();
  Tick();
  Tick();
  EXPECT_EQ(listings(), 5);
  EXPECT_EQ(Listings(agents[0]), 1) << "it hangs";
}

// A listing that takes longer than the interval is not begun all the time.
TEST_F(InventoryAuditTest, AListingTakesATenthOfTheTimeAtMost) {
  FakeAgent* const a = AddConnected("a", 1);
  a->Behave([&](FakeAgent::Behaviour* b) {
    b->while_listing = [&] { clock_.Advance(absl::Minutes(5)); };
  });
  Tick();
  ASSERT_EQ(Listings(a), 1);
  const auto after = [&](absl::Duration time) {
    clock_.Advance(time);
    a->Beat();
    Settle();
    Tick();
    return Listings(a);
  };
  EXPECT_EQ(after(absl::Minutes(49)), 1);
  EXPECT_EQ(after(absl::Minutes(1)), 2);
}

TEST_F(InventoryAuditTest, WithoutAnIntervalOnlyStartsList) {
  options_.rescan_interval = absl::ZeroDuration();
  Restart();
  FakeAgent* const a = AddConnected("a", 1);
  Tick();
  clock_.Advance(absl::Hours(100));
  a->Beat();
  Tick();
  EXPECT_EQ(Listings(a), 1);
}

// The alarm is one event, not one every ten minutes.
TEST_F(InventoryAuditTest, WhatIsSuspiciousIsAnEventOnceUntilMoreIsMissing) {
  FakeAgent* const a = AddConnected("a", 1);
  std::vector<Uuid> images;
  for (int i = 0; i < 14; ++i) {
    images.push_back(ids_.NextUuid());
    Upload(a, images.back(), ids_.NextUuid());
  }
  Tick();
  const auto take = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      a->Take(images[i]);
    }
    clock_.Advance(absl::Minutes(10));
    a->Beat();
    Tick();
    Tick();
  };
  take(0, 12);
  EXPECT_THAT(EventKinds(), Contains("inventory_suspicious").Times(1));
  take(0, 0);
  EXPECT_THAT(EventKinds(), Contains("inventory_suspicious").Times(1));
  EXPECT_THAT(Checks(), Contains("INVENTORY_SUSPICIOUS"));
  take(12, 13);
  EXPECT_THAT(EventKinds(), Contains("inventory_suspicious").Times(2));
}

// A stranger under the name of a missing image costs one whole read, not one
// every ten minutes.
TEST_F(InventoryAuditTest, WhatWasRefusedIsNotReadAgainAtEveryRescan) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  a->Take(image_);
  b->Put(image_, Unrecorded(4096));
  b->Behave([](FakeAgent::Behaviour* x) { x->other_bytes = true; });
  const auto reads = [&] {
    int count = 0;
    for (const control::v1::Command& command : b->commands()) {
      count += command.has_adopt_file() ? 1 : 0;
    }
    return count;
  };
  const auto rescan = [&] {
    clock_.Advance(absl::Minutes(10));
    a->Beat();
    b->Beat();
    for (int i = 0; i < 4; ++i) {
      Tick();
    }
  };
  Tick();
  rescan();
  ASSERT_EQ(reads(), 1);
  rescan();
  EXPECT_EQ(reads(), 1);
  EXPECT_THAT(Orphans(b)[0].detail, HasSubstr("other bytes"));
  // Asked for by hand it is looked at anew.
  lifecycle_->inventory().ListAllAgain();
  Settle();
  Tick();
  EXPECT_EQ(reads(), 2);
}

}  // namespace
}  // namespace predella::testing
