// Bytes that nobody has any more: the upload can only end, and is told so.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::IsOk;
using ::testing::HasSubstr;

class LostTest : public CoreTest {
 protected:
  static bool IsLost(const control::v1::AgentMessage& message) {
    return message.has_upload_lost();
  }
  // The next mount ends the PREFIX stream since it wants more.
  static absl::Status EndedEarly() {
    return MakeError(absl::StatusCode::kAborted, reason::kOffsetMismatch,
                     "the prefix ended before 4194304");
  }
  static absl::Status NoSpace() {
    return MakeError(absl::StatusCode::kResourceExhausted, reason::kMountFull,
                     "no space left");
  }
  // This agent was started again in the middle of a move from 4 MiB on.
  void ResumeMove() {
    control::v1::OpenUpload open = Open();
    *open.mutable_moved_to() = Target(4 * kBlockBytes);
    Register({open});
  }
  void EndLost() {
    AckPublished(storage::v1::UPLOAD_OUTCOME_ABORTED, reason::kUploadBytesLost,
                 "m-1: only 1 of 2 bytes");
  }
};

TEST_F(LostTest, ASourceThatHoldsLessThanTheNextMountWants) {
  LeaveBytes(3 * kBlockBytes + 7);
  ResumeMove();
  ASSERT_EQ(peer.copies.size(), 1u);
  // All there is: the next mount may have the rest.
  EXPECT_EQ(peer.copies[0].end, 3 * kBlockBytes + 7);
  EXPECT_EQ(Lost(), nullptr);
  peer.copies[0].done(absl::UnavailableError("down"));
  Run();
  EXPECT_EQ(Lost(), nullptr);
  Tick(absl::Seconds(1));
  ASSERT_EQ(peer.copies.size(), 2u);
  peer.copies[1].done(EndedEarly());
  Run();
  ASSERT_NE(Lost(), nullptr);
  EXPECT_EQ(Lost()->upload_id(), upload_id.bytes());
  EXPECT_EQ(Generation::FromProto(Lost()->generation()), generation);
  EXPECT_THAT(Lost()->detail(), HasSubstr("only 3145735 of the 4194304"));
  EXPECT_TRUE(mem.Exists(Inflight()));
  EndLost();
  EXPECT_FALSE(mem.Exists(Inflight()));
  Tick(absl::Seconds(5));
  EXPECT_EQ(peer.copies.size(), 2u);
}

TEST_F(LostTest, ASourceWithNothingIsNotDone) {
  ResumeMove();
  ASSERT_EQ(peer.copies.size(), 1u);
  EXPECT_EQ(peer.copies[0].end, 0);
  peer.copies[0].done(EndedEarly());
  Run();
  ASSERT_NE(Lost(), nullptr);
  EXPECT_THAT(Lost()->detail(), HasSubstr("only 0 of the 4194304"));
}

TEST_F(LostTest, IsSaidAgainUntilItIsAnsweredAndToEachSession) {
  ResumeMove();
  peer.copies[0].done(EndedEarly());
  Run();
  EXPECT_EQ(Count(IsLost), 1);
  Tick(absl::Seconds(1));
  EXPECT_EQ(Count(IsLost), 1);
  Tick(absl::Seconds(1));
  EXPECT_EQ(Count(IsLost), 2);
  core.OnDisconnected(session);
  ResumeMove();
  EXPECT_EQ(Count(IsLost), 1);
  EXPECT_EQ(peer.copies.size(), 1u);
  EndLost();
  Tick(absl::Seconds(4));
  EXPECT_EQ(Count(IsLost), 1);
}

// The answer was lost, and the next mount got everything after all.
TEST_F(LostTest, WhatWasCommittedAllTheSameEndsQuietly) {
  LeaveBytes(kBlockBytes);
  ResumeMove();
  peer.copies[0].done(EndedEarly());
  Run();
  ASSERT_NE(Lost(), nullptr);
  FakeStream* stream = nullptr;
  OpenStream(&stream);
  EXPECT_FALSE(stream->finished.has_value());
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, HasReason(reason::kUploadNotFound));
  EXPECT_FALSE(mem.Exists(Inflight()));
}

TEST_F(LostTest, ABlockThatIsReadWrongTwice) {
  LeaveBytes(4 * kBlockBytes);
  ResumeMove();
  ASSERT_EQ(peer.copies.size(), 1u);
  ASSERT_OK(mem.FlipByte(Inflight(), 2 * kBlockBytes + 5));
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_EQ(peer.copies.size(), i + 1);
    EXPECT_EQ(Lost(), nullptr);
    absl::Status read;
    peer.copies[i].read(2 * kBlockBytes, kBlockBytes,
                        [&read](const absl::StatusOr<std::string>& bytes) {
                          read = bytes.status();
                        });
    Run();
    EXPECT_THAT(read, HasReason(reason::kChecksumMismatch));
    peer.copies[i].done(read);
    Run();
    Tick(absl::Seconds(1));
  }
  ASSERT_NE(Lost(), nullptr);
  EXPECT_THAT(Lost()->detail(), HasSubstr("those at 2097152"));
  Tick(absl::Seconds(5));
  EXPECT_EQ(peer.copies.size(), 2u);
}

