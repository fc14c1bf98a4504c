// An older copy of a mount's directory, where its agent registers.
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
using ::testing::HasSubstr;

class StaleMountsTest : public LifecycleFixture {
 protected:
  // One image on the mount "a", whose agent is away then.
  void Fill() {
    a_ = AddConnected("a");
    Upload(a_, image_, upload_, 4096);
    a_->Lose();
    Settle();
  }
  // What lay there before: the same identity, and nothing heard since.
  FakeAgent* AddCopy() {
    agents_.push_back(std::make_unique<FakeAgent>("a", a_->uid(), &pool_));
    agents_.back()->Behave([this](FakeAgent::Behaviour* b) {
      b->cluster_uid = index_->cluster().cluster_uid();
    });
    return agents_.back().get();
  }
  absl::StatusOr<v1::Mount> Confirm(bool validate_only = false) {
    v1::ConfirmMountRequest request;
    request.set_name("mounts/a");
    request.set_validate_only(validate_only);
    return lifecycle_->mounts().Confirm(request);
  }
  v1::Mount Mount() {
    v1::GetMountRequest get;
    get.set_name("mounts/a");
    return *lifecycle_->mounts().Get(get);
  }
  v1::HealthCheck Check(const std::string& code) {
    const v1::Cluster cluster = lifecycle_->cluster().Get();
    for (const v1::HealthCheck& one : cluster.checks()) {
      if (one.code() == code) {
        return one;
      }
    }
    return {};
  }

  const Uuid image_ = ids_.NextUuid();
  const Uuid upload_ = ids_.NextUuid();
  FakeAgent* a_ = nullptr;
};

TEST_F(StaleMountsTest, AnOlderCopyIsRefusedAndNamed) {
  Fill();
  clock_.Advance(absl::Seconds(16));
  ASSERT_EQ(registry_->FindByName("a")->health, v1::HEALTH_UNREACHABLE);
  registry_->TakeSeen(a_->uid());
  FakeAgent* const copy = AddCopy();
  Connect(copy);
  for (const server::SeenHealth& seen : registry_->TakeSeen(a_->uid())) {
    EXPECT_NE(seen.health, v1::HEALTH_ONLINE) << "to be dialled is no health";
  }
  EXPECT_THAT(copy->closed(), HasReason(reason::kMountStale));
  EXPECT_THAT(std::string(copy->closed().message()),
              AllOf(HasSubstr("older copy of mounts/a"),
                    HasSubstr("1 (4 KiB) of the images")));
  EXPECT_FALSE(copy->attach().has_value()) << "it was told something";
  EXPECT_TRUE(Mount().stale());
  EXPECT_THAT(Check("MOUNT_STALE").detail(), HasSubstr("host-of-a"));
  EXPECT_THAT(Check("MOUNT_STALE").next_step(),
              HasSubstr("predella mount confirm a"));
  EXPECT_EQ(index_->fault_count(a_->uid()), 0) << "it is away, not missing";
  EXPECT_EQ(registry_->FindByName("a")->health, v1::HEALTH_ABSENT);
  EXPECT_THAT(registry_->FindByName("a")->health_detail,
              HasSubstr("older copy"));
  // The right one, whenever it comes.
  Connect(a_);
  EXPECT_TRUE(registry_->FindByName("a")->attached);
  EXPECT_FALSE(Mount().stale());
  EXPECT_EQ(Check("MOUNT_STALE").code(), "");
}

// Its generation was given before the copy was made, and published after.
TEST_F(StaleMountsTest, ACopyThatWasMadeWhileAnUploadWasOpenIsRefused) {
  a_ = AddConnected("a");
  ASSERT_OK(Start(image_, upload_, 4096));
  storage::v1::FenceEntry then;
  then.set_epoch(index_->epoch());
  then.set_nonce(index_->epoch_nonce());
  then.set_max_n(index_->synced_pair().n);
  ASSERT_TRUE(a_->Write(upload_, 4096, false));
  ASSERT_TRUE(a_->Publish(upload_));
  Settle();
  a_->Beat();  // the answer tells the pair of the commit
  Settle();
  a_->Beat();  // and this one says that it is synced
  Settle();
  a_->Lose();
  Settle();
  FakeAgent* const copy = AddCopy();
  copy->Behave([&](FakeAgent::Behaviour* b) { b->extra_known = {then}; });
  Connect(copy);
  EXPECT_THAT(copy->closed(), HasReason(reason::kMountStale));
  EXPECT_THAT(std::string(copy->closed().message()),
              AllOf(HasSubstr("was synced there"),
                    HasSubstr("file fence was damaged")));
  Connect(a_);
  EXPECT_TRUE(registry_->FindByName("a")->attached);
}

