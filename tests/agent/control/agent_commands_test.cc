// Commands of the coordinator, as AgentCore carries them out.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;

TEST_F(CoreTest, CloseIfIdleTakesOnlyUploadsWithoutStream) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  control::v1::Command command;
  command.mutable_close_if_idle()->set_upload_id(upload_id.bytes());
  *command.mutable_close_if_idle()->mutable_generation() = generation.ToProto();
  Command(command);
  EXPECT_FALSE(Result()->close_if_idle().closed());
  EXPECT_FALSE(stream->finished.has_value());
  command.mutable_close_if_idle()->set_force(true);
  Command(command);
  EXPECT_TRUE(Result()->close_if_idle().closed());
  EXPECT_THAT(*stream->finished, HasReason(reason::kUploadAborted));
  EXPECT_THAT(core.OpenWrite(Header(), std::make_shared<FakeStream>()),
              HasReason(reason::kUploadNotFound));
}

TEST_F(CoreTest, CloseIfIdleSaysWhatWasPublishedAlready) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 9);
  Commit(handle, 9);
  core.uploads()->Detach(handle);
  control::v1::Command command;
  command.mutable_close_if_idle()->set_upload_id(upload_id.bytes());
  *command.mutable_close_if_idle()->mutable_generation() = generation.ToProto();
  Command(command);
  EXPECT_TRUE(Result()->close_if_idle().closed());
  EXPECT_EQ(Result()->close_if_idle().published().size_bytes(), 9);
}

TEST_F(CoreTest, CloseIfIdleGivesWayToAStreamThatComesAtThatMoment) {
  Register();
  Prepare();
  control::v1::CoordinatorMessage message;
  control::v1::Command* command = message.mutable_command();
  command->set_number(++number);
  command->mutable_close_if_idle()->set_upload_id(upload_id.bytes());
  *command->mutable_close_if_idle()->mutable_generation() =
      generation.ToProto();
  core.OnMessage(session, message);  // no stream yet; the strand decides
  streams.push_back(std::make_shared<FakeStream>());
  ASSERT_OK_AND_ASSIGN(auto handle, core.OpenWrite(Header(), streams.back()));
  Run();
  ASSERT_TRUE(Result()->has_close_if_idle());
  EXPECT_FALSE(Result()->close_if_idle().closed());
  Write(handle, 0, 9);
  Commit(handle, 9);
  EXPECT_NE(Published(), nullptr);
}

TEST_F(CoreTest, AStreamThatComesAfterCloseIfIdleIsRefused) {
  Register();
  Prepare();
  control::v1::Command command;
  command.mutable_close_if_idle()->set_upload_id(upload_id.bytes());
  *command.mutable_close_if_idle()->mutable_generation() = generation.ToProto();
  Command(command);
  EXPECT_TRUE(Result()->close_if_idle().closed());
  EXPECT_THAT(core.OpenWrite(Header(), std::make_shared<FakeStream>()),
              HasReason(reason::kUploadNotFound));
}

TEST_F(CoreTest, PrepareTellsOfAFileWithoutRecordUnderTheName) {
  ASSERT_OK(mem.PutFile(image_id.ToString(), "somebody's"));
  Register();
  Prepare(kBlockBytes);
  ASSERT_TRUE(Result()->has_name_taken());
  EXPECT_FALSE(Result()->name_taken().has_generation());
  EXPECT_EQ(Result()->space().promised_bytes(), 0);
  EXPECT_THAT(core.OpenWrite(Header(), std::make_shared<FakeStream>()),
              HasReason(reason::kUploadNotFound));
  ASSERT_OK_AND_ASSIGN(const std::string left,
                       mem.GetFile(image_id.ToString()));
  EXPECT_EQ(left, "somebody's");
}

