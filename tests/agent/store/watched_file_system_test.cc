// Which calls to a mount are watched, and for how long they may take.
#include "agent/fs/watched_file_system.h"

#include <functional>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

#include "agent/fs/disk_calls.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/matchers.h"
#include "tests/testing/mem_file_system.h"

namespace predella::agent {
namespace {

// Names that come one by one, slowly.
class SlowDirectory final : public testing::FaultFileSystem {
 public:
  using FaultFileSystem::FaultFileSystem;
  absl::Status List(
      absl::string_view,
      const std::function<void(absl::string_view name)>& entry) override {
    entry("a");
    before_second();
    entry("b");
    before_end();
    return absl::OkStatus();
  }
  std::function<void()> before_second = [] {};
  std::function<void()> before_end = [] {};
};

class WatchedFileSystemTest : public ::testing::Test {
 protected:
  void Pass(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      clock.Advance(absl::Seconds(1));
      calls.Tick();
    }
  }

  testing::FakeClock clock;
  DiskCalls calls{&clock, 2};
  testing::MemFileSystem mem;
  SlowDirectory slow{&mem};
  WatchedFileSystem watched{&slow, &calls};
};

TEST_F(WatchedFileSystemTest, TheOpeningIsACall) {
  const auto opened = WatchedFileSystem::Open(
      &calls, "/srv/a", [&]() -> absl::StatusOr<std::unique_ptr<FileSystem>> {
        Pass(11);
        EXPECT_EQ(calls.stuck(), 1);
        return std::make_unique<testing::FaultFileSystem>(&mem);
      });
  ASSERT_OK(opened);
  EXPECT_EQ(calls.stuck(), 0);
  EXPECT_EQ((*opened)->root(), mem.root());
}

TEST_F(WatchedFileSystemTest, EachNameOfADirectoryIsWaitedForUnderWatch) {
  slow.before_second = [&] {
    Pass(31);
    EXPECT_EQ(calls.stuck(), 1);
  };
  slow.before_end = [&] {
    EXPECT_EQ(calls.stuck(), 0);
    Pass(31);
    EXPECT_EQ(calls.stuck(), 1);
  };
  std::string names;
  ASSERT_OK(watched.List("", [&](absl::string_view name) {
    Pass(40);  // of the one who asked, not of the disk
    EXPECT_EQ(calls.stuck(), 0);
    absl::StrAppend(&names, name);
  }));
  EXPECT_EQ(names, "ab");
  EXPECT_EQ(calls.stuck(), 0);
}

// On file systems without extents it takes its time.
TEST_F(WatchedFileSystemTest, RoomForALargeFileMayTakeLonger) {
  ASSERT_OK_AND_ASSIGN(const auto file,
                       watched.Open("a", OpenMode::kCreateNew));
  const struct {
    int64_t bytes;
    int seconds;
  } cases[] = {{100, 30}, {int64_t{1} << 40, 30 + 1024}};
  for (const auto& c : cases) {
    testing::Fault fault;
    fault.op = "allocate";
    fault.status = absl::OkStatus();
    fault.during = [&] {
      Pass(c.seconds);
      EXPECT_EQ(calls.stuck(), 0) << c.bytes;
      Pass(1);
      EXPECT_EQ(calls.stuck(), 1) << c.bytes;
    };
    slow.Inject(fault);
    EXPECT_OK(file->Allocate(0, c.bytes));
    EXPECT_TRUE(slow.injected());
  }
}

}  // namespace
}  // namespace predella::agent
