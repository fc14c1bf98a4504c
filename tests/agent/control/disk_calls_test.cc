// Calls to the mount that do not return, and what becomes of their work.
#include "agent/fs/disk_calls.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/control/disk_executor.h"
#include "common/errors.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::testing::HasSubstr;

class DiskCallsTest : public ::testing::Test {
 protected:
  DiskCalls::Stalled Tell() {
    return [this](const absl::Status& why) { told.push_back(why); };
  }
  // As the agent does while it runs.
  void Pass(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      clock.Advance(absl::Seconds(1));
      calls.Tick();
    }
  }

  testing::FakeClock clock;
  DiskCalls calls{&clock, 2};
  std::vector<absl::Status> told;
};

TEST_F(DiskCallsTest, EachKindHasItsLimitAndIsToldOnce) {
  const struct {
    DiskCalls::Kind kind;
    int seconds;
  } cases[] = {{DiskCalls::Kind::kMetadata, 10},
               {DiskCalls::Kind::kData, 15},
               {DiskCalls::Kind::kSync, 30}};
  for (const auto& c : cases) {
    told.clear();
    DiskCalls::Work work(&calls, Tell());
    const DiskCalls::Call call(&calls, c.kind, "pwrite", "inflight/x");
    Pass(c.seconds);
    EXPECT_TRUE(told.empty()) << c.seconds;
    Pass(1);
    calls.Tick();
    ASSERT_EQ(told.size(), 1U) << c.seconds;
    EXPECT_EQ(told[0].code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(told[0], HasReason(reason::kMountStalled));
    EXPECT_EQ(
        told[0].message(),
        absl::StrCat("pwrite of inflight/x has not returned for ",
                     c.seconds + 1, " s; the limit is ", c.seconds, " s"));
    EXPECT_EQ(calls.stuck(), 1);
    EXPECT_TRUE(work.Finish());
  }
  EXPECT_EQ(calls.stuck(), 0);
}

// Each of its calls takes seconds, and those that are many take more.
TEST_F(DiskCallsTest, OnASlowMountACallMayTakeLonger) {
  const auto take = [this](DiskCalls::Kind kind, int seconds) {
    told.clear();
    const DiskCalls::Work work(&calls, Tell());
    const DiskCalls::Call call(&calls, kind, "rename", "x");
    Pass(seconds);
    return told.empty();
  };
  EXPECT_TRUE(take(DiskCalls::Kind::kSync, 25));  // says nothing of the others
  EXPECT_FALSE(take(DiskCalls::Kind::kMetadata, 11));
  EXPECT_FALSE(take(DiskCalls::Kind::kMetadata, 11));  // nor does what hung
  EXPECT_TRUE(take(DiskCalls::Kind::kMetadata, 4));
  EXPECT_TRUE(take(DiskCalls::Kind::kMetadata, 16));
  // What hangs there is named, too.
  EXPECT_FALSE(take(DiskCalls::Kind::kMetadata, 31));
  EXPECT_THAT(told[0].message(), HasSubstr("the limit is 30 s"));
  Pass(61);
  EXPECT_FALSE(take(DiskCalls::Kind::kMetadata, 11));
}

// The work of a call that is over has nobody to tell any more.
TEST_F(DiskCallsTest, NothingIsToldAfterTheWork) {
  auto work = std::make_unique<DiskCalls::Work>(&calls, Tell());
  const DiskCalls::Call call(&calls, DiskCalls::Kind::kData, "pread", "x");
  EXPECT_FALSE(work->Finish());
  work.reset();
  Pass(60);
  EXPECT_TRUE(told.empty());
  EXPECT_EQ(calls.stuck(), 1);
}

TEST_F(DiskCallsTest, WorkWithinWorkIsToldAloneAndCallsWithoutWorkCount) {
  const DiskCalls::Work outer(&calls, [](const absl::Status&) { FAIL(); });
  {
    const DiskCalls::Work inner(&calls, Tell());
    const DiskCalls::Call call(&calls, DiskCalls::Kind::kData, "pread", "x");
    Pass(16);
  }
  EXPECT_EQ(told.size(), 1U);
  std::thread([&] {
    const DiskCalls::Call call(&calls, DiskCalls::Kind::kData, "pread", "x");
    Pass(16);
    EXPECT_EQ(calls.stuck(), 1);
  }).join();
  EXPECT_EQ(calls.stuck(), 0);
}

TEST_F(DiskCallsTest, AsManyAreReplacedAsThereAreAndTheProbeIsNot) {
  std::vector<std::unique_ptr<DiskCalls::Call>> stuck;
  for (int i = 1; i <= 4; ++i) {
    stuck.push_back(std::make_unique<DiskCalls::Call>(
        &calls, DiskCalls::Kind::kMetadata, "open", "x"));
    Pass(11);
    EXPECT_EQ(calls.stuck(), i);
    EXPECT_EQ(calls.replaced(), std::min(i, 2));
    EXPECT_EQ(calls.exhausted(), i == 4);
  }
  EXPECT_THAT(calls.WhyExhausted(), HasReason(reason::kMountStalled));
  stuck.pop_back();
  EXPECT_FALSE(calls.exhausted());
  stuck.clear();
  EXPECT_EQ(calls.replaced(), 0);
  std::thread([&] {
    DiskCalls::MarkUnreplaced();
    const DiskCalls::Call call(&calls, DiskCalls::Kind::kData, "pread", "x");
    Pass(16);
    EXPECT_EQ(calls.stuck(), 0);
    EXPECT_EQ(calls.overdue(), 1);
  }).join();
  EXPECT_EQ(calls.overdue(), 0);
}

// No call could return meanwhile.
TEST_F(DiskCallsTest, TimeInWhichTheProcessDidNotRunIsNotHeldAgainstACall) {
  Pass(1);
  const DiskCalls::Work work(&calls, Tell());
  const DiskCalls::Call call(&calls, DiskCalls::Kind::kData, "pread", "x");
  Pass(5);
  clock.Advance(absl::Hours(8));
  calls.Tick();
  EXPECT_TRUE(told.empty());
  Pass(6);
  EXPECT_TRUE(told.empty());
  Pass(5);
  EXPECT_EQ(told.size(), 1U);
}

// A gate that threads wait at.
struct Gate {
  Mutex mu;
  CondVar cv;
  int waiting ABSL_GUARDED_BY(mu) = 0;
  bool open ABSL_GUARDED_BY(mu) = false;
  void Pass() {
    MutexLock lock(&mu);
    ++waiting;
    cv.SignalAll();
    while (!open) {
      cv.Wait(&mu);
    }
  }
  void AwaitWaiting(int n) {
    MutexLock lock(&mu);
    while (waiting < n) {
      cv.Wait(&mu);
    }
  }
  void Open() {
    MutexLock lock(&mu);
    open = true;
    cv.SignalAll();
  }
};

TEST(DiskThreadsTest, StuckThreadsAreReplacedByOnesOfTheSameTable) {
  absl::StatusOr<std::unique_ptr<DiskThreads>> disk = DiskThreads::Start(1);
  if (!disk.ok()) {
    GTEST_SKIP() << disk.status();
  }
  Gate first;
  Gate second;
  (*disk)->data()->Post([&] { first.Pass(); });
  first.AwaitWaiting(1);
  bool on_disk_thread = false;
  (*disk)->data()->Post([&] {
    on_disk_thread = OnDiskThread();
    second.Pass();
  });
  (*disk)->Replace(1);
  second.AwaitWaiting(1);
  EXPECT_TRUE(on_disk_thread);
  first.Open();
  second.Open();
  (*disk)->Replace(0);
  (*disk)->Join();
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// By a limit of the address space, which sanitizers need all of.
TEST(DiskThreadsTest, ThreadsThatTheSystemDoesNotGiveAreMissing) {
  absl::StatusOr<std::unique_ptr<DiskThreads>> disk = DiskThreads::Start(1);
  if (!disk.ok()) {
    GTEST_SKIP() << disk.status();
  }
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  struct rlimit tight = before;
  tight.rlim_cur =
      static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE) + (64 << 20));
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  (*disk)->Replace(100);
  while ((*disk)->missing() == 0) {
    std::this_thread::yield();
  }
  EXPECT_LE((*disk)->missing(), 100);
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  (*disk)->Replace(100);
  while ((*disk)->missing() > 0) {
    std::this_thread::yield();
  }
  (*disk)->Join();
}
#endif

