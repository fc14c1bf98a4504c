// Reading through the client from services that fail.

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/rpc/grpc_status.h"
#include "predella/client.h"
#include "tests/client/lib/client_fixture.h"
#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::kImage;
using ::predella::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

using ClientReadTest = ::predella::testing::ClientFixture;

// Longer than the four tries that a channel makes by itself.
TEST_F(ClientReadTest, AReadFindsACoordinatorThatHasJustComeBack) {
  {
    MutexLock lock(&cluster_.mu);
    v1::Image& image = cluster_.images[absl::StrCat("images/", kImage)];
    image.set_name(absl::StrCat("images/", kImage));
    image.set_size_bytes(100);
  }
  auto client = Client::Connect(options_);
  ASSERT_OK(client);
  ReadOptions read;
  read.image = kImage;
  images_.away = 4;
  EXPECT_OK(client->ReadImage(read));
  EXPECT_EQ(images_.get_images, 5);
}

TEST_F(ClientReadTest, ReadsWholeAndRanges) {
  const std::string bytes = PutImage((3 << 20) + 5);
  EXPECT_EQ(*ReadAll(), bytes);
  EXPECT_EQ(*ReadAll(1 << 20, 10), bytes.substr(1 << 20, 10));
  EXPECT_EQ(*ReadAll((1 << 20) - 3, (1 << 20) + 6),
            bytes.substr((1 << 20) - 3, (1 << 20) + 6));
  EXPECT_EQ(*ReadAll((3 << 20) + 5), "");
  EXPECT_THAT(ReadAll((3 << 20) + 6), HasReason(reason::kReadPastEnd));
  EXPECT_THAT(ReadAll(0, (3 << 20) + 6), HasReason(reason::kReadPastEnd));
}

TEST_F(ClientReadTest, DamagedChunkIsReadFromTheNextCopy) {
  const std::string bytes = PutImage(4 << 20);
  one_.corrupt_at = (2 << 20) + 7;
  EXPECT_EQ(*ReadAll(), bytes);
  EXPECT_EQ(one_.reads, 1);
  EXPECT_EQ(two_.reads, 1);
}

TEST_F(ClientReadTest, DamageOnAllCopiesIsDataLoss) {
  PutImage(4 << 20);
  one_.corrupt_at = (2 << 20) + 7;
  two_.corrupt_at = (2 << 20) + 9;
  EXPECT_THAT(ReadAll(), AllOf(StatusIs(absl::StatusCode::kDataLoss),
                               HasReason(reason::kChecksumMismatch)));
}

TEST_F(ClientReadTest, MissingCopyIsNeverSaidToBeNoImage) {
  PutImage(1 << 20);
  one_.refuse = grpc::Status(grpc::StatusCode::NOT_FOUND, "no such file");
  two_.refuse = grpc::Status(grpc::StatusCode::NOT_FOUND, "no such file");
  EXPECT_THAT(ReadAll(), AllOf(StatusIs(absl::StatusCode::kDataLoss),
                               HasReason(reason::kReplicaMissing)));
}

// An older version was put back in place of the image: no waiting helps.
TEST_F(ClientReadTest, AnotherGenerationIsDataLossAtOnce) {
  PutImage(1000);
  options_.retry_for = absl::Minutes(10);
  for (const auto code :
       {absl::StatusCode::kDataLoss, absl::StatusCode::kAborted}) {
    one_.refuse = ToGrpcStatus(MakeError(
        code,
        code == absl::StatusCode::kDataLoss ? reason::kReplicaMissing
                                            : reason::kGenerationMismatch,
        "the image is here in generation 1-1-00000001, not 1-1-00000002"));
    two_.refuse = one_.refuse;
    images_.get_images = 0;
    const absl::Status status = ReadAll().status();
    EXPECT_THAT(status, AllOf(StatusIs(absl::StatusCode::kDataLoss),
                              HasReason(reason::kReplicaMissing)));
    EXPECT_THAT(std::string(status.message()), HasSubstr("1-1-00000001"));
    EXPECT_EQ(images_.get_images, 2);  // the image, and whether it changed
  }
  EXPECT_EQ(one_.reads, 2);
}

