// What an agent's circuit breaker holds, as the coordinator shows it and has
// it discarded.
#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/collect_garbage.h"
#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class HeldGarbageTest : public LifecycleFixture {
 protected:
  static void Hold(FakeAgent* agent, int64_t uploads) {
    agent->Behave([&](FakeAgent::Behaviour* b) {
      b->held.reset();
      if (uploads > 0) {
        b->held.emplace();
        b->held->set_uploads(uploads);
        b->held->set_bytes(uploads << 20);
      }
    });
    agent->Beat();
  }
  v1::Mount Get(const std::string& name) {
    v1::GetMountRequest request;
    request.set_name(name);
    const auto mount = lifecycle_->mounts().Get(request);
    EXPECT_OK(mount.status());
    return mount.ok() ? *mount : v1::Mount();
  }
  absl::StatusOr<v1::Mount> Collect(int64_t uploads, bool validate = false) {
    v1::CollectGarbageRequest request;
    request.set_name("mounts/a");
    request.set_accept_upload_count(uploads);
    request.set_validate_only(validate);
    return lifecycle_->mounts().CollectGarbage(request);
  }
  // Sent to the agent so far.
  static int64_t Sent(FakeAgent* agent) {
    const std::vector<control::v1::Command> all = agent->commands();
    return std::count_if(all.begin(), all.end(),
                         [](const control::v1::Command& command) {
                           return command.has_collect_garbage();
                         });
  }
  // Newest first.
  std::vector<v1::Event> Events(const std::string& kind) {
    v1::ListEventsRequest request;
    request.set_kind(kind);
    const auto list = lifecycle_->events().List(request);
    EXPECT_OK(list.status());
    return {list->events().begin(), list->events().end()};
  }
  void Seconds(FakeAgent* agent, int count) {
    for (int i = 0; i < count; ++i) {
      clock_.Advance(absl::Seconds(1));
      agent->Beat();
      Tick();
    }
  }
};

TEST_F(HeldGarbageTest, TheMountAndTheClusterShowIt) {
  FakeAgent* const a = AddConnected("a");
  AddConnected("b");
  EXPECT_THAT(lifecycle_->cluster().Get().checks(), IsEmpty());
  Hold(a, 150);
  EXPECT_EQ(Get("a").held_upload_count(), 150);
  EXPECT_EQ(Get("a").held_upload_bytes(), 150 << 20);
  EXPECT_EQ(Get("b").held_upload_count(), 0);
  const v1::Cluster cluster = lifecycle_->cluster().Get();
  EXPECT_EQ(cluster.health(), v1::CLUSTER_HEALTH_WARNING);
  ASSERT_EQ(cluster.checks_size(), 1);
  const v1::HealthCheck& check = cluster.checks(0);
  EXPECT_EQ(check.code(), "GARBAGE_HELD");
  EXPECT_EQ(check.mount(), "mounts/a");
  EXPECT_THAT(check.detail(), HasSubstr("150 uploads with 150 MiB"));
  EXPECT_THAT(check.next_step(), HasSubstr("predella mount collect-garbage a"));
  // An agent that is away holds it all the same.
  a->Lose();
  Settle();
  EXPECT_EQ(Get("a").held_upload_count(), 150);
  Connect(a);
  Hold(a, 0);
  EXPECT_EQ(Get("a").held_upload_count(), 0);
  EXPECT_THAT(lifecycle_->cluster().Get().checks(), IsEmpty());
}

TEST_F(HeldGarbageTest, TheBeginningAndTheEndAreWrittenOnceTheyStand) {
  FakeAgent* const a = AddConnected("a");
  Hold(a, 20);
  Seconds(a, 9);
  EXPECT_THAT(Events("garbage_held"), IsEmpty());
  // Removals by command were on their way.
  Hold(a, 0);
  Seconds(a, 30);
  EXPECT_THAT(Events("garbage_held"), IsEmpty());
  Hold(a, 20);
  Seconds(a, 30);
  ASSERT_EQ(Events("garbage_held").size(), 1u);
  EXPECT_EQ(Events("garbage_held")[0].mount(), "mounts/a");
  EXPECT_THAT(
      Events("garbage_held")[0].detail(),
      HasSubstr("20 uploads that the index does not call open, 20 MiB"));
  // The agent starts again, and has looked after a few seconds.
  a->Lose();
  Settle();
  Hold(a, 0);
  Connect(a);
  Seconds(a, 5);
  Hold(a, 20);
  Seconds(a, 30);
  EXPECT_EQ(Events("garbage_held").size(), 1u);
  EXPECT_THAT(Events("garbage_released"), IsEmpty());
  Hold(a, 0);
  Seconds(a, 30);
  EXPECT_EQ(Events("garbage_held").size(), 1u);
  EXPECT_EQ(Events("garbage_released").size(), 1u);
}

TEST_F(HeldGarbageTest, AStartOfTheCoordinatorIsNoNews) {
  FakeAgent* const a = AddConnected("a");
  Hold(a, 20);
  Seconds(a, 11);
  ASSERT_EQ(Events("garbage_held").size(), 1u);
  Restart();
  for (int i = 0; i < 30; ++i) {
    clock_.Advance(absl::Seconds(1));
    Tick();
  }
  EXPECT_THAT(Events("garbage_released"), IsEmpty()) << "nobody has said so";
  Connect(a);
  Seconds(a, 30);
  EXPECT_EQ(Events("garbage_held").size(), 1u);
  EXPECT_THAT(Events("garbage_released"), IsEmpty());
}

