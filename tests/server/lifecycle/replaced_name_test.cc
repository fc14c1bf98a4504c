// An index from before a mount was replaced: the name is bound to the old disk,
// and others remember the new one under it.
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "server/index/rebuild.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;

// "a" stays; "b" is replaced by a new disk after the copy of the index was
// made, and an image is stored on that.
class ReplacedNameTest : public LifecycleFixture {
 protected:
  ReplacedNameTest() : image_(ids_.NextUuid()) {
    a_ = AddConnected("a", 2);
    old_ = AddConnected("b", 1);
    copy_ = kv_->Contents();
    old_->Lose();
    Settle();
    new_ = AddAgent("b", 1);
    EXPECT_OK(Replace(new_->uid().ToString()));
    Connect(new_);
    EXPECT_TRUE(new_->attach().has_value()) << new_->closed();
    Upload(new_, image_, ids_.NextUuid());
    Tick();
    a_->Behave([this](FakeAgent::Behaviour* b) {
      for (const FakeAgent* agent : {a_, new_}) {
        b->roster.emplace_back();
        b->roster.back().set_mount_uid(agent->uid().bytes());
        b->roster.back().set_mount_name(agent->name());
      }
    });
  }

  // As `predella index restore` does.
  void PutBack() {
    server::MemKvStore restored(copy_);
    ASSERT_OK(server::MarkRestored(&restored, &clock_));
    RestartFrom(restored.Contents());
  }
  absl::Status Replace(const std::string& uid) {
    v1::ReplaceMountRequest request;
    request.set_name("mounts/b");
    request.set_new_uid(uid);
    const absl::Status status = lifecycle_->mounts().Replace(request).status();
    Settle();
    return status;
  }
  absl::Status Retire(const std::string& name) {
    v1::RetireMountRequest request;
    request.set_name("mounts/" + name);
    request.set_accept_unlisted(true);
    const absl::Status status = lifecycle_->mounts().Retire(request).status();
    Settle();
    return status;
  }
  void List() {
    Tick();
    Tick();
  }
  std::string NameOf(const FakeAgent* agent) {
    const auto info = registry_->Find(agent->uid());
    return info.has_value() ? info->row.mount_name() : "";
  }
  absl::Status Get() { return lifecycle_->images().Get(image_).status(); }
  bool recovering() { return lifecycle_->trust().recovering(); }

  const Uuid image_;
  server::MemKvStore::Rows copy_;
  FakeAgent* a_ = nullptr;
  FakeAgent* old_ = nullptr;
  FakeAgent* new_ = nullptr;
};

TEST_F(ReplacedNameTest, TheNewDiskIsWaitedForUntilTheNameIsSettled) {
  PutBack();
  Connect(a_);
  List();
  ASSERT_TRUE(recovering());
  const std::string other = "b.replaced-" + new_->uid().ToString().substr(0, 8);
  EXPECT_EQ(NameOf(new_), other);
  EXPECT_THAT(lifecycle_->inventory().Awaited(),
              AllOf(Contains("b"), Contains(other)));
  // The disk that broke is given up; its name is still nobody else's.
  ASSERT_OK(Retire("b"));
  List();
  EXPECT_TRUE(recovering());
  EXPECT_THAT(Get(), HasReason(reason::kRecovering));
  Connect(new_);
  EXPECT_THAT(new_->closed(), HasReason(reason::kMountIdentityMismatch));
  // A start between knows it as well.
  Restart();
  Connect(a_);
  List();
  EXPECT_TRUE(recovering());
  EXPECT_THAT(Get(), HasReason(reason::kRecovering));
  ASSERT_OK(Replace(new_->uid().ToString()));
  EXPECT_EQ(NameOf(new_), "b");
  EXPECT_EQ(NameOf(old_), "b.replaced-" + old_->uid().ToString().substr(0, 8));
  EXPECT_TRUE(recovering());
  Connect(new_);
  EXPECT_TRUE(new_->attach().has_value()) << new_->closed();
  List();
  EXPECT_FALSE(recovering());
  EXPECT_OK(Get());
}

TEST_F(ReplacedNameTest, TheNewDiskMayKeepTheNameItIsFoundUnder) {
  PutBack();
  Connect(a_);
  List();
  const auto found = registry_->Find(new_->uid());
  ASSERT_TRUE(found.has_value());
  // Its agent is told the name, and then the old one is not to be had any more
  // without stopping it.
  FakeAgent again(found->row.mount_name(), new_->uid(), &pool_);
  Connect(&again);
  EXPECT_TRUE(again.attach().has_value()) << again.closed();
  EXPECT_OK(Retire("b"));
  EXPECT_THAT(Replace(new_->uid().ToString()), HasReason(reason::kMountInUse));
  again.Lose();
  Settle();
  EXPECT_OK(Replace(new_->uid().ToString()));
  EXPECT_EQ(NameOf(new_), "b");
}

