#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/capability.h"
#include "common/errors.h"
#include "common/generation.h"
#include "common/rpc_status.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class UploadManagerTest : public LifecycleFixture {
 protected:
  const Uuid image_ = ids_.NextUuid();
  const Uuid upload_ = ids_.NextUuid();
};

TEST_F(UploadManagerTest, StartWriteCommit) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_OK_AND_ASSIGN(const v1::Upload started, Start(image_, upload_));
  EXPECT_EQ(started.state(), v1::UPLOAD_STATE_OPEN);
  EXPECT_EQ(started.target().addresses(0), "unix:/run/a.sock");
  EXPECT_EQ(started.placement().winner(), "mounts/a");
  ASSERT_OK_AND_ASSIGN(const Generation generation,
                       Generation::Parse(started.generation()));
  const Capability want{Capability::Operation::kWrite,
                        image_,
                        generation,
                        upload_,
                        agent->uid(),
                        0};
  EXPECT_OK(CheckCapability(started.write_capability(), want,
                            agent->attach()->mount_key(), clock_.NowMicros()));
  ASSERT_TRUE(agent->Write(upload_, 5000, false));
  ASSERT_TRUE(agent->Publish(upload_));
  Settle();
  ASSERT_TRUE(agent->ack(upload_).has_value());
  EXPECT_EQ(agent->ack(upload_)->outcome(),
            storage::v1::UPLOAD_OUTCOME_COMMITTED);
  ASSERT_OK_AND_ASSIGN(const v1::Image image, lifecycle_->images().Get(image_));
  EXPECT_EQ(image.size_bytes(), 5000);
  EXPECT_EQ(image.crc32c_hex(), "1234abcd");
  EXPECT_EQ(image.generation(), started.generation());
  EXPECT_EQ(image.health(), v1::IMAGE_HEALTH_HEALTHY);
  EXPECT_EQ(image.readable_copies(), 1);
  ASSERT_EQ(image.copies_size(), 1);
  EXPECT_EQ(image.copies(0).mount(), "mounts/a");
  EXPECT_FALSE(image.copies(0).read_capability().empty());
}

TEST_F(UploadManagerTest, TheSameIdBringsTheSameAnswer) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_OK_AND_ASSIGN(const v1::Upload first, Start(image_, upload_));
  ASSERT_OK_AND_ASSIGN(const v1::Upload again, Start(image_, upload_));
  EXPECT_EQ(again.generation(), first.generation());
  EXPECT_EQ(again.target().mount_uid(), first.target().mount_uid());
  ASSERT_TRUE(agent->Write(upload_, 1, false));
  ASSERT_TRUE(agent->Publish(upload_));
  Settle();
  ASSERT_OK_AND_ASSIGN(const v1::Upload after, Start(image_, upload_));
  EXPECT_EQ(after.state(), v1::UPLOAD_STATE_COMMITTED);
  EXPECT_TRUE(after.write_capability().empty());
}

TEST_F(UploadManagerTest, TheSameIdForSomethingElseIsRefused) {
  AddConnected("a");
  ASSERT_OK(Start(image_, upload_, 100));
  for (const auto& again :
       {Start(image_, upload_, 101), Start(image_, upload_, std::nullopt),
        Start(ids_.NextUuid(), upload_, 100)}) {
    EXPECT_THAT(again, StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(again, HasReason(reason::kInvalidArgument));
  }
}

TEST_F(UploadManagerTest, AnExistingImageIsNotReplaced) {
  FakeAgent* const agent = AddConnected("a");
  Upload(agent, image_, upload_);
  const auto other = Start(image_, ids_.NextUuid());
  EXPECT_THAT(other, StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(other, HasReason(reason::kImageExists));
}

TEST_F(UploadManagerTest, CommittedIsRememberedByTheImageItself) {
  FakeAgent* const agent = AddConnected("a");
  Upload(agent, image_, upload_);
  clock_.Advance(options_.outcome_ttl + absl::Minutes(1));
  Tick();
  EXPECT_THAT(lifecycle_->uploads().Get(upload_),
              HasReason(reason::kUploadNotFound));
  ASSERT_OK_AND_ASSIGN(const v1::Upload again, Start(image_, upload_, 4096));
  EXPECT_EQ(again.state(), v1::UPLOAD_STATE_COMMITTED);
}

TEST_F(UploadManagerTest, AnOpenStreamKeepsOthersOut) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(agent->Write(upload_, 10, /*leave_open=*/true));
  const auto other = Start(image_, ids_.NextUuid());
  EXPECT_THAT(other, StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(other, HasReason(reason::kUploadInProgress));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
}

TEST_F(UploadManagerTest, AClosedStreamIsSuperseded) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(a->Write(upload_, 10, /*leave_open=*/false));
  const Uuid newer = ids_.NextUuid();
  ASSERT_OK_AND_ASSIGN(const v1::Upload second, Start(image_, newer));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_SUPERSEDED);
  // A mount with a leftover of the loser is not taken.
  EXPECT_EQ(second.target().mount(), "mounts/b");
  EXPECT_FALSE(a->Publish(upload_)) << "taken off the list";
  Tick();
  EXPECT_FALSE(a->HasInflight(upload_)) << "the loser's bytes are removed";
  ASSERT_TRUE(b->Write(newer, 7, false));
  ASSERT_TRUE(b->Publish(newer));
  Settle();
  EXPECT_EQ(StateOf(newer), v1::UPLOAD_STATE_COMMITTED);
}

