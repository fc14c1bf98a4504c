// After a rebuild of the index: mounts that were away are taken in by command.
#include "server/index/rebuild.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/mount_description.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class RebuiltTest : public LifecycleFixture {
 protected:
  RebuiltTest() : image_(ids_.NextUuid()), other_(ids_.NextUuid()) {
    a_ = AddConnected("a", 1);
    Upload(a_, image_, ids_.NextUuid());
    b_ = AddConnected("b", 0);
    Upload(b_, other_, ids_.NextUuid());
  }

  // Only `given` is described; it remembers `roster`.
  void Rebuild(FakeAgent* given, const std::vector<FakeAgent*>& roster) {
    server::RebuildInput input;
    MountDescription one;
    one.path = "/mnt/" + given->name();
    one.label.set_mount_uid(given->uid().bytes());
    one.label.set_mount_name(given->name());
    one.label.set_cluster_uid(index_->cluster().cluster_uid());
    storage::v1::FenceEntry* known = one.known.add_entries();
    known->set_epoch(index_->epoch());
    known->set_nonce(index_->epoch_nonce());
    known->set_max_n(1);
    for (FakeAgent* agent : roster) {
      storage::v1::RosterEntry* entry = one.deletes.add_roster();
      entry->set_mount_uid(agent->uid().bytes());
      entry->set_mount_name(agent->name());
    }
    input.mounts = {one};
    ASSERT_OK_AND_ASSIGN(const server::RebuildPlan plan,
                         server::PlanRebuild(input));
    Down();
    kv_ = std::make_unique<server::MemKvStore>();
    ASSERT_OK_AND_ASSIGN(
        const storage::v1::EpochTable epochs,
        server::WriteRebuiltIndex(plan, kv_.get(), &clock_, &ids_));
    ASSERT_OK(epoch_file_.Write(epochs));
    Boot();
  }
  void List() {
    Tick();
    Tick();
  }
  bool recovering() { return lifecycle_->trust().recovering(); }
  bool unconfirmed(FakeAgent* agent) {
    const auto info = registry_->Find(agent->uid());
    return info.has_value() && info->row.unconfirmed();
  }
  std::vector<std::string> Checks() {
    std::vector<std::string> codes;
    const v1::Cluster cluster = lifecycle_->cluster().Get();
    for (const v1::HealthCheck& check : cluster.checks()) {
      codes.push_back(check.code());
    }
    return codes;
  }
  absl::StatusOr<v1::Mount> Confirm(FakeAgent* agent, bool dry_run = false) {
    v1::ConfirmMountRequest request;
    request.set_name("mounts/" + agent->name());
    request.set_validate_only(dry_run);
    auto mount = lifecycle_->mounts().Confirm(request);
    Settle();
    return mount;
  }
  bool Missing(const Uuid& image) {
    return absl::IsNotFound(lifecycle_->images().Get(image).status());
  }

  const Uuid image_;
  const Uuid other_;
  FakeAgent* a_ = nullptr;
  FakeAgent* b_ = nullptr;
};

TEST_F(RebuiltTest, ImagesComeBackAndAMountThatWasAwayWaitsForAnOperator) {
  const auto before = lifecycle_->images().Get(image_);
  ASSERT_OK(before);
  Rebuild(a_, {a_, b_});
  ASSERT_TRUE(recovering());
  EXPECT_TRUE(unconfirmed(b_));
  EXPECT_THAT(Checks(), Contains("RECOVERING"));
  int told = 0;
  EXPECT_OK(index_->ScanEvents([&](const storage::v1::EventRow& row) {
    told += row.kind() == "recovering" ? 1 : 0;
  }));
  EXPECT_EQ(told, 1) << "no coordinator ran when it began";
  Connect(a_);
  List();
  // Not waited for, and not forgotten.
  EXPECT_FALSE(recovering());
  EXPECT_THAT(Checks(), Contains("MOUNT_UNCONFIRMED"));
  // Maintenance excuses much, and does not settle that.
  v1::MaintainMountRequest maintain;
  maintain.set_name("mounts/b");
  maintain.mutable_until_time()->set_seconds(
      absl::ToUnixSeconds(absl::FromUnixMicros(clock_.NowMicros())) + 3600);
  ASSERT_OK(lifecycle_->mounts().Maintain(maintain));
  EXPECT_THAT(Checks(), Contains("MOUNT_UNCONFIRMED"));
  v1::UncordonMountRequest uncordon;
  uncordon.set_name("mounts/b");
  ASSERT_OK(lifecycle_->mounts().Uncordon(uncordon));
  ASSERT_OK_AND_ASSIGN(const v1::Image after, lifecycle_->images().Get(image_));
  EXPECT_EQ(after.generation(), before->generation());
  EXPECT_EQ(after.location_key(), before->location_key());
  EXPECT_FALSE(Missing(other_)) << "it may be on b";
  EXPECT_FALSE(Missing(ids_.NextUuid()));
  // Uploads go on, elsewhere.
  Upload(a_, ids_.NextUuid(), ids_.NextUuid());

  EXPECT_THAT(Confirm(b_), HasReason(reason::kAgentUnreachable));
  Connect(b_);
  List();
  EXPECT_FALSE(recovering()) << "what it knows is no news";
  EXPECT_TRUE(unconfirmed(b_));
  EXPECT_FALSE(registry_->Find(b_->uid())->trusted);
  EXPECT_FALSE(Missing(other_));
  EXPECT_FALSE(absl::IsNotFound(lifecycle_->images().Get(other_).status()));
  EXPECT_FALSE(lifecycle_->images().Get(other_).ok());

  ASSERT_OK(Confirm(b_, /*dry_run=*/true));
  EXPECT_TRUE(unconfirmed(b_));
  ASSERT_OK_AND_ASSIGN(const v1::Mount confirmed, Confirm(b_));
  EXPECT_FALSE(confirmed.unconfirmed());
  List();
  EXPECT_FALSE(recovering());
  EXPECT_OK(lifecycle_->images().Get(other_));
  EXPECT_TRUE(registry_->Find(b_->uid())->trusted);
  EXPECT_THAT(Checks(), Not(Contains("MOUNT_UNCONFIRMED")));
  EXPECT_TRUE(Missing(ids_.NextUuid()));
  EXPECT_OK(Confirm(b_));  // twice is once
  EXPECT_FALSE(recovering());
}

