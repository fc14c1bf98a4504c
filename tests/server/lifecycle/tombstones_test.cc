// Tombstones over time: where copies of them count, and when they may go.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/store/layout.h"
#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class TombstonesTest : public LifecycleFixture {
 protected:
  void Retire(const std::string& name) {
    v1::RetireMountRequest request;
    request.set_name("mounts/" + name);
    AcceptLoss(&request);
    ASSERT_OK(lifecycle_->mounts().Retire(request));
    Settle();
  }
  // Long enough that everything which only waits for time is done.
  void LetPass(absl::Duration time, const std::vector<FakeAgent*>& present) {
    clock_.Advance(time);
    for (int i = 0; i < 6; ++i) {
      for (FakeAgent* const agent : present) {
        agent->Beat();
      }
      Tick();
    }
  }
  int64_t remembered() { return lifecycle_->tombstones().count(); }
  std::vector<server::TombstoneEntry> Of(const Uuid& image) {
    return lifecycle_->tombstones().OfImage(image);
  }
  int CopiesInTheIndex(const Uuid& image) {
    const auto rows = index_->TombstonesOf(image);
    return rows.ok() && rows->size() == 1 ? (*rows)[0].copy_mount_uids_size()
                                          : -1;
  }
  std::vector<std::string> Checks() {
    std::vector<std::string> out;
    const v1::Cluster cluster = lifecycle_->cluster().Get();
    for (const auto& check : cluster.checks()) {
      out.push_back(check.code());
    }
    return out;
  }
  // The directory of `agent` as it was when it was made.
  FakeAgent* AddOlderCopy(const FakeAgent* agent) {
    agents_.push_back(
        std::make_unique<FakeAgent>(agent->name(), agent->uid(), &pool_));
    agents_.back()->Behave([this](FakeAgent::Behaviour* b) {
      b->cluster_uid = index_->cluster().cluster_uid();
    });
    return agents_.back().get();
  }

  const Uuid image_ = ids_.NextUuid();
  const Uuid upload_ = ids_.NextUuid();
};

TEST_F(TombstonesTest, ARetiredMountIsNoPlaceForACopy) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  Retire("b");  // and its agent goes on
  a->Lose();
  Settle();
  EXPECT_THAT(Delete(image_), HasReason(reason::kNoTombstoneCopy));
  EXPECT_EQ(b->tombstone_count(), 0u);
  Connect(a);
  EXPECT_OK(Delete(image_));
  EXPECT_EQ(a->tombstone_count(), 1u);
}

TEST_F(TombstonesTest, WhatARetiredMountHeldIsNoCopyAnyMore) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  a->Lose();
  ASSERT_OK(Delete(image_));
  ASSERT_EQ(b->tombstone_count(), 1u);
  Retire("b");
  EXPECT_THAT(Delete(image_), HasReason(reason::kNoTombstoneCopy));
}

TEST_F(TombstonesTest, WhatRetiredMountsHeldIsCopiedToOthers) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  FakeAgent* const c = AddConnected("c", 3);
  FakeAgent* const d = AddConnected("d", 4);
  Upload(a, image_, upload_);
  a->Lose();
  ASSERT_OK(Delete(image_));
  Tick();
  ASSERT_EQ(b->tombstone_count(), 1u);
  ASSERT_EQ(c->tombstone_count(), 1u);
  ASSERT_EQ(d->tombstone_count(), 0u);
  Retire("b");
  Retire("c");
  EXPECT_EQ(d->tombstone_count(), 1u);
}

TEST_F(TombstonesTest, WhatARegistrationDoesNotBringIsWrittenAnew) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const Uuid other = ids_.NextUuid();
  Upload(a, image_, upload_);
  Upload(a, other, ids_.NextUuid());
  a->Lose();
  ASSERT_OK(Delete(image_));
  ASSERT_OK(Delete(other));
  ASSERT_EQ(b->tombstone_count(), 2u);
  const storage::v1::Tombstone kept = server::ToCopy(Of(other)[0].row);
  Restart();
  FakeAgent* const copy = AddOlderCopy(b);
  copy->Behave(
      [&](FakeAgent::Behaviour* own) { own->extra_tombstones = {kept}; });
  Connect(copy);
  ASSERT_OK(copy->closed());
  EXPECT_EQ(CopiesInTheIndex(image_), 0);
  EXPECT_EQ(CopiesInTheIndex(other), 1) << "this one it brought";
  Tick();
  EXPECT_EQ(copy->tombstone_count(), 1u);
  EXPECT_EQ(CopiesInTheIndex(image_), 1);
}

