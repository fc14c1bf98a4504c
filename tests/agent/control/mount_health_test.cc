// What is seen of a mount, and what the core makes of it.
#include <cerrno>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/control/agent_core.h"
#include "agent/fs/errno_status.h"
#include "common/errors.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/testing/matchers.h"
#include "tests/testing/nfs_file_system.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::testing::HasSubstr;

class MountHealthTest : public CoreTest {
 protected:
  MountHealthTest() { fs.SetMountId(31); }
  void See(int64_t mount_id) {
    core.OnMountSeen({looks, mount_id, "tmpfs none on /mem"});
  }
  // What was mounted goes away, and a copy of it comes in its place.
  void SwapMount() {
    See(31);
    See(22);
    other_mem.CloneFrom(&mem);
    root = &other_mem;
    See(40);
    core.Tick();
  }
  v1::Health Told() {
    const control::v1::AgentMessage* beat = Last(
        [](const control::v1::AgentMessage& m) { return m.has_heartbeat(); });
    return beat == nullptr
               ? v1::HEALTH_UNSPECIFIED
               : static_cast<v1::Health>(beat->heartbeat().health().health());
  }
  void Fail(int error, std::string op = "") {
    testing::Fault fault;
    fault.op = std::move(op);
    fault.status = ErrnoStatus(error, "do what was asked");
    fault.forever = true;
    fs.Inject(fault);
  }
};

// As NFS: no exclusive lock on what can only be read.
class ReadOnlyMountTest : public MountHealthTest {
 protected:
  ~ReadOnlyMountTest() override {
    core.Stop([] {});
    Run();  // before the file system ends
  }
  testing::NfsLock lock;
  testing::NfsFileSystem nfs{&mem, &lock};
};

TEST_F(MountHealthTest, AProbeOfSlowCallsDoesNotHang) {
  Register();
  ASSERT_NE(Attached(), nullptr);
  int made = 0;
  bool hung = false;
  testing::Fault fault;
  fault.forever = true;
  fault.perform = true;
  fault.status = absl::OkStatus();
  fault.during = [&] {
    ++made;
    clock.Advance(absl::Milliseconds(1500));
    hung = hung || core.View().health == v1::HEALTH_HUNG;
  };
  fs.Inject(fault);
  const absl::Duration begun = clock.Boot();
  while (clock.Boot() < begun + absl::Minutes(3)) {
    Tick();
  }
  EXPECT_GT(made, 50);
  EXPECT_FALSE(hung);
  EXPECT_EQ(core.View().health, v1::HEALTH_SLOW);
  fs.Reset();
}

TEST_F(ReadOnlyMountTest, ReadOnlyAtTheStartItIsReadAndThenOpenedAnew) {
  nfs.read_only = true;
  root = &nfs;
  Register();
  ASSERT_NE(Attached(), nullptr);
  for (int i = 0; i < 12; ++i) {
    Tick();
  }
  EXPECT_EQ(Told(), v1::HEALTH_READ_ONLY);
  EXPECT_TRUE(core.Serving());
  EXPECT_EQ(lock.readers, 1);
  EXPECT_THAT(core.OpenWrite(Header(), std::make_shared<FakeStream>()).status(),
              HasReason(reason::kMountReadOnly));
  nfs.read_only = false;
  for (int i = 0; i < 24; ++i) {
    Tick();
  }
  EXPECT_TRUE(lock.writer);
  EXPECT_EQ(link->disconnected, "the mount came back and registers again");
  core.OnDisconnected(session);
  Register({Open()});
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
  FakeStream* stream = nullptr;
  Write(OpenStream(&stream), 0, 100);
  EXPECT_FALSE(stream->finished.has_value());
}

// Every disk thread and the probe are stuck: nothing runs but the watcher.
TEST_F(MountHealthTest, AnotherMountOnThePathIsAbsentInTheSameCall) {
  Register({Open()});
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 1 << 20);
  See(31);
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
  See(22);
  EXPECT_EQ(core.View().health, v1::HEALTH_ABSENT);
  EXPECT_EQ(Told(), v1::HEALTH_ABSENT);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, HasReason(reason::kMountFailed));
  EXPECT_THAT(stream->finished->message(), HasSubstr("tmpfs none on /mem"));
  EXPECT_FALSE(core.Serving());
}

TEST_F(MountHealthTest, ABytelessReturnIsNoticedAtOnceToo) {
  Register();
  See(31);
  See(22);
  Fail(EIO);
  Tick();  // too early to try
  fs.Reset();
  See(40);
  fs.SetMountId(40);
  Tick();
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
  EXPECT_EQ(link->disconnected, "the mount came back and registers again");
}