TEST_F(CoreTest, PrepareTellsOfAnotherGenerationUnderTheName) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 9);
  Commit(handle, 9);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  const Generation before = generation;
  upload_id = ids.NextUuid();
  generation.n += 5;
  Prepare();
  ASSERT_TRUE(Result()->has_name_taken());
  EXPECT_EQ(Generation::FromProto(Result()->name_taken().generation()), before);
}

// The same upload started again, after the file came: it goes elsewhere too.
TEST_F(CoreTest, PrepareAgainTellsOfAFileThatCameMeanwhile) {
  Register();
  Prepare();
  Prepare();
  EXPECT_FALSE(Result()->has_error());
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  ASSERT_OK(mem.PutFile(image_id.ToString(), "somebody's"));
  Prepare();
  EXPECT_TRUE(Result()->has_name_taken());
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, HasReason(reason::kNameTaken));
}

TEST_F(CoreTest, ASlowDiskDoesNotHoldUpPrepare) {
  Register();
  control::v1::CoordinatorMessage message;
  message.mutable_command()->set_number(++number);
  *message.mutable_command()->mutable_prepare_upload()->mutable_upload() =
      Open(kBlockBytes);
  core.OnMessage(session, message);
  EXPECT_EQ(Result(), nullptr);
  clock.Advance(kNameCheckWait);
  core.Tick();  // the disk did not move
  ASSERT_NE(Result(), nullptr);
  EXPECT_FALSE(Result()->has_error());
  EXPECT_EQ(Result()->space().promised_bytes(), kBlockBytes);
  Run();
  EXPECT_EQ(Count([](const control::v1::AgentMessage& m) {
              return m.has_command_result();
            }),
            1);
  FakeStream* stream = nullptr;
  EXPECT_NE(OpenStream(&stream), nullptr);
}

control::v1::Command RemoveCommand(const Uuid& image, const Uuid& upload,
                                   const Generation& generation) {
  control::v1::Command command;
  command.mutable_remove()->set_image_id(image.bytes());
  command.mutable_remove()->set_upload_id(upload.bytes());
  *command.mutable_remove()->mutable_generation() = generation.ToProto();
  return command;
}

TEST_F(CoreTest, RemoveEndsTheStreamAndTakesTheBytes) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 100);
  Command(RemoveCommand(image_id, upload_id, generation));
  ASSERT_TRUE(Result()->has_remove());
  EXPECT_FALSE(Result()->has_error());
  EXPECT_TRUE(stream->finished.has_value());
  EXPECT_FALSE(mem.Exists(".predella/inflight/" + upload_id.ToString()));
  // What the client still sent goes nowhere.
  Write(handle, 100, 100);
  Commit(handle, 200);
  EXPECT_EQ(Published(), nullptr);
}

TEST_F(CoreTest, RemoveLeavesAnotherGeneration) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 9);
  Commit(handle, 9);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  Generation other = generation;
  other.n = 5;
  Command(RemoveCommand(image_id, ids.NextUuid(), other));
  EXPECT_TRUE(Result()->remove().other_present());
  EXPECT_TRUE(mem.Exists(image_id.ToString()));
  Command(RemoveCommand(image_id, upload_id, generation));
  EXPECT_TRUE(Result()->remove().removed());
  EXPECT_FALSE(mem.Exists(image_id.ToString()));
}

TEST_F(CoreTest, ARemovalNotBegunDiesWithItsSession) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 9);
  Commit(handle, 9);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  control::v1::CoordinatorMessage message;
  *message.mutable_command() = RemoveCommand(image_id, upload_id, generation);
  message.mutable_command()->set_number(++number);
  core.OnMessage(session, message);
  core.OnDisconnected(session);
  Run();
  EXPECT_TRUE(mem.Exists(image_id.ToString()));
}