TEST_F(UploadManagerTest, PublishedBeforeItIsClosedIsCommitted) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(agent->Write(upload_, 10, false));
  // The report is lost with the session, the file is there.
  agent->Lose();
  ASSERT_TRUE(agent->Publish(upload_));
  agent->Behave([](FakeAgent::Behaviour* b) { b->answer_attach = true; });
  Connect(agent);
  EXPECT_THAT(Start(image_, ids_.NextUuid()), HasReason(reason::kImageExists));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_COMMITTED);
}

TEST_F(UploadManagerTest, TheLosersPublishIsRefusedAndUnlinkedByCommandOnly) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(a->Write(upload_, 10, false));
  a->Lose();  // without a session its stream counts as closed
  const Uuid newer = ids_.NextUuid();
  Upload(b, image_, newer, int64_t{1} << 20);
  ASSERT_TRUE(a->Publish(upload_)) << "it did not hear that it lost";
  EXPECT_TRUE(a->Has(image_));
  Connect(a);
  Settle();
  // Its file is removed by generation; the winner's stays.
  EXPECT_FALSE(a->Has(image_));
  EXPECT_TRUE(b->Has(image_));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_SUPERSEDED);
}

TEST_F(UploadManagerTest, AnUnknownUploadIsRefusedAndStays) {
  FakeAgent* const agent = AddConnected("a");
  control::v1::Published published;
  published.set_upload_id(upload_.bytes());
  published.set_image_id(image_.bytes());
  *published.mutable_generation() = index_->synced_pair().ToProto();
  agent->Report(published);
  Settle();
  ASSERT_TRUE(agent->ack(upload_).has_value());
  EXPECT_EQ(agent->ack(upload_)->reason(), "UPLOAD_NOT_FOUND");
  for (const control::v1::Command& command : agent->commands()) {
    EXPECT_FALSE(command.has_remove());
  }
}

TEST_F(UploadManagerTest, ARefusingMountCostsTheNextOne) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  a->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_prepare = MakeError(absl::StatusCode::kResourceExhausted,
                                  reason::kMountFull, "0 bytes left");
  });
  ASSERT_OK_AND_ASSIGN(const v1::Upload started, Start(image_, upload_));
  EXPECT_EQ(started.target().mount(), "mounts/b");
}

TEST_F(UploadManagerTest, ASilentMountCostsTheNextOne) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  ASSERT_OK_AND_ASSIGN(const v1::Upload started, Start(image_, upload_));
  EXPECT_EQ(started.target().mount(), "mounts/b");
}

TEST_F(UploadManagerTest, ASilentMountIsNotCalledFull) {
  FakeAgent* const a = AddConnected("a", 1);
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = true; });
  const absl::Status status = Start(image_, upload_).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(std::string(status.message()), HasSubstr("a did not take it"));
  // Not ended either: the same call goes on when it answers again.
  a->Behave([](FakeAgent::Behaviour* b) { b->ignore_commands = false; });
  EXPECT_OK(Start(image_, upload_));
}

