// The coordinator's services over a real server on a Unix socket.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"

#include "common/collect_garbage.h"
#include "common/errors.h"
#include "common/executor.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/server_runner.h"
#include "predella/control/v1/agent_session_service.grpc.pb.h"
#include "predella/v1/cluster_service.grpc.pb.h"
#include "predella/v1/image_service.grpc.pb.h"
#include "predella/v1/mount_service.grpc.pb.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/mem_kv_store.h"
#include "server/lifecycle/lifecycle.h"
#include "server/service/agent_session_service_impl.h"
#include "server/service/call_runner.h"
#include "server/service/cluster_service_impl.h"
#include "server/service/image_service_impl.h"
#include "server/service/mount_service_impl.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

using AgentStream = grpc::ClientReaderWriter<control::v1::AgentMessage,
                                             control::v1::CoordinatorMessage>;

class ServicesTest : public ::testing::Test {
 protected:
  ServicesTest() {
    char directory[] = "/tmp/predella-test-XXXXXX";
    directory_ = mkdtemp(directory);
    index_ =
        *server::PlacementIndex::Open(&kv_, &epoch_file_, &clock_, &ids_, {});
    registry_ = std::make_unique<server::MountRegistry>(
        &clock_, &ids_, server::RegistryOptions());
    server::LifecycleDeps deps;
    deps.index = index_.get();
    deps.registry = registry_.get();
    deps.clock = &clock_;
    deps.ids = &ids_;
    deps.pool = &pool_;
    deps.options.tombstone_copy_wait = absl::Milliseconds(100);
    lifecycle_ = *server::Lifecycle::Create(deps, server::PlacementOptions());
    images_ = std::make_unique<server::ImageServiceImpl>(
        &runner_, &lifecycle_->images(), &lifecycle_->uploads());
    mounts_ = std::make_unique<server::MountServiceImpl>(
        &runner_, &lifecycle_->mounts(), &lifecycle_->orphans());
    cluster_ = std::make_unique<server::ClusterServiceImpl>(
        &runner_, &lifecycle_->cluster(), &lifecycle_->events(),
        &lifecycle_->index_audit(), &pool_,
        []() -> absl::StatusOr<v1::IndexBackup> {
          return absl::UnimplementedError("no index on a disk");
        });
    sessions_ = std::make_unique<server::AgentSessionServiceImpl>(
        &runner_, &lifecycle_->sessions(), &pool_);
    ServerOptions options;
    options.listen = {*ParseAddress(Target())};
    server_ = *ServerRunner::Start(options, {images_.get(), mounts_.get(),
                                             cluster_.get(), sessions_.get()});
    channel_ = DialChannel(Target());
    image_stub_ = v1::ImageService::NewStub(channel_);
    mount_stub_ = v1::MountService::NewStub(channel_);
    cluster_stub_ = v1::ClusterService::NewStub(channel_);
    session_stub_ = control::v1::AgentSessionService::NewStub(channel_);
  }
  ~ServicesTest() override {
    lifecycle_->sessions().CloseAll(absl::CancelledError("the test is over"));
    server_->Shutdown(absl::Seconds(1));
    pool_.Shutdown();
    rmdir(directory_.c_str());
  }

  std::string Target() const { return absl::StrCat("unix:", directory_, "/s"); }

