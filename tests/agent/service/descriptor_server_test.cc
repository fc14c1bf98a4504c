// Open files for clients on this host, from a mount on tmpfs and by real disk
// threads.
#include "agent/service/descriptor_server.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/crc32c.h"
#include "common/descriptor_socket.h"
#include "common/errors.h"
#include "common/rpc_status.h"
#include "tests/agent/service/test_agent.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::IsOk;
using ::predella::testing::StatusIs;

constexpr absl::Duration kPatience = absl::Seconds(20);

// A client that asks, and keeps what it is given.
struct Asked {
  absl::Status status;  // of the connection
  v1::OpenImageResponse answer;
  OwnedDescriptor file;
  OwnedDescriptor socket;
  // The agent has ended the connection.
  bool Withdrawn() const {
    char byte = 0;
    const absl::StatusOr<ReceivedBytes> got =
        ReceiveOnce(socket.get(), &byte, 1);
    return got.ok() && got->end;
  }
};

absl::Status ReceiveFrame(Asked* asked) {
  std::string in;
  char bytes[4096];
  while (in.size() < kFrameHeaderBytes ||
         in.size() < kFrameHeaderBytes + FramedBytes(in)) {
    ASSIGN_OR_RETURN(ReceivedBytes got,
                     ReceiveOnce(asked->socket.get(), bytes, sizeof(bytes)));
    if (got.size == 0) {
      return absl::UnavailableError("the agent ended it");
    }
    in.append(bytes, got.size);
    if (got.descriptor.valid()) {
      asked->file = std::move(got.descriptor);
    }
  }
  EXPECT_TRUE(asked->answer.ParseFromString(in.substr(kFrameHeaderBytes)));
  return absl::OkStatus();
}

Asked AskWith(const std::string& path, absl::string_view frame) {
  Asked out;
  absl::StatusOr<OwnedDescriptor> socket =
      ConnectForDescriptors(DescriptorSocketOf(path), kPatience);
  out.status = socket.status();
  if (socket.ok()) {
    out.socket = *std::move(socket);
    EXPECT_THAT(SendOnce(out.socket.get(), frame, -1), IsOk());
    out.status = ReceiveFrame(&out);
  }
  return out;
}

class DescriptorServerTest : public ::testing::Test {
 protected:
  DescriptorServerTest() {
    auto threads = DiskThreads::Start(2);
    EXPECT_OK(threads);
    threads_ = *std::move(threads);
    auto fs = PosixFileSystem::Open(directory_);
    EXPECT_OK(fs);
    EXPECT_TRUE((*fs)->PassesDescriptors());
    EXPECT_OK(InitMount(fs->get(), RealClock(), RandomIds(), "m-1"));
    auto store =
        ImageStore::Open(fs->get(), RealClock(), RandomIds(), StoreOptions());
    EXPECT_OK(store);
    UploadSpec spec;
    spec.upload_id = RandomIds()->NextUuid();
    spec.image_id = image_;
    spec.generation = Generation{7, 20, 3};
    spec.location_key = "0123456789abcdef";
    auto staged = (*store)->OpenStaged(spec);
    EXPECT_OK(staged);
    for (size_t at = 0; at < data_.size(); at += kBlockBytes) {
      EXPECT_OK((*staged)->AppendTail(
          static_cast<int64_t>(at),
          {absl::string_view(data_).substr(at, kBlockBytes)}, std::nullopt));
    }
    CommitRequest commit;
    commit.size_bytes = static_cast<int64_t>(data_.size());
    EXPECT_OK((*staged)->Publish(commit));
    staged->reset();
    store->reset();
    agent_ = std::make_unique<TestAgent>("m-1", socket_,
                                         TestDisk{threads_.get(), directory_});
    auto server =
        DescriptorServer::Start(agent_->core.get(), threads_->descriptors(),
                                {ParseAddress("unix:" + socket_).value()});
    EXPECT_OK(server);
    server_ = *std::move(server);
  }
  ~DescriptorServerTest() override {
    server_.reset();
    agent_.reset();
    threads_.reset();
    std::filesystem::remove_all(directory_);
  }

