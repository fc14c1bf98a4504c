// Uploads by the client to services that fail, and its small parts.
#include "predella/client.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/internal/upload_window.h"
#include "client/mocks/mock_connection.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/rpc/grpc_status.h"
#include "common/units.h"
#include "predella/upload_mark.h"
#include "tests/client/lib/client_fixture.h"
#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::predella::client_internal::UploadWindow;
using ::predella::testing::HasReason;
using ::predella::testing::kImage;
using ::predella::testing::RandomString;
using ::predella::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Return;

using ClientTest = ::predella::testing::ClientFixture;

TEST_F(ClientTest, UploadsOfAllSizes) {
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{1} << 20, (size_t{3} << 20) + 17}) {
    {
      MutexLock lock(&cluster_.mu);
      cluster_.images.clear();
    }
    const std::string bytes = RandomString(size, 1);
    ASSERT_OK_AND_ASSIGN(const v1::Image image, Upload(bytes));
    EXPECT_EQ(image.size_bytes(), static_cast<int64_t>(size));
    EXPECT_EQ(Stored(), bytes) << size;
  }
}

TEST_F(ClientTest, ResumesAfterABreakAnywhere) {
  const std::string bytes = RandomString((6 << 20) + 12345, 2);
  std::mt19937 random(3);
  for (int i = 0; i < 8; ++i) {
    one_.break_at = static_cast<int64_t>(random() % bytes.size());
    one_.forget_on_break = i % 2 == 1;
    const int before = one_.streams;
    ASSERT_OK(Upload(bytes));
    EXPECT_EQ(Stored(), bytes);
    EXPECT_EQ(one_.streams, before + 2);
  }
}

TEST_F(ClientTest, AnAgentThatVerifiesIsAliveAndNoMore) {
  const std::string bytes = RandomString((3 << 20) + 1, 6);
  one_.verify = 2;
  one_.break_at = 2 << 20;
  ASSERT_OK(Upload(bytes));
  EXPECT_EQ(Stored(), bytes);
  EXPECT_EQ(one_.streams, 2);
}

TEST_F(ClientTest, FollowsARedirectFromTheMiBBoundary) {
  const std::string bytes = RandomString((5 << 20) + 99, 4);
  one_.redirect_at = (3 << 20);
  one_.redirect_to = two_server_->address();
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  ASSERT_OK(WriteAll(writer.get(), bytes));
  ASSERT_OK(writer->Commit());
  EXPECT_EQ(writer->mount(), "mounts/two");
  EXPECT_EQ(two_.streams, 1);
  EXPECT_EQ(Stored(), bytes);
}

TEST_F(ClientTest, LostAnswerToTheCommitIsAskedFor) {
  one_.lose_commit_answer = true;
  ASSERT_OK_AND_ASSIGN(const v1::Image image, Upload("panel"));
  EXPECT_EQ(image.size_bytes(), 5);
  EXPECT_EQ(one_.streams, 1);
  EXPECT_GE(images_.get_uploads, 1);
}

TEST_F(ClientTest, SilentAgentIsGivenUpOnceAndForAll) {
  options_.stall_timeout = absl::Milliseconds(200);
  one_.stall = true;
  EXPECT_THAT(Upload("panel"), AllOf(StatusIs(absl::StatusCode::kUnavailable),
                                     HasReason(reason::kAgentUnreachable)));
}

// And not the coordinator.
TEST_F(ClientTest, AnAgentThatIsGoneIsNamed) {
  options_.retry_for = absl::Milliseconds(200);
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  const std::string mib = RandomString(1 << 20, 3);
  ASSERT_OK(writer->Write(mib));
  one_server_.reset();
  absl::Status status;
  for (int i = 0; i < 64 && status.ok(); ++i) {
    status = writer->Write(mib);
  }
  EXPECT_THAT(status, AllOf(StatusIs(absl::StatusCode::kUnavailable),
                            HasReason(reason::kAgentUnreachable)));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the agent of mounts/"));
}

