#include "agent/service/chunk_service.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/crc32c.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/rpc/grpc_status.h"
#include "tests/agent/service/test_agent.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::IsOk;
using ::predella::testing::StatusIs;

class ChunkServiceTest : public ::testing::Test {
 protected:
  using Stream =
      grpc::ClientReaderWriter<v1::WriteImageRequest, v1::WriteImageResponse>;

  std::unique_ptr<Stream> Open(grpc::ClientContext* context,
                               v1::Progress* progress) {
    std::unique_ptr<Stream> stream = agent_.stub->WriteImage(context);
    stream->Write(agent_.Header(upload_, image_));
    v1::WriteImageResponse response;
    if (stream->Read(&response)) {
      *progress = response.progress();
    }
    return stream;
  }
  static bool WriteChunk(Stream* stream, int64_t offset,
                         const std::string& data) {
    v1::WriteImageRequest request;
    request.mutable_chunk()->set_offset(offset);
    request.mutable_chunk()->set_crc32c(Crc32c(data));
    request.mutable_chunk()->set_data(data);
    return stream->Write(request);
  }
  static void WriteAll(Stream* stream, const std::string& data, size_t from) {
    while (from < data.size()) {
      const std::string part = data.substr(from, 1 << 20);
      ASSERT_TRUE(WriteChunk(stream, static_cast<int64_t>(from), part));
      from += part.size();
    }
  }
  static void WriteCommit(Stream* stream, const std::string& data) {
    v1::WriteImageRequest request;
    request.mutable_commit()->set_size_bytes(static_cast<int64_t>(data.size()));
    request.mutable_commit()->set_crc32c(Crc32c(data));
    v1::Hash* hash = request.mutable_commit()->add_hashes();
    hash->set_algorithm("md5");
    hash->set_hex("00112233445566778899aabbccddeeff");
    ASSERT_TRUE(stream->Write(request));
  }
  // Reads to the end; the last message and the status.
  static absl::Status Drain(Stream* stream, v1::WriteImageResponse* last) {
    v1::WriteImageResponse response;
    while (stream->Read(&response)) {
      *last = response;
    }
    return FromGrpcStatus(stream->Finish());
  }
  void Upload(const std::string& data) {
    agent_.Prepare(upload_, image_);
    grpc::ClientContext context;
    v1::Progress progress;
    auto stream = Open(&context, &progress);
    WriteAll(stream.get(), data, 0);
    WriteCommit(stream.get(), data);
    agent_.AckPublished();
    v1::WriteImageResponse last;
    ASSERT_THAT(Drain(stream.get(), &last), IsOk());
    ASSERT_TRUE(last.has_result());
    EXPECT_EQ(last.result().size_bytes(), data.size());
    EXPECT_EQ(last.result().image(), ImageName(image_));
  }
  absl::Status Read(const v1::ReadImageRequest& request, std::string* data) {
    grpc::ClientContext context;
    auto reader = agent_.stub->ReadImage(&context, request);
    v1::ReadImageResponse response;
    while (reader->Read(&response)) {
      if (response.has_chunk()) {
        EXPECT_EQ(response.chunk().crc32c(), Crc32c(response.chunk().data()));
        EXPECT_EQ(response.chunk().offset(),
                  request.offset() + static_cast<int64_t>(data->size()));
        *data += response.chunk().data();
      }
    }
    return FromGrpcStatus(reader->Finish());
  }

  const std::string socket_ =
      absl::StrCat(::testing::TempDir(), "/a-",
                   RandomIds()->NextUint64() % 1000000, ".sock");
  TestAgent agent_{"m-1", socket_};
  const Uuid upload_ = RandomIds()->NextUuid();
  const Uuid image_ = RandomIds()->NextUuid();
};

TEST_F(ChunkServiceTest, WhatIsUploadedIsRead) {
  const std::string data = TestBytes((21 << 20) + 12345);
  Upload(data);
  ASSERT_OK_AND_ASSIGN(const std::string file,
                       agent_.mem.GetFile(image_.ToString()));
  EXPECT_TRUE(file == data);
  std::string read;
  EXPECT_OK(Read(agent_.ReadRequest(image_), &read));
  EXPECT_TRUE(read == data);
}

TEST_F(ChunkServiceTest, RangesAreCutWhereTheImageEnds) {
  const std::string data = TestBytes((3 << 20) + 5);
  Upload(data);
  const struct {
    int64_t offset;
    int64_t length;
  } kRanges[] = {
      {0, 1}, {(1 << 20) - 1, 2}, {1 << 20, 1 << 20}, {(3 << 20), 100},
      {5, 0}, {(3 << 20) + 5, 0}};
  for (const auto& range : kRanges) {
    v1::ReadImageRequest request = agent_.ReadRequest(image_);
    request.set_offset(range.offset);
    request.set_length(range.length);
    std::string read;
    EXPECT_OK(Read(request, &read));
    EXPECT_TRUE(read == data.substr(static_cast<size_t>(range.offset),
                                    range.length == 0
                                        ? std::string::npos
                                        : static_cast<size_t>(range.length)))
        << range.offset << "+" << range.length;
  }
  v1::ReadImageRequest past = agent_.ReadRequest(image_);
  past.set_offset((3 << 20) + 6);
  std::string read;
  EXPECT_THAT(Read(past, &read), HasReason(reason::kReadPastEnd));
}