TEST_F(ReplacedNameTest, GivenUpItIsNotWaitedFor) {
  PutBack();
  Connect(a_);
  List();
  ASSERT_OK(Retire("b"));
  ASSERT_OK(Retire(NameOf(new_)));
  List();
  EXPECT_FALSE(recovering());
  EXPECT_THAT(Get(), HasReason(reason::kImageNotFound));
  EXPECT_THAT(Replace(new_->uid().ToString()),
              HasReason(reason::kMountIdentityMismatch));
}

// Others remember the old disk under the name that the new one has by now:
// the index knows both, nothing is added.
TEST_F(ReplacedNameTest, ARosterFromBeforeTheReplacementAddsNothing) {
  a_->Behave([this](FakeAgent::Behaviour* b) {
    b->roster.clear();
    b->roster.emplace_back();
    b->roster.back().set_mount_uid(old_->uid().bytes());
    b->roster.back().set_mount_name("b");
  });
  const size_t mounts = registry_->List().size();
  Restart();
  Connect(new_);
  Connect(a_);
  List();
  EXPECT_EQ(registry_->List().size(), mounts);
  EXPECT_FALSE(recovering());
  EXPECT_OK(Get());
}

class OnlyMountReplacedTest : public LifecycleFixture {
 protected:
  absl::Status Replace(const FakeAgent* agent, int64_t lost) {
    v1::ReplaceMountRequest request;
    request.set_name("mounts/a");
    request.set_new_uid(agent->uid().ToString());
    AcceptLoss(&request);
    request.set_accept_lost_image_count(lost);
    const absl::Status status = lifecycle_->mounts().Replace(request).status();
    Settle();
    return status;
  }
};

// No other mount remembers anything: the new disk itself tells, as soon as it
// has the name again.
TEST_F(OnlyMountReplacedTest, AnIndexFromBeforeItTakesInWhatTheNewDiskHas) {
  const Uuid before = ids_.NextUuid();
  const Uuid since = ids_.NextUuid();
  FakeAgent* const first = AddConnected("a");
  Upload(first, before, ids_.NextUuid());
  const auto copy = kv_->Contents();
  first->Lose();
  Settle();
  FakeAgent* const second = AddAgent("a");
  ASSERT_OK(Replace(second, 1));
  Connect(second);
  Upload(second, since, ids_.NextUuid());
  // As `predella index restore` does, or as a copy that somebody put there.
  for (const bool restored : {true, false}) {
    SCOPED_TRACE(restored);
    server::MemKvStore rows(copy);
    if (restored) {
      ASSERT_OK(server::MarkRestored(&rows, &clock_));
    }
    RestartFrom(rows.Contents());
    const auto get = [&](const Uuid& image) {
      return lifecycle_->images().Get(image).status();
    };
    Connect(second);
    EXPECT_THAT(second->closed(), HasReason(reason::kMountIdentityMismatch));
    Tick();
    EXPECT_THAT(get(since), StatusIs(absl::StatusCode::kUnavailable));
    const absl::Status replaced = Replace(second, 1);
    if (restored) {
      // What the old disk got after the copy is not known either.
      EXPECT_THAT(replaced, HasReason(reason::kRecovering));
      v1::RetireMountRequest retire;
      retire.set_name("mounts/a");
      retire.set_accept_unlisted(true);
      AcceptLoss(&retire);
      retire.set_accept_lost_image_count(1);
      ASSERT_OK(lifecycle_->mounts().Retire(retire));
      ASSERT_OK(Replace(second, 0));
    } else {
      ASSERT_OK(replaced);
    }
    EXPECT_THAT(get(since), StatusIs(absl::StatusCode::kUnavailable));
    Connect(second);
    ASSERT_TRUE(second->attach().has_value()) << second->closed();
    Tick();
    Tick();
    EXPECT_FALSE(lifecycle_->trust().recovering());
    EXPECT_OK(get(since));
    EXPECT_OK(get(before)) << "LOST, and named";
  }
}

// What is on a mount that nobody took in is not known: it is not given up by
// giving its name away.
TEST_F(OnlyMountReplacedTest, AnUnconfirmedMountIsNotReplaced) {
  FakeAgent* const first = AddConnected("a");
  FakeAgent* const second = AddAgent("a");
  first->Lose();
  Settle();
  const auto info = registry_->FindByName("a");
  storage::v1::MountRow row = info->row;
  row.set_unconfirmed(true);
  server::IndexTxn txn = index_->Begin();
  txn.PutMount(row);
  ASSERT_OK(index_->Commit(std::move(txn)));
  Restart();
  const absl::Status replaced = Replace(second, 0);
  EXPECT_THAT(replaced, HasReason(reason::kRecovering));
  EXPECT_THAT(std::string(replaced.message()),
              ::testing::HasSubstr("accept_unlisted"));
  EXPECT_EQ(registry_->FindByName("a")->row.mount_uid(), first->uid().bytes());
  v1::RetireMountRequest retire;
  retire.set_name("mounts/a");
  retire.set_accept_unlisted(true);
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  EXPECT_OK(Replace(second, 0));
  EXPECT_EQ(registry_->FindByName("a")->row.mount_uid(), second->uid().bytes());
}

}  // namespace
}  // namespace predella::testing
