// Every call that the store makes to the disk, cut off: what was
// acknowledged is there, and nothing is there in part.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/store/image_store.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/logging.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/matchers.h"
#include "tests/testing/mem_file_system.h"

namespace predella::agent {
namespace {

using testing::Fault;
using Keep = testing::MemFileSystem::Keep;

constexpr int64_t kFirst = 300 * 1024 + 99;
constexpr int64_t kSize = kBlockBytes + 4711;

// Thousands of injected faults, each of which would be told.
const bool kQuiet = SetLogLevel("off");

struct Cut {
  Keep keep = Keep::kNothing;
  uint64_t seed = 0;
  bool direct_rename = true;
  // Operations that the store under test has "forgotten".
  std::vector<std::string> skip;
  // Kill -9 first: the next process sees the page cache, and what it says
  // counts as acknowledged; then the power cut.
  bool kill_first = false;
};

class Loop {
 public:
  explicit Loop(Cut cut) : cut_(std::move(cut)), bytes_(Pattern(kSize, 7)) {}

  // What was wrong, one line each.
  std::vector<std::string> Run() {
    for (int64_t n = 1; n < 1000; ++n) {
      if (!RunOne(n)) {
        points_ = n - 1;
        return violations_;
      }
      if (!violations_.empty() && !cut_.skip.empty()) {
        return violations_;  // found what was to be found
      }
    }
    violations_.push_back("the loop does not end");
    return violations_;
  }
  int64_t points() const { return points_; }

 private:
  void Blame(int64_t n, absl::string_view what) {
    violations_.push_back(absl::StrCat("crash at call ", n, ": ", what));
  }

  // An upload as a client makes it; true once it is acknowledged.
  bool TryUpload(World* w, const UploadSpec& spec) {
    const auto staged = w->store->OpenStaged(spec);
    if (!staged.ok()) {
      return false;
    }
    const absl::string_view all(bytes_);
    if (!AppendAll(staged->get(), all.substr(0, kFirst)).ok() ||
        !(*staged)->Checkpoint().ok() || !AppendAll(staged->get(), all).ok()) {
      return false;
    }
    return (*staged)->Publish(CommitOf(all)).ok();
  }

  void Skip(World* w) {
    for (const std::string& op : cut_.skip) {
      w->fault.Skip(op);
    }
  }

  bool RunOne(int64_t n) {
    World w;
    const UploadSpec spec = SpecOf(1, 1, 5);
    w.mem.SetDirectRename(cut_.direct_rename);
    if (!w.InitAndOpen().ok()) {
      Blame(n, "no store");
      return false;
    }
    Skip(&w);
    w.fault.CrashAt(n);
    bool acknowledged = TryUpload(&w, spec);
    const bool reached = w.fault.injected();
    w.store.reset();
    w.fault.Reset();
    Skip(&w);
    if (cut_.kill_first) {
      if (const absl::Status opened = w.Open(); !opened.ok()) {
        Blame(n, opened.ToString());
        return reached;
      }
      const auto found = w.store->Find(spec.image_id);
      acknowledged = acknowledged || (found.ok() && found->has_value());
    }
    w.PowerCut(cut_.keep, cut_.seed + static_cast<uint64_t>(n));
    w.fault.Reset();
    Check(&w, n, spec, acknowledged);
    return reached;
  }

  void Check(World* w, int64_t n, const UploadSpec& spec, bool acknowledged) {
    if (const absl::Status opened = w->Open(); !opened.ok()) {
      return Blame(n, opened.ToString());
    }
    const auto found = w->store->Find(spec.image_id);
    if (!found.ok()) {
      return Blame(n, found.status().ToString());
    }
    if (acknowledged && !found->has_value()) {
      return Blame(n, "acknowledged and gone");
    }
    if (found->has_value()) {
      const auto read = ReadAll(w->store.get(), spec);
      if (!read.ok() || *read != bytes_) {
        return Blame(n, absl::StrCat("in part: ", read.status().ToString()));
      }
    }
    const auto again = Upload(w->store.get(), spec, bytes_);
    if (!again.ok()) {
      return Blame(n, absl::StrCat("retry: ", again.status().ToString()));
    }
    const auto read = ReadAll(w->store.get(), spec);
    if (!read.ok() || *read != bytes_) {
      return Blame(n, absl::StrCat("retry: ", read.status().ToString()));
    }
    const std::vector<ListEntry> listed = ListAll(w->store.get());
    if (listed.size() != 1 || listed[0].kind != ListEntry::Kind::kImage ||
        w->store->image_count() != 1) {
      Blame(n, absl::StrCat("leftovers: ", listed.size(), " entries, ",
                            w->store->image_count(), " images"));
    }
  }

