#include "agent/control/agent_core.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "common/rpc_status.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::IsOk;
using ::predella::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(CoreTest, RegistersBeforeTheDiskHasAnswered) {
  Connect();
  ASSERT_EQ(link->sent.size(), 1u);
  EXPECT_EQ(link->sent[0].hello().mount_name(), "m-1");
  EXPECT_THAT(link->sent[0].hello().mount_uid(), ::testing::IsEmpty());
  EXPECT_THAT(link->sent[0].hello().addresses(), ElementsAre("127.0.0.1:7410"));
  core.OnMessage(session, Welcome());
  core.Tick();  // the open is queued, the disk does not move
  clock.Advance(absl::Seconds(3));
  core.Tick();
  ASSERT_EQ(link->sent.size(), 2u);
  EXPECT_EQ(link->sent[1].heartbeat().health().health(), v1::HEALTH_UNKNOWN);
  clock.Advance(absl::Seconds(9));
  core.Tick();
  EXPECT_EQ(link->sent.back().heartbeat().health().health(), v1::HEALTH_HUNG);
  Run();
  EXPECT_TRUE(link->sent.back().has_mount_report());
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
}

TEST_F(CoreTest, AttachClaimsTheLabelAndSyncsTheFence) {
  Register();
  ASSERT_NE(Attached(), nullptr);
  EXPECT_EQ(Attached()->uploads_size(), 0);
  ASSERT_OK_AND_ASSIGN(const storage::v1::MountLabel now, ReadLabel(&mem));
  EXPECT_EQ(now.cluster_uid(), cluster.bytes());
  EXPECT_TRUE(core.Serving());
}

TEST_F(CoreTest, RefusesAnotherClusterAndAnOlderEpoch) {
  Register();
  core.OnDisconnected(session);
  // Each is told about the mount, so that it can say whom it refuses; nothing
  // is taken from it.
  control::v1::CoordinatorMessage attach;
  attach.mutable_attach()->set_mount_key("another key");
  *attach.mutable_attach()->mutable_heard() = Generation{9, 9, 9}.ToProto();
  const auto reported = [](const control::v1::AgentMessage& message) {
    return message.has_mount_report();
  };
  Connect();
  core.OnMessage(session, Welcome(/*epoch=*/6));
  Run();
  EXPECT_EQ(Count(reported), 1);
  EXPECT_FALSE(link->disconnected.has_value());
  core.OnMessage(session, attach);
  Run();
  ASSERT_TRUE(link->disconnected.has_value());
  EXPECT_THAT(*link->disconnected, HasSubstr("epoch 6"));
  EXPECT_EQ(Attached(), nullptr);

  // The same number of another start.
  Connect();
  control::v1::CoordinatorMessage twice = Welcome();
  twice.mutable_welcome()->set_epoch_nonce(4);
  core.OnMessage(session, twice);
  Run();
  core.OnMessage(session, attach);
  Run();
  ASSERT_TRUE(link->disconnected.has_value());
  EXPECT_THAT(*link->disconnected, HasSubstr("of another start"));

  Connect();
  control::v1::CoordinatorMessage welcome = Welcome();
  welcome.mutable_welcome()->set_cluster_uid(ids.NextUuid().bytes());
  core.OnMessage(session, welcome);
  Run();
  EXPECT_EQ(Count(reported), 1);
  core.OnMessage(session, attach);
  Run();
  ASSERT_TRUE(link->disconnected.has_value());
  EXPECT_THAT(*link->disconnected, HasSubstr("belongs to the cluster"));
  EXPECT_EQ(Attached(), nullptr);
  ASSERT_OK_AND_ASSIGN(const storage::v1::MountLabel label_now,
                       ReadLabel(&mem));
  EXPECT_EQ(label_now.cluster_uid(), cluster.bytes());
  // The key of the cluster that it belongs to is still the one that counts.
  Register({Open()});
  FakeStream* stream = nullptr;
  EXPECT_NE(OpenStream(&stream), nullptr);
}

