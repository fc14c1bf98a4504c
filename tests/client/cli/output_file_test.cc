// Where images are written to: what is replaced, what is not, what is left.
#include "client/cli/output_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/interrupt.h"
#include "tests/testing/matchers.h"

namespace predella::cli {
namespace {

namespace fs = std::filesystem;
using ::predella::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class OutputFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "output_file.XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    top_ = name;
  }
  void TearDown() override { fs::remove_all(top_); }

  std::string Path(const std::string& name) const { return top_ + "/" + name; }
  static void Put(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }
  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(top_)) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  // Writes `text` to `path` as a download does.
  static absl::Status Save(const std::string& path, const std::string& text) {
    auto file = OutputFile::Open(path, static_cast<int64_t>(text.size()));
    if (!file.ok()) {
      return file.status();
    }
    if (absl::Status status = (*file)->Write(text); !status.ok()) {
      return status;
    }
    return (*file)->Finish();
  }

  std::string top_;
};

TEST_F(OutputFileTest, TakesItsNameAtTheEnd) {
  ASSERT_OK_AND_ASSIGN(auto file, OutputFile::Open(Path("a"), 3));
  ASSERT_OK(file->Write("abc"));
  EXPECT_FALSE(fs::exists(Path("a")));
  ASSERT_OK(file->Finish());
  EXPECT_EQ(Read(Path("a")), "abc");
  EXPECT_THAT(Names(), ElementsAre("a"));
}

TEST_F(OutputFileTest, AnErrorLeavesTheOldFileAndNoOther) {
  Put(Path("a"), "old");
  {
    ASSERT_OK_AND_ASSIGN(auto file, OutputFile::Open(Path("a"), 3));
    ASSERT_OK(file->Write("ab"));
  }
  EXPECT_EQ(Read(Path("a")), "old");
  EXPECT_THAT(Names(), ElementsAre("a"));
}

