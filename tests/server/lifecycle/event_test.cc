// Events: what is written when something happens, and how it is read.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class EventTest : public LifecycleFixture {
 protected:
  std::vector<v1::Event> Events(const std::string& kind,
                                const std::string& mount = "") {
    v1::ListEventsRequest request;
    request.set_kind(kind);
    request.set_mount(mount);
    request.set_page_size(1000);
    const auto list = lifecycle_->events().List(request);
    EXPECT_OK(list.status());
    return list.ok() ? std::vector<v1::Event>(list->events().begin(),
                                              list->events().end())
                     : std::vector<v1::Event>();
  }
  static int64_t MicrosOf(const v1::Event& event) {
    return event.time().seconds() * 1'000'000 + event.time().nanos() / 1000;
  }
  // As the seconds go by, with a heartbeat of each.
  void Seconds(FakeAgent* agent, int count) {
    for (int i = 0; i < count; ++i) {
      clock_.Advance(absl::Seconds(1));
      agent->Beat();
      Tick();
    }
  }
};

TEST_F(EventTest, AHealthThatChangesIsWrittenOnceWithItsReason) {
  FakeAgent* const a = AddConnected("a");
  PutRow({a});
  PutRow({a});
  Seconds(a, 3);
  EXPECT_THAT(Events("mount_health_changed"), IsEmpty());
  EXPECT_THAT(Events("mount_registered").size(), 1);
  Say(a, v1::HEALTH_FAILED, "EIO");
  const int64_t commits = kv_->commits();
  Seconds(a, 5);
  EXPECT_EQ(kv_->commits(), commits + 2)
      << "the event, and that a scrub is needed; heartbeats write nothing";
  const std::vector<v1::Event> events = Events("mount_health_changed");
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].mount(), "mounts/a");
  EXPECT_THAT(events[0].detail(), HasSubstr("ONLINE -> FAILED"));
  EXPECT_EQ(events[0].error(), "EIO");
  EXPECT_EQ(events[0].affected_image_count(), 2);
  v1::GetMountRequest get;
  get.set_name("a");
  ASSERT_OK_AND_ASSIGN(const v1::Mount mount, lifecycle_->mounts().Get(get));
  EXPECT_EQ(mount.health_error(), "EIO");
  EXPECT_GT(mount.health_time().seconds(), 0);
  a->Lose();
  clock_.Advance(absl::Seconds(16));
  Tick();
  const std::vector<v1::Event> silent = Events("mount_health_changed");
  ASSERT_EQ(silent.size(), 2u);
  EXPECT_THAT(silent[0].detail(), HasSubstr("FAILED -> UNREACHABLE: its agent "
                                            "has been silent for"));
  EXPECT_EQ(silent[0].error(), "");
}

TEST_F(EventTest, ARestartIsNoNewsButWhatChangedMeanwhileIs) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Say(a, v1::HEALTH_HUNG);
  Tick();
  Restart();
  Connect(a);
  Connect(b);
  Tick();
  EXPECT_EQ(Events("mount_health_changed").size(), 1u)
      << "HUNG as before, ONLINE as before";
  Restart();
  Say(a, v1::HEALTH_ONLINE);
  Connect(a);
  Tick();
  const std::vector<v1::Event> events = Events("mount_health_changed");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_THAT(events[0].detail(), HasSubstr("HUNG -> ONLINE"));
}

TEST_F(EventTest, AMountThatFlapsDoesNotFillTheLog) {
  FakeAgent* const a = AddConnected("a");
  for (int i = 0; i < 150; ++i) {
    Say(a, i % 2 == 0 ? v1::HEALTH_HUNG : v1::HEALTH_ONLINE);
    Seconds(a, 1);
  }
  const size_t events = Events("mount_health_changed").size();
  EXPECT_GE(events, 10u);
  EXPECT_LE(events, 14u) << "ten at once, and there and back once a minute";
}

