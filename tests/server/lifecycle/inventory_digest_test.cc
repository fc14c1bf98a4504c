// Rescans by digest: the same conclusions as from a whole listing.
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class InventoryDigestTest : public LifecycleFixture {
 protected:
  InventoryDigestTest() {
    a_ = AddConnected("a", 1);
    for (int i = 0; i < 3; ++i) {
      images_.push_back(ids_.NextUuid());
      Upload(a_, images_.back(), ids_.NextUuid());
    }
    Tick();
  }

  struct Asked {
    int digests = 0;
    int listings = 0;
    bool operator==(const Asked&) const = default;
    friend std::ostream& operator<<(std::ostream& out, const Asked& asked) {
      return out << asked.digests << " digests, " << asked.listings
                 << " listings";
    }
  };
  // What was asked of the agent since the last call.
  Asked News() {
    Asked all;
    for (const control::v1::Command& command : a_->commands()) {
      if (command.has_list_mount()) {
        ++(command.list_mount().digest_only() ? all.digests : all.listings);
      }
    }
    const Asked news{all.digests - before_.digests,
                     all.listings - before_.listings};
    before_ = all;
    return news;
  }
  Asked Rescan() {
    News();
    clock_.Advance(absl::Minutes(10));
    for (const auto& agent : agents_) {
      agent->Beat();
    }
    Settle();
    // With several mounts one is looked at after the other.
    Tick();
    Tick();
    return News();
  }
  void While(std::function<void()> meanwhile) {
    a_->Behave([&](FakeAgent::Behaviour* b) {
      b->while_listing = [this, meanwhile = std::move(meanwhile)] {
        a_->Behave([](FakeAgent::Behaviour* now) { now->while_listing = {}; });
        meanwhile();
      };
    });
  }
  storage::v1::CopyFault FaultOf(const Uuid& image) {
    const auto row = index_->GetImage(image);
    const auto fault = row.ok() && row->has_value()
                           ? index_->FaultOf(**row, a_->uid())
                           : std::nullopt;
    return fault.has_value() ? fault->fault()
                             : storage::v1::COPY_FAULT_UNSPECIFIED;
  }
  std::vector<server::Orphan> Orphans() {
    return lifecycle_->inventory().ListOrphans(a_->uid(), Uuid(), 1000);
  }
  std::vector<std::string> EventKinds() {
    std::vector<std::string> kinds;
    EXPECT_OK(index_->ScanEvents([&](const storage::v1::EventRow& row) {
      kinds.push_back(row.kind());
    }));
    return kinds;
  }

  const Asked kDigest{1, 0};
  const Asked kBoth{1, 1};
  FakeAgent* a_ = nullptr;
  std::vector<Uuid> images_;
  Asked before_;
};

TEST_F(InventoryDigestTest, WhatIsAsItWasIsNotListedAgain) {
  EXPECT_EQ(News(), (Asked{0, 1})) << "in full after the start";
  EXPECT_EQ(Rescan(), kDigest);
  EXPECT_EQ(Rescan(), kDigest);
  EXPECT_EQ(lifecycle_->inventory().digests().same, 2);
  EXPECT_EQ(lifecycle_->inventory().digests().other, 0);
  // Nor what the index knows that it changed.
  Upload(a_, ids_.NextUuid(), ids_.NextUuid());
  ASSERT_OK(Delete(images_[0]));
  Tick();
  ASSERT_FALSE(a_->Has(images_[0]));
  EXPECT_EQ(Rescan(), kDigest);
  EXPECT_EQ(lifecycle_->inventory().digests().same, 3);
}

