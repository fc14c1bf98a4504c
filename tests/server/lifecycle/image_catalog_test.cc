#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/generation.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::testing {
namespace {

class ImageCatalogTest : public LifecycleFixture {
 protected:
  absl::Status GetStatusOf(const Uuid& image) {
    return lifecycle_->images().Get(image).status();
  }
  const Uuid image_ = ids_.NextUuid();
  const Uuid upload_ = ids_.NextUuid();
};

TEST_F(ImageCatalogTest, DeleteUnlinksAndAnswersNotFoundAtOnce) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  ASSERT_OK(Delete(image_));
  EXPECT_FALSE(a->Has(image_));
  EXPECT_EQ(a->tombstone_count() + b->tombstone_count(), 1u);
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_DELETED);
  EXPECT_THAT(Delete(image_), StatusIs(absl::StatusCode::kNotFound));
  server::ImageCatalog::DeleteRequest request;
  request.image_id = image_;
  request.allow_missing = true;
  EXPECT_OK(lifecycle_->images().Delete(request));
  // The first tick after the removal settles it; with it gone nothing waits.
  Tick();
  EXPECT_EQ(lifecycle_->reaper().PendingOn(a->uid()), 0);
}

TEST_F(ImageCatalogTest, AnotherGenerationIsNotDeleted) {
  FakeAgent* const agent = AddConnected("a");
  Upload(agent, image_, upload_);
  server::ImageCatalog::DeleteRequest request;
  request.image_id = image_;
  request.generation = Generation{1, 1, 7};
  EXPECT_THAT(lifecycle_->images().Delete(request),
              HasReason(reason::kGenerationMismatch));
  EXPECT_TRUE(agent->Has(image_));
}

// As the driver repeats the delete of an image that it can not see any more.
TEST_F(ImageCatalogTest, ADeleteOfAGenerationLeavesOtherUploadsAlone) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  server::ImageCatalog::DeleteRequest request;
  request.image_id = image_;
  request.generation = Generation{1, 1, 7};
  EXPECT_THAT(lifecycle_->images().Delete(request),
              HasReason(reason::kImageNotFound));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
  ASSERT_TRUE(agent->Write(upload_, 4096, false));
  ASSERT_TRUE(agent->Publish(upload_));
  Settle();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_COMMITTED);
}

TEST_F(ImageCatalogTest, TombstonesGetASecondCopySettleAndAreForgotten) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  ASSERT_OK(Delete(image_));
  Tick();
  EXPECT_EQ(a->tombstone_count(), 1u);
  EXPECT_EQ(b->tombstone_count(), 1u);
  Tick();
  clock_.Advance(options_.tombstone_ttl + absl::Minutes(1));
  a->Beat();
  b->Beat();
  // Both are listed once more before it is forgotten.
  for (int i = 0; i < 5; ++i) {
    Tick();
  }
  EXPECT_EQ(a->tombstone_count(), 0u);
  EXPECT_EQ(b->tombstone_count(), 0u);
  EXPECT_EQ(lifecycle_->tombstones().count(), 0);
}

TEST_F(ImageCatalogTest, UploadAgainWhileTheOldMountIsAway) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  const auto old_file = a->file(image_);
  a->Lose();
  ASSERT_OK(Delete(image_));
  EXPECT_TRUE(a->Has(image_));
  const Uuid second = ids_.NextUuid();
  Upload(b, image_, second);
  // The late removal touches the old generation and nothing else.
  Connect(a);
  Settle();
  EXPECT_FALSE(a->Has(image_));
  EXPECT_TRUE(b->Has(image_));
  ASSERT_OK_AND_ASSIGN(const v1::Image image, lifecycle_->images().Get(image_));
  EXPECT_NE(image.generation(),
            Generation::FromProto(old_file->generation).ToString());
  EXPECT_EQ(image.readable_copies(), 1);
}

TEST_F(ImageCatalogTest, OnlyAMountWithALeftoverIsWaitedFor) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2)->Behave(
      [](FakeAgent::Behaviour* b) { b->available_bytes = 1 << 20; });
  agents_[1]->Beat();
  Upload(a, image_, upload_, int64_t{1} << 30);
  // Its removal fails: the leftover stays.
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  ASSERT_OK(Delete(image_));
  const auto again = Start(image_, ids_.NextUuid(), int64_t{1} << 30);
  EXPECT_THAT(again, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(again, HasReason(reason::kLeftoverPending));
}