  // Calls that are repeated by their channel while UNAVAILABLE take a while.
  static std::unique_ptr<grpc::ClientContext> Context() {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() +
                          std::chrono::seconds(10));
    return context;
  }

  // A registered agent as far as the first Heartbeat's answer.
  void Register(AgentStream* stream, const Uuid& uid,
                const std::string& capability = "") {
    control::v1::AgentMessage message;
    control::v1::CoordinatorMessage answer;
    message.mutable_hello()->set_protocol_version(1);
    message.mutable_hello()->set_mount_name("a");
    message.mutable_hello()->set_mount_uid(uid.bytes());
    message.mutable_hello()->set_incarnation("1");
    message.mutable_hello()->add_addresses("unix:/run/a.sock");
    if (!capability.empty()) {
      message.mutable_hello()->add_capabilities(capability);
    }
    ASSERT_TRUE(stream->Write(message));
    ASSERT_TRUE(stream->Read(&answer));
    ASSERT_TRUE(answer.has_welcome());
    auto* report = message.mutable_mount_report();
    report->mutable_label()->set_mount_uid(uid.bytes());
    report->mutable_space()->set_size_bytes(int64_t{100} << 30);
    report->mutable_space()->set_available_bytes(int64_t{90} << 30);
    report->mutable_space()->set_available_inodes(100000);
    report->mutable_health()->set_health(v1::HEALTH_ONLINE);
    ASSERT_TRUE(stream->Write(message));
    ASSERT_TRUE(stream->Read(&answer));
    ASSERT_TRUE(answer.has_attach());
    message.mutable_attach_done();
    ASSERT_TRUE(stream->Write(message));
    // Attached once the registry says so; a heartbeat is answered at any time.
    while (!registry_->Find(uid)->attached) {
      message.mutable_heartbeat()->set_sequence(1);
      ASSERT_TRUE(stream->Write(message));
      ASSERT_TRUE(stream->Read(&answer));
    }
  }

  FakeClock clock_;
  FakeIds ids_;
  std::string directory_;
  server::MemKvStore kv_;
  server::MemEpochFile epoch_file_;
  std::unique_ptr<server::PlacementIndex> index_;
  std::unique_ptr<server::MountRegistry> registry_;
  ThreadPool pool_{"test", 8};
  std::unique_ptr<server::Lifecycle> lifecycle_;
  server::CallRunner runner_{&pool_};
  std::unique_ptr<server::ImageServiceImpl> images_;
  std::unique_ptr<server::MountServiceImpl> mounts_;
  std::unique_ptr<server::ClusterServiceImpl> cluster_;
  std::unique_ptr<server::AgentSessionServiceImpl> sessions_;
  std::unique_ptr<ServerRunner> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ImageService::Stub> image_stub_;
  std::unique_ptr<v1::MountService::Stub> mount_stub_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_stub_;
  std::unique_ptr<control::v1::AgentSessionService::Stub> session_stub_;
};

TEST_F(ServicesTest, NamesAreCheckedBeforeAnythingElse) {
  const std::string id = ids_.NextUuid().ToString();
  v1::Image image;
  v1::GetImageRequest get;
  get.set_name("images/not-a-uuid");
  absl::Status status =
      FromGrpcStatus(image_stub_->GetImage(Context().get(), get, &image));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));

  v1::Upload upload;
  v1::StartUploadRequest start;
  start.set_image("images/" + id);
  start.set_upload_id("x");
  EXPECT_THAT(
      FromGrpcStatus(image_stub_->StartUpload(Context().get(), start, &upload)),
      StatusIs(absl::StatusCode::kInvalidArgument));
  start.set_upload_id(id);
  start.set_size_bytes(-1);
  EXPECT_THAT(
      FromGrpcStatus(image_stub_->StartUpload(Context().get(), start, &upload)),
      HasReason(reason::kInvalidArgument));

  google::protobuf::Empty empty;
  v1::DeleteImageRequest remove;
  remove.set_name("images/" + id);
  remove.set_generation("seven");
  EXPECT_THAT(
      FromGrpcStatus(image_stub_->DeleteImage(Context().get(), remove, &empty)),
      HasReason(reason::kInvalidArgument));
  remove.clear_generation();
  remove.set_request_id("seven");
  EXPECT_THAT(
      FromGrpcStatus(image_stub_->DeleteImage(Context().get(), remove, &empty)),
      HasReason(reason::kInvalidArgument));
}

TEST_F(ServicesTest, ErrorsCarryTheirDetails) {
  v1::Mount mount;
  v1::GetMountRequest request;
  request.set_name("mounts/none");
  const absl::Status status =
      FromGrpcStatus(mount_stub_->GetMount(Context().get(), request, &mount));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(status, HasReason(reason::kMountNotFound));
  EXPECT_EQ(MetadataOf(status)["mount"], "mounts/none");
}