TEST_F(ClientTest, TargetThatFailsAtOnceIsReplacedSilently) {
  one_.refuse = ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable,
                                       reason::kMountFailed, "disk is gone"));
  images_.on_start = [&](int call) {
    if (call == 2) {
      images_.agent_address = two_server_->address();
    }
    return grpc::Status::OK;
  };
  ASSERT_OK(Upload("panel"));
  EXPECT_EQ(images_.starts, 2);
  EXPECT_EQ(Stored(), "panel");
}

TEST_F(ClientTest, TheUploadThatReplacesOneIsOfTheSameWriter) {
  one_.refuse = ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable,
                                       reason::kMountFailed, "disk is gone"));
  UploadOptions upload;
  upload.image = kImage;
  upload.writer = "glance/fast";
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  const std::string first = writer->upload_id();
  EXPECT_THAT(writer->Commit(), HasReason(reason::kMountFailed));
  EXPECT_EQ(images_.starts, 2);
  EXPECT_NE(writer->upload_id(), first);
  for (const std::string& id : {first, writer->upload_id()}) {
    EXPECT_TRUE(IsUploadOf(id, "glance/fast")) << id;
    EXPECT_FALSE(IsUploadOf(id, "glance/twin")) << id;
  }
}

TEST_F(ClientTest, TargetThatFailsIsReplacedOnlyOnce) {
  one_.refuse = ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable,
                                       reason::kMountFailed, "disk is gone"));
  EXPECT_THAT(Upload("panel"), HasReason(reason::kMountFailed));
  EXPECT_EQ(images_.starts, 2);
}

TEST_F(ClientTest, ChosenUploadIdIsNeverChanged) {
  one_.refuse = ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable,
                                       reason::kMountFailed, "disk is gone"));
  UploadOptions upload;
  upload.image = kImage;
  upload.upload_id = "11111111-93d5-4a6f-8e01-5c9be2a4d7f0";
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  EXPECT_THAT(writer->Commit(), HasReason(reason::kMountFailed));
  EXPECT_EQ(images_.starts, 1);
}

TEST_F(ClientTest, OutcomeOfALostUploadIsReported) {
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  {
    MutexLock lock(&cluster_.mu);
    cluster_.uploads.begin()->second.upload.set_state(
        v1::UPLOAD_STATE_SUPERSEDED);
  }
  one_.break_at = 0;
  ASSERT_OK(writer->Write("panel"));
  EXPECT_THAT(writer->Commit(), AllOf(StatusIs(absl::StatusCode::kAborted),
                                      HasReason(reason::kUploadSuperseded)));
  EXPECT_THAT(writer->Write("more"), HasReason(reason::kUploadSuperseded));
}

// A coordinator that has just started knows the mount but no address of it.
TEST_F(ClientTest, AnAddressIsKeptUntilAnotherIsKnown) {
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  {
    MutexLock lock(&cluster_.mu);
    cluster_.uploads.begin()->second.upload.mutable_target()->clear_addresses();
  }
  one_.break_at = 0;
  ASSERT_OK(writer->Write("panel"));
  EXPECT_OK(writer->Commit());
  EXPECT_EQ(Stored(), "panel");
}

TEST_F(ClientTest, WhyAnUploadWasAbortedIsAskedOfTheCoordinator) {
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  {
    MutexLock lock(&cluster_.mu);
    v1::Upload& ended = cluster_.uploads.begin()->second.upload;
    ended.set_state(v1::UPLOAD_STATE_ABORTED);
    ended.set_detail("its mount was retired");
  }
  one_.refuse = ToGrpcStatus(MakeError(
      absl::StatusCode::kAborted, reason::kUploadAborted, "is being removed"));
  ASSERT_OK(writer->Write("panel"));
  EXPECT_THAT(writer->Commit(), AllOf(HasReason(reason::kUploadAborted),
                                      StatusIs(absl::StatusCode::kAborted,
                                               HasSubstr("was retired"))));
}

