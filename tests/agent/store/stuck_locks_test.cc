// What waits for a call that does not return, and how long.
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/fs/disk_calls.h"
#include "agent/fs/disk_locks.h"
#include "agent/fs/watched_file_system.h"
#include "common/errors.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class StuckLocksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(world_.Init());
    world_.options.calls = &calls_;
    ASSERT_OK_AND_ASSIGN(store_, ImageStore::Open(&watched_, &world_.clock,
                                                  &world_.ids, world_.options));
    bytes_ = Pattern(100, 1);
    ASSERT_OK(Upload(store_.get(), spec_, bytes_).status());
  }
  ~StuckLocksTest() override { store_.reset(); }

  // `stuck` is in the next call of that kind, for longer than any limit, while
  // `meanwhile` runs on this thread.
  void While(const std::string& op, const std::string& path,
             const std::function<void()>& stuck,
             const std::function<void()>& meanwhile) {
    Mutex mu;
    CondVar changed;
    bool entered = false;
    bool leave = false;
    testing::Fault fault;
    fault.op = op;
    fault.path = path;
    fault.status = absl::OkStatus();
    fault.perform = true;
    fault.during = [&] {
      MutexLock lock(&mu);
      entered = true;
      changed.SignalAll();
      while (!leave) {
        changed.Wait(&mu);
      }
    };
    world_.fault.Inject(fault);
    std::thread thread(stuck);
    {
      MutexLock lock(&mu);
      while (!entered) {
        changed.Wait(&mu);
      }
    }
    world_.fault.Reset();  // others go through
    meanwhile();
    {
      MutexLock lock(&mu);
      leave = true;
      changed.SignalAll();
    }
    thread.join();
  }
  void Pass(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      world_.clock.Advance(absl::Seconds(1));
      calls_.Tick();
    }
  }
  absl::Status Read() { return ReadAll(store_.get(), spec_).status(); }

  World world_;
  DiskCalls calls_{&world_.clock, /*threads=*/8};
  WatchedFileSystem watched_{&world_.fault, &calls_};
  UploadSpec spec_ = SpecOf(1, 1, 10);
  std::string bytes_;
  std::unique_ptr<ImageStore> store_;
};

TEST(DiskLocksTest, TheyExcludeByNameAndWaitWhileTheHolderGoesOn) {
  DiskLocks locks(nullptr);
  ASSERT_OK(locks.Lock("a"));
  ASSERT_OK(locks.Lock("b"));
  int entered = 0;
  std::thread waiter([&] {
    const DiskLock lock(&locks, "a");
    EXPECT_OK(lock.status());
    ++entered;
  });
  while (locks.waiting() == 0) {
    std::this_thread::yield();
  }
  EXPECT_EQ(entered, 0);
  locks.Unlock("b");
  locks.Unlock("a");
  waiter.join();
  EXPECT_EQ(entered, 1);
}

TEST(DiskLocksTest, WhoWaitsIsWokenWhenTheHoldersCallIsStuck) {
  testing::FakeClock clock;
  DiskCalls calls(&clock, 2);
  DiskLocks locks(&calls);
  const DiskLock held(&locks, "image x");
  ASSERT_OK(held.status());
  absl::Status status;
  std::thread waiter([&] { status = locks.Lock("image x"); });
  while (locks.waiting() == 0) {
    std::this_thread::yield();
  }
  {
    const DiskCalls::Call call(&calls, DiskCalls::Kind::kMetadata, "open", "x");
    for (int i = 0; i < 11; ++i) {
      clock.Advance(absl::Seconds(1));
      calls.Tick();
    }
    waiter.join();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status, HasReason(reason::kMountStalled));
  EXPECT_EQ(status.message(),
            "image x is in use: open of x has not returned for 11 s; the limit "
            "is 10 s");
  EXPECT_EQ(calls.stuck(), 0) << "who waited holds no thread";
}