TEST_F(ServicesTest, ASessionOverTheWireTakesAnUpload) {
  const Uuid uid = ids_.NextUuid();
  const Uuid image_id = ids_.NextUuid();
  const Uuid upload_id = ids_.NextUuid();
  const auto context = std::make_unique<grpc::ClientContext>();
  const auto stream = session_stub_->Session(context.get());
  Register(stream.get(), uid);
  if (HasFatalFailure()) {
    return;
  }

  std::thread agent([&] {
    control::v1::CoordinatorMessage message;
    while (stream->Read(&message)) {
      if (!message.has_command()) {
        continue;
      }
      control::v1::AgentMessage answer;
      answer.mutable_command_result()->set_number(message.command().number());
      stream->Write(answer);
      if (message.command().has_prepare_upload()) {
        auto* published = answer.mutable_published();
        const auto& upload = message.command().prepare_upload().upload();
        published->set_upload_id(upload.upload_id());
        published->set_image_id(upload.image_id());
        *published->mutable_generation() = upload.generation();
        published->set_size_bytes(42);
        stream->Write(answer);
      }
    }
  });

  v1::Upload upload;
  v1::StartUploadRequest start;
  start.set_image("images/" + image_id.ToString());
  start.set_upload_id(upload_id.ToString());
  EXPECT_THAT(
      FromGrpcStatus(image_stub_->StartUpload(Context().get(), start, &upload)),
      IsOk());
  EXPECT_EQ(upload.target().mount(), "mounts/a");
  v1::GetUploadRequest get;
  get.set_name("uploads/" + upload_id.ToString());
  while (upload.state() == v1::UPLOAD_STATE_OPEN &&
         image_stub_->GetUpload(Context().get(), get, &upload).ok()) {
  }
  EXPECT_EQ(upload.state(), v1::UPLOAD_STATE_COMMITTED);
  v1::ListImagesRequest list;
  v1::ListImagesResponse images;
  EXPECT_TRUE(image_stub_->ListImages(Context().get(), list, &images).ok());
  ASSERT_EQ(images.images_size(), 1);
  EXPECT_EQ(images.images(0).size_bytes(), 42);
  EXPECT_TRUE(images.next_page_token().empty());
  google::protobuf::Empty empty;
  v1::DeleteImageRequest remove;
  remove.set_name(images.images(0).name());
  EXPECT_THAT(
      FromGrpcStatus(image_stub_->DeleteImage(Context().get(), remove, &empty)),
      IsOk());
  v1::Cluster cluster;
  EXPECT_TRUE(cluster_stub_->GetCluster(Context().get(), {}, &cluster).ok());
  EXPECT_EQ(cluster.mounts_online(), 1);
  EXPECT_EQ(cluster.tombstone_count(), 1);

  context->TryCancel();
  agent.join();
  while (registry_->Find(uid)->session_open) {
    std::this_thread::yield();
  }
}

TEST_F(ServicesTest, HeldGarbageIsShownAndCollectedOverTheWire) {
  const Uuid uid = ids_.NextUuid();
  const auto context = std::make_unique<grpc::ClientContext>();
  const auto stream = session_stub_->Session(context.get());
  Register(stream.get(), uid, std::string(kCanCollectGarbage));
  if (HasFatalFailure()) {
    return;
  }
  control::v1::AgentMessage beat;
  control::v1::CoordinatorMessage message;
  beat.mutable_heartbeat()->mutable_held_garbage()->set_uploads(12);
  beat.mutable_heartbeat()->mutable_held_garbage()->set_bytes(345);
  stream->Write(beat);
  v1::Mount mount;
  v1::CollectGarbageRequest collect;
  collect.set_name("mounts/a");
  collect.set_validate_only(true);
  while (mount.held_upload_count() == 0) {
    ASSERT_THAT(FromGrpcStatus(mount_stub_->CollectGarbage(Context().get(),
                                                           collect, &mount)),
                IsOk());
  }
  EXPECT_EQ(mount.held_upload_count(), 12);
  EXPECT_EQ(mount.held_upload_bytes(), 345);

  collect.set_validate_only(false);
  collect.set_accept_upload_count(11);
  const absl::Status refused = FromGrpcStatus(
      mount_stub_->CollectGarbage(Context().get(), collect, &mount));
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(refused, HasReason(reason::kGarbageChanged));
  EXPECT_EQ(MetadataOf(refused)["upload_count"], "12");

  std::thread agent([&] {
    while (stream->Read(&message)) {
      if (!message.command().has_collect_garbage()) {
        continue;
      }
      EXPECT_EQ(message.command().collect_garbage().uploads(), 12);
      control::v1::AgentMessage answer;
      answer.mutable_heartbeat()->set_sequence(9);
      stream->Write(answer);
      answer.mutable_command_result()->set_number(message.command().number());
      stream->Write(answer);
    }
  });
  collect.set_accept_upload_count(12);
  EXPECT_THAT(FromGrpcStatus(mount_stub_->CollectGarbage(Context().get(),
                                                         collect, &mount)),
              IsOk());
  EXPECT_EQ(mount.held_upload_count(), 0);
  context->TryCancel();
  agent.join();
  while (registry_->Find(uid)->session_open) {
    std::this_thread::yield();
  }
}