TEST_F(ChunkServiceTest, DamagedBlocksAreAnErrorAfterTheGoodOnes) {
  const std::string data = TestBytes(4 << 20);
  Upload(data);
  ASSERT_OK(agent_.mem.FlipByte(image_.ToString(), (2 << 20) + 77));
  std::string read;
  const absl::Status status = Read(agent_.ReadRequest(image_), &read);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(status, HasReason(reason::kChecksumMismatch));
  EXPECT_TRUE(read == data.substr(0, 2 << 20));
  EXPECT_EQ(agent_.core->View().health, v1::HEALTH_SUSPECT);
}

TEST_F(ChunkServiceTest, ReadsNeedTheirCapabilityAndGeneration) {
  Upload(TestBytes(100));
  std::string read;
  v1::ReadImageRequest request = agent_.ReadRequest(image_);
  request.set_capability("nonsense");
  EXPECT_THAT(Read(request, &read), HasReason(reason::kCapabilityInvalid));
  request = agent_.ReadRequest(image_);
  request.set_capability(
      agent_.Token(Capability::Operation::kWrite, image_, upload_));
  EXPECT_THAT(Read(request, &read), HasReason(reason::kCapabilityInvalid));
  EXPECT_THAT(Read(agent_.ReadRequest(RandomIds()->NextUuid()), &read),
              HasReason(reason::kReplicaMissing));
  EXPECT_EQ(read, "");
}

TEST_F(ChunkServiceTest, BadStreamsAreRefused) {
  agent_.Prepare(upload_, image_);
  struct Case {
    std::string name;
    v1::WriteImageRequest first;
    absl::StatusCode code;
  };
  std::vector<Case> cases(4);
  cases[0] = {"no header", {}, absl::StatusCode::kInvalidArgument};
  cases[0].first.mutable_chunk()->set_data("x");
  cases[1] = {"capability", agent_.Header(upload_, image_),
              absl::StatusCode::kPermissionDenied};
  cases[1].first.mutable_header()->mutable_capability()->back() ^= 1;
  cases[2] = {"other image", agent_.Header(upload_, image_),
              absl::StatusCode::kPermissionDenied};
  cases[2].first.mutable_header()->set_image(
      ImageName(RandomIds()->NextUuid()));
  cases[3] = {"unknown upload", agent_.Header(RandomIds()->NextUuid(), image_),
              absl::StatusCode::kNotFound};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    grpc::ClientContext context;
    auto stream = agent_.stub->WriteImage(&context);
    stream->Write(c.first);
    v1::WriteImageResponse last;
    EXPECT_THAT(Drain(stream.get(), &last), StatusIs(c.code));
  }
}

TEST_F(ChunkServiceTest, BadChunksEndTheStreamAndWhatCameIsKept) {
  agent_.Prepare(upload_, image_);
  const std::string data = TestBytes(3 << 20);
  {
    grpc::ClientContext context;
    v1::Progress progress;
    auto stream = Open(&context, &progress);
    ASSERT_TRUE(WriteChunk(stream.get(), 0, data.substr(0, 1 << 20)));
    WriteChunk(stream.get(), 5 << 20, "gap");
    v1::WriteImageResponse last;
    const absl::Status status = Drain(stream.get(), &last);
    EXPECT_THAT(status, HasReason(reason::kOffsetMismatch));
    EXPECT_EQ(MetadataOf(status)["expected_offset"], "1048576");
  }
  {
    grpc::ClientContext context;
    v1::Progress progress;
    auto stream = Open(&context, &progress);
    EXPECT_EQ(progress.next_offset(), 1 << 20);
    v1::WriteImageRequest request;
    request.mutable_chunk()->set_offset(1 << 20);
    request.mutable_chunk()->set_data(std::string((2 << 20) + 1, 'x'));
    stream->Write(request);
    v1::WriteImageResponse last;
    EXPECT_THAT(Drain(stream.get(), &last), HasReason(reason::kChunkTooLarge));
  }
  {
    grpc::ClientContext context;
    v1::Progress progress;
    auto stream = Open(&context, &progress);
    v1::WriteImageRequest request;
    request.mutable_chunk()->set_offset(1 << 20);
    request.mutable_chunk()->set_crc32c(12345);
    request.mutable_chunk()->set_data("damaged on its way");
    stream->Write(request);
    v1::WriteImageResponse last;
    EXPECT_THAT(Drain(stream.get(), &last),
                HasReason(reason::kChecksumMismatch));
  }
  grpc::ClientContext context;
  v1::Progress progress;
  auto stream = Open(&context, &progress);
  EXPECT_EQ(progress.next_offset(), 1 << 20);
  WriteAll(stream.get(), data, 1 << 20);
  WriteCommit(stream.get(), data);
  agent_.AckPublished();
  v1::WriteImageResponse last;
  EXPECT_OK(Drain(stream.get(), &last));
}

