// Files that no row names: what an operator may do, and images that somebody
// moved from one mount to another.
#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::HasSubstr;

class OrphansTest : public LifecycleFixture {
 protected:
  OrphansTest() : image_(ids_.NextUuid()), upload_(ids_.NextUuid()) {
    a_ = AddConnected("a", 1);
    b_ = AddConnected("b", 2);
    Upload(a_, image_, upload_);
  }
  // Both were listed: only a mount that registers again is from then on.
  void ListBoth() {
    Tick();
    Tick();
  }
  void Again(FakeAgent* agent) {
    agent->Lose();
    Settle();
    Connect(agent);
    Tick();
    Settle();
  }
  std::string HolderOf(const Uuid& image) {
    const auto row = index_->GetImage(image);
    if (!row.ok() || !row->has_value() || (*row)->copies_size() != 1) {
      return "";
    }
    const Uuid uid = Uuid::FromBytesOrNone((*row)->copies(0).mount_uid());
    return registry_->Find(uid)->row.mount_name();
  }
  int64_t Count(FakeAgent* agent) {
    return lifecycle_->inventory().OrphanCount(agent->uid());
  }
  v1::ListOrphansResponse List(int page_size = 0, const std::string& token = "",
                               const std::string& mount = "") {
    v1::ListOrphansRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    request.set_mount(mount);
    const auto response = lifecycle_->orphans().List(request);
    EXPECT_OK(response);
    return response.ok() ? *response : v1::ListOrphansResponse();
  }
  v1::RemoveOrphanRequest RemovalOf(const v1::Orphan& orphan,
                                    bool dry = false) {
    v1::RemoveOrphanRequest request;
    request.set_mount(orphan.mount());
    request.set_image(orphan.image());
    request.set_generation(orphan.generation());
    request.set_validate_only(dry);
    return request;
  }
  v1::AdoptOrphanRequest AdoptionOf(const v1::Orphan& orphan,
                                    bool dry = false) {
    v1::AdoptOrphanRequest request;
    request.set_mount(orphan.mount());
    request.set_image(orphan.image());
    request.set_generation(orphan.generation());
    request.set_validate_only(dry);
    return request;
  }

  const Uuid image_;
  const Uuid upload_;
  FakeAgent* a_ = nullptr;
  FakeAgent* b_ = nullptr;
};