  static std::string MakeDirectory() {
    std::string pattern = "/dev/shm/predella-fd-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    return pattern;
  }
  Asked Ask(const v1::ReadImageRequest& request) {
    return AskWith(socket_, FrameOf(request));
  }
  absl::Status Refusal(const v1::ReadImageRequest& request) {
    const Asked asked = Ask(request);
    EXPECT_OK(asked.status);
    EXPECT_FALSE(asked.file.valid());
    EXPECT_FALSE(asked.answer.has_header());
    return FromRpcStatus(asked.answer.error());
  }
  static std::string Bytes(const OwnedDescriptor& file, size_t size) {
    std::string out(size, '\0');
    const ssize_t got = pread(file.get(), out.data(), size, 0);
    out.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return out;
  }
  // What the disk threads have open below the mount.
  int OpenOnDisk() {
    int count = 0;
    absl::Notification done;
    threads_->data()->Post([&] {
      DIR* const table = opendir("/proc/thread-self/fd");
      while (const dirent* entry = readdir(table)) {
        std::error_code error;
        const auto target = std::filesystem::read_symlink(
            absl::StrCat("/proc/thread-self/fd/", entry->d_name), error);
        count += target.string().find(image_.ToString()) != std::string::npos;
      }
      closedir(table);
      done.Notify();
    });
    done.WaitForNotification();
    return count;
  }
  // Socket kinds in the disk threads' table.
  int SocketsOnDisk() {
    int count = 0;
    absl::Notification done;
    threads_->data()->Post([&] {
      DIR* const table = opendir("/proc/thread-self/fd");
      while (const dirent* entry = readdir(table)) {
        std::error_code error;
        const auto target = std::filesystem::read_symlink(
            absl::StrCat("/proc/thread-self/fd/", entry->d_name), error);
        count += target.string().rfind("socket:", 0) == 0;
      }
      closedir(table);
      done.Notify();
    });
    done.WaitForNotification();
    return count;
  }

  const Uuid image_ = RandomIds()->NextUuid();
  const std::string data_ = TestBytes((3 << 20) + 12345);
  const std::string directory_ = MakeDirectory();
  const std::string socket_ =
      absl::StrCat(::testing::TempDir(), "/d-",
                   RandomIds()->NextUint64() % 1000000, ".sock");
  std::unique_ptr<DiskThreads> threads_;
  std::unique_ptr<TestAgent> agent_;
  std::unique_ptr<DescriptorServer> server_;
};