TEST_F(ImageCatalogTest, WithoutAMountThereIsNoAcknowledgement) {
  FakeAgent* const agent = AddConnected("a");
  Upload(agent, image_, upload_);
  agent->Lose();
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = Delete(image_);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_THAT(status, HasReason(reason::kNoTombstoneCopy));
  }
  // Nor where whoever repeats it can not know the generation any more.
  server::ImageCatalog::DeleteRequest request;
  request.image_id = image_;
  request.generation = Generation{1, 1, 7};
  EXPECT_THAT(lifecycle_->images().Delete(request),
              HasReason(reason::kNoTombstoneCopy));
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound));
  Connect(agent);
  // A repeated call goes on at the copy.
  EXPECT_OK(Delete(image_));
  EXPECT_GE(agent->tombstone_count(), 1u);
  EXPECT_FALSE(agent->Has(image_));
}

TEST_F(ImageCatalogTest, ARefusedCopyIsTriedOnTheNextMount) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  Upload(a, image_, upload_);
  a->Behave([](FakeAgent::Behaviour* behaviour) {
    behaviour->refuse_tombstone =
        MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
  });
  EXPECT_OK(Delete(image_));
  EXPECT_EQ(b->tombstone_count(), 1u);
}

// A mount has room for some 45,000 copies; then it refuses more.
TEST_F(ImageCatalogTest, FullTombstoneSlotsRefuseTheDeleteAndLoseNothing) {
  FakeAgent* const agent = AddConnected("a");
  Upload(agent, image_, upload_);
  agent->Behave([](FakeAgent::Behaviour* behaviour) {
    behaviour->refuse_tombstone =
        MakeError(absl::StatusCode::kResourceExhausted, reason::kMountFull,
                  "the slot holds 45000 tombstones");
  });
  const absl::Status refused = Delete(image_);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(refused, HasReason(reason::kNoTombstoneCopy));
  EXPECT_THAT(std::string(refused.message()),
              ::testing::HasSubstr("45000 tombstones"));
  EXPECT_EQ(index_->TombstonesOf(image_)->size(), 1u);
  Restart();
  EXPECT_EQ(index_->TombstonesOf(image_)->size(), 1u);
  agent->Behave([](FakeAgent::Behaviour* behaviour) {
    behaviour->refuse_tombstone = absl::OkStatus();
  });
  Connect(agent);
  EXPECT_OK(Delete(image_));
  EXPECT_EQ(agent->tombstone_count(), 1u);
}

TEST_F(ImageCatalogTest, TheSecondCopyGoesToWhoeverTakesIt) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  FakeAgent* const c = AddConnected("c", 3);
  FakeAgent* const d = AddConnected("d", 4);
  Upload(a, image_, upload_);
  a->Lose();  // its file waits, so the tombstone does not settle
  ASSERT_OK(Delete(image_));
  ASSERT_EQ(b->tombstone_count(), 1u);
  c->Behave([](FakeAgent::Behaviour* behaviour) {
    behaviour->refuse_tombstone =
        MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
  });
  Tick();
  Tick();
  EXPECT_EQ(c->tombstone_count(), 0u);
  EXPECT_EQ(d->tombstone_count(), 1u);
}

TEST_F(ImageCatalogTest, DeleteDuringAnUpload) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(agent->Write(upload_, 10, /*leave_open=*/true));
  EXPECT_THAT(Delete(image_), HasReason(reason::kUploadInProgress));
  ASSERT_TRUE(agent->Write(upload_, 10, /*leave_open=*/false));
  EXPECT_OK(Delete(image_));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_ABORTED);
  EXPECT_EQ(lifecycle_->uploads().Get(upload_)->reason(), "UPLOAD_DELETED");
  EXPECT_FALSE(agent->HasInflight(upload_));
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound));
}