// While it flaps a real failure comes: it is written soon, with its own time,
// and so is each state that it went through, with its errno.
TEST_F(EventTest, AFailureWhileAMountFlapsIsWrittenAsItWas) {
  FakeAgent* const a = AddConnected("a");
  for (int i = 0; i < 20; ++i) {
    Say(a, i % 2 == 0 ? v1::HEALTH_HUNG : v1::HEALTH_ONLINE);
    Seconds(a, 1);
  }
  const size_t before = Events("mount_health_changed").size();
  EXPECT_EQ(before, 10u);
  const auto now = [this] { return clock_.NowMicros(); };
  const int64_t suspect = now();
  Say(a, v1::HEALTH_SUSPECT, "EIO");
  Seconds(a, 2);
  const int64_t failed = now();
  Say(a, v1::HEALTH_FAILED, "EIO");
  Seconds(a, 2);
  Say(a, v1::HEALTH_ONLINE);
  Seconds(a, 2);
  const int64_t stale = now();
  Say(a, v1::HEALTH_SUSPECT, "ESTALE");
  Seconds(a, 1);
  const int64_t absent = now();
  Say(a, v1::HEALTH_ABSENT);
  Seconds(a, 9);
  EXPECT_EQ(Events("mount_health_changed").size(), before) << "it still flaps";
  Seconds(a, 3);
  std::vector<v1::Event> events = Events("mount_health_changed");
  ASSERT_EQ(events.size(), before + 6) << "it has been so for 10 s";
  events.resize(6);
  std::reverse(events.begin(), events.end());
  EXPECT_THAT(events[0].detail(), HasSubstr("ONLINE -> HUNG"));
  EXPECT_THAT(events[1].detail(),
              AllOf(HasSubstr("ONLINE -> SUSPECT"),
                    HasSubstr("9 changes before it are not written")));
  EXPECT_EQ(events[1].error(), "EIO");
  EXPECT_EQ(MicrosOf(events[1]), suspect);
  EXPECT_THAT(events[2].detail(), HasSubstr("SUSPECT -> FAILED"));
  EXPECT_EQ(events[2].error(), "EIO");
  EXPECT_EQ(MicrosOf(events[2]), failed);
  EXPECT_THAT(events[3].detail(), HasSubstr("FAILED -> SUSPECT"))
      << "its agent says ONLINE; it is to be scrubbed";
  EXPECT_THAT(events[4].detail(), HasSubstr("SUSPECT -> SUSPECT"))
      << "and it failed anew";
  EXPECT_EQ(events[4].error(), "ESTALE");
  EXPECT_EQ(MicrosOf(events[4]), stale);
  EXPECT_THAT(events[5].detail(), HasSubstr("SUSPECT -> ABSENT"));
  EXPECT_EQ(MicrosOf(events[5]), absent);
}

