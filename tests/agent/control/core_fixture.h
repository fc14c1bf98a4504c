// An AgentCore over a file system in memory, with the coordinator and the
// clients played by the test.
#ifndef PREDELLA_TESTS_AGENT_CONTROL_CORE_FIXTURE_H_
#define PREDELLA_TESTS_AGENT_CONTROL_CORE_FIXTURE_H_

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

#include "agent/control/agent_core.h"
#include "agent/fs/disk_calls.h"
#include "agent/fs/watched_file_system.h"
#include "agent/store/image_store.h"
#include "common/capability.h"
#include "common/resource_name.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/manual_executor.h"
#include "tests/testing/matchers.h"
#include "tests/testing/mem_file_system.h"

namespace predella::agent {

class FakeInventory final : public InventoryStream {
 public:
  bool Send(control::v1::InventoryPart part) override {
    parts.push_back(std::move(part));
    return parts.size() < broken_at;
  }
  absl::Status Finish() override { return status; }
  std::vector<control::v1::InventoryPart> parts;
  size_t broken_at = 1000;
  absl::Status status;
};

class FakeLink final : public CoordinatorLink {
 public:
  std::shared_ptr<InventoryStream> OpenInventory() override {
    return inventory;
  }
  void Send(control::v1::AgentMessage message) override {
    sent.push_back(std::move(message));
  }
  void Disconnect(absl::string_view why) override {
    disconnected = std::string(why);
  }
  std::vector<control::v1::AgentMessage> sent;
  std::optional<std::string> disconnected;
  std::shared_ptr<FakeInventory> inventory = std::make_shared<FakeInventory>();
};

class FakeStream final : public UploadStream {
 public:
  void Send(v1::WriteImageResponse response) override {
    sent.push_back(std::move(response));
  }
  void ChunkDone(int64_t bytes) override { done_bytes += bytes; }
  void Finish(const absl::Status& status) override {
    if (!finished.has_value()) {
      finished = status;
    }
  }
  // The last Progress; fails the test if there is none.
  v1::Progress progress() const {
    for (auto it = sent.rbegin(); it != sent.rend(); ++it) {
      if (it->has_progress()) {
        return it->progress();
      }
    }
    ADD_FAILURE() << "no Progress was sent";
    return {};
  }
  std::vector<v1::WriteImageResponse> sent;
  int64_t done_bytes = 0;
  std::optional<absl::Status> finished;
};

class FakePeer final : public PeerWriter {
 public:
  void Copy(PeerCopy copy) override { copies.push_back(std::move(copy)); }
  std::vector<PeerCopy> copies;
};

class CoreTest : public ::testing::Test {
 protected:
  CoreTest() { Build(); }
  ~CoreTest() override {
    Run();
    core.Stop([] {});
    Run();
  }

  void Build() {
    absl::StatusOr<storage::v1::MountLabel> made =
        InitMount(&mem, &clock, &ids, "m-1");
    EXPECT_OK(made);
    label = *made;
    mount_uid = Uuid::FromBytesOrNone(label.mount_uid());
    key = DeriveMountKey("cluster key", mount_uid);
  }

  AgentSeams Seams() {
    AgentSeams seams;
    seams.clock = &clock;
    seams.ids = &ids;
    seams.disk = &disk;
    seams.probe = &probe;
    seams.peer = &peer;
    seams.calls = &calls;
    seams.replace_threads = [this](int stuck) {
      replaced = stuck;
      ++asked_for_threads;
    };
    seams.missing_threads = [this] { return missing; };
    seams.open_store = [this](const MountMemory& memory)
        -> absl::StatusOr<std::shared_ptr<ImageStore>> {
      StoreOptions options;
      options.memory = memory;
      options.calls = &calls;
      options.thin = thin;
      // They outlive what is opened on them.
      watches.push_back(std::make_unique<WatchedFileSystem>(root, &calls));
      FileSystem* const watched = watches.back().get();
      absl::StatusOr<std::unique_ptr<ImageStore>> store =
          ImageStore::Open(watched, &clock, &ids, options);
      if (!store.ok()) {
        return store.status();
      }
      const std::shared_ptr<ImageStore> shared = std::move(*store);
      opened = shared;
      return shared;
    };
    seams.idle_io = [this](bool idle) { idle_io = idle; };
    seams.look_again = [this] { return ++looks; };
    seams.fatal = [this](const absl::Status& status) { fatal = status; };
    return seams;
  }
  static AgentIdentity Identity() {
    AgentIdentity identity;
    identity.mount_name = "m-1";
    identity.path = "/mem";
    identity.addresses = {"127.0.0.1:7410"};
    return identity;
  }

  void Run() {
    while (disk.RunAll() + probe.RunAll() > 0) {
    }
  }
  void Tick(absl::Duration by = absl::Milliseconds(250)) {
    clock.Advance(by);
    core.Tick();
    Run();
  }

