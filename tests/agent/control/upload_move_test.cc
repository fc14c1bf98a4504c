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
using ::predella::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

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
  // The same where the file system took what it has no room for, and a sync
  // says so: as NFS does.
  std::shared_ptr<UploadHandle> FillUpLate(FakeStream** stream) {
    Register();
    Prepare();
    const auto handle = OpenStream(stream);
    Write(handle, 0, 4 * kBlockBytes + 100);
    testing::Fault fault;
    fault.op = "datasync";
    fault.path = Inflight();
    fault.status = MakeError(absl::StatusCode::kResourceExhausted,
                             reason::kMountFull, "no space left");
    fault.forever = true;
    testing::Fault first = fault;
    first.op = "pwrite";
    first.during = [this, fault] { fs.Inject(fault); };
    fs.Inject(first);
    Write(handle, 4 * kBlockBytes + 100, 2 * kBlockBytes);
    EXPECT_TRUE(fs.injected());
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
};

// The client holds them still: none was ever called safe.
TEST_F(MoveTest, WhatDidNotGetToTheDiskIsSentAgain) {
  FakeStream* stream = nullptr;
  const auto handle = FillUpLate(&stream);
  ASSERT_NE(Full(), nullptr);
  EXPECT_EQ(Full()->received_bytes(), 0);
  EXPECT_THAT(Full()->detail(), HasSubstr("full"));
  control::v1::CoordinatorMessage ack = FullAck();
  *ack.mutable_upload_full_ack()->mutable_target() = Target(0);
  core.OnMessage(session, ack);
  Run();
  EXPECT_EQ(stream->sent.back().redirect().offset(), 0);
  EXPECT_TRUE(peer.copies.empty());
  EXPECT_EQ(Lost(), nullptr);
}

// Nobody else has them, and the mount is full: that is what the client hears.
TEST_F(MoveTest, BytesThatAFullMountLostAreSaidToBeThat) {
  FakeStream* stream = nullptr;
  const auto handle = FillUp(&stream);
  control::v1::CoordinatorMessage ack = FullAck();
  *ack.mutable_upload_full_ack()->mutable_target() = Target(4 * kBlockBytes);
  core.OnMessage(session, ack);
  Run();
  ASSERT_EQ(peer.copies.size(), 1u);
  ASSERT_OK(mem.FlipByte(Inflight(), 5));
  for (int i = 0; i < 2; ++i) {
    absl::Status read;
    peer.copies.back().read(
        0, kBlockBytes, [&read](const auto& bytes) { read = bytes.status(); });
    Run();
    EXPECT_THAT(read, StatusIs(absl::StatusCode::kDataLoss));
    peer.copies.back().done(read);
    Run();
    Tick(absl::Seconds(1));
  }
  ASSERT_NE(Lost(), nullptr);
  EXPECT_EQ(Lost()->reason(), "MOUNT_FULL");
  EXPECT_THAT(Lost()->detail(), HasSubstr("is full"));
}