TEST_F(CoreTest, ADirectoryThatIsHeldEndsTheAgent) {
  ASSERT_OK_AND_ASSIGN(auto other,
                       ImageStore::Open(&mem, &clock, &ids, StoreOptions()));
  Tick();
  ASSERT_TRUE(fatal.has_value());
  EXPECT_THAT(*fatal, HasReason(reason::kMountInUse));
}

TEST_F(CoreTest, AnAbsentLabelIsShownAndHealsWithoutRestart) {
  ASSERT_OK_AND_ASSIGN(const std::string bytes,
                       mem.GetFile(".predella/mount.id"));
  ASSERT_OK(mem.Unlink(".predella/mount.id"));
  Connect();
  core.OnMessage(session, Welcome());
  Tick();
  Tick(absl::Seconds(2));
  EXPECT_EQ(link->sent.back().heartbeat().health().health(), v1::HEALTH_ABSENT);
  EXPECT_FALSE(fatal.has_value());
  ASSERT_OK(mem.PutFile(".predella/mount.id", bytes));
  Tick(absl::Seconds(2));
  EXPECT_TRUE(Last([](const control::v1::AgentMessage& m) {
                return m.has_mount_report();
              }) != nullptr);
}

TEST_F(CoreTest, AMountThatGoesAwayEndsItsStreamsAndRegistersAgain) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  ASSERT_NE(OpenStream(&stream), nullptr);
  ASSERT_OK_AND_ASSIGN(const std::string bytes,
                       mem.GetFile(".predella/mount.id"));
  ASSERT_OK(mem.Unlink(".predella/mount.id"));
  Tick(absl::Seconds(2));
  Tick();
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(core.Serving());
  ASSERT_OK(mem.PutFile(".predella/mount.id", bytes));
  Tick(absl::Seconds(3));
  Tick(absl::Seconds(3));
  EXPECT_TRUE(link->disconnected.has_value());
  core.OnDisconnected(session);
  Register({Open()});
  EXPECT_TRUE(core.Serving());
}

// Zeros of a thin mount fulfil the promise as bytes do, and take no room.
TEST_F(CoreTest, TheSpaceOfAThinUploadIsPromisedUntilItCame) {
  thin = true;
  Register();
  const auto space = [this] {
    Tick(absl::Seconds(3));
    const control::v1::AgentMessage* const message = Last(
        [](const control::v1::AgentMessage& m) { return m.has_heartbeat(); });
    return message == nullptr ? control::v1::Space()
                              : message->heartbeat().space();
  };
  Prepare(3 * kBlockBytes);
  const control::v1::Space before = space();
  EXPECT_EQ(before.promised_bytes(), 3 * kBlockBytes);
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 2 * kBlockBytes, '\0');
  const control::v1::Space within = space();
  EXPECT_EQ(within.promised_bytes(), kBlockBytes);
  // All but the page of the upload's state.
  EXPECT_GE(within.available_bytes(), before.available_bytes() - 8192);
  Write(handle, 2 * kBlockBytes, kBlockBytes);
  EXPECT_LT(space().available_bytes(), within.available_bytes());
  Commit(handle, 3 * kBlockBytes);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  EXPECT_EQ(space().promised_bytes(), 0);
  ASSERT_OK_AND_ASSIGN(const FileInfo info, mem.Stat(image_id.ToString()));
  EXPECT_EQ(info.size_bytes, 3 * kBlockBytes);
  EXPECT_EQ(info.allocated_bytes, kBlockBytes);
}