  // ---- the coordinator's part
  control::v1::CoordinatorMessage Welcome(int64_t epoch = 7) {
    control::v1::CoordinatorMessage message;
    control::v1::Welcome* welcome = message.mutable_welcome();
    welcome->set_protocol_version(1);
    welcome->set_cluster_uid(cluster.bytes());
    welcome->set_epoch(epoch);
    welcome->set_epoch_nonce(3);
    welcome->set_heartbeat_interval_ms(2000);
    welcome->set_coordinator_time_us(clock.NowMicros());
    return message;
  }
  void Connect() {
    link = std::make_shared<FakeLink>();
    session = core.OnConnected(link);
  }
  void Register(std::vector<control::v1::OpenUpload> open = {},
                bool may_collect = true) {
    Connect();
    core.OnMessage(session, Welcome());
    Tick();
    control::v1::CoordinatorMessage message;
    control::v1::Attach* attach = message.mutable_attach();
    attach->set_claim_label(true);
    attach->set_mount_key(key);
    attach->set_may_collect(may_collect);
    *attach->mutable_heard() = Generation{7, 1, 3}.ToProto();
    for (control::v1::OpenUpload& upload : open) {
      *attach->add_open_uploads() = std::move(upload);
    }
    core.OnMessage(session, message);
    Run();
  }
  void Ack() {
    control::v1::CoordinatorMessage message;
    for (auto it = link->sent.rbegin(); it != link->sent.rend(); ++it) {
      if (it->has_heartbeat()) {
        message.mutable_heartbeat_ack()->set_sequence(
            it->heartbeat().sequence());
        break;
      }
    }
    message.mutable_heartbeat_ack()->set_coordinator_time_us(clock.NowMicros());
    core.OnMessage(session, message);
    Run();
  }
  control::v1::OpenUpload Open(std::optional<int64_t> size = std::nullopt) {
    control::v1::OpenUpload open;
    open.set_upload_id(upload_id.bytes());
    open.set_image_id(image_id.bytes());
    *open.mutable_generation() = generation.ToProto();
    open.set_location_key(std::string(16, 'k'));
    if (size.has_value()) {
      open.set_size_bytes(*size);
    }
    return open;
  }
  void Command(control::v1::Command command) {
    command.set_number(++number);
    control::v1::CoordinatorMessage message;
    *message.mutable_command() = std::move(command);
    core.OnMessage(session, message);
    Run();
  }
  void Prepare(std::optional<int64_t> size = std::nullopt) {
    control::v1::Command command;
    *command.mutable_prepare_upload()->mutable_upload() = Open(size);
    Command(std::move(command));
  }
  template <typename Has>
  const control::v1::AgentMessage* Last(Has has) {
    for (auto it = link->sent.rbegin(); it != link->sent.rend(); ++it) {
      if (has(*it)) {
        return &*it;
      }
    }
    return nullptr;
  }
  const control::v1::CommandResult* Result() {
    const control::v1::AgentMessage* message =
        Last([](const control::v1::AgentMessage& m) {
          return m.has_command_result();
        });
    return message == nullptr ? nullptr : &message->command_result();
  }
  const control::v1::Published* Published() {
    const control::v1::AgentMessage* message = Last(
        [](const control::v1::AgentMessage& m) { return m.has_published(); });
    return message == nullptr ? nullptr : &message->published();
  }
  const control::v1::AttachDone* Attached() {
    const control::v1::AgentMessage* message = Last(
        [](const control::v1::AgentMessage& m) { return m.has_attach_done(); });
    return message == nullptr ? nullptr : &message->attach_done();
  }
  const control::v1::UploadFull* Full() {
    const control::v1::AgentMessage* message = Last(
        [](const control::v1::AgentMessage& m) { return m.has_upload_full(); });
    return message == nullptr ? nullptr : &message->upload_full();
  }
  const control::v1::UploadLost* Lost() {
    const control::v1::AgentMessage* message = Last(
        [](const control::v1::AgentMessage& m) { return m.has_upload_lost(); });
    return message == nullptr ? nullptr : &message->upload_lost();
  }
  template <typename Has>
  int Count(Has has) {
    return static_cast<int>(
        std::count_if(link->sent.begin(), link->sent.end(), has));
  }
  // Where the upload's bytes lie before they are published.
  std::string Inflight() const {
    return ".predella/inflight/" + upload_id.ToString();
  }
  void AckPublished(storage::v1::UploadOutcome outcome,
                    absl::string_view reason = "",
                    absl::string_view detail = "") {
    control::v1::CoordinatorMessage message;
    control::v1::PublishedAck* ack = message.mutable_published_ack();
    ack->set_upload_id(upload_id.bytes());
    *ack->mutable_generation() = generation.ToProto();
    ack->set_outcome(outcome);
    ack->set_reason(std::string(reason));
    ack->set_detail(std::string(detail));
    *ack->mutable_heard() = Generation{7, 30, 3}.ToProto();
    core.OnMessage(session, message);
    Run();
  }

