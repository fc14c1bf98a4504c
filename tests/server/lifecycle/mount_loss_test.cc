// What the loss of mounts means, and a new disk in the place of a lost one.
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
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class MountLossTest : public LifecycleFixture {
 protected:
  absl::StatusOr<v1::ExplainImpactResponse> Impact(
      const std::vector<std::string>& names, int page_size = 0,
      const std::string& token = "") {
    v1::ExplainImpactRequest request;
    for (const std::string& name : names) {
      request.add_names(name);
    }
    request.set_page_size(page_size);
    request.set_page_token(token);
    return lifecycle_->mounts().ExplainImpact(request);
  }
  // Accepts what is on it, if these are `accept` images.
  absl::StatusOr<v1::Mount> Replace(const std::string& name, int64_t accept,
                                    const std::string& uid = "",
                                    bool validate_only = false) {
    v1::ReplaceMountRequest request;
    request.set_name(name);
    request.set_new_uid(uid);
    AcceptLoss(&request);
    request.set_accept_lost_image_count(accept);
    request.set_reason("sdb is broken");
    request.set_validate_only(validate_only);
    auto mount = lifecycle_->mounts().Replace(request);
    Settle();
    return mount;
  }
  std::vector<std::string> MountNames() {
    std::vector<std::string> names;
    for (const auto& info : registry_->List()) {
      names.push_back(info.row.mount_name());
    }
    return names;
  }
};

// The number that a retirement asks for is that of what is named.
TEST_F(MountLossTest, ImpactNamesTheGenerationsThatWaitForAChoice) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  for (int i = 0; i < 3; ++i) {
    PutRow({a}, 1000);
  }
  const Uuid image = PutRow({b}, 10);
  storage::v1::ConflictRow conflict;
  conflict.mutable_image()->set_image_id(image.bytes());
  conflict.mutable_image()->set_size_bytes(77);
  conflict.mutable_image()->add_copies()->set_mount_uid(a->uid().bytes());
  server::IndexTxn txn = index_->Begin();
  *conflict.mutable_image()->mutable_generation() = txn.pair().ToProto();
  txn.PutConflict(conflict);
  ASSERT_OK(index_->Commit(std::move(txn)));
  std::vector<std::string> named;
  std::string token;
  do {
    ASSERT_OK_AND_ASSIGN(const auto page, Impact({"a"}, 2, token));
    EXPECT_EQ(page.image_count(), 4);
    EXPECT_EQ(page.image_bytes(), 3077);
    EXPECT_EQ(page.only_copy_count(), 4);
    EXPECT_EQ(page.only_copy_bytes(), 3077);
    for (const v1::ImpactedImage& one : page.images()) {
      named.push_back(one.name());
      EXPECT_EQ(one.mounts(0), "mounts/a");
    }
    token = page.next_page_token();
  } while (!token.empty());
  EXPECT_EQ(named.size(), 4u);
  EXPECT_THAT(named, Contains("images/" + image.ToString()).Times(1));
}

TEST_F(MountLossTest, ImpactIsExactBeforeAndAfterTheFailure) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  for (int i = 0; i < 5; ++i) {
    PutRow({a}, 1000);
    PutRow({b}, 10);
  }
  for (const v1::Health health : {v1::HEALTH_ONLINE, v1::HEALTH_ABSENT}) {
    Say(a, health);
    ASSERT_OK_AND_ASSIGN(const auto impact, Impact({"mounts/a"}));
    EXPECT_EQ(impact.image_count(), 5);
    EXPECT_EQ(impact.image_bytes(), 5000);
    EXPECT_EQ(impact.only_copy_count(), 5);
    EXPECT_EQ(impact.only_copy_bytes(), 5000);
    EXPECT_EQ(impact.images_size(), 5);
    EXPECT_EQ(impact.images(0).mounts(0), "mounts/a");
  }
  ASSERT_OK_AND_ASSIGN(const auto both, Impact({"a", "b", "a"}));
  EXPECT_EQ(both.image_count(), 10);
  EXPECT_EQ(both.image_bytes(), 5050);
  EXPECT_THAT(Impact({}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Impact({"none"}), HasReason(reason::kMountNotFound));
}