TEST(ThreadPoolTest, ResizeAddsThreadsAndLetsThemEnd) {
  ThreadPool pool("test", 1);
  for (int round = 0; round < 20; ++round) {
    Gate gate;
    pool.Resize(3);
    EXPECT_EQ(pool.threads(), 3);
    for (int i = 0; i < 3; ++i) {
      pool.Post([&] { gate.Pass(); });
    }
    gate.AwaitWaiting(3);
    pool.Resize(1);
    EXPECT_EQ(pool.threads(), 3) << "each has its task";
    gate.Open();
    Gate last;
    last.Open();
    pool.Post([&] { last.Pass(); });
    last.AwaitWaiting(1);
    while (pool.threads() > 1) {
      std::this_thread::yield();
    }
  }
  pool.Shutdown();
}

class StuckCallTest : public CoreTest {
 protected:
  // The next call of that kind hangs for as long, and `then` is looked at while
  // it does; the probe and everything else go on.
  void Hang(const std::string& op, const std::string& path, int seconds,
            std::function<void()> then) {
    testing::Fault fault;
    fault.op = op;
    fault.path = path;
    fault.status = absl::OkStatus();
    fault.perform = true;
    fault.during = [this, seconds, then = std::move(then)] {
      for (int i = 0; i < seconds * 4; ++i) {
        Tick();
        if (i % 8 == 0) {
          Ack();
        }
      }
      hung = true;
      then();
    };
    fs.Inject(fault);
  }
  int64_t StuckToldLast() {
    const control::v1::AgentMessage* message = Last(
        [](const control::v1::AgentMessage& m) { return m.has_heartbeat(); });
    return message == nullptr ? -1 : message->heartbeat().stuck_calls();
  }
  bool hung = false;
};