TEST_F(LostTest, ATargetThatHasNoRoomForThePrefix) {
  Register();
  PrepareTarget(2 * kBlockBytes);
  FakeStream* client = nullptr;
  const auto tail =
      OpenSegment(&client, v1::WRITE_SEGMENT_TAIL, 2 * kBlockBytes);
  Write(tail, 2 * kBlockBytes, 50);
  Commit(tail, 2 * kBlockBytes + 50);
  FakeStream* sender = nullptr;
  const auto prefix =
      OpenSegment(&sender, v1::WRITE_SEGMENT_PREFIX, 2 * kBlockBytes);
  Write(prefix, 0, kBlockBytes);
  fs.Inject({.at = 1,
             .op = "pwrite",
             .path = ".predella/inflight",
             .status = NoSpace(),
             .perform = false,
             .forever = true});
  Write(prefix, kBlockBytes, kBlockBytes);
  fs.Reset();
  ASSERT_TRUE(sender->finished.has_value());
  EXPECT_THAT(*sender->finished, HasReason(reason::kMountFull));
  // No second move.
  EXPECT_EQ(Full(), nullptr);
  ASSERT_NE(Lost(), nullptr);
  EXPECT_THAT(Lost()->detail(), HasSubstr("the bytes before 2097152"));
  EXPECT_THAT(Lost()->detail(), HasSubstr("after 1048576"));
  EXPECT_FALSE(client->finished.has_value());
  // The sender comes again, and is not taken.
  FakeStream* again = nullptr;
  OpenSegment(&again, v1::WRITE_SEGMENT_PREFIX, 2 * kBlockBytes);
  ASSERT_TRUE(again->finished.has_value());
  EXPECT_THAT(*again->finished, HasReason(reason::kMountFull));
  EndLost();
  ASSERT_TRUE(client->finished.has_value());
  EXPECT_THAT(*client->finished, HasReason(reason::kUploadBytesLost));
  EXPECT_THAT(std::string(client->finished->message()),
              HasSubstr("only 1 of 2 bytes"));
  EXPECT_FALSE(mem.Exists(Inflight()));
  EXPECT_EQ(Published(), nullptr);
}

TEST_F(LostTest, ATargetWhosePrefixCanNotBeMadeDurable) {
  Register();
  PrepareTarget(2 * kBlockBytes);
  FakeStream* client = nullptr;
  const auto tail =
      OpenSegment(&client, v1::WRITE_SEGMENT_TAIL, 2 * kBlockBytes);
  FakeStream* sender = nullptr;
  const auto prefix =
      OpenSegment(&sender, v1::WRITE_SEGMENT_PREFIX, 2 * kBlockBytes);
  mem.FailNextDatasync("inflight");
  Write(prefix, 0, 2 * kBlockBytes);
  ASSERT_TRUE(sender->finished.has_value());
  EXPECT_FALSE(sender->finished->ok());
  ASSERT_NE(Lost(), nullptr);
  EXPECT_THAT(Lost()->detail(), HasSubstr("2097152"));
  // An answer without a sentence of its own: the agent has one.
  AckPublished(storage::v1::UPLOAD_OUTCOME_ABORTED);
  EXPECT_THAT(*client->finished, HasReason(reason::kUploadBytesLost));
}

// Design part 7: a power cut left less than the client can send again.
TEST_F(LostTest, LessThanTheClientKept) {
  LeaveBytes(2 * kBlockBytes);
  Register({Open()});
  FakeStream* stream = nullptr;
  OpenStream(&stream, /*start=*/3 * kBlockBytes);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, HasReason(reason::kUploadBytesLost));
  EXPECT_THAT(std::string(stream->finished->message()), HasSubstr("2097152"));
  EXPECT_THAT(std::string(stream->finished->message()), HasSubstr("3145728"));
  ASSERT_NE(Lost(), nullptr);
  EXPECT_THAT(Lost()->detail(), HasSubstr("2097152"));
  // Nor does it begin anew in secret.
  OpenStream(&stream);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, HasReason(reason::kUploadBytesLost));
  EndLost();
  EXPECT_FALSE(mem.Exists(Inflight()));
  OpenStream(&stream);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, HasReason(reason::kUploadBytesLost));
}

TEST_F(LostTest, AClientThatComesToAFullMountGoesOnAtTheNext) {
  LeaveBytes(4 * kBlockBytes);
  ResumeMove();
  FakeStream* stream = nullptr;
  OpenStream(&stream, /*start=*/5 * kBlockBytes);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, IsOk());
  EXPECT_EQ(stream->sent.back().redirect().offset(), 4 * kBlockBytes);
  EXPECT_EQ(Lost(), nullptr);
}

TEST_F(LostTest, AnOlderGenerationsEndIsNotToldToANewer) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  OpenStream(&stream);
  AckPublished(storage::v1::UPLOAD_OUTCOME_ABORTED);
  EXPECT_THAT(*stream->finished, HasReason(reason::kUploadAborted));
  ++generation.n;
  EXPECT_THAT(core.OpenWrite(Header(), std::make_shared<FakeStream>()),
              HasReason(reason::kUploadNotFound));
}

}  // namespace
}  // namespace predella::agent
