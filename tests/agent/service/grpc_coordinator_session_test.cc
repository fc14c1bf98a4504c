#include "agent/service/grpc_coordinator_session.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "agent/service/inventory_call.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "common/rpc/server_runner.h"
#include "predella/control/v1/agent_session_service.grpc.pb.h"
#include "tests/agent/service/test_agent.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::StatusIs;

// Welcomes and attaches whoever comes; counts.
class FakeCoordinator final : public control::v1::AgentSessionService::Service {
 public:
  grpc::Status Session(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<control::v1::CoordinatorMessage,
                               control::v1::AgentMessage>* stream) override {
    control::v1::AgentMessage message;
    while (stream->Read(&message)) {
      control::v1::CoordinatorMessage answer;
      if (message.has_hello()) {
        answer.mutable_welcome()->set_protocol_version(1);
        answer.mutable_welcome()->set_cluster_uid(std::string(16, 'c'));
        answer.mutable_welcome()->set_epoch(8);
        answer.mutable_welcome()->set_heartbeat_interval_ms(10);
        stream->Write(answer);
      } else if (message.has_mount_report()) {
        answer.mutable_attach()->set_mount_key("key");
        stream->Write(answer);
      } else if (message.has_attach_done()) {
        MutexLock lock(&mu_);
        ++attached_;
        cv_.SignalAll();
      } else if (message.has_heartbeat()) {
        answer.mutable_heartbeat_ack()->set_sequence(
            message.heartbeat().sequence());
        stream->Write(answer);
        MutexLock lock(&mu_);
        ++heartbeats_;
        cv_.SignalAll();
      }
    }
    return grpc::Status::OK;
  }
  grpc::Status ReportInventory(
      grpc::ServerContext*,
      grpc::ServerReader<control::v1::InventoryPart>* parts,
      control::v1::InventoryReceipt* receipt) override {
    control::v1::InventoryPart part;
    while (parts->Read(&part)) {
      receipt->set_entries(receipt->entries() + part.entries_size());
      MutexLock lock(&mu_);
      sizes_.push_back(part.entries_size());
      if (refuse_after_ > 0 && sizes_.size() >= refuse_after_) {
        return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "enough");
      }
    }
    return grpc::Status::OK;
  }
  void RefuseAfter(size_t parts) {
    MutexLock lock(&mu_);
    refuse_after_ = parts;
    sizes_.clear();
  }
  std::vector<int> sizes() {
    MutexLock lock(&mu_);
    return sizes_;
  }
  bool WaitAttached(int times) {
    MutexLock lock(&mu_);
    while (attached_ < times) {
      if (!cv_.WaitFor(&mu_, std::chrono::seconds(10))) {
        return false;
      }
    }
    return true;
  }
  // Ticks the agent until a heartbeat came.
  bool WaitHeartbeat(AgentCore* core) {
    for (int i = 0; i < 1000; ++i) {
      core->Tick();
      MutexLock lock(&mu_);
      if (heartbeats_ > 0 ||
          (cv_.WaitFor(&mu_, std::chrono::milliseconds(10)) &&
           heartbeats_ > 0)) {
        return true;
      }
    }
    return false;
  }

 private:
  Mutex mu_;
  CondVar cv_;
  std::vector<int> sizes_ ABSL_GUARDED_BY(mu_);
  size_t refuse_after_ ABSL_GUARDED_BY(mu_) = 0;
  int attached_ ABSL_GUARDED_BY(mu_) = 0;
  int heartbeats_ ABSL_GUARDED_BY(mu_) = 0;
};

control::v1::InventoryPart PartOf(int entries) {
  control::v1::InventoryPart part;
  for (int i = 0; i < entries; ++i) {
    part.add_entries()->set_image_id(std::string(16, 'i'));
  }
  return part;
}

TEST(InventoryCallTest, PartsGoOneAfterTheOtherAndTheReceiptIsTheEnd) {
  const std::string base = absl::StrCat(::testing::TempDir(), "/s-",
                                        RandomIds()->NextUint64() % 1000000);
  FakeCoordinator coordinator;
  ServerOptions options;
  options.listen = {ParseAddress("unix:" + base + ".sock").value()};
  ASSERT_OK_AND_ASSIGN(auto server,
                       ServerRunner::Start(options, {&coordinator}));
  auto channel = DialChannel("unix:" + base + ".sock");
  {
    const auto call = InventoryCall::Open(channel);
    for (int i = 0; i < 20; ++i) {
      ASSERT_TRUE(call->Send(PartOf(i)));
    }
    EXPECT_OK(call->Finish());
    EXPECT_EQ(coordinator.sizes().size(), 20u);
    EXPECT_EQ(coordinator.sizes().back(), 19);
  }
  {
    coordinator.RefuseAfter(2);
    const auto call = InventoryCall::Open(channel);
    int sent = 0;
    while (sent < 10'000 && call->Send(PartOf(1000))) {
      ++sent;
    }
    EXPECT_LT(sent, 10'000) << "what nobody reads must not pile up";
    EXPECT_THAT(call->Finish(),
                StatusIs(absl::StatusCode::kFailedPrecondition));
  }
  {
    const auto call = InventoryCall::Open(channel);
    call->Cancel();
    EXPECT_THAT(call->Finish(), StatusIs(absl::StatusCode::kCancelled));
  }
  server->Shutdown(absl::ZeroDuration());
  {
    const auto call = InventoryCall::Open(channel);
    call->Send(PartOf(1));
    EXPECT_FALSE(call->Finish().ok());
  }
}

TEST(GrpcCoordinatorSessionTest, RegistersAgainWhenTheCoordinatorComesBack) {
  const std::string base = absl::StrCat(::testing::TempDir(), "/s-",
                                        RandomIds()->NextUint64() % 1000000);
  TestAgent agent("m-1", base + ".agent");
  FakeCoordinator coordinator;
  ServerOptions options;
  options.listen = {ParseAddress("unix:" + base + ".sock").value()};
  GrpcCoordinatorSession session(
      agent.core.get(), {"unix:" + base + ".nobody", "unix:" + base + ".sock"},
      RandomIds());
  session.Start();  // nobody is there yet
  ASSERT_OK_AND_ASSIGN(auto server,
                       ServerRunner::Start(options, {&coordinator}));
  EXPECT_TRUE(coordinator.WaitAttached(1));
  EXPECT_TRUE(coordinator.WaitHeartbeat(agent.core.get()));
  server->Shutdown(absl::ZeroDuration());
  server.reset();
  ASSERT_OK_AND_ASSIGN(server, ServerRunner::Start(options, {&coordinator}));
  EXPECT_TRUE(coordinator.WaitAttached(2));
  session.Stop();
}

}  // namespace
}  // namespace predella::agent