// As many as need several commits.
TEST_F(TombstonesTest, AnEmptiedFileOfTombstonesIsFilledAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  a->Lose();
  std::vector<Uuid> images;
  for (int i = 0; i < 501; ++i) {
    images.push_back(PutRow({a}));
    ASSERT_OK(Delete(images.back()));
  }
  ASSERT_EQ(b->tombstone_count(), images.size());
  Restart();
  FakeAgent* const emptied = AddOlderCopy(b);
  Connect(emptied);
  ASSERT_OK(emptied->closed());
  for (const Uuid& image : images) {
    ASSERT_EQ(CopiesInTheIndex(image), 0);
  }
  for (int i = 0; i < 10; ++i) {
    Tick();
  }
  EXPECT_EQ(emptied->tombstone_count(), images.size());
}

// Somebody copied its file to a mount that was away.
TEST_F(TombstonesTest, ADeleteIsRememberedWhileAMountIsAway) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  LetPass(absl::Minutes(1), {a, b});
  const FakeAgent::File file = *a->file(image_);
  b->Lose();
  b->Put(image_, file);
  ASSERT_OK(Delete(image_));
  for (int i = 0; i < 4; ++i) {
    LetPass(options_.tombstone_ttl, {a});
  }
  EXPECT_EQ(remembered(), 1);
  EXPECT_EQ(a->tombstone_count(), 1u);
  Connect(b);
  LetPass(absl::Minutes(1), {a, b});
  EXPECT_FALSE(b->Has(image_));
  for (int i = 0; i < 2; ++i) {
    LetPass(options_.tombstone_ttl, {a, b});
  }
  EXPECT_EQ(remembered(), 0);
  EXPECT_EQ(a->tombstone_count() + b->tombstone_count(), 0u);
}

// No delete removes it, and with its record it would be the image again.
TEST_F(TombstonesTest, ADeleteIsRememberedWhileAFileWithoutRecordIsThere) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  LetPass(absl::Minutes(1), {a, b});
  const FakeAgent::File whole = *a->file(image_);
  FakeAgent::File bare = whole;
  bare.has_record = false;
  bare.generation.Clear();
  a->Put(image_, bare);
  ASSERT_OK(Delete(image_));
  for (int i = 0; i < 4; ++i) {
    LetPass(options_.tombstone_ttl, {a, b});
  }
  ASSERT_TRUE(a->Has(image_));
  EXPECT_EQ(remembered(), 1);
  // Somebody finds its record: the delete takes it.
  a->Put(image_, whole);
  LetPass(options_.tombstone_ttl, {a, b});
  EXPECT_FALSE(a->Has(image_));
  for (int i = 0; i < 3; ++i) {
    LetPass(options_.tombstone_ttl, {a, b});
  }
  EXPECT_EQ(remembered(), 0);
}

TEST_F(TombstonesTest, SoOverAStartOfTheCoordinator) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  LetPass(absl::Minutes(1), {a, b});
  b->Put(image_, *a->file(image_));
  b->Lose();
  ASSERT_OK(Delete(image_));
  Restart();
  Connect(a);
  for (int i = 0; i < 4; ++i) {
    LetPass(options_.tombstone_ttl, {a});
  }
  EXPECT_EQ(remembered(), 1);
  Connect(b);
  LetPass(absl::Minutes(1), {a, b});
  EXPECT_FALSE(b->Has(image_));
}

// The listing of before the delete says nothing of a copy made since.
TEST_F(TombstonesTest, AListingOfBeforeTheDeleteIsNotEnough) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  LetPass(absl::Minutes(1), {a, b});
  b->Put(image_, *a->file(image_));
  b->Behave([](FakeAgent::Behaviour* own) {
    own->refuse_listing =
        MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
  });
  ASSERT_OK(Delete(image_));
  for (int i = 0; i < 4; ++i) {
    LetPass(options_.tombstone_ttl, {a, b});
  }
  EXPECT_EQ(remembered(), 1);
  b->Behave([](FakeAgent::Behaviour* own) {
    own->refuse_listing = absl::OkStatus();
  });
  LetPass(absl::Minutes(2), {a, b});
  EXPECT_FALSE(b->Has(image_));
}