TEST_F(ClientTest, AnUploadThatANameWasInTheWayOf) {
  UploadOptions upload;
  upload.image = kImage;
  upload.upload_id = "11111111-93d5-4a6f-8e01-5c9be2a4d7f0";
  ASSERT_OK(Connect().StartUpload(upload));
  {
    MutexLock lock(&cluster_.mu);
    v1::Upload& ended = cluster_.uploads.begin()->second.upload;
    ended.set_state(v1::UPLOAD_STATE_ABORTED);
    ended.set_reason("NAME_TAKEN");
  }
  EXPECT_THAT(Connect().StartUpload(upload),
              AllOf(StatusIs(absl::StatusCode::kAlreadyExists),
                    HasReason(reason::kNameTaken)));
}

TEST_F(ClientTest, BytesCalledSafeThatAreLostEndTheUpload) {
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  // More than the window: some of it was called safe and dropped.
  ASSERT_OK(WriteAll(writer.get(), RandomString(40 << 20, 5)));
  one_.lose_all = true;  // a power cut
  absl::Status status;
  for (int i = 0; status.ok() && i < 40; ++i) {
    status = writer->Write(RandomString(1 << 20, 5));
  }
  EXPECT_THAT(status, AllOf(StatusIs(absl::StatusCode::kAborted),
                            HasReason(reason::kUploadBytesLost)));
}

// Bytes that are no longer kept here lie safely behind the call that hangs.
TEST_F(ClientTest, ACallThatHangsIsWaitedForWhereNothingElseHelps) {
  const std::string bytes = RandomString(40 << 20, 11);
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  ASSERT_OK(WriteAll(writer.get(), bytes.substr(0, 36 << 20)));
  one_.stalled_streams = 3;
  one_.break_at = 38 << 20;
  ASSERT_OK(WriteAll(writer.get(), bytes.substr(36 << 20)));
  ASSERT_OK(writer->Commit());
  EXPECT_EQ(one_.stalled_streams, 0);
  EXPECT_EQ(images_.starts, 1);
  EXPECT_TRUE(Stored() == bytes);
}

TEST_F(ClientTest, AnUploadThatItsAgentCallsLostIsNotTriedAgain) {
  one_.refuse = ToGrpcStatus(MakeError(absl::StatusCode::kAborted,
                                       reason::kUploadBytesLost, "1 of 4 MiB"));
  EXPECT_THAT(Upload("bytes"), AllOf(StatusIs(absl::StatusCode::kAborted),
                                     HasReason(reason::kUploadBytesLost)));
  EXPECT_EQ(images_.starts, 1);
  EXPECT_EQ(one_.streams, 1);
}

TEST_F(ClientTest, WindowBlocksAndNeverPassesItsLimit) {
  one_.hold_window = true;
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  const std::string mib = RandomString(1 << 20, 6);
  std::atomic<int> written = 0;
  std::thread thread([&] {
    for (int i = 0; i < 40; ++i) {
      if (!writer->Write(mib).ok()) {
        return;
      }
      ++written;
    }
  });
  while (one_.received < (32 << 20)) {
    std::this_thread::yield();
  }
  // Now it is told that they are safe: the rest goes through.
  one_.release_window = true;
  thread.join();
  EXPECT_EQ(written, 40);
  EXPECT_LE(one_.most_unsafe, 32 << 20);
  ASSERT_OK(writer->Commit());
}

TEST_F(ClientTest, WhatWasWrittenIsSentWhileTheSourceRests) {
  constexpr int kMiBs = 17;
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  const std::string mib = RandomString(1 << 20, 7);
  ASSERT_OK(writer->Write(mib));
  {
    // The agent takes nothing for a while.
    MutexLock lock(&cluster_.mu);
    for (int i = 1; i < kMiBs; ++i) {
      ASSERT_OK(writer->Write(mib));
    }
  }
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (one_.received < (kMiBs << 20) && absl::Now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_EQ(one_.received, kMiBs << 20);
  ASSERT_OK(writer->Commit());
}

TEST_F(ClientTest, StartIsRetriedUnderTheSameId) {
  images_.on_start = [](int call) {
    return call < 3 ? grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "late")
                    : grpc::Status::OK;
  };
  images_.fail_after = true;
  ASSERT_OK(Upload("panel"));
  MutexLock lock(&cluster_.mu);
  EXPECT_EQ(cluster_.uploads.size(), 1u);
}