TEST_F(ClientReadTest, AnotherGenerationOfAnImageThatWasReplacedIsNoDamage) {
  PutImage(1000);
  ReadOptions read;
  read.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto reader, Connect().ReadImage(read));
  {
    MutexLock lock(&cluster_.mu);
    cluster_.images.begin()->second.set_generation("1-2-00000001");
  }
  one_.refuse = ToGrpcStatus(MakeError(absl::StatusCode::kDataLoss,
                                       reason::kReplicaMissing, "another"));
  two_.refuse = one_.refuse;
  EXPECT_THAT(reader->Read(), AllOf(StatusIs(absl::StatusCode::kAborted),
                                    HasReason(reason::kGenerationMismatch)));
}

// The file was moved to another mount, and its row has followed.
TEST_F(ClientReadTest, DamageEverywhereIsAskedAboutBeforeItIsTold) {
  const std::string bytes = PutImage(1000);
  v1::Copy there;
  {
    MutexLock lock(&cluster_.mu);
    v1::Image& image = cluster_.images.begin()->second;
    there = image.copies(1);
    image.mutable_copies()->DeleteSubrange(1, 1);
  }
  ReadOptions read;
  read.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto reader, Connect().ReadImage(read));
  {
    MutexLock lock(&cluster_.mu);
    *cluster_.images.begin()->second.mutable_copies(0) = there;
  }
  one_.refuse = ToGrpcStatus(
      MakeError(absl::StatusCode::kDataLoss, reason::kReplicaMissing, "moved"));
  ASSERT_OK_AND_ASSIGN(const absl::string_view got, reader->Read());
  EXPECT_EQ(got, bytes);
}

TEST_F(ClientReadTest, BrokenReadGoesOnAtTheSameOffset) {
  const std::string bytes = PutImage(4 << 20);
  one_.break_read_at = 2 << 20;
  EXPECT_EQ(*ReadAll(), bytes);
}

TEST_F(ClientReadTest, ExpiredCapabilityIsRenewed) {
  const std::string bytes = PutImage(1 << 20);
  one_.refuse_capability = 1;
  EXPECT_EQ(*ReadAll(), bytes);
  EXPECT_EQ(two_.reads, 0);
  EXPECT_EQ(images_.get_images, 2);
}

TEST_F(ClientReadTest, NoReadableCopyIsSaidAtOnce) {
  PutImage(1000);
  {
    MutexLock lock(&cluster_.mu);
    cluster_.images.begin()->second.mutable_copies()->DeleteSubrange(1, 1);
    v1::Copy* const copy = cluster_.images.begin()->second.mutable_copies(0);
    copy->set_addresses(0, absl::StrCat("unix:", directory_, "/nobody.sock"));
    copy->set_health(v1::HEALTH_UNREACHABLE);
  }
  const absl::Status status = ReadAll().status();
  EXPECT_THAT(status, AllOf(StatusIs(absl::StatusCode::kUnavailable),
                            HasReason(reason::kAgentUnreachable)));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("none of the 1 copies"),
                    HasSubstr("the agent of mounts/one")));
}

// Its mount was given up; an agent that is still there gives nothing.
TEST_F(ClientReadTest, ALostImageIsNotRead) {
  PutImage(1000);
  {
    MutexLock lock(&cluster_.mu);
    cluster_.images.begin()->second.set_health(v1::IMAGE_HEALTH_LOST);
    cluster_.images.begin()->second.set_health_detail(
        "mounts/one was retired: sdb is dead");
  }
  const absl::Status status = ReadAll().status();
  EXPECT_THAT(status, AllOf(StatusIs(absl::StatusCode::kDataLoss),
                            HasReason(reason::kReplicaMissing)));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("is LOST"), HasSubstr("sdb is dead")));
}