  // ---- the client's part
  v1::WriteHeader Header(int64_t start = 0) {
    v1::WriteHeader header;
    header.set_upload(UploadName(upload_id));
    header.set_image(ImageName(image_id));
    header.set_generation(generation.ToString());
    header.set_mount_uid(mount_uid.ToString());
    header.set_start_offset(start);
    Capability capability;
    capability.operation = Capability::Operation::kWrite;
    capability.image_id = image_id;
    capability.generation = generation;
    capability.upload_id = upload_id;
    capability.mount_uid = mount_uid;
    capability.expire_time_us = clock.NowMicros() + 3'600'000'000;
    header.set_capability(SignCapability(capability, key));
    return header;
  }
  std::shared_ptr<UploadHandle> OpenStream(FakeStream** out,
                                           int64_t start = 0) {
    streams.push_back(std::make_shared<FakeStream>());
    *out = streams.back().get();
    absl::StatusOr<std::shared_ptr<UploadHandle>> handle =
        core.OpenWrite(Header(start), streams.back());
    EXPECT_OK(handle);
    Run();
    return handle.ok() ? *handle : nullptr;
  }
  // A stream of one segment of an upload that moved.
  std::shared_ptr<UploadHandle> OpenSegment(FakeStream** out,
                                            v1::WriteSegment segment,
                                            int64_t boundary) {
    v1::WriteHeader header =
        Header(segment == v1::WRITE_SEGMENT_TAIL ? boundary : 0);
    header.set_segment(segment);
    header.set_segment_boundary(boundary);
    streams.push_back(std::make_shared<FakeStream>());
    *out = streams.back().get();
    absl::StatusOr<std::shared_ptr<UploadHandle>> handle =
        core.OpenWrite(header, streams.back());
    EXPECT_OK(handle);
    Run();
    return handle.ok() ? *handle : nullptr;
  }
  // Prepared as the next mount of an upload that moved here.
  void PrepareTarget(int64_t boundary,
                     std::optional<int64_t> size = std::nullopt) {
    control::v1::Command command;
    *command.mutable_prepare_upload()->mutable_upload() = Open(size);
    command.mutable_prepare_upload()->mutable_upload()->set_segment_boundary(
        boundary);
    Command(std::move(command));
  }
  // The mount that an upload moves to, from `boundary` on.
  control::v1::RedirectTarget Target(int64_t boundary) {
    control::v1::RedirectTarget target;
    target.set_mount_name("m-2");
    target.set_mount_uid(ids.NextUuid().bytes());
    target.add_addresses("127.0.0.1:7411");
    target.set_capability("capability of m-2");
    target.set_segment_boundary(boundary);
    return target;
  }
  // What an earlier process of this agent left of the upload.
  void LeaveBytes(int64_t bytes) {
    ASSERT_OK_AND_ASSIGN(auto store,
                         ImageStore::Open(&mem, &clock, &ids, StoreOptions()));
    UploadSpec spec;
    spec.upload_id = upload_id;
    spec.image_id = image_id;
    spec.generation = generation;
    ASSERT_OK_AND_ASSIGN(auto staged, store->OpenStaged(spec));
    const std::string data(static_cast<size_t>(bytes), 'x');
    ASSERT_OK(staged->AppendTail(0, {data}, std::nullopt));
    ASSERT_OK(staged->Sync());
  }
  void Write(const std::shared_ptr<UploadHandle>& handle, int64_t offset,
             int64_t length, char byte = 'x') {
    while (length > 0) {
      const int64_t part = std::min<int64_t>(length, kBlockBytes);
      v1::Chunk chunk;
      chunk.set_offset(offset);
      chunk.set_data(std::string(static_cast<size_t>(part), byte));
      core.uploads()->Append(handle, std::move(chunk));
      offset += part;
      length -= part;
    }
    Run();
  }
  void Commit(const std::shared_ptr<UploadHandle>& handle, int64_t size) {
    CommitRequest request;
    request.size_bytes = size;
    core.uploads()->Commit(handle, request);
    Run();
  }

  testing::FakeClock clock;
  testing::FakeIds ids;
  testing::MemFileSystem mem;
  testing::FaultFileSystem fs{&mem};
  testing::MemFileSystem other_mem;  // another disk
  FileSystem* root = &fs;            // what is opened next
  DiskCalls calls{&clock, /*threads=*/2};
  std::vector<std::unique_ptr<WatchedFileSystem>> watches;
  int replaced = 0;  // threads
  int asked_for_threads = 0;
  int missing = 0;
  bool idle_io = false;
  bool thin = false;
  testing::ManualExecutor disk;
  testing::ManualExecutor probe;
  FakePeer peer;
  storage::v1::MountLabel label;
  std::weak_ptr<ImageStore> opened;  // the last one
  Uuid mount_uid;
  std::string key;
  const Uuid cluster = ids.NextUuid();
  Uuid upload_id = ids.NextUuid();
  Uuid image_id = ids.NextUuid();
  Generation generation{7, 20, 3};
  std::shared_ptr<FakeLink> link;
  uint64_t session = 0;
  int64_t number = 0;
  std::vector<std::shared_ptr<FakeStream>> streams;
  std::optional<absl::Status> fatal;
  uint64_t looks = 0;
  AgentCore core{Identity(), std::nullopt, Seams()};
};

}  // namespace predella::agent

#endif  // PREDELLA_TESTS_AGENT_CONTROL_CORE_FIXTURE_H_
