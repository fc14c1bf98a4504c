// An agent core behind a real gRPC server on a Unix socket, over a file
// system in memory; the coordinator is played by the test.
#ifndef PREDELLA_TESTS_AGENT_SERVICE_TEST_AGENT_H_
#define PREDELLA_TESTS_AGENT_SERVICE_TEST_AGENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "gtest/gtest.h"

#include "agent/control/agent_core.h"
#include "agent/control/disk_executor.h"
#include "agent/fs/posix_file_system.h"
#include "agent/service/chunk_service.h"
#include "agent/service/grpc_peer_writer.h"
#include "agent/store/image_store.h"
#include "common/capability.h"
#include "common/executor.h"
#include "common/mutex.h"
#include "common/resource_name.h"
#include "common/rpc/server_runner.h"
#include "common/status_macros.h"
#include "tests/testing/matchers.h"
#include "tests/testing/mem_file_system.h"

namespace predella::agent {

// Answers every Published with COMMITTED, and keeps what came.
class AnsweringLink final : public CoordinatorLink {
 public:
  void Send(control::v1::AgentMessage message) override {
    MutexLock lock(&mu_);
    sent_.push_back(std::move(message));
    cv_.SignalAll();
  }
  std::shared_ptr<InventoryStream> OpenInventory() override { return nullptr; }
  void Disconnect(absl::string_view) override {}
  // The next message after `*seen`; an empty one after ten seconds.
  control::v1::AgentMessage Next(size_t* seen) {
    MutexLock lock(&mu_);
    while (sent_.size() <= *seen) {
      if (!cv_.WaitFor(&mu_, std::chrono::seconds(10))) {
        return {};
      }
    }
    return sent_[(*seen)++];
  }

 private:
  Mutex mu_;
  CondVar cv_;
  std::vector<control::v1::AgentMessage> sent_ ABSL_GUARDED_BY(mu_);
};

// The mount in place of one in memory, initialised before.
struct TestDisk {
  DiskThreads* threads = nullptr;
  std::string directory;
};

class TestAgent {
 public:
  TestAgent(const std::string& name, const std::string& socket,
            const TestDisk& disk = {})
      : disk_("disk", 4), probe_("probe", 1), threads_(disk.threads) {
    absl::StatusOr<storage::v1::MountLabel> label;
    if (threads_ == nullptr) {
      label = InitMount(&mem, RealClock(), RandomIds(), name);
    } else {
      auto fs = PosixFileSystem::Open(disk.directory);
      EXPECT_OK(fs);
      label = ReadLabel(fs->get());
    }
    EXPECT_OK(label);
    mount_uid = Uuid::FromBytesOrNone(label->mount_uid());
    key = DeriveMountKey("cluster key", mount_uid);
    AgentSeams seams;
    seams.clock = RealClock();
    seams.ids = RandomIds();
    seams.disk = threads_ == nullptr ? &disk_ : threads_->data();
    seams.probe = threads_ == nullptr ? &probe_ : threads_->probe();
    seams.peer = &peer_;
    seams.open_store =
        [this, directory = disk.directory](
            const MountMemory&) -> absl::StatusOr<std::shared_ptr<ImageStore>> {
      if (threads_ != nullptr) {
        return OpenOn(directory);
      }
      absl::StatusOr<std::unique_ptr<ImageStore>> store =
          ImageStore::Open(&mem, RealClock(), RandomIds(), StoreOptions());
      if (!store.ok()) {
        return store.status();
      }
      return std::shared_ptr<ImageStore>(std::move(*store));
    };
    seams.fatal = [](const absl::Status& s) { ADD_FAILURE() << s; };
    AgentIdentity identity;
    identity.mount_name = name;
    core = std::make_unique<AgentCore>(identity, 0, std::move(seams));
    service_ = std::make_unique<ChunkServiceImpl>(core.get());
    address = "unix:" + socket;
    ServerOptions options;
    options.listen = {ParseAddress(address).value()};
    absl::StatusOr<std::unique_ptr<ServerRunner>> server =
        ServerRunner::Start(options, {service_.get()});
    EXPECT_OK(server);
    server_ = std::move(*server);
    stub = v1::ChunkService::NewStub(DialChannel(address));
    Register();
  }
  ~TestAgent() {
    server_->Shutdown(absl::ZeroDuration());
    core->Stop([] {});
    if (threads_ != nullptr) {
      threads_->Join();
    }
    disk_.Shutdown();
    probe_.Shutdown();
  }