  const Cut cut_;
  const std::string bytes_;
  std::vector<std::string> violations_;
  int64_t points_ = 0;
};

class UploadCrashTest : public ::testing::TestWithParam<Cut> {};

TEST_P(UploadCrashTest, WhatWasAcknowledgedIsThereAndNothingIsInPart) {
  Loop loop(GetParam());
  EXPECT_THAT(loop.Run(), ::testing::IsEmpty());
  EXPECT_GE(loop.points(), 25);
}

std::vector<Cut> AllCuts() {
  std::vector<Cut> cuts;
  for (const bool direct : {true, false}) {
    for (const bool kill : {false, true}) {
      cuts.push_back({Keep::kNothing, 0, direct, {}, kill});
      cuts.push_back({Keep::kSome, 100, direct, {}, kill});
    }
    cuts.push_back({Keep::kEverything, 0, direct, {}, false});
    cuts.push_back({Keep::kSome, 300, direct, {}, false});
  }
  return cuts;
}
INSTANTIATE_TEST_SUITE_P(Cuts, UploadCrashTest, ::testing::ValuesIn(AllCuts()));

// The loop must be able to see what it is there for.
TEST(CrashLoopTest, FindsAStoreThatForgetsItsSyncs) {
  EXPECT_THAT(Loop({Keep::kNothing, 0, true, {"sync_dir"}, false}).Run(),
              ::testing::Not(::testing::IsEmpty()));
  EXPECT_THAT(Loop({Keep::kNothing, 0, true, {"datasync"}, false}).Run(),
              ::testing::Not(::testing::IsEmpty()));
  EXPECT_THAT(Loop({Keep::kSome, 1, true, {"datasync"}, false}).Run(),
              ::testing::Not(::testing::IsEmpty()));
  // Without the syncs at the start, a kill before the power cut is fatal.
  EXPECT_THAT(Loop({Keep::kNothing, 0, true, {"sync_dir"}, true}).Run(),
              ::testing::Not(::testing::IsEmpty()));
}

// One call fails and the process lives on.
TEST(FaultLoopTest, OneFailedCallNeverLosesOrTearsAnImage) {
  const std::string bytes = Pattern(5000, 9);
  const UploadSpec spec = SpecOf(1, 1, 5);
  for (const bool perform : {false, true}) {
    for (const absl::string_view why :
         {reason::kMountFailed, reason::kMountFull}) {
      for (int64_t n = 1; n < 500; ++n) {
        SCOPED_TRACE(absl::StrCat("fault at ", n, " ", why, perform));
        World w;
        ASSERT_OK(w.InitAndOpen());
        Fault fault;
        fault.at = n;
        fault.perform = perform;
        fault.status = MakeError(why == reason::kMountFull
                                     ? absl::StatusCode::kResourceExhausted
                                     : absl::StatusCode::kUnavailable,
                                 why, "injected");
        w.fault.Inject(fault);
        auto published = Upload(w.store.get(), spec, bytes);
        const bool reached = w.fault.injected();
        w.fault.Reset();
        if (!published.ok() && n % 2 == 0) {
          // The same process tries again, with a new file.
          ASSERT_OK(w.store->Discard(spec.upload_id));
          published = Upload(w.store.get(), spec, bytes);
          ASSERT_OK(published);
        }
        w.PowerCut(Keep::kNothing);
        ASSERT_OK(w.Open());
        if (published.ok()) {
          ASSERT_OK_AND_ASSIGN(const auto found, w.store->Find(spec.image_id));
          ASSERT_TRUE(found.has_value());
        }
        ASSERT_OK(Upload(w.store.get(), spec, bytes));
        ASSERT_OK_AND_ASSIGN(const std::string read,
                             ReadAll(w.store.get(), spec));
        ASSERT_EQ(read, bytes);
        ASSERT_EQ(ListAll(w.store.get()).size(), 1U);
        if (!reached) {
          break;
        }
      }
    }
  }
}

TEST(RemoveCrashTest, RemovedIsGoneAndTheOthersStay) {
  const std::string bytes = Pattern(5000, 3);
  const UploadSpec gone = SpecOf(1, 1, 5);
  const UploadSpec kept = SpecOf(2, 2, 6);
  for (const Keep keep : {Keep::kNothing, Keep::kSome, Keep::kEverything}) {
    for (int64_t n = 1; n < 200; ++n) {
      SCOPED_TRACE(absl::StrCat("crash at ", n));
      World w;
      ASSERT_OK(w.InitAndOpen());
      ASSERT_OK(Upload(w.store.get(), gone, bytes));
      ASSERT_OK(Upload(w.store.get(), kept, bytes));
      w.fault.Reset();
      w.fault.CrashAt(n);
      const bool removed =
          w.store->Remove(gone.image_id, gone.generation, gone.upload_id).ok();
      const bool reached = w.fault.injected();
      w.fault.Reset();
      w.PowerCut(keep, static_cast<uint64_t>(n));
      ASSERT_OK(w.Open());
      // Never a name without its record.
      ASSERT_OK_AND_ASSIGN(const auto found, w.store->Find(gone.image_id));
      EXPECT_FALSE(removed && found.has_value());
      if (found.has_value()) {
        ASSERT_OK(ReadAll(w.store.get(), gone));
      }
      ASSERT_OK(ReadAll(w.store.get(), kept));
      ASSERT_OK(
          w.store->Remove(gone.image_id, gone.generation, gone.upload_id));
      EXPECT_EQ(ListAll(w.store.get()).size(), 1U);
      EXPECT_EQ(w.store->image_count(), 1);
      if (!reached) {
        break;
      }
    }
  }
}

storage::v1::Tombstone TombstoneOf(uint64_t image, int64_t n) {
  storage::v1::Tombstone t;
  t.set_image_id(TestId(image).bytes());
  *t.mutable_generation() = Generation{3, n, 0xabcd}.ToProto();
  t.set_create_time_us(n);
  return t;
}

TEST(TombstoneCrashTest, StoredIsNeverForgottenByATornWrite) {
  constexpr int kBefore = 200;  // several pages
  for (uint64_t seed = 0; seed < 8; ++seed) {
    for (int64_t n = 1; n < 20; ++n) {
      SCOPED_TRACE(absl::StrCat("crash at ", n, " seed ", seed));
      World w;
      ASSERT_OK(w.InitAndOpen());
      for (int i = 0; i < kBefore; ++i) {
        ASSERT_OK(w.store->StoreTombstone(TombstoneOf(1, i + 1)));
      }
      w.fault.Reset();
      w.fault.CrashAt(n);
      const bool stored =
          w.store->StoreTombstone(TombstoneOf(2, kBefore + 1)).ok();
      const bool reached = w.fault.injected();
      w.fault.Reset();
      w.PowerCut(Keep::kSome, seed);
      ASSERT_OK(w.Open());
      const size_t count = w.store->Tombstones().size();
      EXPECT_GE(count, static_cast<size_t>(kBefore + (stored ? 1 : 0)));
      EXPECT_LE(count, static_cast<size_t>(kBefore + 1));
      ASSERT_OK(w.store->StoreTombstone(TombstoneOf(2, kBefore + 1)));
      EXPECT_EQ(w.store->Tombstones().size(), static_cast<size_t>(kBefore + 1));
      if (!reached) {
        break;
      }
    }
  }
}

TEST(FenceCrashTest, SyncedSurvivesThePowerCutAndHeardTheKill) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    World w;
    ASSERT_OK(w.InitAndOpen());
    ASSERT_OK(w.store->Hear({3, 10, 1}));
    ASSERT_OK(w.store->SyncFence());
    for (int64_t n = 11; n < 16; ++n) {
      ASSERT_OK(w.store->Hear({3, n, 1}));
    }
    ASSERT_OK(w.Open());  // killed: the page cache is there
    ASSERT_EQ(w.store->Known().size(), 1U);
    EXPECT_EQ(w.store->Known()[0].max_n(), 15);
    for (int64_t n = 16; n < 20; ++n) {
      ASSERT_OK(w.store->Hear({3, n, 1}));
    }
    w.PowerCut(Keep::kSome, seed);
    ASSERT_OK(w.Open());
    ASSERT_EQ(w.store->Known().size(), 1U);
    // Opening had synced what it found.
    EXPECT_GE(w.store->Known()[0].max_n(), 15);
  }
}