TEST_F(ImageCatalogTest, ListsAreCompleteInPages) {
  FakeAgent* const agent = AddConnected("a");
  std::set<std::string> names;
  for (int i = 0; i < 7; ++i) {
    const Uuid id = ids_.NextUuid();
    Upload(agent, id, ids_.NextUuid());
    names.insert("images/" + id.ToString());
  }
  for (const std::string mount : {"", "mounts/a"}) {
    std::set<std::string> seen;
    v1::ListImagesRequest request;
    request.set_page_size(3);
    request.set_mount(mount);
    int pages = 0;
    do {
      ASSERT_OK_AND_ASSIGN(const v1::ListImagesResponse page,
                           lifecycle_->images().List(request));
      for (const v1::Image& image : page.images()) {
        seen.insert(image.name());
      }
      request.set_page_token(page.next_page_token());
      ++pages;
    } while (!request.page_token().empty());
    EXPECT_EQ(pages, 3);
    EXPECT_EQ(seen, names);
  }
  v1::ListImagesRequest request;
  request.set_page_size(3);
  const std::string token =
      lifecycle_->images().List(request)->next_page_token();
  request.set_page_token(token);
  request.set_mount("mounts/a");
  EXPECT_THAT(lifecycle_->images().List(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
  request.Clear();
  request.set_page_size(-1);
  EXPECT_THAT(lifecycle_->images().List(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
  request.Clear();
  request.set_mount("mounts/nosuch");
  EXPECT_THAT(lifecycle_->images().List(request),
              HasReason(reason::kMountNotFound));
}

TEST_F(ImageCatalogTest, HealthFollowsTheMount) {
  FakeAgent* const agent = AddConnected("a");
  Upload(agent, image_, upload_);
  const struct {
    v1::Health mount;
    v1::ImageHealth image;
    int readable;
  } cases[] = {
      {v1::HEALTH_ONLINE, v1::IMAGE_HEALTH_HEALTHY, 1},
      {v1::HEALTH_SLOW, v1::IMAGE_HEALTH_HEALTHY, 1},
      {v1::HEALTH_READ_ONLY, v1::IMAGE_HEALTH_HEALTHY, 1},
      {v1::HEALTH_SUSPECT, v1::IMAGE_HEALTH_HEALTHY, 1},
      {v1::HEALTH_HUNG, v1::IMAGE_HEALTH_DEGRADED, 0},
      {v1::HEALTH_FAILED, v1::IMAGE_HEALTH_DEGRADED, 0},
      {v1::HEALTH_ABSENT, v1::IMAGE_HEALTH_DEGRADED, 0},
  };
  for (const auto& c : cases) {
    agent->Behave([&](FakeAgent::Behaviour* b) { b->health = c.mount; });
    agent->Beat();
    ASSERT_OK_AND_ASSIGN(const v1::Image image,
                         lifecycle_->images().Get(image_));
    EXPECT_EQ(image.health(), c.image) << v1::Health_Name(c.mount);
    EXPECT_EQ(image.readable_copies(), c.readable) << v1::Health_Name(c.mount);
  }
  agent->Lose();
  clock_.Advance(absl::Seconds(16));
  EXPECT_EQ(lifecycle_->images().Get(image_)->health(),
            v1::IMAGE_HEALTH_DEGRADED);
}

// The rule of NOT_FOUND, case by case.
TEST_F(ImageCatalogTest, NotFoundIsSaidOnlyWhenItIsSure) {
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kMountsMissing))
      << "no mount was ever here";
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound));

  Restart();  // unclean, and nobody registered
  EXPECT_THAT(GetStatusOf(image_), StatusIs(absl::StatusCode::kUnavailable));
  Connect(a);
  const absl::Status one_missing = GetStatusOf(image_);
  EXPECT_THAT(one_missing, HasReason(reason::kMountsMissing));
  EXPECT_EQ(MetadataOf(one_missing)["mounts"], "b");
  server::ImageCatalog::DeleteRequest remove;
  remove.image_id = image_;
  remove.allow_missing = true;
  EXPECT_THAT(lifecycle_->images().Delete(remove),
              HasReason(reason::kMountsMissing))
      << "allow_missing is not a guess either";
  Connect(b);
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound));
}