TEST_F(CoreTest, AnUploadIsPublishedAndAnsweredAfterTheAck) {
  Register();
  Prepare(3 * kBlockBytes);
  ASSERT_NE(Result(), nullptr);
  EXPECT_FALSE(Result()->has_error());
  EXPECT_EQ(Result()->space().promised_bytes(), 3 * kBlockBytes);
  EXPECT_EQ(Result()->space().command_number(), 1);
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  EXPECT_EQ(stream->progress().next_offset(), 0);
  Write(handle, 0, 3 * kBlockBytes);
  EXPECT_EQ(stream->done_bytes, 3 * kBlockBytes);
  Commit(handle, 3 * kBlockBytes);
  ASSERT_NE(Published(), nullptr);
  EXPECT_EQ(Published()->size_bytes(), 3 * kBlockBytes);
  EXPECT_FALSE(stream->finished.has_value());
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, IsOk());
  EXPECT_EQ(stream->sent.back().result().size_bytes(), 3 * kBlockBytes);
  EXPECT_TRUE(mem.Exists(image_id.ToString()));
  // A client that did not hear it asks again.
  FakeStream* again = nullptr;
  OpenStream(&again);
  ASSERT_TRUE(again->finished.has_value());
  EXPECT_TRUE(again->sent.back().has_result());
}

// A retry after a delete is the coordinator's to answer, not a memory.
TEST_F(CoreTest, WhatWasRemovedIsNoLongerCalledStored) {
  Register();
  Prepare(kBlockBytes);
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, kBlockBytes);
  Commit(handle, kBlockBytes);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  control::v1::Command command;
  command.mutable_remove()->set_image_id(image_id.bytes());
  *command.mutable_remove()->mutable_generation() = generation.ToProto();
  Command(command);
  ASSERT_TRUE(Result()->remove().removed());
  streams.push_back(std::make_shared<FakeStream>());
  EXPECT_THAT(core.OpenWrite(Header(), streams.back()),
              HasReason(reason::kUploadNotFound));
}

TEST_F(CoreTest, TheMountIsListedOnACallOfItsOwn) {
  Register();
  Prepare(kBlockBytes);
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, kBlockBytes);
  Commit(handle, kBlockBytes);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  const Uuid foreign = ids.NextUuid();
  ASSERT_OK(mem.PutFile(foreign.ToString(), "not ours"));
  control::v1::Command command;
  command.mutable_list_mount()->set_listing_id("listing");
  Command(command);
  ASSERT_NE(Result(), nullptr);
  EXPECT_FALSE(Result()->has_error());
  ASSERT_EQ(link->inventory->parts.size(), 1u);
  const control::v1::InventoryPart& part = link->inventory->parts[0];
  EXPECT_EQ(part.mount_uid(), label.mount_uid());
  EXPECT_EQ(part.listing_id(), "listing");
  ASSERT_EQ(part.entries_size(), 2);
  for (const control::v1::InventoryEntry& entry : part.entries()) {
    EXPECT_TRUE(entry.named());
    if (entry.image_id() == foreign.bytes()) {
      EXPECT_FALSE(entry.has_record());
      EXPECT_EQ(entry.size_bytes(), 8);
      continue;
    }
    EXPECT_EQ(entry.size_bytes(), kBlockBytes);
    EXPECT_EQ(entry.record().image_id(), image_id.bytes());
    EXPECT_EQ(entry.record().upload_id(), upload_id.bytes());
    EXPECT_EQ(Generation::FromProto(entry.record().generation()), generation);
    EXPECT_EQ(entry.record().location_key(), std::string(16, 'k'));
    EXPECT_EQ(entry.record().size_bytes(), kBlockBytes);
    EXPECT_NE(entry.record().crc32c(), 0u);
  }
  // What the coordinator makes of it is the command's answer.
  link->inventory->status = absl::FailedPreconditionError("nobody asked");
  Command(command);
  EXPECT_TRUE(Result()->has_error());
  // An empty one is told too, and one at a time.
  link->inventory = std::make_shared<FakeInventory>();
  command.set_number(++number);
  control::v1::CoordinatorMessage message;
  *message.mutable_command() = command;
  core.OnMessage(session, message);
  message.mutable_command()->set_number(++number);
  core.OnMessage(session, message);
  EXPECT_EQ(Result()->number(), number);
  EXPECT_EQ(Result()->error().code(), 14) << "UNAVAILABLE";
  Run();
  EXPECT_EQ(Result()->number(), number - 1);
  EXPECT_FALSE(Result()->has_error());
}

