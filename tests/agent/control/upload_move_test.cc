// A mount that fills up, or breaks, in the middle of an upload.
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/rpc_status.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::IsOk;

class MoveTest : public CoreTest {
 protected:
  // Writes until the file system says it is full; 4 MiB and a bit get in.
  std::shared_ptr<UploadHandle> FillUp(FakeStream** stream,
                                       bool state_too = false) {
    Register();
    Prepare();
    const auto handle = OpenStream(stream);
    Write(handle, 0, 4 * kBlockBytes + 100);
    fs.Inject({.at = 1,
               .op = "pwrite",
               .path = ".predella/inflight",
               .status = MakeError(absl::StatusCode::kResourceExhausted,
                                   reason::kMountFull, "no space left"),
               .perform = false,
               .forever = state_too});
    Write(handle, 4 * kBlockBytes + 100, 2 * kBlockBytes);
    fs.Reset();
    return handle;
  }
  control::v1::CoordinatorMessage FullAck() {
    control::v1::CoordinatorMessage message;
    control::v1::UploadFullAck* ack = message.mutable_upload_full_ack();
    ack->set_upload_id(upload_id.bytes());
    *ack->mutable_generation() = generation.ToProto();
    return message;
  }
  control::v1::RedirectTarget Target() {
    control::v1::RedirectTarget target;
    target.set_mount_name("m-2");
    target.set_mount_uid(ids.NextUuid().bytes());
    target.add_addresses("127.0.0.1:7411");
    target.set_capability("capability of m-2");
    return target;
  }
};

TEST_F(MoveTest, TheTailGoesOnElsewhereAndThePrefixIsCopied) {
  FakeStream* stream = nullptr;
  const auto handle = FillUp(&stream);
  ASSERT_NE(Full(), nullptr);
  EXPECT_EQ(Full()->received_bytes(), 4 * kBlockBytes + 100);
  EXPECT_FALSE(stream->finished.has_value());
  control::v1::CoordinatorMessage ack = FullAck();
  *ack.mutable_upload_full_ack()->mutable_target() = Target();
  core.OnMessage(session, ack);
  Run();
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, IsOk());
  const v1::Redirect& redirect = stream->sent.back().redirect();
  EXPECT_EQ(redirect.offset(), 4 * kBlockBytes);
  EXPECT_EQ(redirect.target().mount(), "mounts/m-2");
  EXPECT_LE(stream->progress().safe_offset(), redirect.offset());

  ASSERT_EQ(peer.copies.size(), 1u);
  PeerCopy& copy = peer.copies[0];
  EXPECT_EQ(copy.end, 4 * kBlockBytes);
  EXPECT_EQ(copy.header.segment(), v1::WRITE_SEGMENT_PREFIX);
  EXPECT_EQ(copy.header.segment_boundary(), 4 * kBlockBytes);
  std::string read;
  copy.read(kBlockBytes, kBlockBytes,
            [&read](absl::StatusOr<std::string> bytes) {
              ASSERT_OK(bytes);
              read = *bytes;
            });
  Run();
  EXPECT_EQ(read, std::string(kBlockBytes, 'x'));

  // A copy that fails is tried again.
  copy.done(absl::UnavailableError("down"));
  Run();
  Tick(absl::Seconds(1));
  ASSERT_EQ(peer.copies.size(), 2u);
  EXPECT_TRUE(mem.Exists(".predella/inflight/" + upload_id.ToString()));
  peer.copies[1].done(absl::OkStatus());
  Run();
  EXPECT_FALSE(mem.Exists(".predella/inflight/" + upload_id.ToString()));
}

// The client still holds what the full disk did not let us write down.
TEST_F(MoveTest, WhatIsNotWrittenDownIsSentAgain) {
  FakeStream* stream = nullptr;
  const auto handle = FillUp(&stream, /*state_too=*/true);
  EXPECT_EQ(Full()->received_bytes(), 0);
  control::v1::CoordinatorMessage ack = FullAck();
  *ack.mutable_upload_full_ack()->mutable_target() = Target();
  core.OnMessage(session, ack);
  Run();
  EXPECT_EQ(stream->sent.back().redirect().offset(), 0);
  EXPECT_TRUE(peer.copies.empty());
}

TEST_F(MoveTest, FullnessIsSaidAgainUntilItIsAnswered) {
  FakeStream* stream = nullptr;
  const auto handle = FillUp(&stream);
  const auto said = [this] {
    int count = 0;
    for (const auto& message : link->sent) {
      count += message.has_upload_full() ? 1 : 0;
    }
    return count;
  };
  const int before = said();
  Tick(kTellAgain);
  EXPECT_GT(said(), before);
}

TEST_F(MoveTest, NoRoomAnywhereEndsTheStreamWithTheCoordinatorsError) {
  FakeStream* stream = nullptr;
  const auto handle = FillUp(&stream);
  control::v1::CoordinatorMessage ack = FullAck();
  *ack.mutable_upload_full_ack()->mutable_error() =
      ToRpcStatus(MakeError(absl::StatusCode::kResourceExhausted,
                            reason::kNoSpaceInCluster, "2 mounts, 0 B free"));
  core.OnMessage(session, ack);
  Run();
  EXPECT_THAT(*stream->finished, HasReason(reason::kNoSpaceInCluster));
  EXPECT_FALSE(mem.Exists(".predella/inflight/" + upload_id.ToString()));
}

