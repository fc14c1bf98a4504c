// Removals that have to be made more than once, and what ends them.
#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::SizeIs;

class RemovalsTest : public LifecycleFixture {
 protected:
  RemovalsTest() : image_(ids_.NextUuid()), upload_(ids_.NextUuid()) {}

  // The next rescan, with the ticks that its digest, its listing and the
  // removals that follow from it take.
  void Rescan(FakeAgent* agent) {
    clock_.Advance(absl::Minutes(10));
    agent->Beat();
    for (int i = 0; i < 3; ++i) {
      Tick();
    }
  }
  int Removals(FakeAgent* agent) {
    int count = 0;
    for (const control::v1::Command& command : agent->commands()) {
      count += command.has_remove() ? 1 : 0;
    }
    return count;
  }
  int64_t Pending(FakeAgent* agent) {
    return lifecycle_->reaper().PendingOn(agent->uid());
  }

  const Uuid image_;
  const Uuid upload_;
};

// The same session all the time: nothing has to start again for it.
TEST_F(RemovalsTest, AFileThatIsPutBackIsRemovedAsOftenAsItComes) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  Tick();
  const std::optional<FakeAgent::File> file = a->file(image_);
  ASSERT_OK(Delete(image_));
  ASSERT_FALSE(a->Has(image_));
  for (int i = 0; i < 2; ++i) {
    a->Put(image_, *file);
    Rescan(a);
    EXPECT_FALSE(a->Has(image_)) << "its tombstone stands";
    EXPECT_EQ(Pending(a), 0);
  }
  Upload(a, image_, ids_.NextUuid());
}

// The same of an upload that ended, whose file comes back later.
TEST_F(RemovalsTest, ALeftoverThatIsPutBackIsRemovedAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  ASSERT_OK_AND_ASSIGN(const v1::Upload started, Start(image_, upload_, 4096));
  ASSERT_OK(lifecycle_->uploads().Abort(upload_).status());
  Settle();
  Tick();
  ASSERT_EQ(Pending(a), 0);
  a->Plant(image_, upload_,
           index_->GetUpload(upload_).value().value().generation());
  Rescan(a);
  EXPECT_FALSE(a->Has(image_));
  EXPECT_EQ(Pending(a), 0);
}

// What stands there is not what the tombstone names: it is named, and holds
// nothing.
TEST_F(RemovalsTest, AFileOfAnotherGenerationHoldsNoTombstone) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  Tick();
  FakeAgent::File other = *a->file(image_);
  other.generation.set_n(other.generation.n() + 1000);
  other.upload_id = ids_.NextUuid().bytes();
  a->Put(image_, other);
  ASSERT_OK(Delete(image_));
  EXPECT_EQ(Pending(a), 0);
  Rescan(a);
  EXPECT_TRUE(a->Has(image_));
  EXPECT_EQ(Pending(a), 0);
  EXPECT_THAT(lifecycle_->inventory().ListOrphans(a->uid(), Uuid(), 10),
              SizeIs(1));
  EXPECT_OK(Start(image_, ids_.NextUuid(), 4096).status())
      << "no removal is in its way";
}

TEST_F(RemovalsTest, WhatTheIndexCouldNotWriteIsAskedForAgain) {
  FakeAgent* const a = AddConnected("a", 1);
  Upload(a, image_, upload_);
  a->Behave([&](FakeAgent::Behaviour* b) {
    b->on_command = [&](const control::v1::Command& command) {
      if (command.has_remove()) {
        kv_->FailCommit(1, server::MemKvStore::Fault::kBeforeApplying,
                        /*disk_full=*/true);
      }
    };
  });
  ASSERT_OK(Delete(image_));
  ASSERT_EQ(Pending(a), 1) << "it is gone, and that could not be written";
  a->Behave([](FakeAgent::Behaviour* b) { b->on_command = nullptr; });
  kv_->ClearFaults();
  Tick();
  EXPECT_EQ(Removals(a), 1) << "not at every tick";
  clock_.Advance(absl::Seconds(30));
  a->Beat();
  Tick();
  EXPECT_EQ(Removals(a), 2);
  EXPECT_EQ(Pending(a), 0);
}

}  // namespace
}  // namespace predella::testing