TEST_F(CoreTest, RefusedOutcomesAreErrorsWithTheirReason) {
  const struct {
    storage::v1::UploadOutcome outcome;
    absl::StatusCode code;
    absl::string_view reason;
  } kCases[] = {
      {storage::v1::UPLOAD_OUTCOME_SUPERSEDED, absl::StatusCode::kAborted,
       reason::kUploadSuperseded},
      {storage::v1::UPLOAD_OUTCOME_ABORTED, absl::StatusCode::kAborted,
       reason::kUploadAborted},
      {storage::v1::UPLOAD_OUTCOME_EXPIRED,
       absl::StatusCode::kFailedPrecondition, reason::kUploadExpired},
      {storage::v1::UPLOAD_OUTCOME_DELETED, absl::StatusCode::kAborted,
       reason::kUploadDeleted},
  };
  Register();
  for (const auto& c : kCases) {
    upload_id = ids.NextUuid();
    image_id = ids.NextUuid();
    ++generation.n;
    Prepare();
    FakeStream* stream = nullptr;
    const auto handle = OpenStream(&stream);
    Write(handle, 0, 10);
    Commit(handle, 10);
    AckPublished(c.outcome);
    ASSERT_TRUE(stream->finished.has_value());
    EXPECT_THAT(*stream->finished, StatusIs(c.code));
    EXPECT_THAT(*stream->finished, HasReason(c.reason));
    // Removal is a command of its own.
    EXPECT_TRUE(mem.Exists(image_id.ToString()));
  }
}

TEST_F(CoreTest, ASecondStreamIsRefusedUntilTheFirstIsGone) {
  Register();
  Prepare();
  FakeStream* first = nullptr;
  const auto handle = OpenStream(&first);
  Write(handle, 0, 2 * kBlockBytes + 7);
  EXPECT_THAT(core.OpenWrite(Header(), std::make_shared<FakeStream>()),
              HasReason(reason::kUploadInProgress));
  core.uploads()->Detach(handle);
  FakeStream* second = nullptr;
  const auto resumed = OpenStream(&second);
  EXPECT_EQ(second->progress().next_offset(), 2 * kBlockBytes + 7);
  Write(resumed, 2 * kBlockBytes + 7, 5);
  Commit(resumed, 2 * kBlockBytes + 12);
  EXPECT_NE(Published(), nullptr);
}

TEST_F(CoreTest, AStreamThatCanNotGoOnWhereTheBytesEndIsTold) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  OpenStream(&stream, /*start=*/kBlockBytes);
  EXPECT_NE(Lost(), nullptr);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, HasReason(reason::kUploadBytesLost));
}

TEST_F(CoreTest, UploadsThatNobodyNamedAreRefused) {
  Register();
  EXPECT_THAT(core.OpenWrite(Header(), std::make_shared<FakeStream>()),
              HasReason(reason::kUploadNotFound));
}

TEST_F(CoreTest, CapabilitiesAreCheckedAndRunOutInCoordinatorTime) {
  Register();
  Prepare();
  v1::WriteHeader header = Header();
  header.mutable_capability()->back() ^= 1;
  EXPECT_THAT(core.OpenWrite(header, std::make_shared<FakeStream>()),
              StatusIs(absl::StatusCode::kPermissionDenied));
  header = Header();
  // The agent's wall clock is of no account.
  clock.JumpWall(absl::Hours(5));
  EXPECT_OK(core.OpenWrite(header, std::make_shared<FakeStream>()));
  header = Header();
  clock.JumpWall(-absl::Hours(5));
  header.set_mount_uid(ids.NextUuid().ToString());
  EXPECT_THAT(core.OpenWrite(header, std::make_shared<FakeStream>()),
              HasReason(reason::kMountIdentityMismatch));
}