// What comes back may be an older copy of the directory, with the file and
// without the delete.
TEST_F(TombstonesTest, AMountThatIsAwayIsWaitedForThoughItWasListed) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  FakeAgent* const c = AddConnected("c", 3);
  Upload(a, image_, upload_);
  const FakeAgent::File file = *a->file(image_);
  ASSERT_OK(Delete(image_));
  LetPass(absl::Minutes(30), {a, b, c});
  ASSERT_FALSE(a->Has(image_));
  a->Lose();
  Settle();
  LetPass(options_.tombstone_ttl * 2, {b, c});
  ASSERT_EQ(remembered(), 1);
  FakeAgent* const copy = AddOlderCopy(a);
  copy->Put(image_, file);
  Connect(copy);  // and is refused
  v1::ConfirmMountRequest confirm;
  confirm.set_name("mounts/a");
  ASSERT_OK(lifecycle_->mounts().Confirm(confirm));
  Connect(copy);
  LetPass(absl::Minutes(30), {copy, b, c});
  EXPECT_FALSE(copy->Has(image_));
  LetPass(options_.tombstone_ttl * 2, {copy, b, c});
  EXPECT_EQ(remembered(), 0);
}

TEST_F(TombstonesTest, OneThatHoldsNoCopyIsWaitedForToo) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  FakeAgent* const c = AddConnected("c", 3);
  Upload(a, image_, upload_);
  ASSERT_OK(Delete(image_));
  LetPass(absl::Minutes(30), {a, b, c});
  ASSERT_EQ(c->tombstone_count(), 0u);
  c->Lose();
  Settle();
  LetPass(options_.tombstone_ttl * 2, {a, b});
  EXPECT_EQ(remembered(), 1);
  Connect(c);
  LetPass(absl::Minutes(30), {a, b, c});
  EXPECT_EQ(remembered(), 0);
}

TEST_F(TombstonesTest, ARetiredMountIsNotWaitedFor) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  LetPass(absl::Minutes(1), {a, b});
  b->Lose();
  ASSERT_OK(Delete(image_));
  LetPass(absl::Minutes(1), {a});  // it is settled
  LetPass(options_.tombstone_ttl, {a});
  ASSERT_EQ(remembered(), 1);
  Retire("b");
  LetPass(absl::Hours(1), {a});  // and a listing of the other
  EXPECT_EQ(remembered(), 0);
}

TEST_F(TombstonesTest, WhatIsNotedOnOneMountAloneIsCounted) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  a->Lose();
  ASSERT_OK(Delete(image_));
  const auto noted_on = [&](const std::vector<std::string>& names) {
    v1::ExplainImpactRequest request;
    for (const std::string& name : names) {
      request.add_names("mounts/" + name);
    }
    const auto impact = lifecycle_->mounts().ExplainImpact(request);
    EXPECT_OK(impact);
    return impact.ok() ? impact->only_delete_copy_count() : -1;
  };
  EXPECT_EQ(noted_on({"b"}), 1);
  EXPECT_EQ(noted_on({"a"}), 0);
  EXPECT_EQ(noted_on({"a", "b"}), 0) << "nobody is left to have the file";
  LetPass(absl::Minutes(1), {b});
  EXPECT_THAT(Checks(), Not(Contains("DELETES_NOT_COPIED")));
  b->Lose();
  Retire("b");
  EXPECT_THAT(Checks(), Contains("DELETES_NOT_COPIED"));
  FakeAgent* const c = AddConnected("c", 3);
  Tick();
  EXPECT_EQ(c->tombstone_count(), 1u);
  EXPECT_THAT(Checks(), Not(Contains("DELETES_NOT_COPIED")));
  EXPECT_EQ(noted_on({"c"}), 1);
}

// The slots of the mounts are for deletes that are being done.
TEST_F(TombstonesTest, TheOldestOfTooManyThatWaitAreForgotten) {
  options_.tombstones_waiting_most = 2;
  Restart();
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  std::vector<Uuid> images;
  for (int i = 0; i < 3; ++i) {
    images.push_back(ids_.NextUuid());
    Upload(a, images.back(), ids_.NextUuid());
  }
  LetPass(absl::Minutes(1), {a, b});
  b->Lose();
  for (const Uuid& image : images) {
    ASSERT_OK(Delete(image));
    LetPass(absl::Minutes(1), {a});
  }
  EXPECT_EQ(remembered(), 3);
  LetPass(options_.tombstone_ttl, {a});
  EXPECT_EQ(remembered(), 2);
  EXPECT_TRUE(Of(images[0]).empty());
  EXPECT_EQ(a->tombstone_count(), 2u);
  EXPECT_EQ(CopiesInTheIndex(images[2]), 1);
}

