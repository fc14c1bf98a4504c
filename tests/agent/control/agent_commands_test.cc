// Commands of the coordinator, as AgentCore carries them out.
#include <memory>
#include <string>

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

}  // namespace
}  // namespace predella::agent