  void Register() {
    core->Tick();
    session_ = core->OnConnected(link);
    control::v1::CoordinatorMessage welcome;
    welcome.mutable_welcome()->set_protocol_version(1);
    welcome.mutable_welcome()->set_cluster_uid(std::string(16, 'c'));
    welcome.mutable_welcome()->set_epoch(7);
    welcome.mutable_welcome()->set_epoch_nonce(generation.nonce);
    welcome.mutable_welcome()->set_coordinator_time_us(
        RealClock()->NowMicros());
    core->OnMessage(session_, welcome);
    WaitFor([](const auto& m) { return m.has_mount_report(); });
    control::v1::CoordinatorMessage attach;
    attach.mutable_attach()->set_claim_label(true);
    attach.mutable_attach()->set_mount_key(key);
    core->OnMessage(session_, attach);
    WaitFor([](const auto& m) { return m.has_attach_done(); });
  }
  control::v1::AgentMessage WaitFor(
      const std::function<bool(const control::v1::AgentMessage&)>& wanted) {
    while (true) {
      control::v1::AgentMessage message = link->Next(&seen_);
      if (message.payload_case() == 0 || wanted(message)) {
        EXPECT_NE(message.payload_case(), 0);
        return message;
      }
    }
  }
  void Send(const control::v1::CoordinatorMessage& message) {
    core->OnMessage(session_, message);
  }
  void Prepare(const Uuid& upload, const Uuid& image, int64_t boundary = 0) {
    control::v1::CoordinatorMessage message;
    message.mutable_command()->set_number(++number_);
    control::v1::OpenUpload* open =
        message.mutable_command()->mutable_prepare_upload()->mutable_upload();
    open->set_upload_id(upload.bytes());
    open->set_image_id(image.bytes());
    *open->mutable_generation() = generation.ToProto();
    open->set_segment_boundary(boundary);
    Send(message);
    WaitFor([](const auto& m) { return m.has_command_result(); });
  }
  // Waits for Published and commits it.
  control::v1::Published AckPublished() {
    const control::v1::Published published =
        WaitFor([](const auto& m) { return m.has_published(); }).published();
    control::v1::CoordinatorMessage message;
    message.mutable_published_ack()->set_upload_id(published.upload_id());
    *message.mutable_published_ack()->mutable_generation() =
        published.generation();
    message.mutable_published_ack()->set_outcome(
        storage::v1::UPLOAD_OUTCOME_COMMITTED);
    Send(message);
    return published;
  }
  std::string Token(Capability::Operation operation, const Uuid& image,
                    const Uuid& upload) const {
    Capability capability;
    capability.operation = operation;
    capability.image_id = image;
    capability.generation = generation;
    capability.upload_id = upload;
    capability.mount_uid = mount_uid;
    capability.expire_time_us = RealClock()->NowMicros() + 600'000'000;
    return SignCapability(capability, key);
  }
  v1::WriteImageRequest Header(const Uuid& upload, const Uuid& image) const {
    v1::WriteImageRequest request;
    v1::WriteHeader* header = request.mutable_header();
    header->set_upload(UploadName(upload));
    header->set_image(ImageName(image));
    header->set_generation(generation.ToString());
    header->set_mount_uid(mount_uid.ToString());
    header->set_capability(Token(Capability::Operation::kWrite, image, upload));
    return request;
  }
  v1::ReadImageRequest ReadRequest(const Uuid& image) const {
    v1::ReadImageRequest request;
    request.set_image(ImageName(image));
    request.set_generation(generation.ToString());
    request.set_mount_uid(mount_uid.ToString());
    request.set_capability(Token(Capability::Operation::kRead, image, Uuid()));
    return request;
  }

  testing::MemFileSystem mem;
  Uuid mount_uid;
  std::string key;
  std::string address;
  const Generation generation{7, 20, 3};
  // Shared with the core.
  const std::shared_ptr<AnsweringLink> link = std::make_shared<AnsweringLink>();
  std::unique_ptr<AgentCore> core;
  std::unique_ptr<v1::ChunkService::Stub> stub;

 private:
  static absl::StatusOr<std::shared_ptr<ImageStore>> OpenOn(
      const std::string& directory) {
    struct Opened {
      std::unique_ptr<FileSystem> fs;
      std::unique_ptr<ImageStore> store;
    };
    auto opened = std::make_shared<Opened>();
    ASSIGN_OR_RETURN(opened->fs, PosixFileSystem::Open(directory));
    ASSIGN_OR_RETURN(opened->store,
                     ImageStore::Open(opened->fs.get(), RealClock(),
                                      RandomIds(), StoreOptions()));
    ImageStore* const store = opened->store.get();
    return std::shared_ptr<ImageStore>(std::move(opened), store);
  }

  GrpcPeerWriter peer_;
  ThreadPool disk_;
  ThreadPool probe_;
  DiskThreads* const threads_;  // null: the two above
  std::unique_ptr<ChunkServiceImpl> service_;
  std::unique_ptr<ServerRunner> server_;
  uint64_t session_ = 0;
  size_t seen_ = 0;
  int64_t number_ = 0;
};

// Bytes that differ from block to block.
inline std::string TestBytes(size_t size) {
  std::string out(size, '\0');
  for (size_t i = 0; i < size; ++i) {
    out[i] = static_cast<char>((i * 31 + (i >> 20)) & 0xff);
  }
  return out;
}

}  // namespace predella::agent

#endif  // PREDELLA_TESTS_AGENT_SERVICE_TEST_AGENT_H_
