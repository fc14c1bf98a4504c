#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/generation.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SessionManagerTest : public LifecycleFixture {
 protected:
  const Uuid image_ = ids_.NextUuid();
  const Uuid upload_ = ids_.NextUuid();
};

TEST_F(SessionManagerTest, AnUnclaimedMountIsTakenIn) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_TRUE(agent->attach().has_value());
  EXPECT_TRUE(agent->attach()->claim_label());
  EXPECT_EQ(agent->attach()->roster_size(), 1);
  const auto info = registry_->FindByName("a");
  ASSERT_TRUE(info.has_value());
  EXPECT_TRUE(info->attached);
  EXPECT_TRUE(info->trusted);
  EXPECT_EQ(index_->ListMounts()->size(), 1u);
}

TEST_F(SessionManagerTest, ALabelOfOursIsNotClaimedAgain) {
  FakeAgent* const agent = AddAgent("a");
  agent->Behave([this](FakeAgent::Behaviour* b) {
    b->cluster_uid = index_->cluster().cluster_uid();
  });
  Connect(agent);
  ASSERT_TRUE(agent->attach().has_value());
  EXPECT_FALSE(agent->attach()->claim_label());
}

TEST_F(SessionManagerTest, AMountOfAnotherClusterIsRefusedByName) {
  FakeAgent* const agent = AddAgent("a");
  const Uuid other = ids_.NextUuid();
  agent->Behave(
      [&](FakeAgent::Behaviour* b) { b->cluster_uid = other.bytes(); });
  Connect(agent);
  EXPECT_THAT(agent->closed(), HasReason(reason::kClusterMismatch));
  EXPECT_THAT(std::string(agent->closed().message()),
              AllOf(HasSubstr("mount a belongs to cluster " + other.ToString()),
                    HasSubstr("--state-dir")));
  EXPECT_EQ(index_->ListMounts()->size(), 0u);
}

TEST_F(SessionManagerTest, ANameBoundToAnotherMountIsRefused) {
  FakeAgent* const first = AddConnected("a");
  first->Lose();
  FakeAgent* const second = AddAgent("a");
  Connect(second);
  EXPECT_THAT(second->closed(), HasReason(reason::kMountIdentityMismatch));
  EXPECT_THAT(std::string(second->closed().message()),
              AllOf(HasSubstr(first->uid().ToString()),
                    HasSubstr(second->uid().ToString())));
  // The label tells as well when the agent could not know it at first.
  second->Behave([](FakeAgent::Behaviour* b) { b->hello_uid = Uuid(); });
  Connect(second);
  EXPECT_THAT(second->closed(), HasReason(reason::kMountIdentityMismatch));
  EXPECT_FALSE(second->attach().has_value());
}

TEST_F(SessionManagerTest, ASecondAgentIsRefusedWithHostAndPid) {
  FakeAgent* const first = AddConnected("a");
  FakeAgent second("a", first->uid(), &pool_);
  second.Behave([](FakeAgent::Behaviour* b) { b->incarnation = "another"; });
  second.Connect(&lifecycle_->sessions());
  Settle();
  EXPECT_THAT(second.closed(), HasReason(reason::kMountInUse));
  EXPECT_THAT(std::string(second.closed().message()),
              AllOf(HasSubstr("host-of-a"), HasSubstr("4711")));
  const v1::Cluster cluster = lifecycle_->cluster().Get();
  EXPECT_TRUE(std::any_of(
      cluster.checks().begin(), cluster.checks().end(),
      [](const auto& check) { return check.code() == "MOUNT_IN_USE"; }));
  EXPECT_OK(first->closed());
  EXPECT_TRUE(registry_->FindByName("a")->attached);
}

TEST_F(SessionManagerTest, TheSameAgentMayDialAgainBeforeItsEndWasSeen) {
  FakeAgent* const agent = AddConnected("a");
  // The old session's end has not been noticed.
  Connect(agent);
  EXPECT_OK(agent->closed());
  EXPECT_TRUE(registry_->FindByName("a")->attached);
}

