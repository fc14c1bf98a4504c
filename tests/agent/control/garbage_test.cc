// The circuit breaker: inflight bytes of uploads that nobody named go by
// themselves when they are few, and are held when they are many.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/collect_garbage.h"
#include "common/errors.h"
#include "common/rpc_status.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr int64_t kLeftBytes = 5000;

class GarbageTest : public CoreTest {
 protected:
  // Bytes in flight of an earlier process.
  void Leave(int count) {
    ASSERT_OK_AND_ASSIGN(auto store,
                         ImageStore::Open(&mem, &clock, &ids, StoreOptions()));
    for (int i = 0; i < count; ++i) {
      UploadSpec spec;
      spec.upload_id = ids.NextUuid();
      spec.image_id = ids.NextUuid();
      spec.generation = generation;
      ASSERT_OK_AND_ASSIGN(auto staged, store->OpenStaged(spec));
      ASSERT_OK(
          staged->AppendTail(0, {std::string(kLeftBytes, 'x')}, std::nullopt));
      ASSERT_OK(staged->Sync());
      left.push_back(spec);
    }
  }
  int StillThere() {
    int there = 0;
    for (const UploadSpec& spec : left) {
      there += mem.Exists(".predella/inflight/" + spec.upload_id.ToString());
    }
    return there;
  }
  control::v1::OpenUpload OpenOf(const UploadSpec& spec) {
    control::v1::OpenUpload open;
    open.set_upload_id(spec.upload_id.bytes());
    open.set_image_id(spec.image_id.bytes());
    *open.mutable_generation() = spec.generation.ToProto();
    return open;
  }
  // As the last heartbeat has it; one comes first.
  control::v1::HeldGarbage Told() {
    Tick(absl::Seconds(2));
    return LastHeartbeat().held_garbage();
  }
  control::v1::Heartbeat LastHeartbeat() {
    const control::v1::AgentMessage* const message = Last(
        [](const control::v1::AgentMessage& m) { return m.has_heartbeat(); });
    EXPECT_NE(message, nullptr);
    return message == nullptr ? control::v1::Heartbeat() : message->heartbeat();
  }
  absl::Status Collect(int64_t uploads) {
    control::v1::Command command;
    command.mutable_collect_garbage()->set_uploads(uploads);
    Command(std::move(command));
    EXPECT_EQ(Result()->number(), number);
    return Result()->has_error() ? FromRpcStatus(Result()->error())
                                 : absl::OkStatus();
  }
  void Again(std::vector<control::v1::OpenUpload> open = {},
             bool may_collect = true) {
    core.OnDisconnected(session);
    Register(std::move(open), may_collect);
  }

  std::vector<UploadSpec> left;
};

TEST_F(GarbageTest, ManyAreMoreThanAHundredOrOnePercentAndTenAtLeast) {
  EXPECT_FALSE(LooksLikeAMistake(0, 0));
  EXPECT_FALSE(LooksLikeAMistake(9, 0));
  EXPECT_TRUE(LooksLikeAMistake(10, 0));
  EXPECT_TRUE(LooksLikeAMistake(10, 999));
  EXPECT_FALSE(LooksLikeAMistake(10, 1000));
  EXPECT_FALSE(LooksLikeAMistake(100, 1'000'000));
  EXPECT_TRUE(LooksLikeAMistake(101, 1'000'000));
}

TEST_F(GarbageTest, AFewGoByThemselves) {
  Leave(9);
  Register();
  EXPECT_EQ(StillThere(), 0);
  EXPECT_EQ(Told().uploads(), 0);
  EXPECT_FALSE(LastHeartbeat().has_held_garbage());
}

TEST_F(GarbageTest, ManyAreHeldAndToldAtOnce) {
  const int64_t free = mem.Space()->available_bytes;
  Leave(10);
  Register();
  EXPECT_EQ(StillThere(), 10);
  // Without waiting for the next heartbeat's time.
  EXPECT_EQ(LastHeartbeat().held_garbage().uploads(), 10);
  EXPECT_GE(LastHeartbeat().held_garbage().bytes(), 10 * kLeftBytes);
  EXPECT_THAT(link->sent[0].hello().capabilities(),
              Contains(std::string(kCanCollectGarbage)));
  // The room is not there for anybody, and nobody was promised it.
  EXPECT_LE(Told().uploads(), 10);
  EXPECT_LE(LastHeartbeat().space().available_bytes(), free - 10 * kLeftBytes);
  EXPECT_EQ(LastHeartbeat().space().promised_bytes(), 0);
  // Nor are they counted twice, or let go, by looking again.
  Again();
  EXPECT_EQ(StillThere(), 10);
  EXPECT_EQ(Told().uploads(), 10);
}

