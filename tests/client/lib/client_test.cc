// The client against services that fail.
#include "predella/client.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
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
#include "tests/client/lib/fake_services.h"
#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::predella::client_internal::UploadWindow;
using ::predella::testing::FakeChunkService;
using ::predella::testing::FakeCluster;
using ::predella::testing::FakeImageService;
using ::predella::testing::FakeServer;
using ::predella::testing::HasReason;
using ::predella::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Return;

constexpr char kImage[] = "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0";

std::string RandomString(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string out(size, '\0');
  for (char& c : out) {
    c = static_cast<char>(random());
  }
  return out;
}

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() {
    std::string pattern = ::testing::TempDir() + "clientXXXXXX";
    directory_ = mkdtemp(pattern.data());
    coordinator_ =
        std::make_unique<FakeServer>(directory_ + "/c.sock", &images_);
    one_server_ = std::make_unique<FakeServer>(directory_ + "/1.sock", &one_);
    two_server_ = std::make_unique<FakeServer>(directory_ + "/2.sock", &two_);
    images_.agent_address = one_server_->address();
    options_.endpoint = coordinator_->address();
    options_.first_backoff = absl::Milliseconds(5);
    options_.most_backoff = absl::Milliseconds(20);
    options_.retry_for = absl::Seconds(2);
    options_.stall_timeout = absl::Seconds(5);
  }
  ~ClientTest() override {
    one_.stall = false;
    two_.stall = false;
    coordinator_.reset();
    one_server_.reset();
    two_server_.reset();
    for (const char* name : {"/c.sock", "/1.sock", "/2.sock"}) {
      unlink((directory_ + name).c_str());
    }
    rmdir(directory_.c_str());
  }

  Client Connect() {
    auto client = Client::Connect(options_);
    EXPECT_OK(client);
    return *client;
  }
  // In pieces of an odd size.
  static absl::Status WriteAll(ImageWriter* writer, const std::string& bytes) {
    constexpr size_t kPiece = 300'001;
    for (size_t at = 0; at < bytes.size(); at += kPiece) {
      absl::Status status =
          writer->Write(absl::string_view(bytes).substr(at, kPiece));
      if (!status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }
  absl::StatusOr<v1::Image> Upload(const std::string& bytes) {
    UploadOptions upload;
    upload.image = kImage;
    auto writer = Connect().StartUpload(upload);
    if (!writer.ok()) {
      return writer.status();
    }
    if (absl::Status status = WriteAll(writer->get(), bytes); !status.ok()) {
      return status;
    }
    return (*writer)->Commit();
  }
  std::string Stored() {
    MutexLock lock(&cluster_.mu);
    return cluster_.bytes[absl::StrCat("images/", kImage)];
  }
  // An image with copies on both agents.
  std::string PutImage(size_t size) {
    const std::string bytes = RandomString(size, 99);
    MutexLock lock(&cluster_.mu);
    const std::string name = absl::StrCat("images/", kImage);
    v1::Image& image = cluster_.images[name];
    image.set_name(name);
    image.set_generation("1-1-00000001");
    image.set_size_bytes(static_cast<int64_t>(size));
    image.set_crc32c_hex(
        absl::StrCat(absl::Hex(Crc32c(bytes), absl::kZeroPad8)));
    for (const FakeServer* server : {one_server_.get(), two_server_.get()}) {
      v1::Copy* copy = image.add_copies();
      copy->set_mount(server == one_server_.get() ? "mounts/one"
                                                  : "mounts/two");
      copy->add_addresses(server->address());
    }
    cluster_.bytes[name] = bytes;
    return bytes;
  }
  absl::StatusOr<std::string> ReadAll(int64_t offset = 0, int64_t length = 0) {
    ReadOptions read;
    read.image = kImage;
    read.offset = offset;
    read.length = length;
    auto reader = Connect().ReadImage(read);
    if (!reader.ok()) {
      return reader.status();
    }
    std::string out;
    while (true) {
      const absl::StatusOr<absl::string_view> data = (*reader)->Read();
      if (!data.ok()) {
        return data.status();
      }
      if (data->empty()) {
        return out;
      }
      absl::StrAppend(&out, *data);
    }
  }

  std::string directory_;
  FakeCluster cluster_;
  FakeImageService images_{&cluster_};
  FakeChunkService one_{&cluster_};
  FakeChunkService two_{&cluster_};
  std::unique_ptr<FakeServer> coordinator_;
  std::unique_ptr<FakeServer> one_server_;
  std::unique_ptr<FakeServer> two_server_;
  ClientOptions options_;
};

// Longer than the four tries that a channel makes by itself.
TEST_F(ClientTest, AReadFindsACoordinatorThatHasJustComeBack) {
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

TEST_F(ClientTest, ReadsWholeAndRanges) {
  const std::string bytes = PutImage((3 << 20) + 5);
  EXPECT_EQ(*ReadAll(), bytes);
  EXPECT_EQ(*ReadAll(1 << 20, 10), bytes.substr(1 << 20, 10));
  EXPECT_EQ(*ReadAll((1 << 20) - 3, (1 << 20) + 6),
            bytes.substr((1 << 20) - 3, (1 << 20) + 6));
  EXPECT_EQ(*ReadAll((3 << 20) + 5), "");
  EXPECT_THAT(ReadAll((3 << 20) + 6), HasReason(reason::kReadPastEnd));
  EXPECT_THAT(ReadAll(0, (3 << 20) + 6), HasReason(reason::kReadPastEnd));
}

TEST_F(ClientTest, DamagedChunkIsReadFromTheNextCopy) {
  const std::string bytes = PutImage(4 << 20);
  one_.corrupt_at = (2 << 20) + 7;
  EXPECT_EQ(*ReadAll(), bytes);
  EXPECT_EQ(one_.reads, 1);
  EXPECT_EQ(two_.reads, 1);
}

TEST_F(ClientTest, DamageOnAllCopiesIsDataLoss) {
  PutImage(4 << 20);
  one_.corrupt_at = (2 << 20) + 7;
  two_.corrupt_at = (2 << 20) + 9;
  EXPECT_THAT(ReadAll(), AllOf(StatusIs(absl::StatusCode::kDataLoss),
                               HasReason(reason::kChecksumMismatch)));
}

TEST_F(ClientTest, MissingCopyIsNeverSaidToBeNoImage) {
  PutImage(1 << 20);
  one_.refuse = grpc::Status(grpc::StatusCode::NOT_FOUND, "no such file");
  two_.refuse = grpc::Status(grpc::StatusCode::NOT_FOUND, "no such file");
  EXPECT_THAT(ReadAll(), AllOf(StatusIs(absl::StatusCode::kDataLoss),
                               HasReason(reason::kReplicaMissing)));
}

// An older version was put back in place of the image: no waiting helps.
TEST_F(ClientTest, AnotherGenerationIsDataLossAtOnce) {
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

TEST_F(ClientTest, AnotherGenerationOfAnImageThatWasReplacedIsNoDamage) {
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
TEST_F(ClientTest, DamageEverywhereIsAskedAboutBeforeItIsTold) {
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

TEST_F(ClientTest, BrokenReadGoesOnAtTheSameOffset) {
  const std::string bytes = PutImage(4 << 20);
  one_.break_read_at = 2 << 20;
  EXPECT_EQ(*ReadAll(), bytes);
}

TEST_F(ClientTest, ExpiredCapabilityIsRenewed) {
  const std::string bytes = PutImage(1 << 20);
  one_.refuse_capability = 1;
  EXPECT_EQ(*ReadAll(), bytes);
  EXPECT_EQ(two_.reads, 0);
  EXPECT_EQ(images_.get_images, 2);
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

TEST_F(ClientTest, NoReadableCopyIsSaidAtOnce) {
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
TEST_F(ClientTest, ALostImageIsNotRead) {
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
TEST_F(ClientTest, ADiskThatAnswersWithErrorsIsNotAskedForMinutes) {
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
TEST_F(ClientTest, ADiskThatHangsIsNotAskedForMinutes) {
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
TEST_F(ClientTest, AnAgentThatStartsAgainIsWaitedFor) {
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

TEST_F(ClientTest, SilentCopyIsPassedOver) {
  const std::string bytes = PutImage(1 << 20);
  options_.stall_timeout = absl::Milliseconds(100);
  one_.stall = true;
  EXPECT_EQ(*ReadAll(), bytes);
}

TEST_F(ClientTest, ImageReplacedMeanwhileIsNeverMixed) {
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

TEST_F(ClientTest, MissingImageIsNotFound) {
  EXPECT_THAT(ReadAll(), AllOf(StatusIs(absl::StatusCode::kNotFound),
                               HasReason(reason::kImageNotFound)));
  EXPECT_EQ(ErrorReason(ReadAll().status()), "IMAGE_NOT_FOUND");
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