TEST_F(ServicesTest, ARefusedSessionHearsWhy) {
  const auto context = Context();
  const auto stream = session_stub_->Session(context.get());
  control::v1::AgentMessage message;
  message.mutable_hello()->set_protocol_version(7);
  message.mutable_hello()->set_mount_name("a");
  ASSERT_TRUE(stream->Write(message));
  control::v1::CoordinatorMessage answer;
  EXPECT_FALSE(stream->Read(&answer));
  const absl::Status status = FromGrpcStatus(stream->Finish());
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("version 7"));
}

TEST_F(ServicesTest, DrainingRefusesNewCallsAndSessions) {
  runner_.StartDraining();
  EXPECT_TRUE(runner_.WaitIdle(absl::Seconds(1)));
  v1::Upload upload;
  v1::StartUploadRequest start;
  start.set_image("images/" + ids_.NextUuid().ToString());
  start.set_upload_id(ids_.NextUuid().ToString());
  EXPECT_THAT(
      FromGrpcStatus(image_stub_->StartUpload(Context().get(), start, &upload)),
      HasReason(reason::kNotReady));
  const auto context = Context();
  const auto stream = session_stub_->Session(context.get());
  EXPECT_THAT(FromGrpcStatus(stream->Finish()), HasReason(reason::kNotReady));
}

TEST_F(ServicesTest, EventsAreStreamedAndASlowClientHoldsNothingUp) {
  v1::WatchEventsRequest request;
  request.set_after("no id");
  {
    const auto context = Context();
    v1::Event event;
    const auto refused = cluster_stub_->WatchEvents(context.get(), request);
    EXPECT_FALSE(refused->Read(&event));
    EXPECT_EQ(refused->Finish().error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  request.set_after(*lifecycle_->events().Newest());
  const auto slow_context = Context();
  const auto slow = cluster_stub_->WatchEvents(slow_context.get(), request);
  const auto context = Context();
  const auto stream = cluster_stub_->WatchEvents(context.get(), request);
  constexpr int kEvents = 300;
  const auto put = [&](int n) {
    storage::v1::EventRow row;
    row.set_kind("test");
    row.set_affected_images(n);
    row.set_detail(std::string(10'000, 'x'));  // more than a stream holds
    server::IndexTxn txn = index_->Begin();
    txn.PutEvent(row);
    ASSERT_THAT(index_->Commit(std::move(txn)), IsOk());
    lifecycle_->events().WakeAll();
  };
  for (int n = 0; n < kEvents; ++n) {
    put(n);
  }
  v1::Event event;
  for (int n = 0; n < kEvents; ++n) {
    ASSERT_TRUE(stream->Read(&event));
    ASSERT_EQ(event.affected_image_count(), n);
  }
  slow_context->TryCancel();
  slow->Finish();
  put(kEvents);  // to a stream that waits
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.affected_image_count(), kEvents);
  v1::ListEventsRequest list;
  v1::ListEventsResponse events;
  list.set_page_size(1);
  EXPECT_TRUE(cluster_stub_->ListEvents(Context().get(), list, &events).ok());
  ASSERT_EQ(events.events_size(), 1);
  EXPECT_EQ(events.events(0).id(), event.id());
  runner_.StartDraining();
  lifecycle_->events().WakeAll();
  EXPECT_FALSE(stream->Read(&event));
  EXPECT_THAT(FromGrpcStatus(stream->Finish()), HasReason(reason::kNotReady));
}

TEST_F(ServicesTest, HealthIsByService) {
  server_->SetServing("predella.v1.ImageService", true);
  const auto stub = grpc::health::v1::Health::NewStub(channel_);
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  request.set_service("predella.v1.ImageService");
  ASSERT_TRUE(stub->Check(Context().get(), request, &response).ok());
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

TEST_F(ServicesTest, ADeadlineThatPassedIsSaid) {
  v1::Cluster cluster;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() -
                       std::chrono::seconds(1));
  EXPECT_EQ(cluster_stub_->GetCluster(&context, {}, &cluster).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
}

}  // namespace
}  // namespace predella::testing
