// A coordinator's lifecycle over an index in memory, with agents in memory.
#ifndef PREDELLA_TESTS_SERVER_LIFECYCLE_LIFECYCLE_FIXTURE_H_
#define PREDELLA_TESTS_SERVER_LIFECYCLE_LIFECYCLE_FIXTURE_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/mem_kv_store.h"
#include "server/lifecycle/lifecycle.h"
#include "tests/server/lifecycle/counting_pool.h"
#include "tests/server/lifecycle/fake_agent.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::testing {

class LifecycleFixture : public ::testing::Test {
 protected:
  LifecycleFixture() : kv_(std::make_unique<server::MemKvStore>()) {
    options_.version = "test";
    options_.command_timeout = absl::Milliseconds(250);
    options_.leftover_wait = absl::Milliseconds(100);
    options_.tombstone_copy_wait = absl::Milliseconds(700);
    Boot();
  }
  ~LifecycleFixture() override { Down(); }

  void Boot() {
    auto index = server::PlacementIndex::Open(kv_.get(), &epoch_file_, &clock_,
                                              &ids_, {});
    ASSERT_THAT(index, IsOk());
    index_ = *std::move(index);
    registry_ = std::make_unique<server::MountRegistry>(
        &clock_, &ids_, server::RegistryOptions());
    server::LifecycleDeps deps;
    deps.index = index_.get();
    deps.registry = registry_.get();
    deps.clock = &clock_;
    deps.ids = &ids_;
    deps.pool = &pool_;
    deps.options = options_;
    auto lifecycle =
        server::Lifecycle::Create(deps, server::PlacementOptions());
    ASSERT_THAT(lifecycle, IsOk());
    lifecycle_ = *std::move(lifecycle);
  }

  void Down() {
    for (const auto& agent : agents_) {
      agent->Lose();
    }
    Settle();
    lifecycle_.reset();
    registry_.reset();
    index_.reset();
  }

  // The process is killed and starts again over what was synced; agents have
  // to be connected again.
  void Restart() {
    Down();
    kv_ = std::make_unique<server::MemKvStore>(kv_->Contents());
    Boot();
  }
  // As Restart, over what the index held earlier.
  void RestartFrom(const server::MemKvStore::Rows& rows) {
    Down();
    kv_ = std::make_unique<server::MemKvStore>(rows);
    Boot();
  }

  void Settle() { pool_.WaitIdle(); }
  void Tick() {
    lifecycle_->Tick();
    Settle();
  }

  FakeAgent* AddAgent(const std::string& name, int priority = 100) {
    agents_.push_back(
        std::make_unique<FakeAgent>(name, ids_.NextUuid(), &pool_));
    FakeAgent* const agent = agents_.back().get();
    agent->Behave([&](FakeAgent::Behaviour* b) { b->priority = priority; });
    return agent;
  }
  FakeAgent* AddConnected(const std::string& name, int priority = 100) {
    FakeAgent* const agent = AddAgent(name, priority);
    Connect(agent);
    return agent;
  }
  void Connect(FakeAgent* agent) {
    agent->Connect(&lifecycle_->sessions());
    Settle();
  }