TEST_F(MoveTest, FullnessIsReportedAgainToTheNextSession) {
  FakeStream* stream = nullptr;
  const auto handle = FillUp(&stream);
  core.OnDisconnected(session);
  Register({Open()});
  ASSERT_NE(Full(), nullptr);
  EXPECT_EQ(Full()->received_bytes(), 4 * kBlockBytes + 100);
}

TEST_F(MoveTest, AFailedWriteMovesTheUploadToo) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 2 * kBlockBytes);
  fs.Inject({.at = 1,
             .op = "pwrite",
             .path = ".predella/inflight",
             .status = MakeError(absl::StatusCode::kUnavailable,
                                 reason::kMountFailed, "input/output error"),
             .perform = false,
             .forever = true});
  Write(handle, 2 * kBlockBytes, kBlockBytes);
  fs.Reset();
  ASSERT_NE(Full(), nullptr);
  EXPECT_FALSE(stream->finished.has_value());
  EXPECT_EQ(core.View().health, v1::HEALTH_SUSPECT);
}

TEST_F(MoveTest, TheNextMountPublishesWhenBothSegmentsAreHere) {
  Register();
  control::v1::Command command;
  *command.mutable_prepare_upload()->mutable_upload() = Open();
  command.mutable_prepare_upload()->mutable_upload()->set_segment_boundary(
      2 * kBlockBytes);
  Command(command);
  streams.push_back(std::make_shared<FakeStream>());
  v1::WriteHeader header = Header(2 * kBlockBytes);
  header.set_segment(v1::WRITE_SEGMENT_TAIL);
  header.set_segment_boundary(2 * kBlockBytes);
  ASSERT_OK_AND_ASSIGN(auto tail, core.OpenWrite(header, streams[0]));
  Run();
  EXPECT_EQ(streams[0]->progress().next_offset(), 2 * kBlockBytes);
  Write(tail, 2 * kBlockBytes, 50);
  Commit(tail, 2 * kBlockBytes + 50);
  EXPECT_EQ(Published(), nullptr);

  streams.push_back(std::make_shared<FakeStream>());
  header.set_start_offset(0);
  header.set_segment(v1::WRITE_SEGMENT_PREFIX);
  ASSERT_OK_AND_ASSIGN(auto prefix, core.OpenWrite(header, streams[1]));
  Run();
  EXPECT_EQ(streams[1]->progress().next_offset(), 0);
  Write(prefix, 0, 2 * kBlockBytes);
  // Ended by the one who knows where it ends.
  ASSERT_TRUE(streams[1]->finished.has_value());
  EXPECT_THAT(*streams[1]->finished, IsOk());
  ASSERT_NE(Published(), nullptr);
  EXPECT_EQ(Published()->size_bytes(), 2 * kBlockBytes + 50);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  EXPECT_THAT(*streams[0]->finished, IsOk());
}

TEST_F(MoveTest, AMoveGoesOnAfterTheAgentWasStartedAgain) {
  {
    ASSERT_OK_AND_ASSIGN(auto store,
                         ImageStore::Open(&mem, &clock, &ids, StoreOptions()));
    UploadSpec spec;
    spec.upload_id = upload_id;
    spec.image_id = image_id;
    spec.generation = generation;
    ASSERT_OK_AND_ASSIGN(auto staged, store->OpenStaged(spec));
    ASSERT_OK(staged->AppendTail(0, {std::string(3 * kBlockBytes, 'x')},
                                 std::nullopt));
    ASSERT_OK(staged->Checkpoint());
  }
  control::v1::OpenUpload open = Open();
  *open.mutable_moved_to() = Target();
  Register({open});
  ASSERT_EQ(peer.copies.size(), 1u);
  EXPECT_EQ(peer.copies[0].end, 3 * kBlockBytes);
  // The next mount knows where the prefix ends.
  EXPECT_EQ(peer.copies[0].header.segment_boundary(), 0);
  EXPECT_EQ(Full(), nullptr);
}

TEST_F(MoveTest, APrefixThatIsNotWaitedForIsNeverTakenForComplete) {
  Register();
  Prepare();
  streams.push_back(std::make_shared<FakeStream>());
  v1::WriteHeader header = Header(0);
  header.set_segment(v1::WRITE_SEGMENT_PREFIX);
  ASSERT_OK_AND_ASSIGN(auto prefix, core.OpenWrite(header, streams[0]));
  Run();
  core.uploads()->EndOfStream(prefix);
  Run();
  EXPECT_THAT(*streams[0]->finished, HasReason(reason::kOffsetMismatch));
}

TEST_F(MoveTest, APrefixThatEndsEarlyIsNotTaken) {
  Register();
  control::v1::Command command;
  *command.mutable_prepare_upload()->mutable_upload() = Open();
  command.mutable_prepare_upload()->mutable_upload()->set_segment_boundary(
      2 * kBlockBytes);
  Command(command);
  streams.push_back(std::make_shared<FakeStream>());
  v1::WriteHeader header = Header(0);
  header.set_segment(v1::WRITE_SEGMENT_PREFIX);
  ASSERT_OK_AND_ASSIGN(auto prefix, core.OpenWrite(header, streams[0]));
  Run();
  Write(prefix, 0, kBlockBytes);
  core.uploads()->EndOfStream(prefix);
  Run();
  EXPECT_THAT(*streams[0]->finished, HasReason(reason::kOffsetMismatch));
}

}  // namespace
}  // namespace predella::agent