// What was read of the table before the directory was opened.
TEST_F(MountHealthTest, AnOlderSightingCountsForNothing) {
  Register();
  ASSERT_GT(looks, 0U);
  core.OnMountSeen({looks - 1, 22, "ext4 /dev/sda1 on /"});
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
  core.OnMountSeen({looks, std::nullopt, ""});
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
}

TEST_F(MountHealthTest, AnEarlierCopyOfTheMountIsNotTouched) {
  testing::MemFileSystem copy;
  copy.CloneFrom(&mem);
  Register();
  testing::MemFileSystem real;
  real.CloneFrom(&mem);
  See(31);
  See(22);
  Run();
  const auto content = [this] {
    std::string all;
    for (const char* name : {"mount.id", "lock", "fence", "probe"}) {
      const absl::StatusOr<std::string> got =
          mem.GetFile(std::string(".predella/") + name);
      all += got.ok() ? *got : got.status().ToString();
    }
    return all;
  };
  mem.CloneFrom(&copy);
  const std::string before = content();
  Tick(absl::Seconds(3));
  EXPECT_EQ(core.View().health, v1::HEALTH_ABSENT);
  EXPECT_THAT(core.View().detail, HasSubstr("earlier copy"));
  EXPECT_TRUE(content() == before);
  mem.CloneFrom(&real);
  Tick(absl::Seconds(3));
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
}

TEST_F(MountHealthTest, ADiskOfAnotherClusterIsNotTouched) {
  Register();
  testing::MemFileSystem real;
  real.CloneFrom(&mem);
  See(31);
  See(22);
  Run();
  ASSERT_OK_AND_ASSIGN(storage::v1::MountLabel other, ReadLabel(&mem));
  {
    StoreOptions options;
    testing::MemFileSystem foreign;
    ASSERT_OK(InitMount(&foreign, &clock, &ids, "m-1"));
    ASSERT_OK_AND_ASSIGN(auto store,
                         ImageStore::Open(&foreign, &clock, &ids, options));
    ASSERT_OK(store->ClaimLabel(ids.NextUuid().bytes()));
    store.reset();
    mem.CloneFrom(&foreign);
  }
  Tick(absl::Seconds(3));
  EXPECT_EQ(core.View().health, v1::HEALTH_ABSENT);
  EXPECT_THAT(core.View().detail, HasSubstr("belongs to the cluster"));
  mem.CloneFrom(&real);
  Tick(absl::Seconds(3));
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
}

TEST_F(MountHealthTest, EveryStateIsToldWithItsErrnoAndHealsByItself) {
  Register();
  const struct {
    int error;
    const char* op;
    v1::Health health;
    const char* name;
  } cases[] = {{EROFS, "pwrite", v1::HEALTH_READ_ONLY, "EROFS"},
               {EIO, "datasync", v1::HEALTH_SUSPECT, "EIO"},
               {EIO, "pread", v1::HEALTH_FAILED, "EIO"},
               {ESTALE, "", v1::HEALTH_ABSENT, "ESTALE"},
               {ENOTCONN, "", v1::HEALTH_ABSENT, "ENOTCONN"}};
  for (const auto& c : cases) {
    Fail(c.error, c.op);
    for (int i = 0; i < 40; ++i) {
      Tick();
    }
    EXPECT_EQ(core.View().health, c.health) << c.name << " " << c.op;
    EXPECT_EQ(core.View().error, c.name);
    EXPECT_EQ(Told(), c.health);
    fs.Reset();
    for (int i = 0; i < 60; ++i) {
      Tick();
    }
    EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE) << c.name << " " << c.op;
    EXPECT_EQ(Told(), v1::HEALTH_ONLINE);
    if (link->disconnected.has_value()) {
      core.OnDisconnected(session);
      Register();
    }
  }
}

// As after a reboot with a file system that became read-only.
TEST_F(MountHealthTest, AReadOnlyMountAttachesAndIsWritableWithoutARestart) {
  Register();
  See(22);
  Run();
  testing::Fault fault;
  fault.op = "pwrite";
  fault.status = ErrnoStatus(EROFS, "write");
  fault.forever = true;
  fs.Inject(fault);
  See(31);
  Tick();
  core.OnDisconnected(session);
  generation.n += 10;
  Register();
  EXPECT_NE(Attached(), nullptr);
  for (int i = 0; i < 12; ++i) {
    Tick();
  }
  EXPECT_EQ(core.View().health, v1::HEALTH_READ_ONLY);
  EXPECT_TRUE(core.Serving()) << "its images are to be read";
  fs.Reset();
  for (int i = 0; i < 60; ++i) {
    Tick();
    Ack();
  }
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
}