TEST_F(CoreTest, WithoutASessionBytesAreTakenAndNothingIsPublished) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  core.OnDisconnected(session);
  Write(handle, 0, 100);
  Commit(handle, 100);
  EXPECT_FALSE(mem.Exists(image_id.ToString()));
  EXPECT_TRUE(stream->progress().waiting_for_commit());
  const size_t before = stream->sent.size();
  Tick(absl::Seconds(5));
  EXPECT_GT(stream->sent.size(), before);
  EXPECT_TRUE(stream->progress().waiting_for_commit());

  Register({Open()});
  ASSERT_NE(Attached(), nullptr);
  EXPECT_EQ(Attached()->uploads(0).received_bytes(), 100);
  EXPECT_TRUE(Attached()->uploads(0).stream_open());
  Tick();
  ASSERT_NE(Published(), nullptr);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  EXPECT_THAT(*stream->finished, IsOk());
}

TEST_F(CoreTest, ASessionThatIsNotAnsweredPublishesNothing) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 100);
  Tick(absl::Seconds(11));
  Commit(handle, 100);
  EXPECT_EQ(Published(), nullptr);
  Ack();
  Tick();
  EXPECT_NE(Published(), nullptr);
}

TEST_F(CoreTest, WhatWasPublishedIsReportedAtEveryRegistration) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 100);
  Commit(handle, 100);
  ASSERT_NE(Published(), nullptr);
  for (int i = 0; i < 2; ++i) {
    core.OnDisconnected(session);
    Register({Open()});
    ASSERT_NE(Attached(), nullptr);
    ASSERT_EQ(Attached()->uploads_size(), 1);
    EXPECT_EQ(Attached()->uploads(0).published().size_bytes(), 100);
    EXPECT_FALSE(stream->finished.has_value());
  }
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  EXPECT_THAT(*stream->finished, IsOk());
}

TEST_F(CoreTest, WhatAnEarlierProcessPublishedIsFound) {
  {
    ASSERT_OK_AND_ASSIGN(auto store,
                         ImageStore::Open(&mem, &clock, &ids, StoreOptions()));
    UploadSpec spec;
    spec.upload_id = upload_id;
    spec.image_id = image_id;
    spec.generation = generation;
    ASSERT_OK_AND_ASSIGN(auto staged, store->OpenStaged(spec));
    ASSERT_OK(staged->AppendTail(0, {"hello"}, std::nullopt));
    CommitRequest request;
    request.size_bytes = 5;
    ASSERT_OK(staged->Publish(request));
  }
  Register({Open()});
  ASSERT_NE(Attached(), nullptr);
  EXPECT_EQ(Attached()->uploads(0).published().size_bytes(), 5);
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  EXPECT_EQ(stream->progress().next_offset(), 5);
  Commit(handle, 6);
  EXPECT_THAT(*stream->finished, HasReason(reason::kSizeMismatch));
}

TEST_F(CoreTest, UploadsNoLongerNamedEndAndTheirBytesGo) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 100);
  const std::string path = ".predella/inflight/" + upload_id.ToString();
  EXPECT_TRUE(mem.Exists(path));
  core.OnDisconnected(session);
  Register();
  EXPECT_THAT(*stream->finished, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(mem.Exists(path));
}