class TombstoneRoomTest : public TombstonesTest {
 protected:
  // Deletes of images on `a`, so many.
  std::vector<Uuid> DeleteOn(FakeAgent* a, int count) {
    std::vector<Uuid> out;
    for (int i = 0; i < count; ++i) {
      out.push_back(PutRow({a}));
      EXPECT_OK(Delete(out.back()));
    }
    return out;
  }
  void FilesHold(int copies) {
    storage::v1::TombstoneRow row;
    row.set_image_id(image_.bytes());
    *row.mutable_generation() = index_->synced_pair().ToProto();
    row.set_create_time_us(clock_.NowMicros());
    options_.tombstone_slot_bytes = copies * server::CopyBytes(row);
    Restart();
  }
};

TEST_F(TombstoneRoomTest, TheFileIsTheOneThatMountInitMakes) {
  EXPECT_EQ(options_.tombstone_slot_bytes, agent::layout::kTombstoneSlotBytes);
}

TEST_F(TombstoneRoomTest, SecondCopiesOfWhatIsSettledMakeRoom) {
  FilesHold(20);
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  std::vector<Uuid> images;
  for (int i = 0; i < 6; ++i) {
    for (const Uuid& image : DeleteOn(a, 2)) {
      images.push_back(image);
    }
    LetPass(absl::Minutes(1), {a, b});
  }
  // 24 copies of 12, in two files of 20 that are to be half full at most.
  EXPECT_EQ(remembered(), 12);
  EXPECT_LE(a->tombstone_count(), 10u);
  EXPECT_LE(b->tombstone_count(), 10u);
  for (const Uuid& image : images) {
    EXPECT_GE(CopiesInTheIndex(image), 1);
  }
  EXPECT_EQ(CopiesInTheIndex(images.back()), 2);
}

TEST_F(TombstoneRoomTest, TheOldestSettledLeaveBeforeAFileIsFull) {
  FilesHold(20);
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  std::vector<Uuid> images;
  for (int i = 0; i < 25; ++i) {
    for (const Uuid& image : DeleteOn(a, 2)) {
      images.push_back(image);
    }
    LetPass(absl::Minutes(1), {a, b});
  }
  EXPECT_LE(a->tombstone_count(), 15u);
  EXPECT_LE(b->tombstone_count(), 15u);
  EXPECT_EQ(CopiesInTheIndex(images.front()), 0);
  EXPECT_EQ(CopiesInTheIndex(images.back()), 1);
  // The index knows them all for their time.
  EXPECT_EQ(remembered(), 50);
  LetPass(options_.tombstone_ttl, {a, b});
  LetPass(absl::Minutes(30), {a, b});
  EXPECT_EQ(remembered(), 0);
  EXPECT_THAT(Checks(), Not(Contains("DELETES_NEARLY_FULL")));
}

TEST_F(TombstoneRoomTest, WhatWaitsForAMountIsKeptAndNamed) {
  FilesHold(20);
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  a->Lose();
  Settle();
  const std::vector<Uuid> images = DeleteOn(a, 19);
  LetPass(absl::Minutes(1), {b});
  EXPECT_EQ(b->tombstone_count(), 19u);
  EXPECT_THAT(Checks(), Contains("DELETES_NEARLY_FULL"));
  b->Behave([](FakeAgent::Behaviour* own) {
    own->refuse_tombstone =
        MakeError(absl::StatusCode::kResourceExhausted, reason::kMountFull,
                  ".predella/tombstones holds at most 20 bytes");
  });
  const Uuid other = PutRow({a});
  const absl::Status refused = Delete(other);
  EXPECT_THAT(refused, HasReason(reason::kNoTombstoneCopy));
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("no room for more deletes"));
  Connect(a);
  LetPass(absl::Minutes(1), {a, b});
  EXPECT_LE(b->tombstone_count(), 15u);
  EXPECT_THAT(Checks(), Not(Contains("DELETES_NEARLY_FULL")));
}

}  // namespace
}  // namespace predella::testing