TEST_F(OutputFileTest, TheModeOfAReplacedFileStays) {
  Put(Path("a"), "old");
  ASSERT_EQ(chmod(Path("a").c_str(), 0604), 0);
  ASSERT_OK(Save(Path("a"), "new"));
  struct stat facts {};
  ASSERT_EQ(stat(Path("a").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777, 0604u);
  EXPECT_EQ(Read(Path("a")), "new");
}

TEST_F(OutputFileTest, ALinkIsFollowedAndStays) {
  fs::create_directory(Path("deep"));
  Put(Path("deep/real"), "old");
  fs::create_symlink("deep/real", Path("first"));
  fs::create_symlink(Path("first"), Path("second"));
  ASSERT_OK(Save(Path("second"), "new"));
  EXPECT_EQ(fs::read_symlink(Path("second")), Path("first"));
  EXPECT_EQ(fs::read_symlink(Path("first")), "deep/real");
  EXPECT_FALSE(fs::is_symlink(Path("deep/real")));
  EXPECT_EQ(Read(Path("deep/real")), "new");
  EXPECT_THAT(Names(), ElementsAre("deep", "first", "second"));
}

TEST_F(OutputFileTest, ALinkToNothingMakesWhatItNames) {
  fs::create_symlink("new", Path("link"));
  ASSERT_OK(Save(Path("link"), "x"));
  EXPECT_TRUE(fs::is_symlink(Path("link")));
  EXPECT_EQ(Read(Path("new")), "x");
  fs::create_symlink("loop", Path("loop"));
  EXPECT_THAT(Save(Path("loop"), "x"),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(OutputFileTest, AFifoIsWrittenStraightToAndStays) {
  const std::string fifo = Path("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  fs::create_symlink("fifo", Path("link"));
  for (const std::string& name : {fifo, Path("link")}) {
    std::string got;
    std::thread reader([&got, &fifo] { got = Read(fifo); });
    EXPECT_OK(Save(name, "panel"));
    reader.join();
    EXPECT_EQ(got, "panel");
    EXPECT_TRUE(fs::is_fifo(fs::symlink_status(fifo)));
    EXPECT_TRUE(fs::is_symlink(Path("link")));
    EXPECT_THAT(Names(), ElementsAre("fifo", "link"));
  }
}

// What /dev/stdout is when standard output is a file.
TEST_F(OutputFileTest, ADescriptorByNameKeepsItsPositionAndFile) {
  const int fd =
      open(Path("a").c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(write(fd, "before ", 7), 7);
  struct stat before {};
  ASSERT_EQ(fstat(fd, &before), 0);
  fs::create_symlink(absl::StrCat("/proc/self/fd/", fd), Path("out"));
  EXPECT_OK(Save(Path("out"), "after"));
  struct stat after {};
  ASSERT_EQ(stat(Path("a").c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
  close(fd);
  EXPECT_EQ(Read(Path("a")), "before after");
  EXPECT_TRUE(fs::is_symlink(Path("out")));
  EXPECT_THAT(Names(), ElementsAre("a", "out"));
}

TEST_F(OutputFileTest, EveryMistakeHasItsSentence) {
  EXPECT_THAT(Save(top_, "x"), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("is a directory")));
  EXPECT_THAT(Save(Path("none/a"), "x"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("there is no directory")));
  EXPECT_THAT(Save("", "x"), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("name of a file")));
  Put(Path("file"), "");
  EXPECT_THAT(Save(Path("file/a"), "x"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("Not a directory")));
  EXPECT_THAT(
      OutputFile::Open(Path("big"), int64_t{1} << 60).status(),
      StatusIs(absl::StatusCode::kResourceExhausted,
               ::testing::AllOf(HasSubstr("1024 PiB"), HasSubstr("are free"))));
  EXPECT_THAT(Names(), ElementsAre("file"));
}

TEST_F(OutputFileTest, ASocketIsRefused) {
  // Bound through the directory: the path may be too long for the kernel.
  ASSERT_EQ(mknod(Path("s").c_str(), S_IFSOCK | 0600, 0), 0);
  EXPECT_THAT(Save(Path("s"), "x"), StatusIs(absl::StatusCode::kInvalidArgument,
                                             HasSubstr("is a socket")));
  EXPECT_THAT(Names(), ElementsAre("s"));
}

// In a process of its own, which the signal ends.
TEST_F(OutputFileTest, SignalsLeaveNoTemporary) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    std::array<int, 2> ready{};
    ASSERT_EQ(pipe(ready.data()), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto file = OutputFile::Open(Path("a"), 3);
      const bool written = file.ok() && (*file)->Write("ab").ok();
      if (!written || write(ready[1], "x", 1) != 1) {
        _exit(3);
      }
      pause();
      _exit(4);
    }
    ASSERT_GT(child, 0);
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    const std::vector<std::string> during = Names();
    ASSERT_EQ(during.size(), 1u);
    EXPECT_THAT(during[0], StartsWith("a.partial."));
    ASSERT_EQ(kill(child, number), 0);
    int state = 0;
    ASSERT_EQ(waitpid(child, &state, 0), child);
    EXPECT_TRUE(WIFSIGNALED(state));
    EXPECT_EQ(WTERMSIG(state), number);
    EXPECT_THAT(Names(), IsEmpty());
  }
}

TEST(NoteSignalTest, TheFirstIsNotedAndWakesAReader) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    const NoteSignal signals;
    if (signals.noted() || write(ends[1], "x", 1) != 1) {
      _exit(3);
    }
    std::array<int, 2> silent{};
    if (pipe(silent.data()) != 0) {
      _exit(3);
    }
    signals.AwaitReadable(silent[0]);
    if (!signals.noted()) {
      _exit(4);
    }
    RaiseNotedSignal();
    _exit(5);
  }
  ASSERT_GT(child, 0);
  char byte = 0;
  ASSERT_EQ(read(ends[0], &byte, 1), 1);
  close(ends[0]);
  close(ends[1]);
  ASSERT_EQ(kill(child, SIGINT), 0);
  int state = 0;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  EXPECT_TRUE(WIFSIGNALED(state));
  EXPECT_EQ(WTERMSIG(state), SIGINT);
}

}  // namespace
}  // namespace predella::cli
