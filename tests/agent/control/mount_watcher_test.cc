#include "agent/health/mount_watcher.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/fs/mount_table.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

constexpr char kTable[] =
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "23 22 0:5 / /proc rw - proc proc rw\n"
    "30 22 8:2 / /srv rw - ext4 /dev/sda2 rw\n"
    "31 30 8:3 / /srv/store-1 rw master:4 - xfs /dev/sdb rw\n"
    "a line of another kind\n"
    "32 30 8:4 / /srv/with\\040space rw - ext4 /dev/sd\\134c rw\n";

int64_t At(const std::string& text, absl::string_view path) {
  const auto found = MountAt(ParseMountTable(text), path);
  return found.has_value() ? found->id : -1;
}

TEST(MountTableTest, FindsWhatAWalkComesTo) {
  EXPECT_EQ(At(kTable, "/"), 22);
  EXPECT_EQ(At(kTable, "/srv"), 30);
  EXPECT_EQ(At(kTable, "/srv/store-1"), 31);
  EXPECT_EQ(At(kTable, "/srv/store-1/below"), 31);
  EXPECT_EQ(At(kTable, "/srv/store-10"), 30);
  EXPECT_EQ(At(kTable, "/home/images"), 22);
  EXPECT_EQ(At(kTable, "/srv/with space"), 32);
  EXPECT_EQ(At("", "/srv"), -1);
  EXPECT_EQ(ParseMountTable(kTable).back().source, "/dev/sd\\c");
}

TEST(MountTableTest, WhatIsMountedLastOnAPathIsSeen) {
  const std::string over =
      absl::StrCat(kTable, "40 31 0:9 / /srv/store-1 rw - tmpfs none rw\n");
  EXPECT_EQ(At(over, "/srv/store-1"), 40);
  EXPECT_EQ(At(over + "41 40 0:10 / /srv/store-1 rw - tmpfs none rw\n",
               "/srv/store-1"),
            41);
}

// It stays in the table, and nobody comes to it.
TEST(MountTableTest, AMountOverAnAncestorHidesTheOnesBelow) {
  const std::string hidden =
      absl::StrCat(kTable, "40 30 0:9 / /srv rw - tmpfs none rw\n");
  EXPECT_EQ(At(hidden, "/srv/store-1"), 40);
}

TEST(MountTableTest, TheKernelsTableHasThisProcessRoot) {
  ASSERT_OK_AND_ASSIGN(const auto table, OpenMountTable());
  ASSERT_OK_AND_ASSIGN(const std::string text, table->Read());
  EXPECT_TRUE(MountAt(ParseMountTable(text), "/").has_value());
  ASSERT_OK_AND_ASSIGN(const std::string again, table->Read());
  EXPECT_EQ(text, again);
  ASSERT_OK_AND_ASSIGN(const std::string proc, table->Canonical("/proc/"));
  EXPECT_EQ(proc, "/proc");
  EXPECT_FALSE(table->Canonical("/no/such/directory").ok());
  table->Wake();
  table->Wait(absl::InfiniteDuration());  // returns: it was woken
}

class FakeTable final : public MountTable {
 public:
  absl::StatusOr<std::string> Read() override { return text; }
  void Wait(absl::Duration /*timeout*/) override { ++waits; }
  void Wake() override { ++wakes; }
  absl::StatusOr<std::string> Canonical(const std::string& /*path*/) override {
    return canonical;
  }
  absl::StatusOr<std::string> text = std::string(kTable);
  absl::StatusOr<std::string> canonical = std::string("/srv/store-1");
  int waits = 0;
  int wakes = 0;
};

class WatcherTest : public ::testing::Test {
 protected:
  WatcherTest() {
    auto table = std::make_unique<FakeTable>();
    table_ = table.get();
    watcher_ = std::make_unique<MountWatcher>(
        std::move(table), "/link",
        [this](const MountSighting& s) { seen_.push_back(s); });
  }
  FakeTable* table_;
  std::vector<MountSighting> seen_;
  std::unique_ptr<MountWatcher> watcher_;
};

TEST_F(WatcherTest, TellsWhatLiesOnThePathAndWhichQuestionItAnswers) {
  watcher_->Look();
  ASSERT_EQ(seen_.size(), 1U);
  EXPECT_EQ(seen_[0].mount_id, 31);
  EXPECT_EQ(seen_[0].ticket, 0U);
  EXPECT_EQ(seen_[0].what, "xfs /dev/sdb on /srv/store-1");
  EXPECT_EQ(watcher_->LookAgain(), 1U);
  EXPECT_EQ(table_->wakes, 0) << "its descriptor is not a disk thread's";
  watcher_->Wake();
  EXPECT_EQ(table_->wakes, 1);
  table_->text =
      absl::StrCat(kTable, "40 31 0:9 / /srv/store-1 rw - tmpfs none rw\n");
  watcher_->Look();
  EXPECT_EQ(seen_[1].mount_id, 40);
  EXPECT_EQ(seen_[1].ticket, 1U);
}

TEST_F(WatcherTest, KeepsThePathWhileItCanNotBeResolved) {
  watcher_->Look();
  table_->canonical = absl::NotFoundError("a directory above is gone");
  watcher_->Look();
  EXPECT_EQ(seen_[1].mount_id, 31);
  table_->text = absl::UnavailableError("no table");
  watcher_->Look();
  EXPECT_FALSE(seen_[2].mount_id.has_value());
}

TEST_F(WatcherTest, IsSilentOnceStopped) {
  watcher_->Stop();
  watcher_->Look();
  watcher_->Run();  // returns
  EXPECT_TRUE(seen_.empty());
}

}  // namespace
}  // namespace predella::agent