// It may have been begun, and nobody would come with the id again.
TEST_F(ClientTest, AStartThatIsGivenUpIsAborted) {
  images_.on_start = [](int /*call*/) {
    return ToGrpcStatus(MakeError(absl::StatusCode::kUnavailable,
                                  reason::kAgentUnreachable, "nobody"));
  };
  images_.fail_after = true;
  options_.refused_for = absl::Milliseconds(50);
  EXPECT_THAT(Upload("panel"), HasReason(reason::kAgentUnreachable));
  {
    MutexLock lock(&cluster_.mu);
    ASSERT_EQ(cluster_.uploads.size(), 1u);
    EXPECT_EQ(cluster_.uploads.begin()->second.upload.state(),
              v1::UPLOAD_STATE_ABORTED);
    cluster_.uploads.clear();
  }
  UploadOptions given;
  given.image = kImage;
  given.upload_id = "00000000-0000-4000-8000-000000000001";
  EXPECT_THAT(Connect().StartUpload(given),
              HasReason(reason::kAgentUnreachable));
  MutexLock lock(&cluster_.mu);
  ASSERT_EQ(cluster_.uploads.size(), 1u);
  EXPECT_EQ(cluster_.uploads.begin()->second.upload.state(),
            v1::UPLOAD_STATE_OPEN)
      << "whoever gave the id may come again";
}

TEST_F(ClientTest, StartThatIsRefusedIsNotRetried) {
  images_.on_start = [](int /*call*/) {
    return ToGrpcStatus(MakeError(absl::StatusCode::kResourceExhausted,
                                  reason::kNoSpaceInCluster, "full"));
  };
  EXPECT_THAT(Upload("panel"), HasReason(reason::kNoSpaceInCluster));
  EXPECT_EQ(images_.starts, 1);
}

TEST_F(ClientTest, WrongSizeIsNotCommitted) {
  UploadOptions upload;
  upload.image = kImage;
  upload.size_bytes = 6;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  ASSERT_OK(writer->Write("panel"));
  EXPECT_THAT(writer->Commit(), HasReason(reason::kSizeMismatch));
}

TEST_F(ClientTest, AbortEndsTheUpload) {
  UploadOptions upload;
  upload.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  ASSERT_OK(writer->Write("panel"));
  ASSERT_OK(writer->Abort());
  EXPECT_THAT(writer->Commit(), HasReason(reason::kUploadAborted));
  MutexLock lock(&cluster_.mu);
  EXPECT_EQ(cluster_.uploads.begin()->second.upload.state(),
            v1::UPLOAD_STATE_ABORTED);
}

// The clock of the coordinator was set back, and the agent has not heard of it.
TEST_F(ClientTest, CapabilitiesThatAreRefusedForAWhileAreAskedForAgain) {
  one_.refuse_capability = 4;
  EXPECT_OK(Upload("panel"));
  EXPECT_EQ(one_.streams, 5);
  EXPECT_EQ(Stored(), "panel");
}

// The cluster has another key than this mount: no waiting helps.
TEST_F(ClientTest, CapabilitiesThatAreAlwaysRefusedEndTheUpload) {
  one_.refuse_capability = 1000;
  EXPECT_THAT(Upload("panel").status(), HasReason(reason::kCapabilityInvalid));
}

TEST_F(ClientTest, CommittedUploadIdBringsTheSameImage) {
  UploadOptions upload;
  upload.image = kImage;
  upload.upload_id = "11111111-93d5-4a6f-8e01-5c9be2a4d7f0";
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
    ASSERT_OK(writer->Write("panel"));
    ASSERT_OK(writer->Commit());
  }
  EXPECT_EQ(one_.streams, 1);
  ASSERT_OK_AND_ASSIGN(auto writer, Connect().StartUpload(upload));
  ASSERT_OK(writer->Write("other"));
  EXPECT_THAT(writer->Commit(), HasReason(reason::kCommitConflict));
}