TEST_F(UploadManagerTest, EveryMountFullIsSaidWithNumbers) {
  FakeAgent* const agent = AddConnected("a");
  agent->Behave([](FakeAgent::Behaviour* b) { b->available_bytes = 20 << 20; });
  agent->Beat();
  const auto started = Start(image_, upload_, int64_t{1} << 30);
  EXPECT_THAT(started, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(started, HasReason(reason::kNoSpaceInCluster));
  EXPECT_EQ(MetadataOf(started.status())["needed_bytes"], "1073741824");
}

TEST_F(UploadManagerTest, AFullMountMovesTheUpload) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_, std::nullopt));
  ASSERT_TRUE(a->Write(upload_, 5'000'000, true));
  a->ReportFull(upload_, 5'000'000);
  Settle();
  const auto ack = a->full_ack(upload_);
  ASSERT_TRUE(ack.has_value());
  ASSERT_FALSE(ack->has_error());
  EXPECT_EQ(ack->target().mount_name(), "b");
  EXPECT_FALSE(ack->target().capability().empty());
  const auto commands = b->commands();
  ASSERT_FALSE(commands.empty());
  EXPECT_EQ(commands.back().prepare_upload().upload().segment_boundary(),
            int64_t{4} << 20);
  // A lost answer: the same target again.
  a->ReportFull(upload_, 5'000'000);
  Settle();
  EXPECT_EQ(a->full_ack(upload_)->target().mount_name(), "b");
  // The old mount is told where it went, the new one where its part begins.
  a->Lose();
  b->Lose();
  Connect(a);
  Connect(b);
  ASSERT_EQ(a->attach()->open_uploads_size(), 1);
  EXPECT_EQ(a->attach()->open_uploads(0).moved_to().mount_name(), "b");
  ASSERT_EQ(b->attach()->open_uploads_size(), 1);
  EXPECT_EQ(b->attach()->open_uploads(0).segment_boundary(), int64_t{4} << 20);
  ASSERT_TRUE(b->Write(upload_, 6'000'000, false));
  ASSERT_TRUE(b->Publish(upload_));
  Settle();
  Tick();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_COMMITTED);
  EXPECT_FALSE(a->HasInflight(upload_));
  EXPECT_TRUE(b->Has(image_));
}

// The first mount passes its bytes to the second, which has the rest of what
// the third one wants: sent there directly they would be too few.
TEST_F(UploadManagerTest, EachMountOfAnUploadPassesItsBytesToTheNext) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  AddConnected("c", 3);
  ASSERT_OK(Start(image_, upload_, std::nullopt));
  ASSERT_TRUE(a->Write(upload_, 5'000'000, true));
  a->ReportFull(upload_, 5'000'000);
  Settle();
  ASSERT_TRUE(b->Write(upload_, 9'000'000, true));
  b->ReportFull(upload_, 9'000'000);
  Settle();
  ASSERT_EQ(b->full_ack(upload_)->target().mount_name(), "c");
  EXPECT_EQ(b->full_ack(upload_)->target().segment_boundary(),
            int64_t{8} << 20);
  a->ReportFull(upload_, 5'000'000);
  Settle();
  EXPECT_EQ(a->full_ack(upload_)->target().mount_name(), "b");
  a->Lose();
  Connect(a);
  ASSERT_EQ(a->attach()->open_uploads_size(), 1);
  const control::v1::RedirectTarget next =
      a->attach()->open_uploads(0).moved_to();
  EXPECT_EQ(next.mount_name(), "b");
  EXPECT_EQ(next.segment_boundary(), int64_t{4} << 20);
}

// The one that would take over does not fit anywhere: the other lives on.
TEST_F(UploadManagerTest, AnUploadThatFitsNowhereEndsNoOther) {
  FakeAgent* const a = AddConnected("a", 1);
  ASSERT_OK(Start(image_, upload_, int64_t{1} << 30));
  ASSERT_TRUE(a->Write(upload_, 4096, false));
  EXPECT_THAT(Start(image_, ids_.NextUuid(), int64_t{1} << 60),
              HasReason(reason::kNoSpaceInCluster));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
  // The room that the other one holds is that of the one that takes over.
  a->Behave([](FakeAgent::Behaviour* b) { b->available_bytes = 1 << 20; });
  a->Beat();
  EXPECT_THAT(Start(image_, ids_.NextUuid(), int64_t{1} << 30),
              HasReason(reason::kNoSpaceInCluster));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_SUPERSEDED);
}

