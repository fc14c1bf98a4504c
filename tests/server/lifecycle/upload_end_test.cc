// Ends that agents bring about: lost bytes, taken names; and what an agent is
// told when it attaches.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/resource_name.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAreArray;

class UploadEndTest : public LifecycleFixture {
 protected:
  control::v1::UploadLost Lost() {
    control::v1::UploadLost lost;
    lost.set_upload_id(upload_.bytes());
    const auto row = index_->GetUpload(upload_);
    *lost.mutable_generation() = (*row)->generation();
    lost.set_detail("4096 bytes are gone");
    return lost;
  }
  void Report(FakeAgent* agent, const control::v1::UploadLost& lost) {
    agent->ReportLost(lost);
    Settle();
  }

  const Uuid image_ = ids_.NextUuid();
  const Uuid upload_ = ids_.NextUuid();
};

TEST_F(UploadEndTest, LostBytesEndItForEverybody) {
  FakeAgent* const a = AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_, std::nullopt));
  ASSERT_TRUE(a->Write(upload_, 5'000'000, true));
  a->ReportFull(upload_, 5'000'000);
  Settle();
  EXPECT_EQ(a->full_ack(upload_)->target().segment_boundary(),
            int64_t{4} << 20);
  // The mount it has left still holds its prefix.
  for (int i = 0; i < 2; ++i) {
    Report(a, Lost());
    ASSERT_TRUE(a->ack(upload_).has_value());
    EXPECT_EQ(a->ack(upload_)->outcome(), storage::v1::UPLOAD_OUTCOME_ABORTED);
    EXPECT_EQ(a->ack(upload_)->reason(), "UPLOAD_BYTES_LOST");
    EXPECT_THAT(a->ack(upload_)->detail(),
                AllOf(HasSubstr("mounts/a"), HasSubstr("4096 bytes")));
  }
  ASSERT_OK_AND_ASSIGN(const v1::Upload again,
                       Start(image_, upload_, std::nullopt));
  EXPECT_EQ(again.state(), v1::UPLOAD_STATE_ABORTED);
  EXPECT_EQ(again.reason(), "UPLOAD_BYTES_LOST");
  Tick();
  EXPECT_FALSE(a->HasInflight(upload_));
  EXPECT_FALSE(b->HasInflight(upload_));
  Restart();
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_ABORTED);
}

TEST_F(UploadEndTest, BytesThatAFullMountLostEndItForWantOfSpace) {
  FakeAgent* const a = AddConnected("a", 1);
  ASSERT_OK(Start(image_, upload_, std::nullopt));
  control::v1::UploadLost lost = Lost();
  lost.set_reason("MOUNT_FULL");
  Report(a, lost);
  EXPECT_EQ(a->ack(upload_)->outcome(), storage::v1::UPLOAD_OUTCOME_ABORTED);
  EXPECT_EQ(a->ack(upload_)->reason(), "MOUNT_FULL");
}

TEST_F(UploadEndTest, OnlyItsOwnMountAndGenerationEndIt) {
  AddConnected("a", 1);
  FakeAgent* const b = AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_));
  Report(b, Lost());
  EXPECT_EQ(b->ack(upload_)->reason(), "UPLOAD_NOT_FOUND");
  control::v1::UploadLost other = Lost();
  other.mutable_generation()->set_n(other.generation().n() + 1);
  Report(agents_[0].get(), other);
  EXPECT_EQ(agents_[0]->ack(upload_)->reason(), "UPLOAD_NOT_FOUND");
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_OPEN);
}

TEST_F(UploadEndTest, ACommittedUploadStaysCommitted) {
  FakeAgent* const a = AddConnected("a");
  Upload(a, image_, upload_);
  Report(a, Lost());
  EXPECT_EQ(a->ack(upload_)->outcome(), storage::v1::UPLOAD_OUTCOME_COMMITTED);
  EXPECT_OK(lifecycle_->images().Get(image_));
}

TEST_F(UploadEndTest, ALossThatIsNotWrittenIsNotAnswered) {
  FakeAgent* const a = AddConnected("a");
  ASSERT_OK(Start(image_, upload_));
  kv_->FailCommit(1, server::MemKvStore::Fault::kBeforeApplying);
  Report(a, Lost());
  EXPECT_FALSE(a->ack(upload_).has_value());
}