// One that is read-only can not write down what it is told, and is no copy for
// that when it takes writes again.
TEST_F(StaleMountsTest, WhatWasToldAndNotSyncedIsNotAskedFor) {
  a_ = AddConnected("a");
  a_->Lose();
  Settle();
  PutRow({});  // pairs go on
  FakeAgent* const read_only = AddCopy();
  Connect(read_only);
  EXPECT_OK(read_only->closed());
  read_only->Lose();
  Settle();
  FakeAgent* const again = AddCopy();
  Connect(again);
  EXPECT_OK(again->closed());
  EXPECT_TRUE(registry_->FindByName("a")->attached);
}

TEST_F(StaleMountsTest, SoAfterAStartOfTheCoordinator) {
  Fill();
  Restart();
  FakeAgent* const copy = AddCopy();
  Connect(copy);
  EXPECT_THAT(copy->closed(), HasReason(reason::kMountStale));
  Connect(a_);
  EXPECT_TRUE(registry_->FindByName("a")->attached);
}

TEST_F(StaleMountsTest, WhatWasDeletedMakesNoneStale) {
  Fill();
  FakeAgent* const b = AddConnected("b", 200);
  ASSERT_OK(Delete(image_));
  // Of after a start only the rows tell, and this one is gone.
  Restart();
  Connect(b);
  FakeAgent* const copy = AddCopy();
  Connect(copy);
  EXPECT_OK(copy->closed());
  EXPECT_TRUE(registry_->FindByName("a")->attached);
  EXPECT_EQ(b->tombstone_count(), 1u);
}

TEST_F(StaleMountsTest, AnOperatorMayUseTheCopy) {
  Fill();
  FakeAgent* const copy = AddCopy();
  Connect(copy);
  ASSERT_OK(Confirm(/*validate_only=*/true));
  Connect(copy);
  EXPECT_THAT(copy->closed(), HasReason(reason::kMountStale)) << "a dry run";
  ASSERT_OK(Confirm());
  EXPECT_TRUE(Mount().stale()) << "until its agent's next try";
  ASSERT_OK(Confirm()) << "asked twice";
  Connect(copy);
  EXPECT_OK(copy->closed());
  EXPECT_TRUE(registry_->FindByName("a")->attached);
  Tick();
  EXPECT_EQ(index_->fault_count(a_->uid()), 1) << "what it lacks is named";
  EXPECT_EQ(Check("MOUNT_STALE").code(), "");
  // From here on it is the mount: it has heard of everything.
  copy->Beat();
  Settle();
  copy->Lose();
  Settle();
  Connect(copy);
  EXPECT_OK(copy->closed());
  // The same snapshot, put back once more.
  copy->Lose();
  Settle();
  FakeAgent* const again = AddCopy();
  Connect(again);
  EXPECT_THAT(again->closed(), HasReason(reason::kMountStale));
}

TEST_F(StaleMountsTest, AnotherCopyThanTheConfirmedOneIsJudgedAnew) {
  FakeAgent* const first = AddConnected("a");
  a_ = first;
  Upload(first, image_, upload_);
  first->Lose();
  Settle();
  FakeAgent* const copy = AddCopy();
  Connect(copy);
  ASSERT_OK(Confirm());
  FakeAgent* const other = AddCopy();
  other->Behave([](FakeAgent::Behaviour* b) {
    storage::v1::FenceEntry entry;
    entry.set_epoch(1);
    entry.set_nonce(77);
    entry.set_max_n(2);
    b->extra_known = {entry};
  });
  Connect(other);
  EXPECT_FALSE(other->closed().ok());
  EXPECT_FALSE(registry_->FindByName("a")->attached);
}

TEST_F(StaleMountsTest, WhereNothingWaitsThereIsNothingToConfirm) {
  Fill();
  EXPECT_THAT(Confirm().status(), HasReason(reason::kAgentUnreachable));
}

// The agent that lives refuses an earlier copy itself: a confirmation would
// change nothing, so it is none.
TEST_F(StaleMountsTest, WhatALivingAgentRefusesIsNotConfirmed) {
  a_ = AddConnected("a");
  a_->Behave([](FakeAgent::Behaviour* b) {
    b->health = v1::HEALTH_ABSENT;
    b->health_detail = "/mnt/a is an earlier copy of the mount";
  });
  a_->Beat();
  Settle();
  ASSERT_EQ(registry_->FindByName("a")->health, v1::HEALTH_ABSENT);
  for (const bool validate_only : {true, false}) {
    const auto refused = Confirm(validate_only);
    EXPECT_THAT(refused, HasReason(reason::kMountStale));
    EXPECT_THAT(
        std::string(refused.status().message()),
        AllOf(HasSubstr("earlier copy"), HasSubstr("start the agent again")));
  }
}

TEST_F(StaleMountsTest, ConfirmingAMountThatIsInOrderDoesNothing) {
  Fill();
  Connect(a_);
  ASSERT_OK(Confirm());
  EXPECT_TRUE(registry_->FindByName("a")->attached);
  EXPECT_FALSE(lifecycle_->trust().recovering());
}

}  // namespace
}  // namespace predella::testing