TEST_F(SessionManagerTest, AMountThatHangsAtItsStartIsShown) {
  FakeAgent* const agent = AddConnected("a");
  Restart();
  agent->Behave([](FakeAgent::Behaviour* b) {
    b->hello_uid = Uuid();
    b->answer_attach = false;
    b->health = v1::HEALTH_HUNG;
  });
  Connect(agent);
  agent->Beat();
  const auto info = registry_->FindByName("a");
  EXPECT_TRUE(info->session_open);
  EXPECT_FALSE(info->attached);
  EXPECT_EQ(info->health, v1::HEALTH_HUNG);
}

TEST_F(SessionManagerTest, TombstonesOfAMountRuleOverRowsAndUploads) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  const Uuid other = ids_.NextUuid();
  const Uuid open = ids_.NextUuid();
  ASSERT_OK(Start(other, open));
  ASSERT_TRUE(a->Write(open, 10, false));
  b->Lose();
  b->Behave([&](FakeAgent::Behaviour* behaviour) {
    for (const Uuid& id : {image_, other}) {
      storage::v1::Tombstone tombstone;
      tombstone.set_image_id(id.bytes());
      *tombstone.mutable_generation() = index_->synced_pair().ToProto();
      behaviour->extra_tombstones.push_back(tombstone);
    }
  });
  Connect(b);
  EXPECT_FALSE(lifecycle_->images().Get(image_).ok());
  EXPECT_EQ(StateOf(open), v1::UPLOAD_STATE_ABORTED);
  Tick();
  EXPECT_FALSE(a->Has(image_));
  EXPECT_FALSE(a->HasInflight(open));
}

TEST_F(SessionManagerTest, AnOlderTombstoneLeavesANewerImageAlone) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const Generation before = index_->synced_pair();
  Upload(a, image_, upload_);
  b->Lose();
  b->Behave([&](FakeAgent::Behaviour* behaviour) {
    storage::v1::Tombstone tombstone;
    tombstone.set_image_id(image_.bytes());
    *tombstone.mutable_generation() = before.ToProto();
    behaviour->extra_tombstones.push_back(tombstone);
  });
  Connect(b);
  Tick();
  EXPECT_OK(lifecycle_->images().Get(image_));
  EXPECT_TRUE(a->Has(image_));
}

TEST_F(SessionManagerTest, AMountThatKnowsMoreMakesItRecovering) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const auto old = kv_->Contents();
  Upload(a, image_, upload_);
  const Uuid doomed = ids_.NextUuid();
  Upload(a, doomed, ids_.NextUuid());
  RestartFrom(old);
  Connect(b);
  EXPECT_TRUE(registry_->FindByName("b")->trusted);
  Connect(a);
  EXPECT_TRUE(lifecycle_->trust().recovering());
  EXPECT_FALSE(registry_->FindByName("a")->trusted);
  EXPECT_FALSE(registry_->FindByName("b")->trusted) << "trust is withdrawn";
  EXPECT_TRUE(index_->GetRecovering()->has_value());
  const absl::Status status = lifecycle_->images().Get(image_).status();
  EXPECT_THAT(status, HasReason(reason::kRecovering));
  EXPECT_EQ(MetadataOf(status)["mounts"], "a, b");
  // It is a state of the index, not of the process.
  Restart();
  EXPECT_TRUE(lifecycle_->trust().recovering());
  EXPECT_TRUE(lifecycle_->cluster().Get().recovering());
}