TEST_F(StuckCallTest, OneStuckWriteEndsItsStreamAndTheUploadGoesOn) {
  Register({Open()});
  FakeStream* stream = nullptr;
  auto handle = OpenStream(&stream);
  Write(handle, 0, kBlockBytes);
  Hang("pwrite", Inflight(), 17, [&] {
    EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE) << "the mount works";
    ASSERT_TRUE(stream->finished.has_value());
    EXPECT_THAT(*stream->finished, HasReason(reason::kMountStalled));
    EXPECT_THAT(stream->finished->message(), HasSubstr("the limit is 15 s"));
    EXPECT_EQ(replaced, 1);
    EXPECT_EQ(StuckToldLast(), 1);
    // Not queued behind it.
    EXPECT_THAT(
        core.OpenWrite(Header(), std::make_shared<FakeStream>()).status(),
        HasReason(reason::kMountStalled));
  });
  Write(handle, kBlockBytes, 100);
  ASSERT_TRUE(hung);
  Tick();
  EXPECT_EQ(replaced, 0) << "it came back";
  Tick(absl::Seconds(2));
  EXPECT_EQ(StuckToldLast(), 0);
  handle = OpenStream(&stream);
  EXPECT_EQ(stream->progress().next_offset(), kBlockBytes + 100)
      << "what the stuck call wrote is kept";
  Commit(handle, kBlockBytes + 100);
  Tick();
  EXPECT_NE(Published(), nullptr);
}