TEST_F(InventoryDigestTest, AnyChangeByHandIsListed) {
  const FakeAgent::File whole = *a_->file(images_[0]);
  const auto changed = [&](const std::function<void(FakeAgent::File*)>& by) {
    FakeAgent::File file = whole;
    by(&file);
    a_->Put(images_[0], file);
    EXPECT_EQ(Rescan(), kBoth);
    const storage::v1::CopyFault fault = FaultOf(images_[0]);
    // What stays as it is costs a digest, and stays named.
    EXPECT_EQ(Rescan(), kDigest);
    EXPECT_EQ(FaultOf(images_[0]), fault);
    return fault;
  };
  EXPECT_EQ(changed([](FakeAgent::File* f) {
              f->record_size_bytes = f->size_bytes--;
            }),
            storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_EQ(changed([](FakeAgent::File* f) { f->record_size_bytes = 0; }),
            storage::v1::COPY_FAULT_DAMAGED)
      << "whole again; the damage is the scrub's to take back";
  EXPECT_EQ(index_->fault_count(a_->uid()), 1);
  a_->Take(images_[1]);
  EXPECT_EQ(Rescan(), kBoth);
  EXPECT_EQ(FaultOf(images_[1]), storage::v1::COPY_FAULT_MISSING);
}

TEST_F(InventoryDigestTest, NothingThatIsWrongIsHiddenByAnEqualDigest) {
  const FakeAgent::File file = *a_->Take(images_[0]);
  FakeAgent::File unrecorded = file;
  unrecorded.has_record = false;
  const Uuid stranger = ids_.NextUuid();
  a_->Put(stranger, unrecorded);
  const Uuid orphan = ids_.NextUuid();
  a_->Plant(orphan, ids_.NextUuid(), file.generation);
  EXPECT_EQ(Rescan(), kBoth);
  EXPECT_EQ(FaultOf(images_[0]), storage::v1::COPY_FAULT_MISSING);
  EXPECT_THAT(Orphans(), SizeIs(2));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Rescan(), kDigest);
    EXPECT_EQ(FaultOf(images_[0]), storage::v1::COPY_FAULT_MISSING);
    EXPECT_THAT(Orphans(), SizeIs(2));
  }
  EXPECT_THAT(EventKinds(), Contains("copy_missing").Times(1));
  // One for another: the same number, and all of it told.
  a_->Take(stranger);
  const Uuid next = ids_.NextUuid();
  a_->Put(next, unrecorded);
  EXPECT_EQ(Rescan(), kBoth);
  ASSERT_THAT(Orphans(), SizeIs(2));
  a_->Put(images_[0], file);
  EXPECT_EQ(Rescan(), kBoth);
  EXPECT_EQ(FaultOf(images_[0]), storage::v1::COPY_FAULT_UNSPECIFIED);
  EXPECT_THAT(EventKinds(), Contains("copy_found").Times(1));
  EXPECT_EQ(Rescan(), kDigest);
}

// The row of what was missing is deleted, and its id stored again.
TEST_F(InventoryDigestTest, WhatIsStoredAgainIsNotTakenForWhatWasMissing) {
  a_->Take(images_[0]);
  EXPECT_EQ(Rescan(), kBoth);
  ASSERT_OK(Delete(images_[0]));
  Tick();
  Upload(a_, images_[0], ids_.NextUuid());
  EXPECT_EQ(Rescan(), kDigest);
  EXPECT_EQ(index_->fault_count(a_->uid()), 0);
  a_->Take(images_[0]);
  EXPECT_EQ(Rescan(), kBoth);
  EXPECT_EQ(FaultOf(images_[0]), storage::v1::COPY_FAULT_MISSING);
}

// As a client's read may say that comes across a hiccup of the disk.
TEST_F(InventoryDigestTest, WhatWasCalledMissingAndIsThereIsFound) {
  PutFault(images_[0], a_, storage::v1::COPY_FAULT_MISSING);
  EXPECT_EQ(Rescan(), kDigest);
  EXPECT_EQ(FaultOf(images_[0]), storage::v1::COPY_FAULT_UNSPECIFIED);
  EXPECT_THAT(EventKinds(), Contains("copy_found").Times(1));
}

// What is known to be strange is judged by what the index says now.
TEST_F(InventoryDigestTest, AStrangerIsJudgedAnewWithoutAListing) {
  FakeAgent::File file = *a_->file(images_[0]);
  file.has_record = false;
  const Uuid image = ids_.NextUuid();
  a_->Put(image, file);
  EXPECT_EQ(Rescan(), kBoth);
  ASSERT_THAT(Orphans(), SizeIs(1));
  EXPECT_THAT(Orphans()[0].detail, Not(HasSubstr("mounts/b")));
  FakeAgent* const b = AddConnected("b", 0);
  Tick();
  Upload(b, image, ids_.NextUuid());
  EXPECT_EQ(Rescan(), kDigest);
  ASSERT_THAT(Orphans(), SizeIs(1));
  EXPECT_THAT(Orphans()[0].detail, HasSubstr("mounts/b"));
}