// Seen by whom asks the coordinator, not only in the agent's log.
TEST_F(SessionManagerTest, AgentsThatAreRefusedAreNamed) {
  const auto check = [this](const std::string& code) {
    const v1::Cluster cluster = lifecycle_->cluster().Get();
    for (const v1::HealthCheck& one : cluster.checks()) {
      if (one.code() == code) {
        return one.detail();
      }
    }
    return std::string();
  };
  FakeAgent* const a = AddAgent("a");
  a->Behave([this](FakeAgent::Behaviour* b) {
    b->cluster_uid = ids_.NextUuid().bytes();
  });
  Connect(a);
  EXPECT_THAT(check("CLUSTER_MISMATCH"),
              AllOf(HasSubstr("host-of-a (/mnt/a)"), HasSubstr("belongs to")));
  a->Behave([](FakeAgent::Behaviour* b) {
    b->cluster_uid.clear();
    storage::v1::FenceEntry later;
    later.set_epoch(7);
    later.set_max_n(1);
    b->extra_known = {later};
  });
  Connect(a);
  EXPECT_EQ(check("CLUSTER_MISMATCH"), "");
  EXPECT_THAT(check("STALE_EPOCH"), HasSubstr("epoch 7"));
  EXPECT_FALSE(lifecycle_->trust().recovering())
      << "it could not end: the agents take nothing from this coordinator";
  a->Behave([](FakeAgent::Behaviour* b) {
    b->extra_known[0].set_epoch(1);
    b->extra_known[0].set_nonce(99);
  });
  Connect(a);
  EXPECT_THAT(check("STALE_EPOCH"), HasSubstr("epoch 1 of another start"));
  EXPECT_FALSE(lifecycle_->trust().recovering());
  a->Behave([](FakeAgent::Behaviour* b) { b->extra_known.clear(); });
  Connect(a);
  EXPECT_EQ(check("STALE_EPOCH"), "");
  // Not heard of for a while, it is somebody else's to miss.
  FakeAgent* const b = AddAgent("b");
  b->Behave([this](FakeAgent::Behaviour* behaviour) {
    behaviour->cluster_uid = ids_.NextUuid().bytes();
  });
  Connect(b);
  EXPECT_NE(check("CLUSTER_MISMATCH"), "");
  clock_.Advance(absl::Minutes(2));
  EXPECT_EQ(check("CLUSTER_MISMATCH"), "");
}

TEST_F(SessionManagerTest, AnUntrustedMountGetsNoRemovals) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  const Uuid later = ids_.NextUuid();
  Restart();  // epoch 2
  Connect(a);
  b->Behave([](FakeAgent::Behaviour* behaviour) {
    storage::v1::FenceEntry beyond;
    beyond.set_epoch(1);
    beyond.set_nonce(99);
    beyond.set_max_n(1);
    behaviour->extra_known.push_back(beyond);
    behaviour->refuse_listing = absl::UnavailableError("not yet");
  });
  Connect(b);
  ASSERT_TRUE(lifecycle_->trust().recovering());
  // Uploads go on, a delete is a tombstone that waits.
  Upload(a, later, ids_.NextUuid());
  EXPECT_OK(Delete(later));
  Tick();
  EXPECT_TRUE(a->Has(later));
  for (const control::v1::Command& command : a->commands()) {
    EXPECT_FALSE(command.has_remove());
  }
}

TEST_F(SessionManagerTest, ARemovalIsSentAgainInTheNextSession) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  Upload(a, image_, upload_);
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  ASSERT_OK(Delete(image_));
  EXPECT_TRUE(a->Has(image_));
  EXPECT_EQ(lifecycle_->reaper().PendingOn(a->uid()), 1);
  a->Lose();
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = false; });
  Connect(a);
  EXPECT_FALSE(a->Has(image_));
  EXPECT_EQ(lifecycle_->reaper().PendingOn(a->uid()), 0);
}

TEST_F(SessionManagerTest, TheRosterIsToldOnceAfterManyChanges) {
  FakeAgent* const a = AddConnected("a");
  for (const char* name : {"b", "c", "d"}) {
    AddConnected(name);
  }
  const auto rosters_of = [](FakeAgent* agent) {
    std::vector<int> sizes;
    for (const control::v1::Command& command : agent->commands()) {
      if (command.has_store_roster()) {
        sizes.push_back(command.store_roster().roster_size());
      }
    }
    return sizes;
  };
  const auto rosters = [&] { return rosters_of(a); };
  EXPECT_THAT(rosters(), ElementsAre());
  Tick();
  Tick();
  EXPECT_THAT(rosters(), ElementsAre(4));
  EXPECT_THAT(rosters_of(agents_[3].get()), ElementsAre())
      << "its Attach had it";
  v1::RetireMountRequest retire;
  retire.set_name("mounts/d");
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  Tick();
  Tick();
  EXPECT_THAT(rosters(), ElementsAre(4, 3));
}

TEST_F(SessionManagerTest, CommandNumbersRiseFromOneInEverySession) {
  FakeAgent* const a = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  ASSERT_OK(Start(ids_.NextUuid(), ids_.NextUuid()));
  int64_t last = 0;
  for (const control::v1::Command& command : a->commands()) {
    EXPECT_EQ(command.number(), ++last);
  }
  EXPECT_EQ(last, 2);
}

}  // namespace
}  // namespace predella::testing