TEST_F(HeldGarbageTest, AnAgentThatHasNotLookedTakesNothingBack) {
  FakeAgent* const a = AddConnected("a");
  Hold(a, 20);
  a->Lose();
  Settle();
  a->Behave([](FakeAgent::Behaviour* b) { b->held.reset(); });
  Connect(a);
  registry_->SetTrusted(a->uid(), false);
  a->Beat();
  EXPECT_EQ(Get("a").held_upload_count(), 20);
  registry_->SetTrusted(a->uid(), true);
  a->Beat();
  EXPECT_EQ(Get("a").held_upload_count(), 0);
}

TEST_F(HeldGarbageTest, ItIsCollectedByItsExactNumber) {
  FakeAgent* const a = AddConnected("a");
  Hold(a, 20);
  ASSERT_OK_AND_ASSIGN(v1::Mount mount, Collect(0, /*validate=*/true));
  EXPECT_EQ(mount.held_upload_count(), 20);
  for (const int64_t wrong : {-1, 0, 19, 21}) {
    const absl::Status refused = Collect(wrong).status();
    EXPECT_THAT(refused, HasReason(reason::kGarbageChanged));
    EXPECT_EQ(MetadataOf(refused)["upload_count"], "20");
    EXPECT_EQ(MetadataOf(refused)["upload_bytes"], "20971520");
  }
  EXPECT_EQ(Sent(a), 0);
  ASSERT_OK_AND_ASSIGN(mount, Collect(20));
  EXPECT_EQ(mount.held_upload_count(), 0) << "as it is by now";
  EXPECT_EQ(Sent(a), 1);
  ASSERT_EQ(Events("garbage_collected").size(), 1u);
  EXPECT_THAT(Events("garbage_collected")[0].detail(),
              HasSubstr("20 ended uploads discarded, 20 MiB"));
  // Asked twice: there is nothing left to do.
  EXPECT_THAT(Collect(20), HasReason(reason::kGarbageChanged));
  EXPECT_OK(Collect(0).status());
  EXPECT_EQ(Sent(a), 1);
  EXPECT_EQ(Events("garbage_collected").size(), 1u);
}

TEST_F(HeldGarbageTest, TheAgentHasTheLastWord) {
  FakeAgent* const a = AddConnected("a");
  Hold(a, 20);
  a->Behave([](FakeAgent::Behaviour* b) { b->held->set_uploads(21); });
  const absl::Status refused = Collect(20).status();
  EXPECT_THAT(refused, HasReason(reason::kGarbageChanged));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("mounts/a"));
  EXPECT_THAT(Events("garbage_collected"), IsEmpty());
  EXPECT_EQ(Get("a").held_upload_count(), 21);
}

TEST_F(HeldGarbageTest, WhoCanNotDiscardIsNotAsked) {
  FakeAgent* const a = AddConnected("a");
  Hold(a, 20);
  a->Lose();
  Settle();
  EXPECT_THAT(Collect(20), HasReason(reason::kAgentUnreachable));
  a->Behave([](FakeAgent::Behaviour* b) { b->capabilities.clear(); });
  Connect(a);
  for (const bool validate : {true, false}) {
    const absl::Status old = Collect(20, validate).status();
    EXPECT_THAT(old, StatusIs(absl::StatusCode::kFailedPrecondition,
                              HasSubstr("too old")));
  }
  registry_->SetTrusted(a->uid(), false);
  EXPECT_THAT(Collect(20), StatusIs(absl::StatusCode::kFailedPrecondition,
                                    HasSubstr("not trusted")));
  v1::RetireMountRequest retire;
  retire.set_name("a");
  ASSERT_OK(lifecycle_->mounts().Retire(retire).status());
  EXPECT_THAT(Collect(20), HasReason(reason::kMountRetired));
  v1::CollectGarbageRequest unknown;
  unknown.set_name("none");
  EXPECT_THAT(lifecycle_->mounts().CollectGarbage(unknown),
              HasReason(reason::kMountNotFound));
  EXPECT_EQ(Sent(a), 0);
}

// Without a registration: the agent was told that its mount is not trusted.
TEST_F(HeldGarbageTest, TheEndOfRecoveringHasItJudged) {
  FakeAgent* const a = AddConnected("a");
  const auto old = kv_->Contents();
  Upload(a, ids_.NextUuid(), ids_.NextUuid());
  RestartFrom(old);
  Connect(a);
  ASSERT_TRUE(lifecycle_->trust().recovering());
  ASSERT_FALSE(a->attach()->may_collect());
  const Uuid open = ids_.NextUuid();
  ASSERT_OK(Start(ids_.NextUuid(), open).status());
  EXPECT_EQ(Sent(a), 0);
  for (int i = 0; i < 3; ++i) {
    Tick();
  }
  ASSERT_FALSE(lifecycle_->trust().recovering());
  ASSERT_EQ(Sent(a), 1) << "and not at every tick";
  for (const control::v1::Command& command : a->commands()) {
    if (command.has_collect_garbage()) {
      EXPECT_TRUE(command.collect_garbage().judge());
      EXPECT_THAT(command.collect_garbage().open_upload_ids(),
                  ::testing::ElementsAre(open.bytes()));
    }
  }
  // One that registers from now on is told by that.
  FakeAgent* const b = AddConnected("b");
  EXPECT_TRUE(b->attach()->may_collect());
  Tick();
  EXPECT_EQ(Sent(b), 0);
}

}  // namespace
}  // namespace predella::testing