// Seen with no thread moving: the stream ends, commands are answered, nothing
// piles up; the same upload goes on when the mount answers.
TEST_F(MountHealthTest, AHungMountCostsItsOwnCallsAndKeepsTheirBytes) {
  Register();
  Prepare();
  FakeStream* stream = nullptr;
  auto handle = OpenStream(&stream);
  Write(handle, 0, 2 * kBlockBytes);
  v1::Chunk chunk;
  chunk.set_offset(2 * kBlockBytes);
  chunk.set_data(std::string(100, 'x'));
  core.uploads()->Append(handle, std::move(chunk));  // and it is stuck
  for (int i = 0; i < 48 && core.View().health != v1::HEALTH_HUNG; ++i) {
    clock.Advance(absl::Milliseconds(250));
    core.Tick();
  }
  ASSERT_EQ(core.View().health, v1::HEALTH_HUNG);
  core.Tick();
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_THAT(*stream->finished, HasReason(reason::kMountStalled));
  EXPECT_EQ(stream->finished->code(), absl::StatusCode::kUnavailable);
  auto refused = core.OpenWrite(Header(), std::make_shared<FakeStream>());
  EXPECT_THAT(refused.status(), HasReason(reason::kMountStalled));

  const size_t queued = disk.size() + probe.size();
  for (int i = 0; i < 100; ++i) {
    control::v1::CoordinatorMessage ack;
    ack.mutable_heartbeat_ack()->set_sequence(i);
    ack.mutable_heartbeat_ack()->set_coordinator_time_us(clock.NowMicros());
    *ack.mutable_heartbeat_ack()->mutable_heard() =
        Generation{7, 100 + i, 3}.ToProto();
    core.OnMessage(session, ack);
    control::v1::CoordinatorMessage command;
    command.mutable_command()->set_number(++number);
    *command.mutable_command()->mutable_remove()->mutable_generation() =
        generation.ToProto();
    core.OnMessage(session, command);
    ASSERT_NE(Result(), nullptr);
    EXPECT_EQ(Result()->number(), number);
    EXPECT_TRUE(Result()->has_error());
    clock.Advance(absl::Milliseconds(250));
    core.Tick();
  }
  EXPECT_LE(disk.size() + probe.size(), queued + 2);
  EXPECT_EQ(Told(), v1::HEALTH_HUNG) << "heartbeats go on";

  for (int i = 0; i < 20 && core.View().health != v1::HEALTH_ONLINE; ++i) {
    Run();
    Tick();
  }
  ASSERT_EQ(core.View().health, v1::HEALTH_ONLINE);
  Ack();
  handle = OpenStream(&stream, 2 * kBlockBytes);
  EXPECT_EQ(stream->progress().next_offset(), 2 * kBlockBytes + 100);
  Commit(handle, 2 * kBlockBytes + 100);
  Tick();
  ASSERT_NE(Published(), nullptr);
  EXPECT_EQ(Published()->size_bytes(), 2 * kBlockBytes + 100);
}

class FakeReader final : public ReadStream {
 public:
  void Stalled(const absl::Status& why) override { stalled = why; }
  std::optional<absl::Status> stalled;
};

TEST_F(MountHealthTest, OpenReadsHearThatTheMountHangsOrWentAway) {
  Register();
  v1::ReadImageRequest request;
  request.set_image(ImageName(image_id));
  request.set_generation(generation.ToString());
  request.set_mount_uid(mount_uid.ToString());
  Capability capability;
  capability.operation = Capability::Operation::kRead;
  capability.image_id = image_id;
  capability.generation = generation;
  capability.mount_uid = mount_uid;
  capability.expire_time_us = clock.NowMicros() + 3'600'000'000;
  request.set_capability(SignCapability(capability, key));
  auto hung = std::make_shared<FakeReader>();
  ASSERT_OK(core.OpenRead(request, hung));
  for (int i = 0; i < 48 && core.View().health != v1::HEALTH_HUNG; ++i) {
    clock.Advance(absl::Milliseconds(250));
    core.Tick();
  }
  core.Tick();
  ASSERT_TRUE(hung->stalled.has_value());
  EXPECT_THAT(*hung->stalled, HasReason(reason::kMountStalled));
  EXPECT_THAT(core.OpenRead(request, hung).status(),
              HasReason(reason::kMountStalled));
  for (int i = 0; i < 20 && core.View().health != v1::HEALTH_ONLINE; ++i) {
    Tick();
  }
  Ack();
  auto gone = std::make_shared<FakeReader>();
  ASSERT_OK(core.OpenRead(request, gone));
  See(22);
  ASSERT_TRUE(gone->stalled.has_value());
  EXPECT_THAT(*gone->stalled, HasReason(reason::kMountFailed));
}