// After a start of the coordinator agents register one after the other.
TEST_F(UploadManagerTest, AMoveWaitsForMountsThatAreMissing) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_, std::nullopt));
  ASSERT_TRUE(a->Write(upload_, 5'000'000, true));
  Restart();
  Connect(a);
  a->ReportFull(upload_, 5'000'000);
  Settle();
  EXPECT_FALSE(a->full_ack(upload_).has_value()) << "not decided";
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
  clock_.Advance(options_.move_wait - absl::Seconds(1));
  a->Beat();
  a->ReportFull(upload_, 5'000'000);
  Settle();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
  Connect(b);
  a->ReportFull(upload_, 5'000'000);
  Settle();
  ASSERT_TRUE(a->full_ack(upload_).has_value());
  EXPECT_EQ(a->full_ack(upload_)->target().mount_name(), "b");
}

TEST_F(UploadManagerTest, AMoveDoesNotWaitForEver) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2)->Lose();
  ASSERT_OK(Start(image_, upload_, std::nullopt));
  ASSERT_TRUE(a->Write(upload_, 5'000'000, true));
  a->ReportFull(upload_, 5'000'000);
  Settle();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
  clock_.Advance(options_.move_wait);
  a->Beat();
  a->ReportFull(upload_, 5'000'000);
  Settle();
  ASSERT_TRUE(a->full_ack(upload_).has_value());
  const absl::Status error = FromRpcStatus(a->full_ack(upload_)->error());
  EXPECT_THAT(error, AllOf(StatusIs(absl::StatusCode::kUnavailable),
                           HasReason(reason::kMountsMissing)));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_ABORTED);
  a->ReportFull(upload_, 5'000'000);
  Settle();
  EXPECT_THAT(FromRpcStatus(a->full_ack(upload_)->error()),
              StatusIs(absl::StatusCode::kUnavailable))
      << "the outcome has the code of its reason";
}

TEST_F(UploadManagerTest, FullAndNowhereElseEndsWithNumbers) {
  FakeAgent* const a = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(a->Write(upload_, 9'000'000, true));
  a->ReportFull(upload_, 9'000'000);
  Settle();
  const auto ack = a->full_ack(upload_);
  ASSERT_TRUE(ack.has_value());
  ASSERT_TRUE(ack->has_error());
  const absl::Status error = FromRpcStatus(ack->error());
  EXPECT_THAT(error, HasReason(reason::kNoSpaceInCluster));
  EXPECT_THAT(std::string(error.message()), HasSubstr("9000000 bytes"));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_ABORTED);
}

TEST_F(UploadManagerTest, WithoutSignOfLifeItExpires) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(agent->Write(upload_, 10, false));
  clock_.Advance(options_.upload_ttl - absl::Minutes(1));
  agent->Beat({upload_.bytes()});
  clock_.Advance(absl::Minutes(2));
  agent->Beat();
  Tick();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
  clock_.Advance(options_.upload_ttl);
  agent->Beat();
  Tick();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_EXPIRED);
  Tick();
  EXPECT_FALSE(agent->HasInflight(upload_));
}

TEST_F(UploadManagerTest, AnOutcomeIsKeptUntilItsMountIsClean) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  agent->Lose();
  ASSERT_OK(lifecycle_->uploads().Abort(upload_));
  clock_.Advance(options_.outcome_ttl * 3);
  Tick();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_ABORTED);
  Connect(agent);
  Tick();
  Tick();
  EXPECT_THAT(lifecycle_->uploads().Get(upload_),
              HasReason(reason::kUploadNotFound));
}