TEST_F(ImageCatalogTest, MaintenanceAndRetirementExcuseAMount) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  b->Lose();
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound))
      << "it has registered since the start: the index was compared with it";
  Restart();
  Connect(a);
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kMountsMissing));
  v1::MaintainMountRequest maintain;
  maintain.set_name("mounts/b");
  maintain.mutable_until_time()->set_seconds(absl::ToUnixSeconds(clock_.Now()) +
                                             3600);
  ASSERT_OK(lifecycle_->mounts().Maintain(maintain));
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound));
  clock_.Advance(absl::Hours(2));
  agents_[0]->Beat();
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kMountsMissing));
  v1::RetireMountRequest retire;
  retire.set_name("mounts/b");
  ASSERT_OK(lifecycle_->mounts().Retire(retire));
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound));
}

TEST_F(ImageCatalogTest, ACleanCloseCountsOnceAMountConfirmsIt) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  Upload(a, ids_.NextUuid(), ids_.NextUuid());
  lifecycle_->sessions().TellSyncedPair();
  Settle();
  ASSERT_OK(index_->CloseCleanly());
  Restart();
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kMountsMissing));
  Connect(a);
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound))
      << "b is not needed";
}

TEST_F(ImageCatalogTest, AnUndecidedUploadHoldsNotFoundBack) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_));
  lifecycle_->sessions().TellSyncedPair();
  Settle();
  ASSERT_OK(index_->CloseCleanly());
  Restart();
  Connect(b);
  EXPECT_THAT(GetStatusOf(ids_.NextUuid()), HasReason(reason::kImageNotFound));
  const absl::Status undecided = GetStatusOf(image_);
  EXPECT_THAT(undecided, HasReason(reason::kMountsMissing));
  EXPECT_EQ(MetadataOf(undecided)["mounts"], "a");
  Connect(a);
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound));
}

// Its agent can not look it up: a call of it is stuck. All else goes on.
TEST_F(ImageCatalogTest, AnUploadThatItsMountDecidesLaterHoldsNotFoundBack) {
  FakeAgent* const a = AddConnected("a", 1);
  ASSERT_OK(Start(image_, upload_));
  lifecycle_->sessions().TellSyncedPair();
  Settle();
  ASSERT_OK(index_->CloseCleanly());
  Restart();
  a->Behave([](FakeAgent::Behaviour* b) { b->late_statuses = true; });
  Connect(a);
  EXPECT_THAT(GetStatusOf(ids_.NextUuid()), HasReason(reason::kImageNotFound));
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kMountsMissing));
  a->TellLate();
  Settle();
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kImageNotFound));
}

TEST_F(ImageCatalogTest, ATombstoneOfAnEarlierStartDoesNotAnswerAtOnce) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  Upload(a, image_, upload_);
  ASSERT_OK(Delete(image_));
  Restart();
  Connect(a);
  EXPECT_THAT(GetStatusOf(image_), HasReason(reason::kMountsMissing));
}

TEST_F(ImageCatalogTest, DeleteSurvivesARestartAtEveryCommit) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  using Fault = server::MemKvStore::Fault;
  for (const Fault fault : {Fault::kBeforeApplying, Fault::kAfterApplying}) {
    for (int at = 1; at <= 3; ++at) {
      SCOPED_TRACE(at * 10 + static_cast<int>(fault));
      const Uuid image = ids_.NextUuid();
      Upload(a, image, ids_.NextUuid());
      kv_->FailCommit(at, fault);
      bool gone = false;
      for (int round = 0; round < 3 && !gone; ++round) {
        server::ImageCatalog::DeleteRequest request;
        request.image_id = image;
        request.allow_missing = true;
        gone = lifecycle_->images().Delete(request).ok();
        Settle();
        if (!index_->write_error().empty()) {
          Restart();
          Connect(a);
          Connect(b);
        }
      }
      kv_->ClearFaults();
      EXPECT_TRUE(gone);
      EXPECT_FALSE(a->Has(image));
      EXPECT_THAT(GetStatusOf(image), HasReason(reason::kImageNotFound));
    }
  }
}

}  // namespace
}  // namespace predella::testing