// Seven of them would take the threads of the whole mount.
TEST_F(StuckLocksTest, ReadersOfOneImageDoNotStayBehindOneThatIsStuck) {
  absl::Status first;
  While(
      "stat", spec_.image_id.ToString(), [&] { first = Read(); },
      [&] {
        std::vector<absl::Status> others(7);
        std::vector<std::thread> threads;
        for (absl::Status& other : others) {
          threads.emplace_back([&] { other = Read(); });
        }
        Pass(11);
        for (std::thread& thread : threads) {
          thread.join();
        }
        for (const absl::Status& other : others) {
          EXPECT_THAT(other, HasReason(reason::kMountStalled));
          EXPECT_THAT(other.message(), HasSubstr("is in use: stat of "));
        }
        EXPECT_EQ(calls_.stuck(), 1);
        EXPECT_THAT(Read(), HasReason(reason::kMountStalled)) << "at once";
        EXPECT_OK(
            Upload(store_.get(), SpecOf(2, 2, 11), Pattern(10, 2)).status())
            << "another image is not concerned";
      });
  EXPECT_OK(first);
  EXPECT_OK(Read());
  EXPECT_EQ(calls_.stuck(), 0);
}

TEST_F(StuckLocksTest, TheFenceIsNotWaitedForAndIsWrittenLater) {
  const Generation pair{3, 50, 0xabcd};
  While(
      "pwrite", ".predella/fence", [&] { EXPECT_OK(store_->Hear(pair)); },
      [&] {
        Pass(16);
        const absl::Status status = store_->Hear(Generation{3, 51, 0xabcd});
        EXPECT_THAT(status, HasReason(reason::kMountStalled));
        EXPECT_THAT(status.message(), HasSubstr("the fence is in use"));
        EXPECT_THAT(store_->SyncFence(), HasReason(reason::kMountStalled));
      });
  EXPECT_OK(store_->Hear(Generation{3, 51, 0xabcd}));
  EXPECT_OK(store_->SyncFence());
}

// Who registers asks for them.
TEST_F(StuckLocksTest, WhatIsKnownIsToldWhileItsFileIsWritten) {
  storage::v1::Tombstone tombstone;
  tombstone.set_image_id(TestId(7).bytes());
  const std::vector<storage::v1::RosterEntry> roster(2);
  ASSERT_OK(store_->StoreRoster(roster));
  While(
      "datasync", ".predella/tombstones",
      [&] { EXPECT_OK(store_->StoreTombstone(tombstone)); },
      [&] {
        EXPECT_THAT(store_->Tombstones(), SizeIs(0)) << "it is not durable";
        EXPECT_THAT(store_->Roster(), SizeIs(2));
        Pass(31);
        EXPECT_THAT(store_->StoreRoster({}), HasReason(reason::kMountStalled));
        EXPECT_THAT(store_->DropTombstones({}),
                    HasReason(reason::kMountStalled));
      });
  EXPECT_THAT(store_->Tombstones(), SizeIs(1));
}

TEST_F(StuckLocksTest, TheIdentityIsCheckedWhileTheLabelIsWritten) {
  const std::string cluster(16, 'c');
  While(
      "datasync", ".predella/mount.id",
      [&] { EXPECT_OK(store_->ClaimLabel(cluster)); },
      [&] {
        EXPECT_OK(store_->CheckIdentity());
        EXPECT_EQ(store_->label().cluster_uid(), "");
        Pass(31);
        EXPECT_THAT(store_->ClaimLabel(cluster),
                    HasReason(reason::kMountStalled));
      });
  EXPECT_EQ(store_->label().cluster_uid(), cluster);
}

// Its file would be called foreign, and the copy missing.
TEST_F(StuckLocksTest, AListingDoesNotJudgeWhatItCouldNotLookAt) {
  While(
      "stat", spec_.image_id.ToString(), [&] { EXPECT_OK(Read()); },
      [&] {
        Pass(11);
        int told = 0;
        EXPECT_THAT(store_->List([&](const ListEntry&) { ++told; }),
                    HasReason(reason::kMountStalled));
        EXPECT_EQ(told, 0);
      });
  EXPECT_THAT(ListAll(store_.get()), SizeIs(1));
}

}  // namespace
}  // namespace predella::agent
