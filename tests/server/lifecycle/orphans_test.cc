// Files that no row names: what an operator may do with them.
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/orphans_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using OrphansTest = OrphansFixture;

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

TEST_F(OrphansTest, RetirementCountsWhatMayBeTheOnlyWholeCopy) {
  ListBoth();
  b_->Put(image_, *a_->file(image_));
  Again(b_);
  ASSERT_EQ(Count(b_), 1);
  v1::RetireMountRequest retire;
  retire.set_name("mounts/b");
  retire.set_validate_only(true);
  EXPECT_OK(lifecycle_->mounts().Retire(retire)) << "it is whole elsewhere";
  PutFault(image_, a_, storage::v1::COPY_FAULT_DAMAGED);
  const auto refused = lifecycle_->mounts().Retire(retire);
  EXPECT_THAT(refused, HasReason(reason::kMountNotEmpty));
  EXPECT_EQ(MetadataOf(refused.status())["unnamed_count"], "1");
}

// What only a listing showed is given up by name, too, and not what the index
// has elsewhere.
TEST_F(OrphansTest, RetirementCountsTheFilesThatNoRowNames) {
  ListBoth();
  FakeAgent::File copy = *a_->file(image_);
  const storage::v1::Generation generation = copy.generation;
  b_->Put(image_, copy);
  const Uuid whole = ids_.NextUuid();
  b_->Plant(whole, ids_.NextUuid(), generation);
  copy.has_record = false;
  b_->Put(ids_.NextUuid(), copy);
  Again(b_);
  ASSERT_EQ(Count(b_), 3);
  v1::RetireMountRequest retire;
  retire.set_name("mounts/b");
  const auto refused = lifecycle_->mounts().Retire(retire);
  EXPECT_THAT(refused, HasReason(reason::kMountNotEmpty));
  EXPECT_EQ(MetadataOf(refused.status())["unnamed_count"], "2");
  EXPECT_EQ(MetadataOf(refused.status())["image_count"], "2");
  AcceptLoss(&retire);
  // Another file by now, and as many.
  b_->Take(whole);
  b_->Plant(ids_.NextUuid(), ids_.NextUuid(), generation);
  Again(b_);
  EXPECT_THAT(lifecycle_->mounts().Retire(retire),
              HasReason(reason::kMountNotEmpty));
  AcceptLoss(&retire);
  EXPECT_OK(lifecycle_->mounts().Retire(retire));
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

// As an adoption or a move ends while the mount is listed: the listing saw the
// file before it had a record.
TEST_F(OrphansTest, WhatBecameAnImageWhileItsMountWasListedIsNoOrphan) {
  const Uuid image = ids_.NextUuid();
  b_->Plant(image, ids_.NextUuid(),
            index_->GetImage(image_)->value().generation());
  ListBoth();
  const auto whole = lifecycle_->inventory().FindOrphan(b_->uid(), image);
  ASSERT_TRUE(whole.has_value() && whole->record.has_value());
  FakeAgent::File file = *b_->file(image);
  file.has_record = false;
  b_->Put(image, file);
  bool adopted = false;
  b_->Behave([&](FakeAgent::Behaviour* b) {
    b->while_listing = [&] {
      if (!std::exchange(adopted, true)) {
        EXPECT_OK(
            lifecycle_->inventory().AdoptOrphan(b_->uid(), *whole->record));
        lifecycle_->inventory().ForgetOrphan(b_->uid(), image);
      }
    };
  });
  lifecycle_->inventory().ListAllAgain();
  Settle();
  ASSERT_TRUE(adopted);
  ASSERT_OK(lifecycle_->images().Get(image));
  EXPECT_EQ(Count(b_), 0);
}

}  // namespace
}  // namespace predella::testing