// Its agent is there and its mount not out: only the disk can say so.
TEST_F(ClientReadTest, ADiskThatAnswersWithErrorsIsNotAskedForMinutes) {
  PutImage(1000);
  const auto refuse = ToGrpcStatus(
      MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO"));
  one_.refuse = refuse;
  two_.refuse = refuse;
  const absl::Status status = ReadAll().status();
  EXPECT_THAT(status, AllOf(StatusIs(absl::StatusCode::kUnavailable),
                            HasReason(reason::kMountFailed)));
  EXPECT_EQ(one_.reads, 3);
  EXPECT_EQ(two_.reads, 3);
}

// Nor is one of which a call hangs: its agent has waited for it already.
TEST_F(ClientReadTest, ADiskThatHangsIsNotAskedForMinutes) {
  PutImage(1000);
  options_.stalled_for = absl::Milliseconds(300);
  options_.retry_for = absl::Seconds(20);
  one_.refuse = two_.refuse = ToGrpcStatus(
      MakeError(absl::StatusCode::kUnavailable, reason::kMountStalled,
                "pread of x has not returned for 15 s"));
  const absl::Time start = absl::Now();
  const absl::Status status = ReadAll().status();
  EXPECT_THAT(status, AllOf(StatusIs(absl::StatusCode::kUnavailable),
                            HasReason(reason::kMountStalled)));
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("mounts/"), HasSubstr("pread of x")));
  EXPECT_GE(absl::Now() - start, options_.stalled_for);
  EXPECT_LT(absl::Now() - start, options_.retry_for);
  EXPECT_GT(one_.reads, 1);
}

// Its session is gone, so no copy is readable at this moment: an agent that
// starts again is waited for.
TEST_F(ClientReadTest, AnAgentThatStartsAgainIsWaitedFor) {
  const std::string bytes = PutImage(5 << 20);
  {
    MutexLock lock(&cluster_.mu);
    v1::Image& image = cluster_.images.begin()->second;
    image.set_readable_copies(0);
    image.mutable_copies()->DeleteSubrange(1, 1);
    image.mutable_copies(0)->set_health(v1::HEALTH_ONLINE);
  }
  one_.break_read_at = 2 << 20;
  ASSERT_OK_AND_ASSIGN(const std::string got, ReadAll());
  EXPECT_EQ(got, bytes);
}

TEST_F(ClientReadTest, SilentCopyIsPassedOver) {
  const std::string bytes = PutImage(1 << 20);
  options_.stall_timeout = absl::Milliseconds(100);
  one_.stall = true;
  EXPECT_EQ(*ReadAll(), bytes);
}

TEST_F(ClientReadTest, ImageReplacedMeanwhileIsNeverMixed) {
  PutImage(2 << 20);
  ReadOptions read;
  read.image = kImage;
  ASSERT_OK_AND_ASSIGN(auto reader, Connect().ReadImage(read));
  ASSERT_OK(reader->Read());
  {
    MutexLock lock(&cluster_.mu);
    cluster_.images.begin()->second.set_generation("1-2-00000001");
  }
  one_.break_read_at = 0;
  one_server_.reset();
  two_.refuse = grpc::Status(grpc::StatusCode::UNAVAILABLE, "away");
  absl::Status status;
  while (status.ok()) {
    const auto data = reader->Read();
    status = data.status();
    if (data.ok() && data->empty()) {
      break;
    }
  }
  // Either all had been read ahead, or the change was noticed.
  EXPECT_TRUE(status.ok() ||
              predella::HasReason(status, reason::kGenerationMismatch))
      << status;
}

TEST_F(ClientReadTest, MissingImageIsNotFound) {
  EXPECT_THAT(ReadAll(), AllOf(StatusIs(absl::StatusCode::kNotFound),
                               HasReason(reason::kImageNotFound)));
  EXPECT_EQ(ErrorReason(ReadAll().status()), "IMAGE_NOT_FOUND");
}

}  // namespace
}  // namespace predella