// Neither adopted nor removed one by one: that is refused until then.
TEST_F(RebuiltTest, WhatLiesOnAnUnconfirmedMountWaitsForIt) {
  Rebuild(a_, {a_, b_});
  Connect(a_);
  List();
  Connect(b_);
  List();
  ASSERT_TRUE(unconfirmed(b_));
  const auto missing = lifecycle_->images().Get(other_);
  EXPECT_THAT(missing, HasReason(reason::kMountsMissing));
  EXPECT_THAT(std::string(missing.status().message()),
              HasSubstr("predella mount confirm"));
  std::string steps;
  v1::CheckIndexRequest request;
  int pages = 0;
  do {
    ASSERT_OK_AND_ASSIGN(const v1::CheckIndexResponse page,
                         lifecycle_->index_audit().Check(request));
    Settle();
    Tick();
    for (const v1::IndexFinding& finding : page.findings()) {
      if (finding.code() == "FILE_UNKNOWN") {
        steps += finding.next_step();
      }
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && ++pages < 20);
  EXPECT_THAT(steps, AllOf(HasSubstr("predella mount confirm b"),
                           Not(HasSubstr("orphan adopt")),
                           Not(HasSubstr("orphan rm"))));
}

TEST_F(RebuiltTest, WhatWasConfirmedIsListedAfterARestartToo) {
  Rebuild(a_, {a_, b_});
  Connect(a_);
  Connect(b_);
  List();
  b_->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_listing = absl::UnavailableError("not now");
  });
  ASSERT_OK(Confirm(b_));
  List();
  EXPECT_TRUE(recovering());
  EXPECT_FALSE(registry_->Find(a_->uid())->trusted);
  Restart();
  EXPECT_TRUE(recovering());
  EXPECT_FALSE(unconfirmed(b_));
  b_->Behave(
      [](FakeAgent::Behaviour* b) { b->refuse_listing = absl::OkStatus(); });
  Connect(a_);
  Connect(b_);
  List();
  EXPECT_FALSE(recovering());
  EXPECT_OK(lifecycle_->images().Get(other_));
}

TEST_F(RebuiltTest, AMountThatNobodyRemembersIsTakenInByCommandToo) {
  Rebuild(a_, {});
  Connect(a_);
  List();
  ASSERT_FALSE(recovering());
  Connect(b_);
  List();
  EXPECT_TRUE(unconfirmed(b_));
  EXPECT_FALSE(recovering());
  // One that is new has no history to ask about.
  FakeAgent* const c = AddConnected("c", 5);
  EXPECT_FALSE(unconfirmed(c));
  ASSERT_OK(Confirm(b_));
  List();
  EXPECT_OK(lifecycle_->images().Get(other_));
}

TEST_F(RebuiltTest, ADeletedImageStaysDeletedWhenItsMountIsTakenIn) {
  ASSERT_OK(lifecycle_->images().Get(other_));
  // Deleted while b is away: the tombstone is on a alone.
  b_->Lose();
  Settle();
  ASSERT_OK(Delete(other_));
  ASSERT_TRUE(b_->Has(other_));
  Rebuild(a_, {a_, b_});
  Connect(a_);
  List();
  Connect(b_);
  ASSERT_OK(Confirm(b_));
  List();
  EXPECT_FALSE(recovering());
  EXPECT_FALSE(lifecycle_->images().Get(other_).ok());
  Tick();
  EXPECT_FALSE(b_->Has(other_));
  EXPECT_OK(lifecycle_->images().Get(image_));
}

TEST_F(RebuiltTest, RetiringItSettlesIt) {
  Rebuild(a_, {a_, b_});
  Connect(a_);
  List();
  v1::RetireMountRequest retire;
  retire.set_name("mounts/b");
  EXPECT_THAT(lifecycle_->mounts().Retire(retire),
              HasReason(reason::kRecovering));
  retire.set_accept_unlisted(true);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  EXPECT_FALSE(unconfirmed(b_));
  EXPECT_TRUE(Missing(other_));
  EXPECT_THAT(Checks(), Not(Contains("MOUNT_UNCONFIRMED")));
}

}  // namespace
}  // namespace predella::testing