TEST_F(StuckCallTest, AnotherUploadIsNotTouched) {
  Register({Open()});
  FakeStream* stuck = nullptr;
  const auto handle = OpenStream(&stuck);
  Hang("pwrite", Inflight(), 17, [&] {
    EXPECT_TRUE(stuck->finished.has_value());
    upload_id = ids.NextUuid();
    image_id = ids.NextUuid();
    generation.n += 1;
    Prepare();
    FakeStream* other = nullptr;
    const auto writer = OpenStream(&other);
    Write(writer, 0, 100);
    EXPECT_FALSE(other->finished.has_value());
    Commit(writer, 100);
    Tick();
    EXPECT_NE(Published(), nullptr);
  });
  Write(handle, 0, 100);
  EXPECT_TRUE(hung);
}

TEST_F(StuckCallTest, APublishThatWasStuckIsAnsweredToTheNextStream) {
  Register({Open()});
  FakeStream* stream = nullptr;
  auto handle = OpenStream(&stream);
  Write(handle, 0, 100);
  Hang("datasync", Inflight(), 32, [&] {
    ASSERT_TRUE(stream->finished.has_value());
    EXPECT_THAT(stream->finished->message(), HasSubstr("fdatasync"));
    EXPECT_THAT(stream->finished->message(), HasSubstr("the limit is 30 s"));
  });
  Commit(handle, 100);
  ASSERT_TRUE(hung);
  ASSERT_NE(Published(), nullptr);
  handle = OpenStream(&stream);
  AckPublished(storage::v1::UPLOAD_OUTCOME_COMMITTED);
  ASSERT_TRUE(stream->finished.has_value());
  EXPECT_OK(*stream->finished);
}

// Many GiB may be read after the one call that hung.
TEST_F(StuckCallTest, AStreamIsTakenAgainWhileTheRestIsVerified) {
  LeaveBytes(3 * kBlockBytes);
  Register({Open()});
  bool looked = false;
  Hang("pread", Inflight(), 17, [&] {
    testing::Fault next;
    next.op = "pread";
    next.path = Inflight();
    next.status = absl::OkStatus();
    next.perform = true;
    next.during = [&] {
      looked = true;
      streams.push_back(std::make_shared<FakeStream>());
      EXPECT_OK(core.OpenWrite(Header(), streams.back()));
    };
    fs.Inject(next);
  });
  FakeStream* first = nullptr;
  OpenStream(&first);
  ASSERT_TRUE(hung);
  ASSERT_TRUE(looked);
  EXPECT_THAT(*first->finished, HasReason(reason::kMountStalled));
  EXPECT_EQ(streams.back()->progress().next_offset(), 3 * kBlockBytes);
}

TEST_F(StuckCallTest, AStuckUploadDoesNotKeepItsMountUnattached) {
  Register({Open()});
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  const Uuid stuck = upload_id;
  Hang("pwrite", Inflight(), 17, [&] {
    core.OnDisconnected(session);
    std::vector<control::v1::OpenUpload> open = {Open()};
    upload_id = ids.NextUuid();
    image_id = ids.NextUuid();
    open.push_back(Open());
    Register(open);
    ASSERT_NE(Attached(), nullptr);
    ASSERT_EQ(Attached()->uploads_size(), 1);
    EXPECT_EQ(Attached()->uploads(0).upload_id(), upload_id.bytes());
    FakeStream* other = nullptr;
    const auto writer = OpenStream(&other);
    Write(writer, 0, 100);
    Ack();
    Commit(writer, 100);
    Tick();
    EXPECT_NE(Published(), nullptr);
    for (int i = 0; i < 20; ++i) {
      Tick();
    }
    EXPECT_EQ(Attached()->uploads_size(), 1) << "it is still stuck";
    EXPECT_EQ(Attached()->uploads(0).upload_id(), upload_id.bytes());
  });
  Write(handle, 0, 100);
  ASSERT_TRUE(hung);
  Tick();
  ASSERT_EQ(Attached()->uploads_size(), 1);
  EXPECT_EQ(Attached()->uploads(0).upload_id(), stuck.bytes());
  EXPECT_TRUE(Attached()->uploads(0).exists());
  EXPECT_EQ(Attached()->uploads(0).received_bytes(), 100);
  const auto sent = link->sent.size();
  Tick();
  EXPECT_EQ(link->sent.size(), sent) << "once";
}