TEST_F(MoveTest, TheTailGoesOnElsewhereAndThePrefixIsCopied) {
  FakeStream* stream = nullptr;
  const auto handle = FillUp(&stream);
  ASSERT_NE(Full(), nullptr);
  EXPECT_EQ(Full()->received_bytes(), 4 * kBlockBytes + 100);
  EXPECT_FALSE(stream->finished.has_value());
  control::v1::CoordinatorMessage ack = FullAck();
  *ack.mutable_upload_full_ack()->mutable_target() = Target(4 * kBlockBytes);
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

// The coordinator named the next mount before that one's agent had registered,
// so without an address; nothing else would ever tell it.
TEST_F(MoveTest, ATargetThatIsNotReachedIsAskedForAgain) {
  LeaveBytes(3 * kBlockBytes + 5);
  control::v1::OpenUpload open = Open();
  *open.mutable_moved_to() = Target(3 * kBlockBytes);
  open.mutable_moved_to()->clear_addresses();
  Register({open});
  ASSERT_EQ(peer.copies.size(), 1u);
  EXPECT_TRUE(peer.copies[0].addresses.empty());
  peer.copies[0].done(MakeError(absl::StatusCode::kUnavailable,
                                reason::kAgentUnreachable, "no address"));
  Run();
  ASSERT_NE(Full(), nullptr);
  control::v1::CoordinatorMessage ack = FullAck();
  control::v1::RedirectTarget* const target =
      ack.mutable_upload_full_ack()->mutable_target();
  *target = open.moved_to();
  target->add_addresses("127.0.0.1:7499");
  target->set_capability("a newer one");
  core.OnMessage(session, ack);
  Run();
  Tick(absl::Seconds(1));
  ASSERT_EQ(peer.copies.size(), 2u);
  EXPECT_THAT(peer.copies[1].addresses, ElementsAre("127.0.0.1:7499"));
  EXPECT_EQ(peer.copies[1].header.capability(), "a newer one");
  EXPECT_EQ(peer.copies[1].end, 3 * kBlockBytes);
}

// The client still holds what the full disk did not let us write down.
TEST_F(MoveTest, WhatIsNotWrittenDownIsSentAgain) {
  FakeStream* stream = nullptr;
  const auto handle = FillUp(&stream, /*state_too=*/true);
  EXPECT_EQ(Full()->received_bytes(), 0);
  control::v1::CoordinatorMessage ack = FullAck();
  *ack.mutable_upload_full_ack()->mutable_target() = Target(0);
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
  PrepareTarget(2 * kBlockBytes);
  FakeStream* client = nullptr;
  const auto tail =
      OpenSegment(&client, v1::WRITE_SEGMENT_TAIL, 2 * kBlockBytes);
  EXPECT_EQ(client->progress().next_offset(), 2 * kBlockBytes);
  // Nothing of the tail is here, and nothing of it need be sent again.
  EXPECT_EQ(client->progress().safe_offset(), 2 * kBlockBytes);
  Write(tail, 2 * kBlockBytes, 50);
  Commit(tail, 2 * kBlockBytes + 50);
  EXPECT_EQ(Published(), nullptr);

  FakeStream* sender = nullptr;
  const auto prefix =
      OpenSegment(&sender, v1::WRITE_SEGMENT_PREFIX, 2 * kBlockBytes);
  EXPECT_EQ(sender->progress().next_offset(), 0);
  Write(prefix, 0, 2 * kBlockBytes);
  // Ended by the one who knows where it ends.
  ASSERT_TRUE(sender->finished.has_value());
  EXPECT_THAT(*sender->finished, IsOk());
  ASSERT_NE(Published(), nullptr);
  EXPECT_EQ(Published()->size_bytes(), 2 * kBlockBytes + 50);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  EXPECT_THAT(*client->finished, IsOk());
}

// The sender drops its bytes when the stream ends well, and the client did
// long ago: a power cut of this mount right after must lose nothing.
TEST_F(MoveTest, APrefixThatWasTakenSurvivesAPowerCut) {
  constexpr int64_t kBoundary = 18 * kBlockBytes;
  Register();
  PrepareTarget(kBoundary);
  FakeStream* client = nullptr;
  const auto tail = OpenSegment(&client, v1::WRITE_SEGMENT_TAIL, kBoundary);
  Write(tail, kBoundary, 3 * kBlockBytes + 9);
  FakeStream* sender = nullptr;
  const auto prefix = OpenSegment(&sender, v1::WRITE_SEGMENT_PREFIX, kBoundary);
  Write(prefix, 0, kBoundary);
  ASSERT_TRUE(sender->finished.has_value());
  EXPECT_THAT(*sender->finished, IsOk());
  mem.Crash(testing::MemFileSystem::Keep::kNothing);
  ASSERT_OK_AND_ASSIGN(auto store,
                       ImageStore::Open(&mem, &clock, &ids, StoreOptions()));
  UploadSpec spec;
  spec.upload_id = upload_id;
  spec.image_id = image_id;
  spec.generation = generation;
  spec.tail_start = kBoundary;
  ASSERT_OK_AND_ASSIGN(auto staged, store->OpenStaged(spec));
  EXPECT_EQ(staged->prefix_next(), kBoundary);
  EXPECT_GE(staged->tail_next(), client->progress().safe_offset());
}

// Its bytes are wanted although the next mount may have them already: only
// that one can say.
TEST_F(MoveTest, TheNextMountIsAskedBeforeAnythingIsCalledDone) {
  control::v1::OpenUpload open = Open();
  *open.mutable_moved_to() = Target(3 * kBlockBytes);
  Register({open});
  ASSERT_EQ(peer.copies.size(), 1u);
  EXPECT_EQ(peer.copies[0].end, 0);
  peer.copies[0].done(absl::OkStatus());
  Run();
  EXPECT_EQ(Lost(), nullptr);
  Tick(absl::Seconds(2));
  EXPECT_EQ(peer.copies.size(), 1u);
}

// An upload that moves twice passes its prefix on through the second mount.
TEST_F(MoveTest, APrefixGoesOnOnlyWhenItIsHere) {
  Register();
  PrepareTarget(2 * kBlockBytes);
  FakeStream* client = nullptr;
  const auto tail =
      OpenSegment(&client, v1::WRITE_SEGMENT_TAIL, 2 * kBlockBytes);
  Write(tail, 2 * kBlockBytes, 2 * kBlockBytes);
  core.OnDisconnected(session);
  control::v1::OpenUpload open = Open();
  open.set_segment_boundary(2 * kBlockBytes);
  *open.mutable_moved_to() = Target(4 * kBlockBytes);
  Register({open});
  EXPECT_EQ(client->sent.back().redirect().offset(), 4 * kBlockBytes);
  Tick(absl::Seconds(1));
  EXPECT_TRUE(peer.copies.empty());
  FakeStream* sender = nullptr;
  const auto prefix =
      OpenSegment(&sender, v1::WRITE_SEGMENT_PREFIX, 2 * kBlockBytes);
  Write(prefix, 0, 2 * kBlockBytes);
  ASSERT_TRUE(sender->finished.has_value());
  EXPECT_THAT(*sender->finished, IsOk());
  Tick(absl::Seconds(1));
  ASSERT_EQ(peer.copies.size(), 1u);
  EXPECT_EQ(peer.copies[0].end, 4 * kBlockBytes);
}

TEST_F(MoveTest, AMountThatIsFullWhenTheStreamOpensIsLeft) {
  Register();
  Prepare();
  fs.Inject({.at = 1,
             .op = "open",
             .path = ".predella/inflight",
             .status = MakeError(absl::StatusCode::kResourceExhausted,
                                 reason::kMountFull, "no inode left"),
             .perform = false,
             .forever = true});
  FakeStream* stream = nullptr;
  OpenStream(&stream);
  fs.Reset();
  ASSERT_NE(Full(), nullptr);
  EXPECT_EQ(Full()->received_bytes(), 0);
  EXPECT_FALSE(stream->finished.has_value());
  control::v1::CoordinatorMessage ack = FullAck();
  *ack.mutable_upload_full_ack()->mutable_target() = Target(0);
  core.OnMessage(session, ack);
  Run();
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, IsOk());
  EXPECT_EQ(stream->sent.back().redirect().offset(), 0);
  EXPECT_TRUE(peer.copies.empty());
}