TEST_F(ChunkServiceTest, AClientThatVanishesCanGoOn) {
  agent_.Prepare(upload_, image_);
  const std::string data = TestBytes(6 << 20);
  {
    grpc::ClientContext context;
    v1::Progress progress;
    auto stream = Open(&context, &progress);
    WriteAll(stream.get(), data.substr(0, 4 << 20), 0);
    v1::WriteImageResponse response;
    while (stream->Read(&response) &&
           response.progress().next_offset() < (4 << 20)) {
    }
    context.TryCancel();
    v1::WriteImageResponse last;
    EXPECT_THAT(Drain(stream.get(), &last),
                StatusIs(absl::StatusCode::kCancelled));
  }
  // The agent hears of it a moment later; until then it is in progress.
  for (int i = 0; i < 1000; ++i) {
    grpc::ClientContext context;
    v1::Progress progress;
    auto stream = Open(&context, &progress);
    if (progress.next_offset() == 0) {
      v1::WriteImageResponse last;
      ASSERT_THAT(Drain(stream.get(), &last),
                  HasReason(reason::kUploadInProgress));
      continue;
    }
    EXPECT_EQ(progress.next_offset(), 4 << 20);
    WriteAll(stream.get(), data, 4 << 20);
    WriteCommit(stream.get(), data);
    agent_.AckPublished();
    v1::WriteImageResponse last;
    EXPECT_OK(Drain(stream.get(), &last));
    return;
  }
  FAIL() << "the stream of a client that went away was never closed";
}

TEST_F(ChunkServiceTest, HalfCloseWithoutCommitKeepsTheBytes) {
  agent_.Prepare(upload_, image_);
  grpc::ClientContext context;
  v1::Progress progress;
  auto stream = Open(&context, &progress);
  ASSERT_TRUE(WriteChunk(stream.get(), 0, "hello"));
  stream->WritesDone();
  v1::WriteImageResponse last;
  EXPECT_THAT(Drain(stream.get(), &last),
              StatusIs(absl::StatusCode::kCancelled,
                       ::testing::HasSubstr("5 bytes are kept")));
}

TEST_F(ChunkServiceTest, AnUploadMovesToTheNextAgentWithItsPrefix) {
  TestAgent next("m-2", socket_ + ".2");
  agent_.Prepare(upload_, image_);
  const std::string data = TestBytes((7 << 20) + 99);
  grpc::ClientContext context;
  v1::Progress progress;
  auto stream = Open(&context, &progress);
  // Room for about five more MiB; the rest is refused.
  ASSERT_OK_AND_ASSIGN(const SpaceInfo space, agent_.mem.Space());
  agent_.mem.SetCapacity(
      space.size_bytes - space.available_bytes + (5 << 20) + 70000, 100000);
  WriteAll(stream.get(), data, 0);
  const control::v1::UploadFull full =
      agent_.WaitFor([](const auto& m) { return m.has_upload_full(); })
          .upload_full();
  const int64_t boundary = full.received_bytes() / kBlockBytes * kBlockBytes;
  ASSERT_GT(boundary, 0);
  next.Prepare(upload_, image_, boundary);
  control::v1::CoordinatorMessage message;
  control::v1::UploadFullAck* ack = message.mutable_upload_full_ack();
  ack->set_upload_id(upload_.bytes());
  *ack->mutable_generation() = agent_.generation.ToProto();
  ack->mutable_target()->set_mount_name("m-2");
  ack->mutable_target()->set_mount_uid(next.mount_uid.bytes());
  ack->mutable_target()->set_segment_boundary(boundary);
  ack->mutable_target()->add_addresses("unix:/nobody/there.sock");
  ack->mutable_target()->add_addresses(next.address);
  ack->mutable_target()->set_capability(
      next.Token(Capability::Operation::kWrite, image_, upload_));
  agent_.Send(message);
  v1::WriteImageResponse last;
  ASSERT_THAT(Drain(stream.get(), &last), IsOk());
  ASSERT_TRUE(last.has_redirect());
  EXPECT_EQ(last.redirect().offset(), boundary);

  grpc::ClientContext tail_context;
  auto tail = next.stub->WriteImage(&tail_context);
  v1::WriteImageRequest header = next.Header(upload_, image_);
  header.mutable_header()->set_segment(v1::WRITE_SEGMENT_TAIL);
  header.mutable_header()->set_segment_boundary(boundary);
  header.mutable_header()->set_start_offset(boundary);
  header.mutable_header()->set_capability(last.redirect().capability());
  tail->Write(header);
  WriteAll(tail.get(), data, static_cast<size_t>(boundary));
  WriteCommit(tail.get(), data);
  EXPECT_EQ(next.AckPublished().crc32c(), Crc32c(data));
  ASSERT_THAT(Drain(tail.get(), &last), IsOk());
  EXPECT_TRUE(last.has_result());
  ASSERT_OK_AND_ASSIGN(const std::string file,
                       next.mem.GetFile(image_.ToString()));
  EXPECT_TRUE(file == data);
}

}  // namespace
}  // namespace predella::agent