TEST_F(CoreTest, InflightBytesOfAnEarlierProcessAreGarbageUnlessNamed) {
  const Uuid garbage = ids.NextUuid();
  {
    ASSERT_OK_AND_ASSIGN(auto store,
                         ImageStore::Open(&mem, &clock, &ids, StoreOptions()));
    for (const Uuid& id : {upload_id, garbage}) {
      UploadSpec spec;
      spec.upload_id = id;
      spec.image_id = image_id;
      spec.generation = generation;
      ASSERT_OK_AND_ASSIGN(auto staged, store->OpenStaged(spec));
      ASSERT_OK(
          staged->AppendTail(0, {std::string(kBlockBytes, 'x')}, std::nullopt));
      ASSERT_OK(staged->Checkpoint());
    }
  }
  Register({Open()});
  EXPECT_EQ(Attached()->uploads(0).received_bytes(), kBlockBytes);
  EXPECT_TRUE(mem.Exists(".predella/inflight/" + upload_id.ToString()));
  EXPECT_FALSE(mem.Exists(".predella/inflight/" + garbage.ToString()));
}

// Every answer of the coordinator has the fence synced, which does nothing
// when nothing was heard: that is no sign of life of the disk.
TEST_F(CoreTest, AFenceWithNothingToSyncHidesNoHang) {
  Register();
  for (int i = 0; i < 8; ++i) {
    clock.Advance(absl::Seconds(2));
    core.Tick();
    control::v1::CoordinatorMessage message;
    message.mutable_heartbeat_ack()->set_coordinator_time_us(clock.NowMicros());
    core.OnMessage(session, message);
    disk.RunAll();  // the probe hangs
  }
  EXPECT_EQ(core.View().health, v1::HEALTH_HUNG);
  Run();
}

// By it the coordinator knows an older copy of the directory.
TEST_F(CoreTest, WhatIsSyncedInTheFenceIsToldAtOnce) {
  Register();
  Tick(absl::Seconds(2));
  const size_t before = link->sent.size();
  control::v1::CoordinatorMessage message;
  *message.mutable_heartbeat_ack()->mutable_heard() =
      Generation{7, 21, 3}.ToProto();
  message.mutable_heartbeat_ack()->set_coordinator_time_us(clock.NowMicros());
  core.OnMessage(session, message);
  Run();
  for (int i = 0; i < 4; ++i) {
    Tick();
    Run();
  }
  std::vector<Generation> told;
  for (size_t i = before; i < link->sent.size(); ++i) {
    if (link->sent[i].has_heartbeat()) {
      told.push_back(Generation::FromProto(link->sent[i].heartbeat().fence()));
    }
  }
  EXPECT_THAT(told, ElementsAre(Generation{7, 21, 3}))
      << "within a second, where a heartbeat comes every two";
}

TEST_F(CoreTest, HeartbeatsBearSpaceAndLiveUploads) {
  Register();
  Prepare(10 * kBlockBytes);
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, kBlockBytes);
  Tick(absl::Seconds(2));
  Tick(absl::Seconds(2));
  const control::v1::Heartbeat& beat =
      Last([](const control::v1::AgentMessage& m) {
        return m.has_heartbeat();
      })->heartbeat();
  EXPECT_EQ(beat.health().health(), v1::HEALTH_ONLINE);
  EXPECT_EQ(beat.space().command_number(), 1);
  EXPECT_GT(beat.space().available_bytes(), 0);
  EXPECT_THAT(beat.live_upload_ids(), ElementsAre(upload_id.bytes()));
}

TEST_F(CoreTest, PrepareIsRefusedWhereItDoesNotFit) {
  Register();
  Prepare(int64_t{1} << 50);
  ASSERT_TRUE(Result()->has_error());
  EXPECT_THAT(FromRpcStatus(Result()->error()), HasReason(reason::kMountFull));
}

TEST_F(CoreTest, DrainingRefusesNewStreams) {
  Register();
  Prepare();
  core.Drain();
  EXPECT_THAT(core.OpenWrite(Header(), std::make_shared<FakeStream>()),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(core.Serving());
  // The coordinator takes new uploads elsewhere, and waits with others.
  Prepare();
  ASSERT_TRUE(Result()->has_error());
  EXPECT_THAT(FromRpcStatus(Result()->error()),
              HasReason(reason::kAgentUnreachable));
}

}  // namespace
}  // namespace predella::agent
