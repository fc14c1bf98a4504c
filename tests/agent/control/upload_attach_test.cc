// What lies on a mount when an agent attaches, and what its streams hear
// until it was looked at.
#include <cstdint>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::StatusIs;

class AttachTest : public CoreTest {};

TEST_F(AttachTest, BytesThatAreNotNamedAreKeptUntilTheMountIsTrusted) {
  LeaveBytes(2 * kBlockBytes);
  const int64_t free = mem.Space()->available_bytes;
  Register({}, /*may_collect=*/false);
  EXPECT_TRUE(mem.Exists(Inflight()));
  // They count: nobody gets that room.
  Tick(absl::Seconds(2));
  Tick(absl::Seconds(2));
  const control::v1::Heartbeat& beat =
      Last([](const control::v1::AgentMessage& m) {
        return m.has_heartbeat();
      })->heartbeat();
  EXPECT_LE(beat.space().available_bytes(), free);
  core.OnDisconnected(session);
  Register({}, /*may_collect=*/true);
  EXPECT_FALSE(mem.Exists(Inflight()));
}

TEST_F(AttachTest, AnUploadThatIsNotNamedAnyMoreEndsAndItsBytesStay) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  auto handle = OpenStream(&stream);
  Write(handle, 0, kBlockBytes);
  core.OnDisconnected(session);
  Register({}, /*may_collect=*/false);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(mem.Exists(Inflight()));
  // Although this process has collected once before.
  handle.reset();
  core.OnDisconnected(session);
  Register({}, /*may_collect=*/true);
  EXPECT_FALSE(mem.Exists(Inflight()));
}

TEST_F(AttachTest, BytesThatWereKeptAreGoneOnWith) {
  LeaveBytes(2 * kBlockBytes);
  Register({}, /*may_collect=*/false);
  core.OnDisconnected(session);
  Register({Open()});
  FakeStream* stream = nullptr;
  OpenStream(&stream, 2 * kBlockBytes);
  EXPECT_EQ(stream->progress().next_offset(), 2 * kBlockBytes);
}

TEST_F(AttachTest, CollectingDiesWithItsSession) {
  LeaveBytes(kBlockBytes);
  Connect();
  core.OnMessage(session, Welcome());
  Tick();
  control::v1::CoordinatorMessage message;
  message.mutable_attach()->set_mount_key(key);
  message.mutable_attach()->set_claim_label(true);
  message.mutable_attach()->set_may_collect(true);
  core.OnMessage(session, message);
  while (Attached() == nullptr) {
    ASSERT_TRUE(disk.RunOne());
  }
  core.OnDisconnected(session);  // the collection is queued
  Run();
  EXPECT_TRUE(mem.Exists(Inflight()));
  Register();
  EXPECT_FALSE(mem.Exists(Inflight()));
}

TEST_F(AttachTest, AStreamHearsThatItsBytesAreBeingVerified) {
  LeaveBytes(2 * kBlockBytes);
  Register({Open()});
  streams.push_back(std::make_shared<FakeStream>());
  FakeStream* const stream = streams.back().get();
  ASSERT_OK(core.OpenWrite(Header(), streams.back()));
  for (int i = 1; i <= 3; ++i) {
    clock.Advance(kProgressEvery);
    core.Tick();  // the disk is not done, and it does not hang
    probe.RunAll();
    ASSERT_EQ(stream->sent.size(), static_cast<size_t>(i));
    EXPECT_TRUE(stream->progress().verifying());
    EXPECT_EQ(stream->progress().safe_offset(), 0);
  }
  Run();
  EXPECT_FALSE(stream->progress().verifying());
  EXPECT_EQ(stream->progress().next_offset(), 2 * kBlockBytes);
}

// An agent that copies a prefix takes the first Progress for its start.
TEST_F(AttachTest, APrefixStreamHearsOnlyWhereItStands) {
  Register();
  PrepareTarget(kBlockBytes);
  v1::WriteHeader header = Header();
  header.set_segment(v1::WRITE_SEGMENT_PREFIX);
  header.set_segment_boundary(kBlockBytes);
  streams.push_back(std::make_shared<FakeStream>());
  ASSERT_OK(core.OpenWrite(header, streams.back()));
  clock.Advance(kProgressEvery);
  core.Tick();
  EXPECT_TRUE(streams.back()->sent.empty());
  Run();
  EXPECT_EQ(streams.back()->sent.size(), 1u);
}

// Every start of a coordinator is an epoch. The fence keeps the newest
// thousand, so the first four thousand need not be played.
TEST_F(AttachTest, AFenceOfFiveThousandEpochsAttaches) {
  constexpr int64_t kEpochs = 5000;
  constexpr int kKept = 1000;
  {
    ASSERT_OK_AND_ASSIGN(auto store,
                         ImageStore::Open(&mem, &clock, &ids, StoreOptions()));
    for (int64_t epoch = kEpochs - kKept - 9; epoch <= kEpochs; ++epoch) {
      ASSERT_OK(store->Hear({epoch, 3, static_cast<uint32_t>(epoch * 7919)}));
    }
    ASSERT_OK(store->SyncFence());
  }
  Connect();
  core.OnMessage(session, Welcome(kEpochs + 1));
  Tick();
  const control::v1::AgentMessage* report = Last(
      [](const control::v1::AgentMessage& m) { return m.has_mount_report(); });
  ASSERT_NE(report, nullptr);
  ASSERT_EQ(report->mount_report().known_size(), kKept);
  EXPECT_EQ(report->mount_report().known(0).epoch(), kEpochs - kKept + 1);
  EXPECT_EQ(report->mount_report().known(kKept - 1).epoch(), kEpochs);
  // Well below what a message may have.
  EXPECT_LT(report->ByteSizeLong(), size_t{1} << 20);
  control::v1::CoordinatorMessage message;
  message.mutable_attach()->set_mount_key(key);
  message.mutable_attach()->set_claim_label(true);
  *message.mutable_attach()->mutable_heard() =
      Generation{kEpochs + 1, 1, 9}.ToProto();
  core.OnMessage(session, message);
  Run();
  EXPECT_NE(Attached(), nullptr);
  EXPECT_FALSE(link->disconnected.has_value());
  EXPECT_TRUE(core.Serving());
}

}  // namespace
}  // namespace predella::agent