TEST_F(GarbageTest, ManyOfThisProcessAreHeldToo) {
  Register();
  for (int i = 0; i < 12; ++i) {
    UploadSpec spec;
    spec.upload_id = upload_id = ids.NextUuid();
    spec.image_id = image_id = ids.NextUuid();
    left.push_back(spec);
    Prepare();
    FakeStream* stream = nullptr;
    Write(OpenStream(&stream), 0, kLeftBytes);
  }
  ASSERT_EQ(StillThere(), 12);
  // The coordinator comes back with an index that knows none of them.
  Again();
  EXPECT_EQ(StillThere(), 12);
  EXPECT_EQ(Told().uploads(), 12);
  EXPECT_GE(Told().bytes(), 12 * kLeftBytes);
}

TEST_F(GarbageTest, WhatIsHeldIsHeldAgainByTheNextProcess) {
  Leave(15);
  Register();
  ASSERT_EQ(Told().uploads(), 15);
  core.Stop([] {});
  Run();
  AgentCore next{Identity(), std::nullopt, Seams()};
  link = std::make_shared<FakeLink>();
  session = next.OnConnected(link);
  next.OnMessage(session, Welcome());
  next.Tick();
  Run();
  control::v1::CoordinatorMessage message;
  message.mutable_attach()->set_mount_key(key);
  message.mutable_attach()->set_claim_label(true);
  message.mutable_attach()->set_may_collect(true);
  next.OnMessage(session, message);
  Run();
  EXPECT_EQ(StillThere(), 15);
  EXPECT_EQ(LastHeartbeat().held_garbage().uploads(), 15);
  next.Stop([] {});
  Run();
}

TEST_F(GarbageTest, WhatIsHeldIsHeldAgainWhenTheMountComesBack) {
  Leave(15);
  Register();
  ASSERT_OK_AND_ASSIGN(const std::string bytes,
                       mem.GetFile(".predella/mount.id"));
  ASSERT_OK(mem.Unlink(".predella/mount.id"));
  Tick(absl::Seconds(2));
  EXPECT_EQ(Told().uploads(), 0) << "nothing is open that could hold it";
  ASSERT_OK(mem.PutFile(".predella/mount.id", bytes));
  Tick(absl::Seconds(2));
  Again();
  EXPECT_EQ(StillThere(), 15);
  EXPECT_EQ(Told().uploads(), 15);
}

TEST_F(GarbageTest, AnUploadThatIsKnownAgainIsHeldNoMore) {
  Leave(13);
  Register();
  ASSERT_EQ(Told().uploads(), 13);
  // By a command,
  control::v1::Command command;
  *command.mutable_prepare_upload()->mutable_upload() = OpenOf(left[0]);
  Command(std::move(command));
  EXPECT_EQ(Told().uploads(), 12);
  // or by a registration: one that is not trusted looks for nothing else.
  Again({OpenOf(left[0]), OpenOf(left[1])}, /*may_collect=*/false);
  EXPECT_EQ(Told().uploads(), 11);
  EXPECT_THAT(Collect(11), HasReason(reason::kNotReady));
  EXPECT_EQ(StillThere(), 13);
  // The rest is judged anew: nine of them are few.
  Again({OpenOf(left[0]), OpenOf(left[1]), OpenOf(left[2]), OpenOf(left[3])});
  EXPECT_EQ(StillThere(), 4);
  EXPECT_EQ(Told().uploads(), 0);
}

TEST_F(GarbageTest, AnUploadThatIsRemovedByCommandIsHeldNoMore) {
  Leave(12);
  Register();
  control::v1::Command command;
  command.mutable_remove()->set_upload_id(left[0].upload_id.bytes());
  command.mutable_remove()->set_image_id(left[0].image_id.bytes());
  *command.mutable_remove()->mutable_generation() =
      left[0].generation.ToProto();
  Command(std::move(command));
  EXPECT_EQ(StillThere(), 11);
  EXPECT_EQ(Told().uploads(), 11);
}