TEST(UploadMarkTest, TellsWritersApart) {
  ASSERT_OK_AND_ASSIGN(const std::string one, DrawUploadId("one"));
  ASSERT_OK_AND_ASSIGN(const std::string again, DrawUploadId("one"));
  ASSERT_OK_AND_ASSIGN(const std::string nobodys, DrawUploadId(""));
  EXPECT_NE(one, again);
  // Version 8 and the variant of RFC 9562; the mark is that of every release.
  EXPECT_EQ(one.substr(14, 1), "8");
  EXPECT_EQ(one.substr(19), again.substr(19));
  EXPECT_EQ(one.substr(19), "b692-c3ad3540bb80");
  EXPECT_TRUE(IsUploadOf(one, "one"));
  EXPECT_TRUE(IsUploadOf("uploads/" + one, "one"));
  EXPECT_FALSE(IsUploadOf(one, "two"));
  EXPECT_FALSE(IsUploadOf(one, ""));
  EXPECT_FALSE(IsUploadOf(nobodys, "one"));
  EXPECT_FALSE(IsUploadOf(nobodys, ""));
  EXPECT_FALSE(IsUploadOf("", "one"));
  EXPECT_FALSE(IsUploadOf("no id", "one"));
  // A random id that happens to have these bytes is none of it.
  std::string random = one;
  random[14] = '4';
  EXPECT_FALSE(IsUploadOf(random, "one"));
}

TEST(ClientOptionsTest, WrongEndpointsAndWindows) {
  ClientOptions options;
  EXPECT_THAT(Client::Connect(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options.endpoint = "unix:/x";
  options.upload_window_bytes = kMiB;
  EXPECT_THAT(Client::Connect(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ImageListTest, GoesThroughPagesEmptyOnesToo) {
  auto connection = std::make_shared<MockConnection>();
  v1::ListImagesResponse first;
  first.add_images()->set_name("images/a");
  first.set_next_page_token("t1");
  v1::ListImagesResponse second;
  second.set_next_page_token("t2");
  second.add_unreachable("mounts/x");
  v1::ListImagesResponse third;
  third.add_images()->set_name("images/b");
  EXPECT_CALL(*connection, ListImages)
      .WillOnce(Return(first))
      .WillOnce(Return(second))
      .WillOnce(Return(third));
  ImageList list = Client(connection).ListImages();
  EXPECT_EQ((*list.Next())->name(), "images/a");
  EXPECT_EQ((*list.Next())->name(), "images/b");
  EXPECT_FALSE(list.Next()->has_value());
}

TEST(UploadWindowTest, CutsAtMiBBoundaries) {
  UploadWindow window(4 * kMiB);
  std::string bytes = RandomString((2 << 20) + 10, 7);
  absl::string_view rest = bytes;
  while (!rest.empty()) {
    rest.remove_prefix(window.Append(rest));
  }
  EXPECT_EQ(window.sealed_end(), 2 << 20);
  EXPECT_EQ(window.ChunkAt(2 << 20), nullptr);
  window.Seal();
  EXPECT_EQ(window.ChunkAt(2 << 20)->chunk().data(), bytes.substr(2 << 20));
  // From the middle of a block: the rest of it, with a checksum of its own.
  const auto middle = window.ChunkAt((1 << 20) + 5);
  EXPECT_EQ(middle->chunk().data(), bytes.substr((1 << 20) + 5, (1 << 20) - 5));
  EXPECT_EQ(middle->chunk().crc32c(), Crc32c(middle->chunk().data()));
  window.DropBelow((1 << 20) + 5);
  EXPECT_EQ(window.start(), 1 << 20);
  EXPECT_EQ(window.ChunkAt(5), nullptr);
  EXPECT_EQ(window.crc32c(), Crc32c(bytes));
}

}  // namespace
}  // namespace predella