TEST_F(UploadEndTest, OpenUploadsAreListedAPageAtATime) {
  AddConnected("a", 1);
  std::vector<std::string> names;
  for (int i = 0; i < 5; ++i) {
    const Uuid upload = ids_.NextUuid();
    ASSERT_OK(Start(ids_.NextUuid(), upload));
    names.push_back(UploadName(upload));
  }
  ASSERT_OK(lifecycle_->uploads().Abort(*ParseUploadName(names.back())));
  names.pop_back();
  clock_.Advance(absl::Seconds(30));
  std::vector<std::string> listed;
  v1::ListUploadsRequest request;
  request.set_page_size(2);
  do {
    ASSERT_OK_AND_ASSIGN(const v1::ListUploadsResponse page,
                         lifecycle_->uploads().List(request));
    ASSERT_LE(page.uploads_size(), 2);
    for (const v1::Upload& upload : page.uploads()) {
      listed.push_back(upload.name());
      EXPECT_EQ(upload.target().mount(), "mounts/a");
      EXPECT_EQ(upload.write_capability(), "");
      EXPECT_EQ(upload.live_time().seconds(), upload.create_time().seconds());
      EXPECT_EQ(upload.expire_time().seconds() - upload.live_time().seconds(),
                24 * 3600);
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(listed, UnorderedElementsAreArray(names));
  request.set_page_token("of something else");
  EXPECT_THAT(lifecycle_->uploads().List(request),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(UploadEndTest, ATakenNameCostsTheNextMount) {
  FakeAgent* const a = AddConnected("a", 1);
  AddConnected("b", 2);
  ASSERT_OK(Start(image_, upload_));
  // Somebody puts a file there before it is published.
  a->Behave([](FakeAgent::Behaviour* b) { b->name_taken = true; });
  ASSERT_OK_AND_ASSIGN(const v1::Upload again, Start(image_, upload_));
  EXPECT_EQ(again.target().mount(), "mounts/b");
}

TEST_F(UploadEndTest, ATakenNameWithoutAnotherMountIsSaid) {
  FakeAgent* const a = AddConnected("a");
  a->Behave([](FakeAgent::Behaviour* b) { b->name_taken = true; });
  const auto started = Start(image_, upload_);
  EXPECT_THAT(started, AllOf(StatusIs(absl::StatusCode::kAlreadyExists),
                             HasReason(reason::kNameTaken)));
  EXPECT_THAT(std::string(started.status().message()),
              AllOf(HasSubstr("mounts/a"), HasSubstr("file without record")));
  EXPECT_EQ(StateOf(upload_), v1::UPLOAD_STATE_ABORTED);
  EXPECT_EQ(lifecycle_->uploads().Get(upload_)->reason(), "NAME_TAKEN");
}

TEST_F(UploadEndTest, OnlyATrustedMountMayCollect) {
  FakeAgent* const a = AddConnected("a");
  EXPECT_TRUE(a->attach()->may_collect());
  Restart();  // epoch 2
  a->Behave([](FakeAgent::Behaviour* b) {
    storage::v1::FenceEntry beyond;
    beyond.set_epoch(1);
    beyond.set_nonce(99);
    beyond.set_max_n(1);
    b->extra_known.push_back(beyond);
  });
  Connect(a);
  ASSERT_TRUE(a->attach().has_value());
  EXPECT_FALSE(a->attach()->may_collect());
  FakeAgent* const b = AddConnected("b");
  ASSERT_TRUE(b->attach().has_value());
  EXPECT_FALSE(b->attach()->may_collect()) << "RECOVERING";
}

TEST_F(UploadEndTest, NobodyIsTakenInUntilRecoveringIsSynced) {
  FakeAgent* const a = AddConnected("a");
  FakeAgent* const b = AddConnected("b");
  Restart();  // epoch 2
  const auto beyond = [](FakeAgent::Behaviour* behaviour) {
    storage::v1::FenceEntry entry;
    entry.set_epoch(1);
    entry.set_nonce(99);
    entry.set_max_n(1);
    behaviour->extra_known.push_back(entry);
  };
  a->Behave(beyond);
  kv_->FailCommit(1, server::MemKvStore::Fault::kBeforeApplying);
  for (FakeAgent* const agent : {a, a, b}) {
    Connect(agent);
    EXPECT_FALSE(agent->closed().ok());
    EXPECT_FALSE(agent->attach().has_value());
  }
  kv_->ClearFaults();
  Connect(b);
  ASSERT_TRUE(b->attach().has_value());
  EXPECT_FALSE(b->attach()->may_collect());
  EXPECT_TRUE(index_->GetRecovering()->has_value());
}

}  // namespace
}  // namespace predella::testing