// It has the strand that it had.
TEST_F(StuckCallTest, AStuckUploadThatIsNamedAgainIsLeftOutToo) {
  Register({Open()});
  FakeStream* stream = nullptr;
  const auto handle = OpenStream(&stream);
  Hang("pwrite", Inflight(), 17, [&] {
    for (const bool named : {false, true}) {
      core.OnDisconnected(session);
      Register(named ? std::vector<control::v1::OpenUpload>{Open()}
                     : std::vector<control::v1::OpenUpload>(),
               /*may_collect=*/false);
      ASSERT_NE(Attached(), nullptr) << named;
      EXPECT_EQ(Attached()->uploads_size(), 0) << named;
    }
  });
  Write(handle, 0, 100);
  ASSERT_TRUE(hung);
  Tick();
  ASSERT_EQ(Attached()->uploads_size(), 1);
  EXPECT_TRUE(Attached()->uploads(0).exists());
}

TEST_F(StuckCallTest, AnUploadThatCanNotBeLookedUpIsToldLater) {
  Hang("stat", image_id.ToString(), 12, [&] {
    ASSERT_NE(Attached(), nullptr);
    EXPECT_EQ(Attached()->uploads_size(), 0);
  });
  Register({Open()});
  ASSERT_TRUE(hung);
  Tick();
  ASSERT_EQ(Attached()->uploads_size(), 1);
  EXPECT_EQ(Attached()->uploads(0).upload_id(), upload_id.bytes());
  EXPECT_FALSE(Attached()->uploads(0).exists());
}

// The threads of the pool, and as many again.
TEST_F(StuckCallTest, WithoutAThreadLeftTheMountHangs) {
  Register({Open()});
  std::vector<std::unique_ptr<DiskCalls::Call>> stuck;
  for (int i = 0; i < 4; ++i) {
    stuck.push_back(std::make_unique<DiskCalls::Call>(
        &calls, DiskCalls::Kind::kMetadata, "open", "x"));
  }
  for (int i = 0; i < 48; ++i) {
    Tick();
  }
  EXPECT_EQ(replaced, 2);
  EXPECT_EQ(core.View().health, v1::HEALTH_HUNG);
  const absl::Status refused =
      core.OpenWrite(Header(), std::make_shared<FakeStream>()).status();
  EXPECT_THAT(refused, HasReason(reason::kMountStalled));
  EXPECT_THAT(refused.message(), HasSubstr("all 4 threads"));
  stuck.clear();
  // As after any hang, by clean probes.
  Tick();
  EXPECT_EQ(core.View().health, v1::HEALTH_HUNG);
  for (int i = 0; i < 48; ++i) {
    Tick();
  }
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
}

// Two are stuck, and the system gives none for them.
TEST_F(StuckCallTest, WhereNoThreadIsToBeHadTheMountHangsAsSoonAsAllAreStuck) {
  Register({Open()});
  missing = 2;
  std::vector<std::unique_ptr<DiskCalls::Call>> stuck;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
    stuck.push_back(std::make_unique<DiskCalls::Call>(
        &calls, DiskCalls::Kind::kMetadata, "open", "x"));
    for (int j = 0; j < 48; ++j) {
      Tick();
    }
  }
  EXPECT_EQ(core.View().health, v1::HEALTH_HUNG);
  EXPECT_THAT(core.View().detail, HasSubstr("all 2 threads"));
  const int asked = asked_for_threads;
  Tick();
  EXPECT_GT(asked_for_threads, asked) << "they are asked for again";
  missing = 0;
  stuck.clear();
  for (int i = 0; i < 48; ++i) {
    Tick();
  }
  EXPECT_EQ(core.View().health, v1::HEALTH_ONLINE);
}

}  // namespace
}  // namespace predella::agent