TEST_F(MoveTest, AMoveGoesOnAfterTheAgentWasStartedAgain) {
  LeaveBytes(3 * kBlockBytes + 5);
  control::v1::OpenUpload open = Open();
  *open.mutable_moved_to() = Target(3 * kBlockBytes);
  Register({open});
  ASSERT_EQ(peer.copies.size(), 1u);
  EXPECT_EQ(peer.copies[0].end, 3 * kBlockBytes);
  EXPECT_EQ(peer.copies[0].header.segment_boundary(), 3 * kBlockBytes);
  EXPECT_EQ(Full(), nullptr);
}

// What lies before its part was never here, and is not given up by it.
// Killed between the move and the word of it to the client, which comes back
// when everything here was copied already.
TEST_F(MoveTest, AClientThatComesAfterTheCopyIsSentOn) {
  control::v1::OpenUpload open = Open();
  *open.mutable_moved_to() = Target(0);
  Register({open});
  EXPECT_TRUE(peer.copies.empty());
  FakeStream* stream = nullptr;
  OpenStream(&stream);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, IsOk());
  ASSERT_TRUE(stream->sent.back().has_redirect());
  EXPECT_EQ(stream->sent.back().redirect().target().mount(), "mounts/m-2");
  EXPECT_EQ(stream->sent.back().redirect().capability(), "capability of m-2");
}

TEST_F(MoveTest, ANextMountThatIsFullAtOnceMovesOnFromItsOwnBoundary) {
  Register();
  PrepareTarget(2 * kBlockBytes);
  fs.Inject({.at = 1,
             .op = "open",
             .path = ".predella/inflight",
             .status = MakeError(absl::StatusCode::kResourceExhausted,
                                 reason::kMountFull, "no inode left"),
             .perform = false,
             .forever = true});
  FakeStream* client = nullptr;
  OpenSegment(&client, v1::WRITE_SEGMENT_TAIL, 2 * kBlockBytes);
  fs.Reset();
  ASSERT_NE(Full(), nullptr);
  EXPECT_EQ(Full()->received_bytes(), 2 * kBlockBytes);
}

TEST_F(MoveTest, APrefixThatIsNotWaitedForIsNeverTakenForComplete) {
  Register();
  Prepare();
  FakeStream* sender = nullptr;
  const auto prefix = OpenSegment(&sender, v1::WRITE_SEGMENT_PREFIX, 0);
  core.uploads()->EndOfStream(prefix);
  Run();
  EXPECT_THAT(*sender->finished, HasReason(reason::kOffsetMismatch));
}

TEST_F(MoveTest, APrefixThatEndsEarlyIsNotTaken) {
  Register();
  PrepareTarget(2 * kBlockBytes);
  FakeStream* sender = nullptr;
  const auto prefix =
      OpenSegment(&sender, v1::WRITE_SEGMENT_PREFIX, 2 * kBlockBytes);
  Write(prefix, 0, kBlockBytes);
  core.uploads()->EndOfStream(prefix);
  Run();
  EXPECT_THAT(*sender->finished, HasReason(reason::kOffsetMismatch));
}

}  // namespace
}  // namespace predella::agent