TEST(InitCrashTest, AnInterruptedInitIsDoneAgain) {
  for (int64_t n = 1; n < 2000; n += 41) {
    SCOPED_TRACE(n);
    World w;
    w.fault.CrashAt(n);
    const bool done = InitMount(&w.fault, &w.clock, &w.ids, "store-1").ok();
    const bool reached = w.fault.injected();
    w.fault.Reset();
    w.PowerCut(Keep::kSome, static_cast<uint64_t>(n));
    if (done) {
      ASSERT_OK(w.Open());
      break;
    }
    EXPECT_TRUE(reached);
    ASSERT_OK(w.Init());
    ASSERT_OK(w.Open());
    ASSERT_OK(Upload(w.store.get(), SpecOf(1, 1, 1), "bytes"));
  }
}

TEST(StartCrashTest, AStartCanBeCutAnywhere) {
  const std::string bytes = Pattern(kBlockBytes, 1);
  const UploadSpec spec = SpecOf(1, 1, 5);
  for (int64_t n = 1; n < 3000; n += 53) {
    SCOPED_TRACE(n);
    World w;
    ASSERT_OK(w.InitAndOpen());
    ASSERT_OK(Upload(w.store.get(), spec, bytes));
    w.fault.Reset();
    w.fault.CrashAt(n);
    const bool opened = w.Open().ok();
    w.fault.Reset();
    w.PowerCut(Keep::kSome, static_cast<uint64_t>(n));
    ASSERT_OK(w.Open());
    ASSERT_OK_AND_ASSIGN(const std::string read, ReadAll(w.store.get(), spec));
    EXPECT_EQ(read, bytes);
    if (opened) {
      break;
    }
  }
}

}  // namespace
}  // namespace predella::agent