TEST_F(EventTest, AStateBetweenTwoLooksIsWritten) {
  FakeAgent* const a = AddConnected("a");
  Seconds(a, 1);
  const int64_t absent = clock_.NowMicros();
  Say(a, v1::HEALTH_ABSENT, "ESTALE");
  clock_.Advance(absl::Milliseconds(300));
  Say(a, v1::HEALTH_ONLINE);
  clock_.Advance(absl::Milliseconds(300));
  Tick();
  const std::vector<v1::Event> events = Events("mount_health_changed");
  ASSERT_EQ(events.size(), 2u);
  EXPECT_THAT(events[1].detail(), HasSubstr("ONLINE -> ABSENT"));
  EXPECT_EQ(events[1].error(), "ESTALE");
  EXPECT_EQ(MicrosOf(events[1]), absent);
  EXPECT_THAT(events[0].detail(), HasSubstr("ABSENT -> ONLINE"));
  EXPECT_EQ(MicrosOf(events[0]), absent + 300'000);
}

// Eight incidents in four minutes, as somebody who tests it would make them.
TEST_F(EventTest, IncidentsThatComeOneByOneAreWrittenAtOnce) {
  FakeAgent* const a = AddConnected("a");
  for (int i = 0; i < 8; ++i) {
    Say(a, v1::HEALTH_SUSPECT, "EIO");
    Seconds(a, 5);
    Say(a, v1::HEALTH_FAILED, "EIO");
    const int64_t failed = clock_.NowMicros();
    Seconds(a, 1);
    const std::vector<v1::Event> events = Events("mount_health_changed");
    ASSERT_EQ(events.size(), static_cast<size_t>(3 * i + 2));
    EXPECT_THAT(events[0].detail(), HasSubstr("SUSPECT -> FAILED"));
    EXPECT_EQ(MicrosOf(events[0]), failed);
    Seconds(a, 9);
    Say(a, v1::HEALTH_ABSENT);
    Seconds(a, 15);
    EXPECT_THAT(Events("mount_health_changed")[0].detail(),
                HasSubstr("FAILED -> ABSENT"));
  }
}

TEST_F(EventTest, WhatCannotBeWrittenIsWrittenLater) {
  FakeAgent* const a = AddConnected("a");
  Say(a, v1::HEALTH_ABSENT);
  const int64_t absent = clock_.NowMicros();
  a->Behave([](FakeAgent::Behaviour* b) {
    b->available_bytes = b->size_bytes / 20;  // NEAR
  });
  a->Beat();
  kv_->FailCommit(1, server::MemKvStore::Fault::kBeforeApplying, true);
  Tick();
  Seconds(a, 3);
  Say(a, v1::HEALTH_FAILED, "EIO");
  Seconds(a, 3);
  Say(a, v1::HEALTH_ABSENT);
  Seconds(a, 3);
  EXPECT_THAT(Events("mount_health_changed"), IsEmpty());
  kv_->ClearFaults();
  Seconds(a, 1);
  const std::vector<v1::Event> events = Events("mount_health_changed");
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(MicrosOf(events[2]), absent);
  EXPECT_THAT(events[1].detail(), HasSubstr("ABSENT -> FAILED"));
  EXPECT_EQ(events[1].error(), "EIO");
  EXPECT_EQ(MicrosOf(events[1]), absent + 3'000'000);
  EXPECT_THAT(events[0].detail(), HasSubstr("FAILED -> ABSENT"));
  EXPECT_EQ(MicrosOf(events[0]), absent + 6'000'000);
  const std::vector<v1::Event> fullness = Events("mount_fullness_changed");
  ASSERT_EQ(fullness.size(), 1u);
  EXPECT_EQ(MicrosOf(fullness[0]), absent);
}

TEST_F(EventTest, ARefusedIdentityIsWrittenOnce) {
  FakeAgent* const a = AddConnected("a");
  a->Lose();
  FakeAgent* const other = AddAgent("a");
  for (int i = 0; i < 5; ++i) {
    Connect(other);  // as it dials again and again
    clock_.Advance(absl::Seconds(2));
    Tick();
  }
  const std::vector<v1::Event> events = Events("mount_identity_refused", "a");
  ASSERT_EQ(events.size(), 1u);
  EXPECT_THAT(events[0].detail(), HasSubstr(other->uid().ToString()));
  clock_.Advance(absl::Minutes(5));
  Tick();
  Connect(other);
  Tick();
  EXPECT_EQ(Events("mount_identity_refused", "a").size(), 2u)
      << "it was gone, and came again";
}

TEST_F(EventTest, FullnessFaultsAndTheEndOfMaintenanceAreWritten) {
  FakeAgent* const a = AddConnected("a");
  Seconds(a, 1);
  a->Behave(
      [](FakeAgent::Behaviour* b) { b->available_bytes = b->size_bytes / 20; });
  Seconds(a, 2);
  const std::vector<v1::Event> fullness = Events("mount_fullness_changed");
  ASSERT_EQ(fullness.size(), 1u);
  EXPECT_THAT(fullness[0].detail(),
              AllOf(HasSubstr("OK -> NEAR"), HasSubstr("% in use")));
  PutFault(PutRow({a}), a, storage::v1::COPY_FAULT_MISSING);
  Seconds(a, 2);
  const std::vector<v1::Event> faults = Events("copy_faults_changed");
  ASSERT_EQ(faults.size(), 1u);
  EXPECT_THAT(faults[0].detail(),
              HasSubstr("1 copies are missing and 0 damaged"));
  v1::MaintainMountRequest maintain;
  maintain.set_name("a");
  maintain.set_reason("new cable");
  maintain.mutable_until_time()->set_seconds(clock_.NowMicros() / 1'000'000 +
                                             10);
  ASSERT_OK(lifecycle_->mounts().Maintain(maintain));
  Seconds(a, 5);
  EXPECT_THAT(Events("mount_maintenance_ended"), IsEmpty());
  Seconds(a, 10);
  const std::vector<v1::Event> ended = Events("mount_maintenance_ended");
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_THAT(ended[0].detail(), HasSubstr("new cable"));
  EXPECT_EQ(registry_->FindByName("a")->row.admin_state(),
            storage::v1::ADMIN_STATE_ACTIVE);
}

TEST_F(EventTest, ListsAreNewestFirstInPagesAndFiltered) {
  AddConnected("a", 1);
  AddConnected("b", 2);
  for (int i = 0; i < 4; ++i) {
    v1::CordonMountRequest cordon;
    cordon.set_name(i % 2 == 0 ? "a" : "b");
    cordon.set_reason(absl::StrCat("number ", i));
    ASSERT_OK(lifecycle_->mounts().Cordon(cordon));
  }
  v1::ListEventsRequest request;
  request.set_kind("mount_cordoned");
  request.set_page_size(3);
  std::vector<std::string> details;
  do {
    ASSERT_OK_AND_ASSIGN(const v1::ListEventsResponse page,
                         lifecycle_->events().List(request));
    for (const v1::Event& event : page.events()) {
      details.push_back(event.detail());
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(details,
              ElementsAre("number 3", "number 2", "number 1", "number 0"));
  EXPECT_EQ(Events("mount_cordoned", "mounts/b").size(), 2u);
  EXPECT_EQ(Events("", "b").size(), 3u) << "and its registration";
  request.set_page_token("nonsense");
  EXPECT_THAT(lifecycle_->events().List(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(EventTest, WhoeverComesBackMissesNone) {
  AddConnected("a");
  ASSERT_OK_AND_ASSIGN(const std::string start, lifecycle_->events().Newest());
  EXPECT_THAT(*lifecycle_->events().After(start, 10), IsEmpty());
  for (int i = 0; i < 5; ++i) {
    v1::CordonMountRequest cordon;
    cordon.set_name("a");
    cordon.set_reason(absl::StrCat(i));
    ASSERT_OK(lifecycle_->mounts().Cordon(cordon));
  }
  std::vector<std::string> details;
  std::string last = start;
  while (true) {
    ASSERT_OK_AND_ASSIGN(const std::vector<v1::Event> events,
                         lifecycle_->events().After(last, 2));
    if (events.empty()) {
      break;
    }
    for (const v1::Event& event : events) {
      EXPECT_LT(last, event.id());
      last = event.id();
      details.push_back(event.detail());
    }
    if (details.size() == 4) {
      Restart();  // ids outlive the coordinator
    }
  }
  EXPECT_THAT(details, ElementsAre("0", "1", "2", "3", "4"));
  EXPECT_THAT(lifecycle_->events().After("xyz", 1),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(EventTest, FollowersAreWokenAndCounted) {
  int woken = 0;
  ASSERT_OK_AND_ASSIGN(const int64_t one,
                       lifecycle_->events().Follow([&] { ++woken; }));
  Tick();
  EXPECT_EQ(woken, 1);
  lifecycle_->events().Unfollow(one);
  Tick();
  EXPECT_EQ(woken, 1);
  for (size_t i = 0; i < server::EventLog::kMostFollowers; ++i) {
    EXPECT_OK(lifecycle_->events().Follow([] {}));
  }
  EXPECT_THAT(lifecycle_->events().Follow([] {}),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace predella::testing
