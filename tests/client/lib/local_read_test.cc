// Reading through the open file: the stream over a fake of it, and the whole
// reader against an agent that hands out files.
#include "client/internal/local_read.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/internal/local_image.h"
#include "common/crc32c.h"
#include "common/descriptor_socket.h"
#include "common/errors.h"
#include "common/rpc_status.h"
#include "predella/client.h"
#include "tests/client/lib/fake_services.h"
#include "tests/testing/matchers.h"

namespace predella::client_internal {
namespace {

using ::predella::testing::FakeChunkService;
using ::predella::testing::FakeCluster;
using ::predella::testing::FakeImageService;
using ::predella::testing::FakeServer;
using ::predella::testing::HasReason;
using ::predella::testing::IsOk;
using ::predella::testing::StatusIs;

constexpr int64_t kBlock = int64_t{1} << 20;
constexpr char kLocalImage[] = "images/7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0";
constexpr char kGeneration[] = "1-1-00000001";

std::string Pattern(int64_t size) {
  std::string out(static_cast<size_t>(size), '\0');
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<char>((i * 31 + (i >> 20)) & 0xff);
  }
  return out;
}

v1::OpenImageResponse AnswerFor(const std::string& bytes) {
  v1::OpenImageResponse answer;
  answer.mutable_header()->set_size_bytes(static_cast<int64_t>(bytes.size()));
  answer.mutable_header()->set_generation(kGeneration);
  for (size_t at = 0; at < bytes.size(); at += kBlock) {
    answer.add_block_crc32c(
        Crc32c(absl::string_view(bytes).substr(at, kBlock)));
  }
  return answer;
}

struct FakeFile {
  std::string bytes;
  v1::OpenImageResponse answer;
  std::atomic<bool> withdrawn{false};
  std::atomic<int> reads{0};
  // Called before each read, with its offset.
  std::function<void(int64_t)> on_read = [](int64_t) {};
};

class FakeImage final : public LocalImage {
 public:
  explicit FakeImage(FakeFile* file) : file_(file) {}
  const v1::OpenImageResponse& answer() const override { return file_->answer; }
  absl::StatusOr<size_t> Read(int64_t offset, size_t size, char* out) override {
    ++file_->reads;
    file_->on_read(offset);
    const std::string part =
        file_->bytes.substr(static_cast<size_t>(offset), size);
    std::copy(part.begin(), part.end(), out);
    return part.size();
  }
  bool Withdrawn() override { return file_->withdrawn; }

 private:
  FakeFile* const file_;
};

class LocalReadTest : public ::testing::Test {
 protected:
  explicit LocalReadTest(int64_t size = 5 * kBlock + 77) {
    file_.bytes = Pattern(size);
    file_.answer = AnswerFor(file_.bytes);
  }
  std::unique_ptr<ReadStream> Start(int64_t offset, int64_t end) {
    return StartLocalRead(
        [this] { return std::make_unique<FakeImage>(&file_); }, offset, end);
  }
  // All chunks, each with the checksum that it bears.
  static absl::Status ReadAll(ReadStream* stream, int64_t offset,
                              std::string* out) {
    ReadMessage message;
    absl::Status status;
    while (true) {
      switch (stream->Wait(absl::Seconds(20), &message, &status)) {
        case StreamEvent::kMessage:
          break;
        case StreamEvent::kEnd:
          return status;
        case StreamEvent::kTimeout:
        case StreamEvent::kWritable:
          return absl::DeadlineExceededError("nothing came");
      }
      if (message.message.has_header()) {
        EXPECT_EQ(message.message.header().generation(), kGeneration);
        continue;
      }
      std::string bytes;
      for (const grpc::Slice& slice : message.data) {
        bytes.append(reinterpret_cast<const char*>(slice.begin()),
                     slice.size());
      }
      EXPECT_EQ(message.message.chunk().offset(),
                offset + static_cast<int64_t>(out->size()));
      EXPECT_EQ(message.message.chunk().crc32c(), Crc32c(bytes));
      *out += bytes;
    }
  }