TEST_F(MountLossTest, ImpactOfSeveralMountsIsThatOfAllTogether) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  FakeAgent* const c = AddConnected("c", 3);
  PutRow({a}, 1);
  PutRow({a, b}, 20);
  const Uuid faulty = PutRow({a, c}, 300);
  PutRow({c}, 4000);
  ASSERT_OK_AND_ASSIGN(auto impact, Impact({"a"}));
  EXPECT_EQ(impact.image_count(), 3);
  EXPECT_EQ(impact.image_bytes(), 321);
  EXPECT_EQ(impact.only_copy_count(), 1);
  EXPECT_EQ(impact.only_copy_bytes(), 1);
  ASSERT_OK_AND_ASSIGN(impact, Impact({"a", "b"}));
  EXPECT_EQ(impact.image_count(), 3) << "an image on both counts once";
  EXPECT_EQ(impact.only_copy_count(), 2);
  EXPECT_EQ(impact.only_copy_bytes(), 21);
  PutFault(faulty, c, storage::v1::COPY_FAULT_DAMAGED);
  ASSERT_OK_AND_ASSIGN(impact, Impact({"a", "b"}));
  for (const v1::ImpactedImage& image : impact.images()) {
    EXPECT_EQ(image.other_readable_copies(), 0)
        << "a damaged copy elsewhere is none";
  }
  // Pages: all once, in order.
  std::vector<std::string> names;
  std::string token;
  do {
    ASSERT_OK_AND_ASSIGN(const auto page, Impact({"a", "b"}, 1, token));
    EXPECT_LE(page.images_size(), 1);
    for (const v1::ImpactedImage& image : page.images()) {
      EXPECT_TRUE(names.empty() || names.back() < image.name());
      names.push_back(image.name());
    }
    token = page.next_page_token();
  } while (!token.empty());
  EXPECT_EQ(names.size(), 3u);
  ASSERT_OK_AND_ASSIGN(const auto first, Impact({"a", "b"}, 1));
  EXPECT_THAT(Impact({"a"}, 1, first.next_page_token()),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(MountLossTest, ANewDiskGetsTheNameOfTheBrokenOne) {
  FakeAgent* const old = AddConnected("a", 1);
  const Uuid lost = ids_.NextUuid();
  Upload(old, lost, ids_.NextUuid());
  old->Lose();
  Settle();
  // Another label under the name is refused, and seen.
  FakeAgent* const fresh = AddConnected("a", 1);
  EXPECT_THAT(fresh->closed(), HasReason(reason::kMountIdentityMismatch));
  EXPECT_THAT(fresh->closed().message(), HasSubstr("predella mount replace a"));
  EXPECT_THAT(Replace("a", 0), HasReason(reason::kMountNotEmpty));
  ASSERT_OK_AND_ASSIGN(const v1::Mount would,
                       Replace("mounts/a", 1, "", /*validate_only=*/true));
  EXPECT_EQ(would.uid(), fresh->uid().ToString());
  EXPECT_EQ(registry_->FindByName("a")->row.mount_uid(), old->uid().bytes());
  ASSERT_OK_AND_ASSIGN(const v1::Mount mount, Replace("a", 1));
  EXPECT_EQ(mount.uid(), fresh->uid().ToString());
  EXPECT_EQ(mount.admin_state(), v1::ADMIN_STATE_ACTIVE);
  EXPECT_EQ(mount.image_count(), 0);
  Connect(fresh);
  EXPECT_OK(fresh->closed());
  EXPECT_TRUE(registry_->FindByName("a")->attached);
  ASSERT_OK_AND_ASSIGN(const v1::Image image, lifecycle_->images().Get(lost));
  EXPECT_EQ(image.health(), v1::IMAGE_HEALTH_LOST);
  EXPECT_THAT(image.copies(0).mount(), StartsWith("mounts/a.replaced-"));
  EXPECT_THAT(image.health_detail(), HasSubstr("sdb is broken"));
  // The old disk comes back, under the name or any other.
  Connect(old);
  EXPECT_THAT(old->closed(), HasReason(reason::kMountRetired));
  FakeAgent alias(MountNames()[1], old->uid(), &pool_);
  Connect(&alias);
  EXPECT_THAT(alias.closed(), HasReason(reason::kMountRetired));
  alias.Lose();
  Settle();
  // And all of that after a restart.
  Restart();
  EXPECT_EQ(MountNames().size(), 2u);
  EXPECT_EQ(registry_->FindByName("a")->row.mount_uid(), fresh->uid().bytes());
  Connect(fresh);
  EXPECT_OK(fresh->closed());
  Connect(old);
  EXPECT_THAT(old->closed(), HasReason(reason::kMountRetired));
  ASSERT_OK_AND_ASSIGN(const v1::Image still, lifecycle_->images().Get(lost));
  EXPECT_EQ(still.health(), v1::IMAGE_HEALTH_LOST);
  Upload(fresh, ids_.NextUuid(), ids_.NextUuid());
}

TEST_F(MountLossTest, WhatIsGivenUpIsWhatWasLookedAt) {
  FakeAgent* const a = AddConnected("a", 1);
  PutRow({a}, 1000);
  const Uuid replaced = ids_.NextUuid();
  Upload(a, replaced, ids_.NextUuid());
  v1::RetireMountRequest retire;
  retire.set_name("a");
  AcceptLoss(&retire);
  EXPECT_EQ(retire.accept_lost_image_count(), 2);
  const std::string shown = retire.accept_lost_digest();
  EXPECT_EQ(shown.size(), 32u);
  AcceptLoss(&retire);
  EXPECT_EQ(retire.accept_lost_digest(), shown) << "nothing has changed";
  // As many as before, and one of them was not shown: the same id, later.
  ASSERT_OK(Delete(replaced));
  Tick();
  Upload(a, replaced, ids_.NextUuid());
  const auto refused = lifecycle_->mounts().Retire(retire);
  EXPECT_THAT(refused, HasReason(reason::kMountNotEmpty));
  EXPECT_THAT(refused.status().message(),
              HasSubstr("as many, but not the same images"));
  EXPECT_NE(MetadataOf(refused.status())["lost_digest"], shown);
  retire.clear_accept_lost_digest();
  EXPECT_THAT(lifecycle_->mounts().Retire(retire),
              HasReason(reason::kMountNotEmpty))
      << "a number says not which";
  EXPECT_EQ(lifecycle_->images().Get(replaced)->health(),
            v1::IMAGE_HEALTH_HEALTHY);
  AcceptLoss(&retire);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  EXPECT_EQ(lifecycle_->images().Get(replaced)->health(),
            v1::IMAGE_HEALTH_LOST);
}

TEST_F(MountLossTest, AReplacementGivesUpWhatWasLookedAt) {
  FakeAgent* const old = AddConnected("a", 1);
  const Uuid gone = ids_.NextUuid();
  Upload(old, gone, ids_.NextUuid());
  v1::ReplaceMountRequest replace;
  replace.set_name("a");
  replace.set_new_uid(ids_.NextUuid().ToString());
  old->Lose();
  Settle();
  AcceptLoss(&replace);
  EXPECT_EQ(replace.accept_lost_image_count(), 1);
  Connect(old);
  ASSERT_OK(Delete(gone));
  Tick();
  Upload(old, ids_.NextUuid(), ids_.NextUuid());
  old->Lose();
  Settle();
  EXPECT_THAT(lifecycle_->mounts().Replace(replace),
              HasReason(reason::kMountNotEmpty));
  AcceptLoss(&replace);
  EXPECT_OK(lifecycle_->mounts().Replace(replace));
}

TEST_F(MountLossTest, ARetiredNameCanBeGivenToANewDisk) {
  FakeAgent* const old = AddConnected("a", 1);
  PutRow({old});
  old->Lose();
  v1::RetireMountRequest retire;
  retire.set_name("a");
  AcceptLoss(&retire);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  Settle();
  FakeAgent* const fresh = AddAgent("a");
  ASSERT_OK(Replace("a", 0, fresh->uid().ToString()));
  Connect(fresh);
  EXPECT_OK(fresh->closed());
}

TEST_F(MountLossTest, TheDiskThatWaitsForARetiredNameNeedsNoUid) {
  FakeAgent* const old = AddConnected("a", 1);
  old->Lose();
  v1::RetireMountRequest retire;
  retire.set_name("a");
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  Settle();
  FakeAgent* const fresh = AddAgent("a");
  Connect(fresh);
  EXPECT_THAT(fresh->closed(), HasReason(reason::kMountIdentityMismatch));
  ASSERT_OK(Replace("a", 0, ""));
  Connect(fresh);
  EXPECT_OK(fresh->closed());
}

TEST_F(MountLossTest, ReplaceIsRefusedWhereItWouldBeAMistake) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  EXPECT_THAT(Replace("a", 0),
              AllOf(HasReason(reason::kMountIdentityMismatch),
                    StatusIs(absl::StatusCode::kFailedPrecondition,
                             HasSubstr("no agent was refused"))));
  EXPECT_THAT(Replace("a", 0, "nonsense"),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Replace("a", 0, b->uid().ToString()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is known as mounts/b")));
  EXPECT_THAT(Replace("a", 0, a->uid().ToString()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is known as mounts/a")));
  EXPECT_THAT(Replace("a", 0, ids_.NextUuid().ToString()),
              HasReason(reason::kMountInUse));
  EXPECT_OK(a->closed());
  const std::string long_name(63, 'x');
  FakeAgent* const c = AddConnected(long_name, 3);
  c->Lose();
  Settle();
  ASSERT_OK(Replace(long_name, 0, ids_.NextUuid().ToString()));
  for (const std::string& name : MountNames()) {
    EXPECT_LE(name.size(), 63u);
  }
}

TEST_F(MountLossTest, TheChecksNameTheMountAndHowManyImages) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  PutRow({a});
  PutFault(PutRow({b}), b, storage::v1::COPY_FAULT_MISSING);
  PutFault(PutRow({b}), b, storage::v1::COPY_FAULT_DAMAGED);
  PutFault(PutRow({b}), b, storage::v1::COPY_FAULT_DAMAGED);
  Say(a, v1::HEALTH_HUNG);
  const v1::Cluster cluster = lifecycle_->cluster().Get();
  EXPECT_EQ(cluster.health(), v1::CLUSTER_HEALTH_ERROR);
  const auto check = [&](const std::string& code) {
    for (const v1::HealthCheck& c : cluster.checks()) {
      if (c.code() == code) {
        return c;
      }
    }
    ADD_FAILURE() << code;
    return v1::HealthCheck();
  };
  EXPECT_EQ(check("MOUNT_HUNG").mount(), "mounts/a");
  EXPECT_EQ(check("MOUNT_HUNG").affected_image_count(), 1);
  EXPECT_THAT(check("MOUNT_HUNG").next_step(),
              HasSubstr("predella mount impact a"));
  EXPECT_EQ(check("COPIES_MISSING").affected_image_count(), 1);
  EXPECT_EQ(check("COPIES_DAMAGED").affected_image_count(), 2);
  EXPECT_EQ(check("COPIES_DAMAGED").mount(), "mounts/b");
  EXPECT_THAT(check("COPIES_DAMAGED").detail(), HasSubstr("MiB 7"));
}

TEST_F(MountLossTest, CallsThatDidNotComeBackAreCounted) {
  FakeAgent* const a = AddConnected("a");
  const auto stuck = [&] {
    v1::GetMountRequest get;
    get.set_name("a");
    return lifecycle_->mounts().Get(get)->stuck_call_count();
  };
  a->Behave([](FakeAgent::Behaviour* b) { b->stuck_calls = 3; });
  a->Beat();
  EXPECT_EQ(stuck(), 3);
  const auto all = lifecycle_->mounts().List(v1::ListMountsRequest());
  EXPECT_EQ(all->mounts(0).stuck_call_count(), 3);
  EXPECT_EQ(all->mounts(0).health(), v1::HEALTH_ONLINE) << "a figure alone";
  // The next process of the agent has none of them.
  a->Lose();
  a->Behave([](FakeAgent::Behaviour* b) { b->stuck_calls = 0; });
  Connect(a);
  EXPECT_EQ(stuck(), 0);
}

TEST_F(MountLossTest, FullnessHasHysteresis) {
  FakeAgent* const a = AddConnected("a");
  const auto fullness = [&](int used_percent) {
    a->Behave([&](FakeAgent::Behaviour* b) {
      b->size_bytes = int64_t{1} << 30;
      b->available_bytes = b->size_bytes / 100 * (100 - used_percent);
    });
    a->Beat();
    v1::GetMountRequest get;
    get.set_name("a");
    return lifecycle_->mounts().Get(get)->fullness();
  };
  const struct {
    int used_percent;
    v1::Fullness fullness;
  } steps[] = {
      {50, v1::FULLNESS_OK},   {91, v1::FULLNESS_NEAR}, {89, v1::FULLNESS_NEAR},
      {87, v1::FULLNESS_OK},   {89, v1::FULLNESS_OK},   {99, v1::FULLNESS_FULL},
      {97, v1::FULLNESS_FULL}, {95, v1::FULLNESS_NEAR}, {80, v1::FULLNESS_OK},
  };
  for (const auto& step : steps) {
    EXPECT_EQ(fullness(step.used_percent), step.fullness) << step.used_percent;
  }
}

}  // namespace
}  // namespace predella::testing