  absl::StatusOr<v1::Upload> Start(const Uuid& image, const Uuid& upload,
                                   std::optional<int64_t> size = int64_t{1}
                                                                 << 30) {
    return lifecycle_->uploads().Start({image, upload, size});
  }
  absl::Status Delete(const Uuid& image) {
    server::ImageCatalog::DeleteRequest request;
    request.image_id = image;
    const absl::Status status = lifecycle_->images().Delete(request);
    Settle();
    return status;
  }
  // The whole of an upload to `agent`, which is where it has to go.
  void Upload(FakeAgent* agent, const Uuid& image, const Uuid& upload,
              int64_t bytes = 4096) {
    ASSERT_OK_AND_ASSIGN(const v1::Upload started, Start(image, upload, bytes));
    ASSERT_EQ(started.target().mount(), "mounts/" + agent->name());
    ASSERT_TRUE(agent->Write(upload, bytes, false));
    ASSERT_TRUE(agent->Publish(upload));
    Settle();
    ASSERT_TRUE(agent->ack(upload).has_value());
    ASSERT_EQ(agent->ack(upload)->outcome(),
              storage::v1::UPLOAD_OUTCOME_COMMITTED);
  }
  // An image row without an upload, as any commit would leave it.
  Uuid PutRow(const std::vector<const FakeAgent*>& holders,
              int64_t bytes = 100) {
    const Uuid id = ids_.NextUuid();
    server::IndexTxn txn = index_->Begin();
    storage::v1::ImageRow row;
    row.set_image_id(id.bytes());
    *row.mutable_generation() = txn.pair().ToProto();
    row.set_size_bytes(bytes);
    for (const FakeAgent* holder : holders) {
      row.add_copies()->set_mount_uid(holder->uid().bytes());
    }
    txn.PutImage(row);
    EXPECT_OK(index_->Commit(std::move(txn)));
    return id;
  }
  void PutFault(const Uuid& image, const FakeAgent* holder,
                storage::v1::CopyFault fault) {
    const auto row = index_->GetImage(image);
    server::IndexTxn txn = index_->Begin();
    storage::v1::FaultRow out;
    out.set_mount_uid(holder->uid().bytes());
    out.set_image_id(image.bytes());
    *out.mutable_generation() = (*row)->generation();
    out.set_fault(fault);
    out.set_detail("MiB 7 has crc32c 01, its record says 02");
    out.set_found_time_us(clock_.NowMicros());
    txn.RequireImage(**row);
    txn.PutFault(out);
    EXPECT_OK(index_->Commit(std::move(txn)));
  }
  // As whoever looked at what would be lost: number and digest of the refusal
  // of a dry run.
  void AcceptLoss(v1::RetireMountRequest* request) {
    v1::RetireMountRequest look = *request;
    look.set_validate_only(true);
    AcceptRefused(lifecycle_->mounts().Retire(look).status(), request);
  }
  void AcceptLoss(v1::ReplaceMountRequest* request) {
    v1::ReplaceMountRequest look = *request;
    look.set_validate_only(true);
    AcceptRefused(lifecycle_->mounts().Replace(look).status(), request);
  }
  template <typename Request>
  static void AcceptRefused(const absl::Status& refusal, Request* request) {
    if (predella::HasReason(refusal, reason::kMountNotEmpty)) {
      ErrorMetadata metadata = MetadataOf(refusal);
      request->set_accept_lost_image_count(std::stoll(metadata["image_count"]));
      request->set_accept_lost_digest(metadata["lost_digest"]);
    }
  }
  // The agent says so with its next heartbeat, which comes now.
  static void Say(FakeAgent* agent, v1::Health health,
                  const std::string& error = "") {
    agent->Behave([&](FakeAgent::Behaviour* b) {
      b->health = health;
      b->health_error = error;
    });
    agent->Beat();
  }
  v1::UploadState StateOf(const Uuid& upload) {
    const auto got = lifecycle_->uploads().Get(upload);
    return got.ok() ? got->state() : v1::UPLOAD_STATE_UNSPECIFIED;
  }

  FakeClock clock_;
  FakeIds ids_;
  CountingPool pool_{12};
  server::LifecycleOptions options_;
  server::MemEpochFile epoch_file_;
  std::unique_ptr<server::MemKvStore> kv_;
  std::vector<std::unique_ptr<FakeAgent>> agents_;
  std::unique_ptr<server::PlacementIndex> index_;
  std::unique_ptr<server::MountRegistry> registry_;
  std::unique_ptr<server::Lifecycle> lifecycle_;
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_SERVER_LIFECYCLE_LIFECYCLE_FIXTURE_H_