  FakeFile file_;
};

TEST_F(LocalReadTest, RangesAreWhatTheyWere) {
  const auto size = static_cast<int64_t>(file_.bytes.size());
  const std::pair<int64_t, int64_t> kRanges[] = {{0, size},
                                                 {0, 1},
                                                 {kBlock - 1, kBlock + 1},
                                                 {kBlock, 2 * kBlock},
                                                 {5 * kBlock, size},
                                                 {size - 1, size},
                                                 {17, 4 * kBlock + 3}};
  for (const auto& [offset, end] : kRanges) {
    auto stream = Start(offset, end);
    std::string read;
    EXPECT_OK(ReadAll(stream.get(), offset, &read));
    EXPECT_TRUE(read == file_.bytes.substr(static_cast<size_t>(offset),
                                           static_cast<size_t>(end - offset)))
        << offset << " to " << end;
  }
}

TEST_F(LocalReadTest, APartOfADamagedBlockIsNotGiven) {
  file_.bytes[kBlock + 5] ^= 1;
  auto stream = Start(kBlock + 100, kBlock + 200);
  std::string read;
  EXPECT_THAT(ReadAll(stream.get(), kBlock + 100, &read),
              HasReason(reason::kChecksumMismatch));
  EXPECT_EQ(read, "");
}

TEST_F(LocalReadTest, AWholeDamagedBlockBearsTheChecksumOfTheRecord) {
  const uint32_t want = file_.answer.block_crc32c(0);
  file_.bytes[3] ^= 1;
  auto stream = Start(0, kBlock);
  ReadMessage message;
  absl::Status status;
  do {
    ASSERT_EQ(stream->Wait(absl::Seconds(20), &message, &status),
              StreamEvent::kMessage);
  } while (!message.message.has_chunk());
  EXPECT_EQ(message.message.chunk().crc32c(), want);
}

TEST_F(LocalReadTest, AFileThatEndsEarlyIsDamaged) {
  file_.bytes.resize(2 * kBlock + 5);
  auto stream = Start(0, 4 * kBlock);
  std::string read;
  EXPECT_THAT(ReadAll(stream.get(), 0, &read),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(read.size(), 2 * kBlock);
}

TEST_F(LocalReadTest, ATableOfAnotherSizeIsRefused) {
  file_.answer.mutable_block_crc32c()->RemoveLast();
  auto stream = Start(0, kBlock);
  std::string read;
  EXPECT_THAT(ReadAll(stream.get(), 0, &read),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(file_.reads, 0);
}

TEST_F(LocalReadTest, WhatWasReadComesBeforeTheWithdrawal) {
  file_.on_read = [this](int64_t offset) {
    file_.withdrawn = offset == kBlock;
  };
  auto stream = Start(0, 5 * kBlock);
  std::string read;
  EXPECT_THAT(ReadAll(stream.get(), 0, &read),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(read.size(), 2 * kBlock);
}

TEST_F(LocalReadTest, RunsOnlySoFarAheadAndEndsWithItsStream) {
  absl::Notification gone;
  absl::Notification ahead;
  struct Watch final : LocalImage {
    Watch(FakeFile* file, absl::Notification* end) : image(file), ended(end) {}
    ~Watch() override { ended->Notify(); }
    const v1::OpenImageResponse& answer() const override {
      return image.answer();
    }
    absl::StatusOr<size_t> Read(int64_t o, size_t s, char* b) override {
      return image.Read(o, s, b);
    }
    bool Withdrawn() override { return image.Withdrawn(); }
    FakeImage image;
    absl::Notification* ended;
  };
  file_.on_read = [&](int64_t offset) {
    if (offset == 3 * kBlock) {
      ahead.Notify();
    }
  };
  auto stream = StartLocalRead(
      [&] { return std::make_unique<Watch>(&file_, &gone); }, 0, 5 * kBlock);
  ahead.WaitForNotification();
  // All four buffers wait for the application, which takes none of them.
  EXPECT_EQ(file_.reads, 4);
  stream.reset();
  gone.WaitForNotification();
  EXPECT_EQ(file_.reads, 4);
}

TEST_F(LocalReadTest, ThreadsThatHangAreLeftBehindAndCounted) {
  absl::Notification go_on;
  std::atomic<int> hanging{0};
  std::atomic<int> ended{0};
  file_.on_read = [&](int64_t) {
    ++hanging;
    go_on.WaitForNotification();
    ++ended;
  };
  ReadMessage message;
  absl::Status status;
  for (int i = 0; i < kMostThreadsLeftBehind; ++i) {
    auto stream = Start(0, kBlock);
    ASSERT_NE(stream, nullptr);
    StreamEvent event = StreamEvent::kMessage;
    while (event == StreamEvent::kMessage) {  // the header
      event = stream->Wait(absl::Milliseconds(50), &message, &status);
    }
    EXPECT_EQ(event, StreamEvent::kTimeout);
  }
  EXPECT_EQ(Start(0, kBlock), nullptr);
  go_on.Notify();
  // They come back by and by, and count no more.
  std::unique_ptr<ReadStream> stream;
  while ((stream = Start(0, kBlock)) == nullptr) {
    std::this_thread::yield();
  }
  std::string read;
  EXPECT_OK(ReadAll(stream.get(), 0, &read));
  while (ended < hanging) {
    std::this_thread::yield();
  }
}

// Hands out one file, as an agent does.
class FakeDescriptors {
 public:
  FakeDescriptors(const std::string& path, std::string bytes,
                  v1::OpenImageResponse answer)
      : answer_(std::move(answer)),
        listener_(*ListenForDescriptors(DescriptorSocketOf(path))),
        file_(memfd_create("image", MFD_CLOEXEC)) {
    EXPECT_EQ(pwrite(file_.get(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeDescriptors() {
    stop_ = true;
    thread_.join();
  }
  std::atomic<bool> silent{false};
  std::atomic<int> asked{0};

 private:
  void Serve() {
    std::vector<OwnedDescriptor> clients;
    while (!stop_) {
      absl::StatusOr<OwnedDescriptor> client = AcceptOne(listener_.get());
      if (!client->valid()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        continue;
      }
      ++asked;
      if (!silent) {
        const std::string frame = FrameOf(answer_);
        EXPECT_THAT(SendOnce(client->get(), frame,
                             answer_.has_error() ? -1 : file_.get()),
                    IsOk());
      }
      clients.push_back(*std::move(client));
    }
  }

  const v1::OpenImageResponse answer_;
  const OwnedDescriptor listener_;
  const OwnedDescriptor file_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class LocalReaderTest : public ::testing::Test {
 protected:
  LocalReaderTest() {
    std::string pattern = ::testing::TempDir() + "localXXXXXX";
    directory_ = mkdtemp(pattern.data());
    coordinator_ =
        std::make_unique<FakeServer>(directory_ + "/c.sock", &images_);
    agent_ = std::make_unique<FakeServer>(directory_ + "/1.sock", &chunks_);
    options_.endpoint = coordinator_->address();
    options_.retry_for = absl::Seconds(2);
    options_.local_stall_timeout = absl::Seconds(20);
    MutexLock lock(&cluster_.mu);
    v1::Image& image = cluster_.images[kLocalImage];
    image.set_name(kLocalImage);
    image.set_generation(kGeneration);
    image.set_size_bytes(static_cast<int64_t>(bytes_.size()));
    v1::Copy* copy = image.add_copies();
    copy->set_mount("mounts/one");
    copy->add_addresses(agent_->address());
    cluster_.bytes[kLocalImage] = bytes_;
  }
  ~LocalReaderTest() override {
    coordinator_.reset();
    agent_.reset();
    for (const char* name : {"/c.sock", "/1.sock", "/1.sock.fd"}) {
      unlink((directory_ + name).c_str());
    }
    rmdir(directory_.c_str());
  }
  std::string path() const { return directory_ + "/1.sock"; }
  std::string ReadAll(int64_t offset = 0, int64_t length = 0) {
    auto client = Client::Connect(options_);
    EXPECT_OK(client);
    ReadOptions read;
    read.image = kLocalImage;
    read.offset = offset;
    read.length = length;
    auto reader = client->ReadImage(read);
    EXPECT_OK(reader);
    std::string out;
    while (true) {
      const absl::StatusOr<absl::string_view> data = (*reader)->Read();
      EXPECT_OK(data);
      if (!data.ok() || data->empty()) {
        return out;
      }
      absl::StrAppend(&out, *data);
    }
  }

  const std::string bytes_ = Pattern(3 * kBlock + 1234);
  std::string directory_;
  FakeCluster cluster_;
  FakeImageService images_{&cluster_};
  FakeChunkService chunks_{&cluster_};
  std::unique_ptr<FakeServer> coordinator_;
  std::unique_ptr<FakeServer> agent_;
  ClientOptions options_;
};

TEST_F(LocalReaderTest, ReadsThroughTheFileAlone) {
  FakeDescriptors descriptors(path(), bytes_, AnswerFor(bytes_));
  EXPECT_TRUE(ReadAll() == bytes_);
  EXPECT_TRUE(ReadAll(kBlock - 7, 20) ==
              bytes_.substr(static_cast<size_t>(kBlock - 7), 20));
  EXPECT_EQ(descriptors.asked, 2);
  EXPECT_EQ(chunks_.reads, 0);
}

TEST_F(LocalReaderTest, KeepsNoDescriptorInTheProcess) {
  const auto open = [] {
    int count = 0;
    for (int fd = 0; fd < 1024; ++fd) {
      count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    }
    return count;
  };
  FakeDescriptors descriptors(path(), bytes_, AnswerFor(bytes_));
  auto client = Client::Connect(options_);
  ASSERT_OK(client);
  ReadOptions read;
  read.image = kLocalImage;
  // Once before, so that all channels are there.
  ASSERT_OK(client->ReadImage(read));
  const int before = open();
  ASSERT_OK_AND_ASSIGN(auto reader, client->ReadImage(read));
  ASSERT_OK(reader->Read());
  // The fake's own end of the connection is all that is new.
  EXPECT_EQ(open(), before + 1);
}

TEST_F(LocalReaderTest, NeverMeansNever) {
  FakeDescriptors descriptors(path(), bytes_, AnswerFor(bytes_));
  options_.local_reads = ClientOptions::LocalReads::kNever;
  EXPECT_TRUE(ReadAll() == bytes_);
  EXPECT_EQ(descriptors.asked, 0);
  EXPECT_EQ(chunks_.reads, 1);
}

TEST_F(LocalReaderTest, WithoutSuchASocketTheAgentIsRead) {
  EXPECT_TRUE(ReadAll() == bytes_);
  EXPECT_EQ(chunks_.reads, 1);
}

TEST_F(LocalReaderTest, DamageIsReadOnceMoreByTheAgent) {
  std::string damaged = bytes_;
  damaged[static_cast<size_t>(2 * kBlock + 9)] ^= 1;
  FakeDescriptors descriptors(path(), damaged, AnswerFor(bytes_));
  EXPECT_TRUE(ReadAll() == bytes_);
  EXPECT_EQ(descriptors.asked, 1);
  EXPECT_EQ(chunks_.reads, 1);
}

TEST_F(LocalReaderTest, AnotherGenerationIsNotTaken) {
  v1::OpenImageResponse answer = AnswerFor(bytes_);
  answer.mutable_header()->set_generation("1-2-00000001");
  FakeDescriptors descriptors(path(), bytes_, answer);
  EXPECT_TRUE(ReadAll() == bytes_);
  EXPECT_EQ(chunks_.reads, 1);
}

TEST_F(LocalReaderTest, ARefusalLeadsToTheAgent) {
  v1::OpenImageResponse answer;
  *answer.mutable_error() = ToRpcStatus(MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kNotReady, "it is NFS"));
  FakeDescriptors descriptors(path(), bytes_, answer);
  EXPECT_TRUE(ReadAll() == bytes_);
  EXPECT_EQ(descriptors.asked, 1);
  EXPECT_EQ(chunks_.reads, 1);
}

TEST_F(LocalReaderTest, SilenceIsNotWaitedFor) {
  options_.local_stall_timeout = absl::Milliseconds(100);
  FakeDescriptors descriptors(path(), bytes_, AnswerFor(bytes_));
  descriptors.silent = true;
  EXPECT_TRUE(ReadAll() == bytes_);
  EXPECT_EQ(descriptors.asked, 1);
  EXPECT_EQ(chunks_.reads, 1);
}

}  // namespace
}  // namespace predella::client_internal