TEST_F(CoreTest, TombstonesAndRosterAreKept) {
  Register();
  control::v1::Command store;
  storage::v1::Tombstone* tombstone =
      store.mutable_store_tombstone()->mutable_tombstone();
  tombstone->set_image_id(image_id.bytes());
  *tombstone->mutable_generation() = generation.ToProto();
  Command(store);
  EXPECT_FALSE(Result()->has_error());
  control::v1::Command roster;
  roster.mutable_store_roster()->add_roster()->set_mount_name("m-1");
  Command(roster);
  EXPECT_FALSE(Result()->has_error());
  core.OnDisconnected(session);
  Register();
  const control::v1::AgentMessage* report = Last(
      [](const control::v1::AgentMessage& m) { return m.has_mount_report(); });
  ASSERT_NE(report, nullptr);
  EXPECT_EQ(report->mount_report().tombstones_size(), 1);
  EXPECT_EQ(report->mount_report().roster_size(), 1);
  control::v1::Command drop;
  *drop.mutable_drop_tombstones()->add_tombstones() =
      store.store_tombstone().tombstone();
  Command(drop);
  EXPECT_FALSE(Result()->has_error());
}

TEST_F(CoreTest, TheFenceIsRaisedBeforeACommitIsAnswered) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 9);
  Commit(handle, 9);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  core.OnDisconnected(session);
  Register();
  const control::v1::AgentMessage* report = Last(
      [](const control::v1::AgentMessage& m) { return m.has_mount_report(); });
  ASSERT_NE(report, nullptr);
  ASSERT_GE(report->mount_report().known_size(), 1);
  EXPECT_EQ(report->mount_report().known(0).max_n(), 30);
}

int64_t Beats(const std::vector<control::v1::AgentMessage>& sent) {
  return std::count_if(
      sent.begin(), sent.end(),
      [](const control::v1::AgentMessage& m) { return m.has_heartbeat(); });
}

TEST_F(CoreTest, TheSpaceIsToldAtOnceAfterAPublishAndARemoval) {
  Register();
  Prepare(kBlockBytes);
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, kBlockBytes);
  Tick();
  const int64_t before = Beats(link->sent);  // of the fence, at its sync
  Commit(handle, kBlockBytes);
  ASSERT_EQ(Beats(link->sent), before + 1);
  const control::v1::Space published = link->sent.back().heartbeat().space();
  EXPECT_EQ(published.promised_bytes(), 0);
  EXPECT_EQ(published.available_bytes(), mem.Space()->available_bytes);
  EXPECT_EQ(published.command_number(), number);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  // A removal's answer tells it itself.
  Command(RemoveCommand(image_id, upload_id, generation));
  EXPECT_TRUE(Result()->remove().removed());
  EXPECT_GE(Result()->space().available_bytes(),
            published.available_bytes() + kBlockBytes);
  EXPECT_EQ(Beats(link->sent), before + 1);
}

TEST_F(CoreTest, AHeartbeatTellsThePromisesOfItsMoment) {
  Register();
  Tick(absl::Seconds(3));  // the space was read before
  Prepare(kBlockBytes);
  const int64_t before = Beats(link->sent);
  while (Beats(link->sent) == before) {
    Tick(absl::Milliseconds(100));
  }
  const control::v1::Space space = link->sent.back().heartbeat().space();
  EXPECT_EQ(space.promised_bytes(), kBlockBytes);
  EXPECT_EQ(space.command_number(), number);
}

TEST_F(CoreTest, PublishedIsSaidAgainUntilItIsAnswered) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 9);
  Commit(handle, 9);
  const auto said = [this] {
    return Count(
        [](const control::v1::AgentMessage& m) { return m.has_published(); });
  };
  EXPECT_EQ(said(), 1);
  Tick(absl::Seconds(1));
  EXPECT_EQ(said(), 1);
  Tick(absl::Seconds(1));
  EXPECT_EQ(said(), 2);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  EXPECT_THAT(*stream->finished, ::predella::testing::IsOk());
  Tick(absl::Seconds(4));
  EXPECT_EQ(said(), 2);
}

}  // namespace
}  // namespace predella::agent