// Whichever of the two is listed first, with its record or without.
TEST_F(OrphansTest, TheRowFollowsAnImageThatWasMovedByHand) {
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

TEST_F(OrphansTest, ACopyBesideTheImageIsOnlyNamed) {
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
TEST_F(OrphansTest, ADeletedImageDoesNotRiseFromASecondCopy) {
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

TEST_F(OrphansTest, OtherBytesUnderTheNameStayForeign) {
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

TEST_F(OrphansTest, AreListedInPages) {
  for (FakeAgent* agent : {a_, b_}) {
    for (int i = 0; i < 3; ++i) {
      agent->Plant(ids_.NextUuid(), ids_.NextUuid(),
                   a_->file(image_)->generation);
    }
  }
  EXPECT_EQ(List().unlisted_size(), 2);
  Again(a_);
  Again(b_);
  std::vector<std::string> seen;
  std::string token;
  do {
    const v1::ListOrphansResponse page = List(2, token);
    EXPECT_LE(page.orphans_size(), 2);
    for (const v1::Orphan& orphan : page.orphans()) {
      seen.push_back(orphan.mount() + orphan.image());
    }
    token = page.next_page_token();
  } while (!token.empty());
  EXPECT_EQ(seen.size(), 6u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(List(0, "", "mounts/b").orphans_size(), 3);
  EXPECT_EQ(List().unlisted_size(), 0);
}

TEST_F(OrphansTest, IsPutIntoQuarantineWhenItsOperatorSaysSo) {
  const Uuid orphan_id = ids_.NextUuid();
  a_->Plant(orphan_id, ids_.NextUuid(), a_->file(image_)->generation);
  Again(a_);
  ASSERT_EQ(List().orphans_size(), 1);
  const v1::Orphan orphan = List().orphans(0);
  v1::RemoveOrphanRequest wrong = RemovalOf(orphan);
  wrong.clear_generation();
  EXPECT_THAT(lifecycle_->orphans().Remove(wrong),
              HasReason(reason::kGenerationMismatch));
  wrong = RemovalOf(orphan);
  wrong.set_image("images/" + image_.ToString());
  EXPECT_THAT(lifecycle_->orphans().Remove(wrong),
              StatusIs(absl::StatusCode::kNotFound))
      << "an image of the index is no orphan";
  ASSERT_OK(lifecycle_->orphans().Remove(RemovalOf(orphan, /*dry=*/true)));
  EXPECT_TRUE(a_->Has(orphan_id));
  ASSERT_OK(lifecycle_->orphans().Remove(RemovalOf(orphan)));
  EXPECT_FALSE(a_->Has(orphan_id));
  EXPECT_EQ(Count(a_), 0);
  EXPECT_TRUE(a_->Has(image_));
}

TEST_F(OrphansTest, AFileThatIsGoneByNowIsNotSaidToBePutAway) {
  const Uuid orphan_id = ids_.NextUuid();
  a_->Plant(orphan_id, ids_.NextUuid(), a_->file(image_)->generation);
  Again(a_);
  const v1::Orphan orphan = List().orphans(0);
  a_->Take(orphan_id);
  EXPECT_THAT(lifecycle_->orphans().Remove(RemovalOf(orphan)),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(Count(a_), 0);
  EXPECT_OK(index_->ScanEvents([](const storage::v1::EventRow& event) {
    EXPECT_NE(event.kind(), "orphan_quarantined");
  }));
}

// Moved by hand; the mount it came from is away, so nobody knows yet.
TEST_F(OrphansTest, WhatMayBeTheOnlyCopyIsNotPutAway) {
  ListBoth();
  for (const bool record : {false, true}) {
    SCOPED_TRACE(record);
    FakeAgent* const from = HolderOf(image_) == "a" ? a_ : b_;
    FakeAgent* const to = from == a_ ? b_ : a_;
    FakeAgent::File file = *from->Take(image_);
    file.has_record = record;
    to->Put(image_, file);
    Again(to);
    ASSERT_EQ(Count(to), 1);
    from->Lose();  // just now: it is not yet UNREACHABLE
    Tick();
    const v1::Orphan orphan = List().orphans(0);
    EXPECT_THAT(lifecycle_->orphans().Remove(RemovalOf(orphan, /*dry=*/true)),
                HasReason(reason::kImageExists));
    EXPECT_THAT(lifecycle_->orphans().Remove(RemovalOf(orphan)),
                HasReason(reason::kImageExists));
    EXPECT_TRUE(to->Has(image_));
    Again(from);
    EXPECT_EQ(HolderOf(image_), to->name());
  }
}

// Copied by hand while the mount that the row names can not be read, whichever
// way, and whichever was first: the listing or the failure.
TEST_F(OrphansTest, TheRowFollowsToAWholeFileWhileItsMountIsAway) {
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
TEST_F(OrphansTest, ADeletedImageDoesNotRiseWhereItsRowWasBefore) {
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

TEST_F(OrphansTest, AnImageThatWasLostIsFoundAgain) {
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
TEST_F(OrphansTest, TheRowDoesNotFollowToBytesThatAreNotWhole) {
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

// The place of one that is damaged; of one that is well never, and another
// generation never.
TEST_F(OrphansTest, ACopyTakesThePlaceOfADamagedOneByCommand) {
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

TEST_F(OrphansTest, WhatIsBeingTakenInIsNotPutAway) {
  ListBoth();
  FakeAgent::File file = *a_->Take(image_);
  file.has_record = false;
  b_->Put(image_, file);
  Again(b_);
  ASSERT_EQ(Count(b_), 1);
  // It is asked to take the file in, and does not answer.
  b_->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  Again(a_);
  const v1::Orphan orphan = List().orphans(0);
  EXPECT_THAT(lifecycle_->orphans().Remove(RemovalOf(orphan)),
              StatusIs(absl::StatusCode::kAborted));
  EXPECT_TRUE(b_->Has(image_));
  b_->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = false; });
  Again(b_);
  EXPECT_EQ(HolderOf(image_), "b");
}

TEST_F(OrphansTest, AGenerationThatWaitsForAChoiceIsNotPutAway) {
  Generation other = Generation::FromProto(a_->file(image_)->generation);
  ++other.n;
  b_->Plant(image_, ids_.NextUuid(), other.ToProto());
  Again(b_);
  ASSERT_EQ(Count(b_), 1);
  const v1::Orphan orphan = List().orphans(0);
  EXPECT_OK(lifecycle_->orphans().Remove(RemovalOf(orphan, /*dry=*/true)));
  // Found to be a conflict since it was listed.
  storage::v1::ConflictRow conflict;
  conflict.mutable_image()->set_image_id(image_.bytes());
  *conflict.mutable_image()->mutable_generation() = other.ToProto();
  conflict.mutable_image()->add_copies()->set_mount_uid(b_->uid().bytes());
  server::IndexTxn txn = index_->Begin();
  txn.PutConflict(conflict);
  ASSERT_OK(index_->Commit(std::move(txn)));
  EXPECT_THAT(lifecycle_->orphans().Remove(RemovalOf(orphan)),
              HasReason(reason::kImageConflict));
  EXPECT_TRUE(b_->Has(image_));
}

// The agent looks whether the file is there; what comes meanwhile counts.
TEST_F(OrphansTest, IsNotAdoptedWhenItsIdIsTakenOrDeletedMeanwhile) {
  const Uuid other = ids_.NextUuid();
  const auto commit = [&](const std::function<void(server::IndexTxn*)>& fill) {
    server::IndexTxn txn = index_->Begin();
    fill(&txn);
    EXPECT_OK(index_->Commit(std::move(txn)));
  };
  storage::v1::Generation generation;
  const std::vector<
      std::pair<absl::string_view, std::function<void(const Uuid& image)>>>
      meanwhile = {
          {reason::kUploadDeleted,
           [&](const Uuid& image) {
             // Deleted by a history that another mount brings.
             storage::v1::Tombstone copy;
             copy.set_image_id(image.bytes());
             *copy.mutable_generation() = generation;
             EXPECT_OK(lifecycle_->tombstones().Merge(b_->uid(), {copy}));
           }},
          {reason::kUploadInProgress,
           [&](const Uuid& image) {
             storage::v1::UploadRow row;
             row.set_upload_id(other.bytes());
             row.set_image_id(image.bytes());
             row.add_targets()->set_mount_uid(b_->uid().bytes());
             Generation pair;
             commit([&](server::IndexTxn* txn) {
               pair = txn->pair();
               *row.mutable_generation() = pair.ToProto();
               txn->PutUpload(row);
             });
             lifecycle_->upload_table().Put(row, pair, clock_.Boot());
           }},
          {reason::kImageConflict,
           [&](const Uuid& image) {
             storage::v1::ConflictRow conflict;
             conflict.mutable_image()->set_image_id(image.bytes());
             *conflict.mutable_image()->mutable_generation() = generation;
             commit([&](server::IndexTxn* txn) { txn->PutConflict(conflict); });
           }},
          {reason::kMountRetired, [&](const Uuid&) {
             v1::RetireMountRequest retire;
             retire.set_name("mounts/a");
             AcceptLoss(&retire);
             EXPECT_OK(lifecycle_->mounts().Retire(retire));
           }}};
  for (const auto& [why, happens] : meanwhile) {
    SCOPED_TRACE(why);
    const Uuid id = ids_.NextUuid();
    generation = a_->file(image_)->generation;
    a_->Plant(id, ids_.NextUuid(), generation);
    Again(a_);
    v1::Orphan orphan;
    const v1::ListOrphansResponse listed = List();
    for (const v1::Orphan& one : listed.orphans()) {
      if (one.image() == "images/" + id.ToString()) {
        orphan = one;
      }
    }
    const auto& act = happens;
    a_->Behave([&](FakeAgent::Behaviour* b) {
      b->on_command = [&, id](const control::v1::Command& command) {
        if (command.has_adopt_file()) {
          act(id);
        }
      };
    });
    EXPECT_THAT(lifecycle_->orphans().Adopt(AdoptionOf(orphan)),
                HasReason(why));
    a_->Behave([](FakeAgent::Behaviour* b) { b->on_command = {}; });
    Settle();
    EXPECT_FALSE(index_->GetImage(id)->has_value());
    EXPECT_TRUE(a_->Has(id)) << "it is not removed for that";
  }
}

// What is published or deleted is seen by the look, or comes after the commit.
TEST_F(OrphansTest, NothingComesBetweenTheLastLookAndTheAdoption) {
  a_->Plant(ids_.NextUuid(), ids_.NextUuid(), a_->file(image_)->generation);
  Again(a_);
  const v1::Orphan orphan = List().orphans(0);
  std::thread other;
  absl::Notification entered;
  kv_->BeforeNextCommit([&] {
    other = std::thread([&] {
      const server::MountGate::Adding beside(
          lifecycle_->tombstones().adopting(), Uuid());
      entered.Notify();
    });
    // Time enough for one that is not kept out.
    EXPECT_FALSE(
        entered.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  });
  EXPECT_OK(lifecycle_->orphans().Adopt(AdoptionOf(orphan)));
  ASSERT_TRUE(other.joinable());
  other.join();
}

TEST_F(OrphansTest, IsAdoptedWhenItIsWholeAndItsIdIsFree) {
  const Uuid orphan_id = ids_.NextUuid();
  const Uuid foreign_id = ids_.NextUuid();
  const Uuid old_upload = ids_.NextUuid();
  a_->Plant(orphan_id, old_upload, a_->file(image_)->generation);
  FakeAgent::File file = *a_->file(image_);
  file.has_record = false;
  a_->Put(foreign_id, file);
  Again(a_);
  const v1::ListOrphansResponse both = List();
  for (const v1::Orphan& orphan : both.orphans()) {
    if (orphan.generation().empty()) {
      EXPECT_THAT(lifecycle_->orphans().Adopt(AdoptionOf(orphan)),
                  HasReason(reason::kReplicaMissing));
      continue;
    }
    ASSERT_OK(lifecycle_->orphans().Adopt(AdoptionOf(orphan, /*dry=*/true)));
    EXPECT_FALSE(index_->GetImage(orphan_id)->has_value());
    ASSERT_OK(lifecycle_->orphans().Adopt(AdoptionOf(orphan)));
  }
  EXPECT_OK(lifecycle_->images().Get(orphan_id));
  int events = 0;
  EXPECT_OK(index_->ScanEvents([&](const storage::v1::EventRow& event) {
    events += event.kind() == "orphan_adopted" ? 1 : 0;
  }));
  EXPECT_EQ(events, 1);
  EXPECT_EQ(HolderOf(orphan_id), "a");
  EXPECT_EQ(StateOf(old_upload), v1::UPLOAD_STATE_COMMITTED);
  EXPECT_EQ(Count(a_), 1);
  int told = 0;
  EXPECT_OK(index_->ScanEvents([&](const storage::v1::EventRow& event) {
    told += event.kind() == "orphan_adopted" &&
                    event.image_id() == orphan_id.bytes() &&
                    event.mount_name() == "a"
                ? 1
                : 0;
  }));
  EXPECT_EQ(told, 1) << "once, and not for the dry run";
  // One that is gone by now is not adopted.
  const Uuid gone = ids_.NextUuid();
  a_->Plant(gone, ids_.NextUuid(), a_->file(image_)->generation);
  Again(a_);
  const v1::ListOrphansResponse listed = List();
  a_->Take(gone);
  for (const v1::Orphan& orphan : listed.orphans()) {
    if (!orphan.generation().empty()) {
      EXPECT_FALSE(lifecycle_->orphans().Adopt(AdoptionOf(orphan)).ok());
    }
  }
  EXPECT_FALSE(index_->GetImage(gone)->has_value());
}

// Whatever becomes of the mount, or of the file.
TEST_F(OrphansTest, AsManyAreCountedAsAreListed) {
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

class PlainFileTest : public OrphansTest {
 protected:
  PlainFileTest() : plain_id_(ids_.NextUuid()) {
    FakeAgent::File file = *a_->file(image_);
    file.has_record = false;
    file.size_bytes = 5;
    b_->Put(plain_id_, file);
    Again(b_);
  }
  v1::AdoptOrphanRequest Request(bool dry = false) const {
    v1::AdoptOrphanRequest request;
    request.set_mount("mounts/b");
    request.set_image("images/" + plain_id_.ToString());
    request.set_validate_only(dry);
    v1::PlainFile* const plain = request.mutable_plain();
    plain->set_size_bytes(5);
    plain->set_crc32c_hex("0000beef");
    v1::Hash* const hash = plain->add_hashes();
    hash->set_algorithm("md5");
    hash->set_hex("000102030405060708090a0b0c0d0e0f");
    return request;
  }
  absl::StatusOr<v1::Orphan> AdoptIt(bool dry = false) {
    return lifecycle_->orphans().Adopt(Request(dry));
  }
  const Uuid plain_id_;
};

TEST_F(PlainFileTest, IsMadeAnImageOfAGenerationOfItsOwn) {
  const Generation before = index_->synced_pair();
  ASSERT_OK(AdoptIt(/*dry=*/true));
  EXPECT_FALSE(index_->GetImage(plain_id_)->has_value());
  EXPECT_FALSE(b_->file(plain_id_)->has_record);
  ASSERT_OK_AND_ASSIGN(const v1::Orphan orphan, AdoptIt());
  ASSERT_OK_AND_ASSIGN(const auto row, index_->GetImage(plain_id_));
  ASSERT_TRUE(row.has_value());
  const Generation generation = Generation::FromProto(row->generation());
  EXPECT_EQ(orphan.generation(), generation.ToString());
  EXPECT_TRUE(generation.After(before));
  EXPECT_FALSE(generation.After(index_->synced_pair()))
      << "a restart would take the mount for one that knows more";
  EXPECT_EQ(HolderOf(plain_id_), "b");
  EXPECT_EQ(row->size_bytes(), 5);
  EXPECT_EQ(row->crc32c(), 0xbeefu);
  EXPECT_EQ(row->location_key().size(), 16u);
  ASSERT_EQ(row->hashes_size(), 1);
  EXPECT_EQ(row->hashes(0).value().size(), 16u);
  EXPECT_TRUE(b_->file(plain_id_)->has_record);
  EXPECT_EQ(Count(b_), 0);
  EXPECT_OK(lifecycle_->images().Get(plain_id_));
  // The answer may be lost.
  ASSERT_OK_AND_ASSIGN(const v1::Orphan again, AdoptIt());
  EXPECT_EQ(again.generation(), orphan.generation());
  v1::AdoptOrphanRequest other = Request();
  other.mutable_plain()->set_crc32c_hex("0000beee");
  EXPECT_FALSE(lifecycle_->orphans().Adopt(other).ok());
}

TEST_F(PlainFileTest, IsLeftAloneWhenTheAgentReadsOtherBytes) {
  b_->Behave([](FakeAgent::Behaviour* b) { b->other_bytes = true; });
  EXPECT_THAT(AdoptIt(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_FALSE(index_->GetImage(plain_id_)->has_value());
  EXPECT_EQ(Count(b_), 1);
  b_->Behave([](FakeAgent::Behaviour* b) { b->other_bytes = false; });
  EXPECT_OK(AdoptIt());
}

TEST_F(PlainFileTest, IsRefusedWhenWhatIsSaidOfItCanNotBe) {
  for (const char* crc32c : {"", "beef", "0000beeg", "00000beef"}) {
    v1::AdoptOrphanRequest request = Request();
    request.mutable_plain()->set_crc32c_hex(crc32c);
    EXPECT_THAT(lifecycle_->orphans().Adopt(request),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  v1::AdoptOrphanRequest request = Request();
  request.mutable_plain()->set_size_bytes(-1);
  EXPECT_THAT(lifecycle_->orphans().Adopt(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
  for (const char* algorithm : {"md6", "sha512"}) {
    request = Request();
    request.mutable_plain()->mutable_hashes(0)->set_algorithm(algorithm);
    EXPECT_THAT(lifecycle_->orphans().Adopt(request),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  request = Request();
  for (int i = 0; i < 8; ++i) {
    *request.mutable_plain()->add_hashes() = request.plain().hashes(0);
  }
  EXPECT_THAT(lifecycle_->orphans().Adopt(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_FALSE(b_->file(plain_id_)->has_record);
}

TEST_F(PlainFileTest, AnIdThatIsTakenIsRefused) {
  Upload(a_, plain_id_, ids_.NextUuid());
  EXPECT_THAT(AdoptIt(), HasReason(reason::kImageExists));
  EXPECT_FALSE(b_->file(plain_id_)->has_record);
}

// It is no generation that was deleted.
TEST_F(PlainFileTest, ADeleteOfAnEarlierImageIsNothingAgainstIt) {
  Upload(a_, plain_id_, ids_.NextUuid());
  ASSERT_OK(Delete(plain_id_));
  Settle();
  EXPECT_OK(AdoptIt(/*dry=*/true));
  EXPECT_OK(AdoptIt());
  EXPECT_EQ(HolderOf(plain_id_), "b");
}

TEST_F(PlainFileTest, OneAtATimeAndNoneWhenTheAgentGoes) {
  b_->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  absl::StatusOr<v1::Orphan> first = absl::UnknownError("not yet");
  std::thread one([&] {
    do {  // the question whether it is busy may be in its way
      first = AdoptIt();
    } while (predella::HasReason(first.status(), reason::kCommitConflict));
  });
  const auto busy = [&] {
    return predella::HasReason(AdoptIt(/*dry=*/true).status(),
                               reason::kCommitConflict);
  };
  while (!busy()) {
    std::this_thread::yield();
  }
  b_->Lose();
  one.join();
  EXPECT_THAT(first, StatusIs(absl::StatusCode::kUnavailable));
  Settle();
  EXPECT_FALSE(index_->GetImage(plain_id_)->has_value());
}

}  // namespace
}  // namespace predella::testing
