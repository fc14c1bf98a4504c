// The whole reader against an agent that hands out files.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/descriptor_socket.h"
#include "common/errors.h"
#include "common/mutex.h"
#include "common/rpc_status.h"
#include "predella/client.h"
#include "tests/client/lib/fake_services.h"
#include "tests/client/lib/open_image.h"
#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::predella::testing::AnswerFor;
using ::predella::testing::FakeChunkService;
using ::predella::testing::FakeCluster;
using ::predella::testing::FakeImageService;
using ::predella::testing::FakeServer;
using ::predella::testing::IsOk;
using ::predella::testing::kBlock;
using ::predella::testing::kOpenGeneration;
using ::predella::testing::OpenBytes;

constexpr char kLocalImage[] = "images/7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0";

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
        constexpr int kLookMillis = 20;  // whether it is to end
        pollfd listener{listener_.get(), POLLIN, 0};
        poll(&listener, 1, kLookMillis);
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
    image.set_generation(kOpenGeneration);
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

  const std::string bytes_ = OpenBytes(3 * kBlock + 1234);
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

TEST_F(LocalReaderTest, AnAgentThatIsOutIsNotAskedForItsFile) {
  FakeDescriptors descriptors(path(), bytes_, AnswerFor(bytes_));
  descriptors.silent = true;
  {
    MutexLock lock(&cluster_.mu);
    cluster_.images[kLocalImage].mutable_copies(0)->set_health(
        v1::HEALTH_UNREACHABLE);
  }
  EXPECT_TRUE(ReadAll() == bytes_);
  EXPECT_EQ(descriptors.asked, 0);
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

TEST_F(LocalReaderTest, WhatTheAgentReadsDoesNotComeWhereItWasOffered) {
  std::string damaged = bytes_;
  damaged[static_cast<size_t>(2 * kBlock + 9)] ^= 1;
  FakeDescriptors descriptors(path(), damaged, AnswerFor(bytes_));
  auto client = Client::Connect(options_);
  ASSERT_OK(client);
  ReadOptions read;
  read.image = kLocalImage;
  read.offers_memory = true;
  ASSERT_OK_AND_ASSIGN(auto reader, client->ReadImage(read));
  std::vector<std::shared_ptr<std::string>> memory;
  std::vector<bool> taken(4);
  std::string out;
  for (size_t i = 0; i < 4; ++i) {
    memory.push_back(std::make_shared<std::string>(
        i < 3 ? static_cast<size_t>(kBlock) : 1234, '\0'));
  }
  while (out.size() < bytes_.size()) {
    for (size_t i = 0; i < 4; ++i) {
      taken[i] = taken[i] ||
                 reader->Offer(static_cast<int64_t>(i) * kBlock,
                               memory[i]->data(), memory[i]->size(), memory[i]);
    }
    ASSERT_OK_AND_ASSIGN(const absl::string_view view, reader->Read());
    ASSERT_FALSE(view.empty());
    const size_t block = out.size() / static_cast<size_t>(kBlock);
    // The first one was being read before anything could be offered.
    EXPECT_EQ(view.data() == memory[block]->data(), block == 1) << block;
    absl::StrAppend(&out, view);
  }
  EXPECT_TRUE(out == bytes_);
  EXPECT_TRUE(taken[1] && taken[2] && taken[3]);
  EXPECT_EQ(chunks_.reads, 1);
}

}  // namespace
}  // namespace predella
