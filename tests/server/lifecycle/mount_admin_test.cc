#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class MountAdminTest : public LifecycleFixture {
 protected:
  std::vector<std::string> Checks() {
    std::vector<std::string> codes;
    const v1::Cluster cluster = lifecycle_->cluster().Get();
    for (const v1::HealthCheck& check : cluster.checks()) {
      EXPECT_FALSE(check.detail().empty());
      EXPECT_FALSE(check.next_step().empty());
      codes.push_back(check.code());
    }
    return codes;
  }
};

TEST_F(MountAdminTest, TheReasonIsShownAndHasALimit) {
  AddConnected("a");
  v1::CordonMountRequest cordon;
  cordon.set_name("a");
  cordon.set_reason("new disk on Friday");
  ASSERT_OK_AND_ASSIGN(const v1::Mount mount,
                       lifecycle_->mounts().Cordon(cordon));
  EXPECT_EQ(mount.admin_reason(), "new disk on Friday");
  cordon.set_reason(std::string(1025, 'x'));
  EXPECT_THAT(
      lifecycle_->mounts().Cordon(cordon),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1025 bytes")));
}

TEST_F(MountAdminTest, CordonKeepsImagesAwayAndUncordonTakesItBack) {
  AddConnected("a", 1);
  AddConnected("b", 2);
  v1::CordonMountRequest cordon;
  cordon.set_name("mounts/a");
  cordon.set_reason("new disk");
  cordon.set_validate_only(true);
  ASSERT_OK_AND_ASSIGN(v1::Mount mount, lifecycle_->mounts().Cordon(cordon));
  EXPECT_EQ(Start(ids_.NextUuid(), ids_.NextUuid())->target().mount(),
            "mounts/a");
  cordon.set_validate_only(false);
  ASSERT_OK_AND_ASSIGN(mount, lifecycle_->mounts().Cordon(cordon));
  EXPECT_EQ(mount.admin_state(), v1::ADMIN_STATE_CORDONED);
  EXPECT_EQ(Start(ids_.NextUuid(), ids_.NextUuid())->target().mount(),
            "mounts/b");
  Restart();
  EXPECT_EQ(registry_->FindByName("a")->row.admin_state(),
            storage::v1::ADMIN_STATE_CORDONED);
  v1::UncordonMountRequest uncordon;
  uncordon.set_name("mounts/a");
  ASSERT_OK_AND_ASSIGN(mount, lifecycle_->mounts().Uncordon(uncordon));
  EXPECT_EQ(mount.admin_state(), v1::ADMIN_STATE_ACTIVE);
}

TEST_F(MountAdminTest, WhatEndsAMaintenanceSaysSo) {
  AddConnected("a");
  v1::MaintainMountRequest maintain;
  maintain.set_name("a");
  maintain.set_reason("new cable");
  maintain.mutable_until_time()->set_seconds(4'000'000'000);
  v1::CordonMountRequest cordon;
  cordon.set_name("a");
  cordon.set_reason("bad disk");
  v1::UncordonMountRequest uncordon;
  uncordon.set_name("a");
  const auto detail = [this](const std::string& kind) {
    v1::ListEventsRequest request;
    request.set_kind(kind);
    const auto events = lifecycle_->events().List(request);
    return events.ok() && events->events_size() > 0 ? events->events(0).detail()
                                                    : std::string("no event");
  };
  ASSERT_OK(lifecycle_->mounts().Cordon(cordon));
  EXPECT_EQ(detail("mount_cordoned"), "bad disk");
  ASSERT_OK(lifecycle_->mounts().Uncordon(uncordon));
  EXPECT_EQ(detail("mount_uncordoned"), "");
  ASSERT_OK(lifecycle_->mounts().Maintain(maintain));
  ASSERT_OK(lifecycle_->mounts().Cordon(cordon));
  EXPECT_EQ(detail("mount_cordoned"),
            "bad disk; this ended its maintenance, which was to last until "
            "2096-10-02T07:06:40Z: new cable");
  ASSERT_OK(lifecycle_->mounts().Maintain(maintain));
  ASSERT_OK(lifecycle_->mounts().Uncordon(uncordon));
  EXPECT_THAT(
      detail("mount_uncordoned"),
      AllOf(HasSubstr("this ended its maintenance"), HasSubstr("new cable")));
}

TEST_F(MountAdminTest, DegradedImagesOfAnExcusedMountAreNamed) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  PutRow({a}, 1000);
  v1::MaintainMountRequest maintain;
  maintain.set_name("a");
  maintain.set_reason("new cable");
  maintain.mutable_until_time()->set_seconds(absl::ToUnixSeconds(clock_.Now()) +
                                             3600);
  ASSERT_OK(lifecycle_->mounts().Maintain(maintain));
  EXPECT_THAT(Checks(), IsEmpty()) << "its image can be read";
  a->Lose();
  clock_.Advance(absl::Seconds(16));
  b->Beat();
  const v1::Cluster cluster = lifecycle_->cluster().Get();
  EXPECT_THAT(Checks(), ElementsAre("MOUNT_EXCUSED"));
  EXPECT_EQ(cluster.health(), v1::CLUSTER_HEALTH_WARNING);
  ASSERT_EQ(cluster.checks_size(), 1);
  EXPECT_EQ(cluster.checks(0).mount(), "mounts/a");
  EXPECT_EQ(cluster.checks(0).affected_image_count(), 1);
  EXPECT_THAT(cluster.checks(0).detail(),
              AllOf(HasSubstr("UNREACHABLE"), HasSubstr("new cable"),
                    HasSubstr("1 images with 1000 B lie there and are "
                              "DEGRADED")));
  // What is wrong with a single copy is no matter of the mount's excuse.
  PutFault(PutRow({a}), a, storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_THAT(Checks(), ElementsAre("MOUNT_EXCUSED", "COPIES_DAMAGED"));
}

TEST_F(MountAdminTest, MaintenanceNeedsAnEndInTheFuture) {
  AddConnected("a");
  v1::MaintainMountRequest maintain;
  maintain.set_name("mounts/a");
  EXPECT_THAT(lifecycle_->mounts().Maintain(maintain),
              StatusIs(absl::StatusCode::kInvalidArgument));
  maintain.mutable_until_time()->set_seconds(1);
  EXPECT_THAT(lifecycle_->mounts().Maintain(maintain),
              StatusIs(absl::StatusCode::kInvalidArgument));
  maintain.set_name("mounts/none");
  maintain.mutable_until_time()->set_seconds(4'000'000'000);
  EXPECT_THAT(lifecycle_->mounts().Maintain(maintain),
              HasReason(reason::kMountNotFound));
}

TEST_F(MountAdminTest, AnExcuseEndsBeforeTheYear10000) {
  AddConnected("a", 1);
  v1::MaintainMountRequest maintain;
  maintain.set_name("mounts/a");
  for (const int64_t seconds :
       {int64_t{253'402'300'800}, int64_t{10'000'000'000'000}}) {
    maintain.mutable_until_time()->set_seconds(seconds);
    const auto refused = lifecycle_->mounts().Maintain(maintain);
    EXPECT_THAT(refused, StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(std::string(refused.status().message()),
                AllOf(HasSubstr(absl::StrCat(seconds)), HasSubstr("9999")));
  }
  maintain.mutable_until_time()->set_seconds(253'402'300'799);
  ASSERT_OK(lifecycle_->mounts().Maintain(maintain));
}

// Its agent is let go: what was given up is not read, and not removed.
TEST_F(MountAdminTest, ARetiredMountIsLetGo) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  const Uuid image = ids_.NextUuid();
  Upload(a, image, ids_.NextUuid());
  EXPECT_FALSE(
      lifecycle_->images().Get(image)->copies(0).read_capability().empty());
  v1::RetireMountRequest retire;
  retire.set_name("mounts/a");
  AcceptLoss(&retire);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  // At once, whether or not its session has ended.
  const auto lost = lifecycle_->images().Get(image);
  ASSERT_OK(lost);
  EXPECT_EQ(lost->health(), v1::IMAGE_HEALTH_LOST);
  EXPECT_TRUE(lost->copies(0).read_capability().empty());
  EXPECT_TRUE(lost->copies(0).addresses().empty());
  ASSERT_OK(Delete(image));
  Settle();
  Tick();
  EXPECT_TRUE(a->Has(image)) << "it was removed from a disk that was given up";
  EXPECT_THAT(a->closed(), HasReason(reason::kMountRetired));
  EXPECT_EQ(lifecycle_->reaper().PendingOn(a->uid()), 0);
  Connect(a);
  EXPECT_FALSE(registry_->FindByName("a")->attached);
}

TEST_F(MountAdminTest, RetireNeedsTheNumberOfWhatIsLost) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const Uuid image = ids_.NextUuid();
  const Uuid deleted = ids_.NextUuid();
  Upload(a, image, ids_.NextUuid());
  Upload(a, deleted, ids_.NextUuid());
  a->Lose();
  ASSERT_OK(Delete(deleted));
  EXPECT_EQ(lifecycle_->reaper().PendingOn(a->uid()), 1);
  v1::RetireMountRequest retire;
  retire.set_name("mounts/a");
  const auto refused = lifecycle_->mounts().Retire(retire);
  EXPECT_THAT(refused, HasReason(reason::kMountNotEmpty));
  EXPECT_EQ(MetadataOf(refused.status())["image_count"], "1");
  AcceptLoss(&retire);
  EXPECT_EQ(retire.accept_lost_image_count(), 1);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  Settle();
  EXPECT_EQ(lifecycle_->images().Get(image)->health(), v1::IMAGE_HEALTH_LOST);
  EXPECT_EQ(lifecycle_->reaper().PendingOn(a->uid()), 0)
      << "a retired mount settles what waited for it";
  EXPECT_THAT(Checks(), Contains("IMAGES_LOST"));
  v1::UncordonMountRequest uncordon;
  uncordon.set_name("mounts/a");
  EXPECT_THAT(lifecycle_->mounts().Uncordon(uncordon),
              AllOf(StatusIs(absl::StatusCode::kFailedPrecondition),
                    HasReason(reason::kMountRetired)));
  Connect(a);
  EXPECT_THAT(a->closed(), HasReason(reason::kMountRetired));
  EXPECT_THAT(Checks(), Contains("MOUNT_RETIRED"));
  EXPECT_OK(b->closed());
  // Another directory under its name is no agent of it.
  FakeAgent* const other = AddConnected("a", 1);
  EXPECT_THAT(other->closed(), HasReason(reason::kMountIdentityMismatch));
}

TEST_F(MountAdminTest, NothingIsAcknowledgedOnAMountThatWasRetired) {
  FakeAgent* const a = AddConnected("a", 1);
  const Uuid image = ids_.NextUuid();
  const Uuid upload = ids_.NextUuid();
  ASSERT_OK(Start(image, upload));
  v1::RetireMountRequest retire;
  retire.set_name("mounts/a");
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  a->Publish(upload);  // unless its removal has come before that
  Settle();
  EXPECT_EQ(StateOf(upload), v1::UPLOAD_STATE_ABORTED);
  EXPECT_FALSE(lifecycle_->images().Get(image).ok());
  Tick();
  EXPECT_FALSE(a->Has(image)) << "an agent that is there is told to remove it";
  EXPECT_EQ(lifecycle_->reaper().PendingOn(a->uid()), 0);
}

// The count that an operator accepts holds until the mount is retired.
TEST_F(MountAdminTest, NoImageComesBetweenTheCountAndTheRetirement) {
  FakeAgent* const a = AddConnected("a", 1);
  const Uuid image = ids_.NextUuid();
  const Uuid upload = ids_.NextUuid();
  ASSERT_OK(Start(image, upload));
  ASSERT_TRUE(a->Write(upload, 10, false));
  kv_->BeforeNextCommit([&] {
    const int64_t before = kv_->commits();
    ASSERT_TRUE(a->Publish(upload));
    // Time for the publish to be committed, which must not happen.
    server::Notifier never(&clock_);
    for (int i = 0; i < 20 && kv_->commits() == before; ++i) {
      never.WaitPast(never.version(), absl::Milliseconds(5));
    }
  });
  v1::RetireMountRequest retire;
  retire.set_name("mounts/a");
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  Settle();
  EXPECT_EQ(StateOf(upload), v1::UPLOAD_STATE_ABORTED);
  EXPECT_FALSE(index_->GetImage(image)->has_value());
}

// Nobody will answer for it any more, and its image must not stay unsure.
TEST_F(MountAdminTest, RetiringEndsTheOpenUploadsOfAnEarlierStart) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  const Uuid image = ids_.NextUuid();
  const Uuid upload = ids_.NextUuid();
  ASSERT_OK(Start(image, upload));
  a->Lose();
  b->Lose();
  Restart();
  Connect(b);
  EXPECT_FALSE(absl::IsNotFound(lifecycle_->images().Get(image).status()));
  v1::RetireMountRequest retire;
  retire.set_name("mounts/a");
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  Settle();
  EXPECT_EQ(StateOf(upload), v1::UPLOAD_STATE_ABORTED);
  EXPECT_TRUE(absl::IsNotFound(lifecycle_->images().Get(image).status()));
}

TEST_F(MountAdminTest, MountsAreListedWithTheirNumbers) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2)->Lose();
  Upload(a, ids_.NextUuid(), ids_.NextUuid(), 4096);
  v1::ListMountsRequest request;
  request.set_page_size(1);
  ASSERT_OK_AND_ASSIGN(const v1::ListMountsResponse first,
                       lifecycle_->mounts().List(request));
  ASSERT_EQ(first.mounts_size(), 1);
  EXPECT_EQ(first.mounts(0).name(), "mounts/a");
  EXPECT_EQ(first.mounts(0).image_count(), 1);
  EXPECT_EQ(first.mounts(0).image_bytes(), 4096);
  EXPECT_EQ(first.mounts(0).path(), "/mnt/a");
  EXPECT_TRUE(first.mounts(0).trusted());
  request.set_page_token(first.next_page_token());
  ASSERT_OK_AND_ASSIGN(const v1::ListMountsResponse second,
                       lifecycle_->mounts().List(request));
  ASSERT_EQ(second.mounts_size(), 1);
  EXPECT_EQ(second.mounts(0).name(), "mounts/b");
  EXPECT_TRUE(second.next_page_token().empty());
  EXPECT_EQ(second.unreachable(0), "mounts/b");
}

TEST_F(MountAdminTest, TheClusterSaysWhatNeedsAttention) {
  EXPECT_THAT(Checks(), Contains("NO_WRITABLE_MOUNT"));
  FakeAgent* const a = AddConnected("a");
  EXPECT_TRUE(Checks().empty());
  EXPECT_EQ(lifecycle_->cluster().Get().health(), v1::CLUSTER_HEALTH_OK);
  const struct {
    int64_t available;
    int health;
    const char* code;
  } cases[] = {
      {int64_t{5} << 30, v1::HEALTH_ONLINE, "MOUNT_NEAR_FULL"},
      {int64_t{1} << 30, v1::HEALTH_ONLINE, "MOUNT_FULL"},
      {-1, v1::HEALTH_ONLINE, "NO_WRITABLE_MOUNT"},
      {int64_t{50} << 30, v1::HEALTH_ABSENT, "MOUNT_ABSENT"},
      {int64_t{50} << 30, v1::HEALTH_HUNG, "MOUNT_HUNG"},
  };
  for (const auto& c : cases) {
    a->Behave([&](FakeAgent::Behaviour* b) {
      b->available_bytes = c.available;
      b->health = c.health;
    });
    a->Beat();
    EXPECT_THAT(Checks(), Contains(c.code));
  }
  a->Lose();
  clock_.Advance(absl::Seconds(16));
  EXPECT_THAT(Checks(), Contains("MOUNT_UNREACHABLE"));
  kv_->FailCommit(1, server::MemKvStore::Fault::kBeforeApplying, true);
  EXPECT_FALSE(index_->Commit(index_->Begin()).ok());
  EXPECT_THAT(Checks(), Contains("INDEX_READ_ONLY"));
}

TEST_F(MountAdminTest, PlacementIsExplained) {
  AddConnected("a", 1);
  AddConnected("b", 2);
  v1::ExplainPlacementRequest request;
  request.set_size_bytes(1 << 20);
  ASSERT_OK_AND_ASSIGN(const v1::PlacementDecision decision,
                       lifecycle_->cluster().Explain(request));
  EXPECT_EQ(decision.winner(), "mounts/a");
  EXPECT_EQ(decision.runner_up(), "mounts/b");
  EXPECT_EQ(decision.verdicts_size(), 2);
  request.set_size_bytes(-1);
  EXPECT_THAT(lifecycle_->cluster().Explain(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace predella::testing