// Unmounted lazily while the probe hangs in it; another one comes.
TEST_F(MountHealthTest, AProbeThatHangsInTheOldMountHoldsUpNothing) {
  Register();
  clock.Advance(absl::Seconds(3));
  core.Tick();  // the probe begins, and hangs
  ASSERT_GT(probe.size(), 0U);
  disk.RunAll();
  See(31);
  See(22);
  other_mem.CloneFrom(&mem);
  root = &other_mem;
  See(40);
  for (int i = 0; i < 60; ++i) {
    clock.Advance(absl::Milliseconds(250));
    core.Tick();
    disk.RunAll();
  }
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
  testing::Fault fault;
  fault.status = ErrnoStatus(EIO, "answer at last");
  fs.Inject(fault);
  probe.RunOne();
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE) << "an error of the old one";
  fs.Reset();
  Run();
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
}

TEST_F(MountHealthTest, AnOpenThatHangsInTheOldMountHoldsUpNothing) {
  Connect();
  core.OnMessage(session, Welcome());
  See(31);
  core.Tick();  // it begins to open, and hangs
  clock.Advance(absl::Seconds(9));
  core.Tick();
  EXPECT_EQ(Told(), v1::HEALTH_HUNG);
  ASSERT_EQ(disk.size(), 1U);
  fs.SetMountId(40);
  See(40);
  core.Tick();
  EXPECT_EQ(disk.size(), 2U) << "another thread opens what is there now";
  Run();
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
  EXPECT_FALSE(fatal.has_value());
}

// Unmounted lazily while an upload hangs in it, and served again from another
// directory: what comes back late says nothing of that one.
TEST_F(MountHealthTest, ALateErrorOfTheOldMountIsNotTheNewOnes) {
  Register({Open()});
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, kBlockBytes);
  testing::Fault fault;
  fault.op = "pwrite";
  fault.path = Inflight();
  fault.status = ErrnoStatus(EIO, "answer at last");
  bool swapped = false;
  fault.during = [&] {
    SwapMount();
    Run();
    swapped = true;
    EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
  };
  fs.Inject(fault);
  Write(handle, kBlockBytes, 100);
  ASSERT_TRUE(swapped);
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE) << core.View().detail;
}

// The session is the new mount's by then: the coordinator would look for the
// image there.
TEST_F(MountHealthTest, ALatePublishOfTheOldMountIsNotToldOfTheNewOne) {
  Register({Open()});
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Write(handle, 0, 3 * kBlockBytes);
  testing::Fault fault;
  fault.op = "rename_noreplace";
  fault.path = Inflight();
  fault.status = absl::OkStatus();
  fault.perform = true;
  bool swapped = false;
  fault.during = [&] {
    SwapMount();
    Register({Open(3 * kBlockBytes)});
    ASSERT_NE(Attached(), nullptr);
    swapped = true;
  };
  fs.Inject(fault);
  Commit(handle, 3 * kBlockBytes);
  ASSERT_TRUE(swapped);
  EXPECT_TRUE(mem.GetFile(image_id.ToString()).ok()) << "published there";
  EXPECT_FALSE(other_mem.GetFile(image_id.ToString()).ok());
  EXPECT_EQ(Published(), nullptr);
  // The upload goes on here, and comes to its end.
  const auto again = OpenStream(&stream);
  ASSERT_NE(again, nullptr);
  const int64_t next = stream->progress().next_offset();
  Write(again, next, 3 * kBlockBytes - next);
  Commit(again, 3 * kBlockBytes);
  ASSERT_NE(Published(), nullptr);
  EXPECT_TRUE(other_mem.GetFile(image_id.ToString()).ok());
}

TEST_F(MountHealthTest, AHungProbeIsAskedAgainSoonOnceItAnswers) {
  Register();
  for (int i = 0; i < 48 && core.View().health != v1::HEALTH_HUNG; ++i) {
    clock.Advance(absl::Milliseconds(250));
    core.Tick();  // and no thread moves
  }
  ASSERT_EQ(core.View().health, v1::HEALTH_HUNG);
  EXPECT_EQ(Told(), v1::HEALTH_HUNG);
  Run();
  int ticks = 0;
  while (core.View().health != v1::HEALTH_ONLINE && ticks < 20) {
    Tick();
    ++ticks;
  }
  EXPECT_LE(ticks, 16) << "4 s";
  Tick();
  EXPECT_EQ(Told(), v1::HEALTH_ONLINE);
}

}  // namespace
}  // namespace predella::agent