TEST_F(InventoryDigestTest, WhatChangesWhileTheAgentLooksEndsInAListingAtMost) {
  const Uuid stored = ids_.NextUuid();
  const Uuid upload = ids_.NextUuid();
  ASSERT_OK(Start(stored, upload, 4096));
  ASSERT_TRUE(a_->Write(upload, 4096, false));
  // Stored after the look and before the comparison: in neither.
  While([&] {
    ASSERT_TRUE(a_->Publish(upload));
    control::v1::Published published;
    published.set_upload_id(upload.bytes());
    published.set_image_id(stored.bytes());
    *published.mutable_generation() = a_->file(stored)->generation;
    published.set_size_bytes(4096);
    published.set_crc32c(0x1234abcd);
    ASSERT_EQ(lifecycle_->uploads().OnPublished(a_->uid(), published).outcome(),
              storage::v1::UPLOAD_OUTCOME_COMMITTED);
  });
  EXPECT_EQ(Rescan(), kDigest);
  // Deleted in between: the digest has it, the index has not.
  While([&] {
    server::ImageCatalog::DeleteRequest request;
    request.image_id = images_[0];
    EXPECT_THAT(lifecycle_->images().Delete(request),
                HasReason(reason::kNoTombstoneCopy));
  });
  EXPECT_EQ(Rescan(), kBoth);
  EXPECT_EQ(index_->fault_count(a_->uid()), 0);
  EXPECT_THAT(Orphans(), IsEmpty());
  EXPECT_THAT(EventKinds(), Not(Contains("copy_missing")));
  Tick();
  // That listing may still have shown it, on its way out.
  ASSERT_FALSE(a_->Has(images_[0]));
  EXPECT_THAT(Rescan(), AnyOf(kBoth, kDigest));
  EXPECT_EQ(Rescan(), kDigest);
}

TEST_F(InventoryDigestTest, AnOlderAgentIsListed) {
  a_->Behave([](FakeAgent::Behaviour* b) { b->listing_digest = false; });
  a_->Lose();
  Settle();
  Connect(a_);
  Tick();
  EXPECT_EQ(Rescan(), (Asked{0, 1}));
}

TEST_F(InventoryDigestTest, StartsAndChecksListInFull) {
  News();
  lifecycle_->inventory().ListAllAgain();
  Settle();
  EXPECT_EQ(News(), (Asked{0, 1}));
  a_->Lose();
  Settle();
  Connect(a_);
  Tick();
  EXPECT_EQ(News(), (Asked{0, 1})) << "another session";
  // A check that begins while a digest is being made is answered by a listing
  // of its own.
  int64_t after = 0;
  While([&] {
    after = lifecycle_->inventory().ListAllAgain();
    EXPECT_FALSE(
        lifecycle_->inventory().RelistedSince(a_->uid(), after).compared);
  });
  EXPECT_EQ(Rescan(), kBoth);
  EXPECT_TRUE(lifecycle_->inventory().RelistedSince(a_->uid(), after).compared);
}

TEST_F(InventoryDigestTest, ADigestThatFailsIsNoDigest) {
  a_->Take(images_[0]);
  a_->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_listing = absl::UnavailableError("the disk is slow");
  });
  EXPECT_EQ(Rescan(), kDigest);
  EXPECT_EQ(index_->fault_count(a_->uid()), 0);
  EXPECT_EQ(lifecycle_->inventory().digests().other, 0);
  a_->Behave(
      [](FakeAgent::Behaviour* b) { b->refuse_listing = absl::OkStatus(); });
  clock_.Advance(absl::Minutes(1));
  a_->Beat();
  Tick();
  EXPECT_EQ(News(), (Asked{0, 1})) << "in full a minute later";
  EXPECT_EQ(FaultOf(images_[0]), storage::v1::COPY_FAULT_MISSING);
}

// More is otherwise than is kept: no digest could be told from it.
TEST_F(InventoryDigestTest, WhereVeryMuchIsStrangeItIsListed) {
  FakeAgent::File file;
  file.size_bytes = 1;
  file.has_record = false;
  const size_t most = server::ListingAudit::kMostKept;
  std::vector<Uuid> strangers;
  for (size_t i = 0; i < most; ++i) {
    strangers.push_back(ids_.NextUuid());
    a_->Put(strangers.back(), file);
  }
  EXPECT_EQ(Rescan(), kBoth);
  EXPECT_EQ(Rescan(), kDigest);
  const Uuid one = ids_.NextUuid();
  a_->Put(one, file);
  EXPECT_EQ(Rescan(), kBoth);
  EXPECT_EQ(Rescan(), (Asked{0, 1}));
  EXPECT_THAT(Orphans(), SizeIs(1000)) << "of the first page";
  a_->Take(one);
  EXPECT_EQ(Rescan(), (Asked{0, 1}));
  EXPECT_EQ(Rescan(), kDigest);
}

}  // namespace
}  // namespace predella::testing