TEST_F(GarbageTest, OnlyTheNumberThatIsHeldIsAccepted) {
  Leave(12);
  Register();
  for (const int64_t wrong : {0, 11, 13}) {
    const absl::Status status = Collect(wrong);
    EXPECT_THAT(status, HasReason(reason::kGarbageChanged)) << wrong;
    EXPECT_THAT(std::string(status.message()), HasSubstr("12 ended uploads"));
    EXPECT_EQ(MetadataOf(status)["upload_count"], "12");
  }
  EXPECT_EQ(StillThere(), 12);
  EXPECT_OK(Collect(12));
  EXPECT_EQ(StillThere(), 0);
  // The heartbeat that says so comes before the answer.
  ASSERT_GE(link->sent.size(), 2u);
  const control::v1::AgentMessage& before = link->sent[link->sent.size() - 2];
  ASSERT_TRUE(before.has_heartbeat());
  EXPECT_FALSE(before.heartbeat().has_held_garbage());
  EXPECT_THAT(Collect(12), HasReason(reason::kGarbageChanged));
  EXPECT_OK(Collect(0));
}

TEST_F(GarbageTest, WhatIsAcceptedStopsWithItsSession) {
  Leave(12);
  Register();
  control::v1::CoordinatorMessage message;
  message.mutable_command()->set_number(1);
  message.mutable_command()->mutable_collect_garbage()->set_uploads(12);
  core.OnMessage(session, message);
  while (StillThere() > 7) {
    ASSERT_TRUE(disk.RunOne());
  }
  core.OnDisconnected(session);
  Run();
  EXPECT_EQ(StillThere(), 7);
}

TEST_F(GarbageTest, AnErrorOfTheDiskIsAnsweredAndTheRestStaysHeld) {
  Leave(12);
  Register();
  testing::Fault fault;
  fault.op = "unlink";
  fault.path = ".predella/inflight/" + left[3].upload_id.ToString();
  fault.forever = true;
  fault.status =
      MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
  fs.Inject(fault);
  EXPECT_THAT(Collect(12), HasReason(reason::kMountFailed));
  EXPECT_EQ(StillThere(), 1);
  EXPECT_EQ(Told().uploads(), 1);
}

TEST_F(GarbageTest, AFewThatCanNotBeDiscardedAreNotCalledHeld) {
  Leave(3);
  testing::Fault fault;
  fault.op = "unlink";
  fault.path = ".predella/inflight/" + left[1].upload_id.ToString();
  fault.forever = true;
  fault.status =
      MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
  fs.Inject(fault);
  Register();
  EXPECT_EQ(StillThere(), 1);
  EXPECT_EQ(Told().uploads(), 0);
  fs.Reset();
  Again();
  EXPECT_EQ(StillThere(), 0);
}

// As when RECOVERING ends: not by a registration.
TEST_F(GarbageTest, AMountThatIsTrustedLaterIsJudgedThen) {
  Leave(13);
  Register({OpenOf(left[0])}, /*may_collect=*/false);
  ASSERT_EQ(Told().uploads(), 0);
  control::v1::Command command;
  command.mutable_collect_garbage()->set_judge(true);
  command.mutable_collect_garbage()->add_open_upload_ids(
      left[0].upload_id.bytes());
  // Taken off the list, and open by the index.
  command.mutable_collect_garbage()->add_open_upload_ids(
      left[1].upload_id.bytes());
  Command(command);
  EXPECT_FALSE(Result()->has_error());
  EXPECT_EQ(LastHeartbeat().held_garbage().uploads(), 11) << "told at once";
  EXPECT_EQ(StillThere(), 13);
  EXPECT_OK(Collect(11));
  EXPECT_EQ(StillThere(), 2);
}

TEST_F(GarbageTest, AFewGoByThemselvesThenToo) {
  Leave(9);
  Register({}, /*may_collect=*/false);
  ASSERT_EQ(StillThere(), 9);
  control::v1::Command command;
  command.mutable_collect_garbage()->set_judge(true);
  command.mutable_collect_garbage()->add_open_upload_ids(
      left[4].upload_id.bytes());
  Command(command);
  EXPECT_FALSE(Result()->has_error());
  EXPECT_EQ(StillThere(), 1) << "the one that is open";
}

}  // namespace
}  // namespace predella::agent