TEST_F(UploadManagerTest, AbortEndsAnOpenStreamAndIsIdempotent) {
  FakeAgent* const agent = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(agent->Write(upload_, 10, true));
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK_AND_ASSIGN(const v1::Upload aborted,
                         lifecycle_->uploads().Abort(upload_));
    EXPECT_EQ(aborted.state(), v1::UPLOAD_STATE_ABORTED);
    EXPECT_EQ(aborted.reason(), "UPLOAD_ABORTED");
  }
  EXPECT_FALSE(agent->Publish(upload_));
  const Uuid committed = ids_.NextUuid();
  Tick();
  Upload(agent, image_, committed);
  EXPECT_THAT(lifecycle_->uploads().Abort(committed),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(UploadManagerTest, AReadOnlyIndexRefusesUploadsAndGoesOnReading) {
  FakeAgent* const agent = AddConnected("a");
  Upload(agent, image_, upload_);
  kv_->FailCommit(1, server::MemKvStore::Fault::kBeforeApplying,
                  /*disk_full=*/true);
  EXPECT_THAT(Start(ids_.NextUuid(), ids_.NextUuid()),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Start(ids_.NextUuid(), ids_.NextUuid()),
              HasReason(reason::kIndexReadOnly));
  EXPECT_THAT(Delete(image_), HasReason(reason::kIndexReadOnly));
  EXPECT_OK(lifecycle_->images().Get(image_));
  EXPECT_TRUE(lifecycle_->cluster().Get().index_read_only());
  agent->Lose();
  Connect(agent);
  EXPECT_OK(agent->closed());
  EXPECT_EQ(lifecycle_->images().Get(image_)->readable_copies(), 1);
}

// Killed before or after each commit of an upload's life, then started again:
// the client asks again, and there is one image and no second file.
TEST_F(UploadManagerTest, ARestartAtEveryCommitLosesNothing) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  using Fault = server::MemKvStore::Fault;
  for (const Fault fault : {Fault::kBeforeApplying, Fault::kAfterApplying}) {
    for (int at = 1; at <= 3; ++at) {
      SCOPED_TRACE(
          absl::StrCat("commit ", at, " fault ",
                       fault == Fault::kBeforeApplying ? "before" : "after"));
      const Uuid image = ids_.NextUuid();
      const Uuid upload = ids_.NextUuid();
      kv_->FailCommit(at, fault);
      bool committed = false;
      for (int round = 0; round < 3 && !committed; ++round) {
        const auto started = Start(image, upload, 100);
        if (started.ok() && started->state() == v1::UPLOAD_STATE_OPEN) {
          FakeAgent* const agent =
              started->target().mount() == "mounts/a" ? a : b;
          if (agent->Write(upload, 100, false)) {
            agent->Publish(upload);
          }
          Settle();
        }
        committed = StateOf(upload) == v1::UPLOAD_STATE_COMMITTED;
        if (!index_->write_error().empty()) {
          Restart();
          Connect(a);
          Connect(b);
        }
      }
      kv_->ClearFaults();
      EXPECT_EQ(StateOf(upload), v1::UPLOAD_STATE_COMMITTED);
      ASSERT_OK_AND_ASSIGN(const v1::Image got,
                           lifecycle_->images().Get(image));
      EXPECT_EQ(got.readable_copies(), 1);
      EXPECT_EQ((a->Has(image) ? 1 : 0) + (b->Has(image) ? 1 : 0), 1);
      EXPECT_FALSE(lifecycle_->trust().recovering());
    }
  }
}

TEST_F(UploadManagerTest, AnUploadOfAnEarlierStartIsSupersededProvisionally) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(a->Write(upload_, 10, false));
  Restart();
  ASSERT_TRUE(a->Publish(upload_)) << "while nobody listened";
  Connect(b);
  const Uuid newer = ids_.NextUuid();
  ASSERT_OK_AND_ASSIGN(const v1::Upload second, Start(image_, newer));
  EXPECT_EQ(second.target().mount(), "mounts/b");
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
  clock_.Advance(options_.upload_ttl * 2);
  b->Beat({newer.bytes()});
  Tick();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN)
      << "it never expires before its mount has registered";
  // Its mount answers "published": it is the image, and the newer one loses.
  Connect(a);
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_COMMITTED);
  ASSERT_TRUE(b->Write(newer, 10, false));
  ASSERT_TRUE(b->Publish(newer));
  Settle();
  EXPECT_EQ(b->ack(newer)->outcome(), storage::v1::UPLOAD_OUTCOME_SUPERSEDED);
  Tick();
  EXPECT_FALSE(b->Has(image_));
  EXPECT_TRUE(a->Has(image_));
}

TEST_F(UploadManagerTest, AnIdleUploadOfAnEarlierStartGivesWay) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_));
  ASSERT_TRUE(a->Write(upload_, 10, false));
  Restart();
  Connect(b);
  const Uuid newer = ids_.NextUuid();
  ASSERT_OK(Start(image_, newer));
  Connect(a);
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_SUPERSEDED);
  EXPECT_EQ(StateOf(newer), v1::UPLOAD_STATE_OPEN);
}

}  // namespace
}  // namespace predella::testing