TEST_F(DescriptorServerTest, HandsOutTheFileAndItsChecksums) {
  const Asked asked = Ask(agent_->ReadRequest(image_));
  ASSERT_OK(asked.status);
  ASSERT_OK(FromRpcStatus(asked.answer.error()));
  EXPECT_EQ(asked.answer.header().size_bytes(), data_.size());
  EXPECT_EQ(asked.answer.header().generation(), agent_->generation.ToString());
  ASSERT_EQ(asked.answer.block_crc32c_size(), 4);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(asked.answer.block_crc32c(i),
              Crc32c(absl::string_view(data_).substr(
                  static_cast<size_t>(i) * kBlockBytes, kBlockBytes)));
  }
  EXPECT_TRUE(Bytes(asked.file, data_.size() + 1) == data_);
  EXPECT_EQ(fcntl(asked.file.get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_LT(pwrite(asked.file.get(), "x", 1, 0), 0);
  EXPECT_LT(ftruncate(asked.file.get(), 0), 0);
}

TEST_F(DescriptorServerTest, TheDiskThreadsLetGoAndHaveOneSocket) {
  const Asked asked = Ask(agent_->ReadRequest(image_));
  ASSERT_TRUE(asked.file.valid());
  // Posted before the answer was complete, or just behind it.
  while (OpenOnDisk() > 0) {
  }
  EXPECT_EQ(SocketsOnDisk(), 1);
}

TEST_F(DescriptorServerTest, ReadsOnAfterTheImageWasRemoved) {
  const Asked asked = Ask(agent_->ReadRequest(image_));
  ASSERT_TRUE(asked.file.valid());
  ASSERT_EQ(unlink(absl::StrCat(directory_, "/", image_.ToString()).c_str()),
            0);
  EXPECT_TRUE(Bytes(asked.file, data_.size()) == data_);
  EXPECT_THAT(Refusal(agent_->ReadRequest(image_)),
              HasReason(reason::kReplicaMissing));
}

TEST_F(DescriptorServerTest, RefusesWhatAReadRefuses) {
  v1::ReadImageRequest request = agent_->ReadRequest(image_);
  request.set_capability("no such thing");
  EXPECT_THAT(Refusal(request), HasReason(reason::kCapabilityInvalid));
  request = agent_->ReadRequest(RandomIds()->NextUuid());
  request.set_image(ImageName(image_));  // the right of another image
  EXPECT_THAT(Refusal(request), HasReason(reason::kCapabilityInvalid));
  request = agent_->ReadRequest(image_);
  request.set_generation(Generation{7, 21, 3}.ToString());
  EXPECT_THAT(Refusal(request), HasReason(reason::kCapabilityInvalid));
  request = agent_->ReadRequest(image_);
  request.set_mount_uid(RandomIds()->NextUuid().ToString());
  EXPECT_THAT(Refusal(request), HasReason(reason::kMountIdentityMismatch));
  request = agent_->ReadRequest(RandomIds()->NextUuid());
  EXPECT_THAT(Refusal(request), HasReason(reason::kReplicaMissing));
}

TEST_F(DescriptorServerTest, AnotherGenerationIsMissing) {
  // With a right to it, as after a delete and another upload.
  v1::ReadImageRequest request = agent_->ReadRequest(image_);
  const Generation other{7, 21, 3};
  Capability capability;
  capability.operation = Capability::Operation::kRead;
  capability.image_id = image_;
  capability.generation = other;
  capability.mount_uid = agent_->mount_uid;
  capability.expire_time_us = RealClock()->NowMicros() + 600'000'000;
  request.set_generation(other.ToString());
  request.set_capability(SignCapability(capability, agent_->key));
  EXPECT_THAT(Refusal(request), HasReason(reason::kReplicaMissing));
}

TEST_F(DescriptorServerTest, EndsConnectionsThatSpeakAnotherTongue) {
  for (const std::string& frame :
       {std::string("\xff\xff\xff\xff", 4), std::string("\x03\0\0\0abc", 7),
        std::string("GET / HTTP/1.1\r\n\r\n"),
        FrameOf(agent_->ReadRequest(image_)) + "more"}) {
    EXPECT_THAT(AskWith(socket_, frame).status,
                StatusIs(absl::StatusCode::kUnavailable));
  }
  const Asked asked = Ask(agent_->ReadRequest(image_));
  EXPECT_OK(asked.status);
  EXPECT_TRUE(asked.file.valid());
}

TEST_F(DescriptorServerTest, ClientsGoAndComeWithoutEnd) {
  for (int i = 0; i < DescriptorServer::kMostClients + 10; ++i) {
    const Asked asked = Ask(agent_->ReadRequest(image_));
    ASSERT_OK(asked.status) << i;
    ASSERT_TRUE(asked.file.valid()) << i;
  }
}

TEST_F(DescriptorServerTest, WithdrawsAtItsEnd) {
  const Asked asked = Ask(agent_->ReadRequest(image_));
  ASSERT_TRUE(asked.file.valid());
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_TRUE(asked.Withdrawn());
  EXPECT_FALSE(std::filesystem::exists(DescriptorSocketOf(socket_)));
  EXPECT_THAT(Ask(agent_->ReadRequest(image_)).status,
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(DescriptorServerTest, WaitsForReadersOnlyForSoLong) {
  Asked asked = Ask(agent_->ReadRequest(image_));
  ASSERT_TRUE(asked.file.valid());
  std::thread ends([&] { asked.socket.Close(); });
  // An hour: it ends because the reader does.
  server_->Shutdown(absl::Hours(1));
  ends.join();
}

TEST_F(DescriptorServerTest, AMountThatGoesAwayTakesItsFilesAlong) {
  const Asked asked = Ask(agent_->ReadRequest(image_));
  ASSERT_TRUE(asked.file.valid());
  MountSighting seen;
  seen.ticket = 1;
  seen.mount_id = int64_t{1} << 40;
  seen.what = "another one";
  agent_->core->OnMountSeen(seen);
  EXPECT_TRUE(asked.Withdrawn());
}

TEST(DescriptorServerOverMemoryTest, RefusesWhatIsNoLocalFileSystem) {
  const std::string socket =
      absl::StrCat(::testing::TempDir(), "/e-",
                   RandomIds()->NextUint64() % 1000000, ".sock");
  auto threads = DiskThreads::Start(1);
  ASSERT_OK(threads);
  TestAgent agent("m-1", socket);
  auto server =
      DescriptorServer::Start(agent.core.get(), (*threads)->descriptors(),
                              {ParseAddress("unix:" + socket).value()});
  ASSERT_OK(server);
  const Asked asked =
      AskWith(socket, FrameOf(agent.ReadRequest(RandomIds()->NextUuid())));
  ASSERT_OK(asked.status);
  EXPECT_THAT(FromRpcStatus(asked.answer.error()),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_FALSE(asked.file.valid());
}

}  // namespace
}  // namespace predella::agent
