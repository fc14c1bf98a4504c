// PosixFileSystem against the kernel, in a temporary directory.
#include "agent/fs/posix_file_system.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/file_system.h"
#include "agent/store/image_store.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/ids.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;
using testing::StatusIs;

class PosixTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = ::testing::TempDir() + "predella-fs-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    base_ = path;
    root_ = path + "/mount";
    std::filesystem::create_directory(root_);
    ASSERT_OK_AND_ASSIGN(fs_, PosixFileSystem::Open(root_));
  }
  void TearDown() override {
    fs_.reset();
    std::filesystem::remove_all(base_);
  }
  void Put(absl::string_view path, absl::string_view content) {
    ASSERT_OK_AND_ASSIGN(const auto file,
                         fs_->Open(path, OpenMode::kCreateNew));
    ASSERT_OK(file->Pwrite(0, content));
  }

  std::string base_;
  std::string root_;
  std::unique_ptr<FileSystem> fs_;
};

TEST_F(PosixTest, FilesDoWhatFilesDo) {
  const std::string bytes = Pattern((1 << 20) + 3, 1);
  ASSERT_OK(fs_->Mkdir("d", 0700));
  EXPECT_THAT(fs_->Mkdir("d", 0700),
              StatusIs(absl::StatusCode::kAlreadyExists));
  ASSERT_OK_AND_ASSIGN(const auto file, fs_->Open("d/f", OpenMode::kCreateNew));
  EXPECT_THAT(fs_->Open("d/f", OpenMode::kCreateNew),
              StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(fs_->Open("d/g", OpenMode::kRead),
              StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(file->Pwrite(0, bytes));
  EXPECT_OK(file->StartWriteback(0, 1 << 20));
  EXPECT_OK(file->WaitWriteback(0, 1 << 20));
  EXPECT_OK(file->Datasync());
  EXPECT_OK(file->DropCache(0, 1 << 20));
  std::string back(bytes.size() + 10, '\0');
  ASSERT_OK_AND_ASSIGN(const size_t got,
                       file->Pread(0, back.size(), back.data()));
  EXPECT_EQ(back.substr(0, got), bytes);
  const absl::Status allocated = file->Allocate(0, 4 << 20);
  EXPECT_TRUE(allocated.ok() || absl::IsUnimplemented(allocated));
  ASSERT_OK(file->Truncate(100));
  ASSERT_OK(file->SetOwnership(0640, ::getegid()));
  ASSERT_OK_AND_ASSIGN(const FileInfo info, file->Stat());
  EXPECT_EQ(info.size_bytes, 100);
  EXPECT_EQ(info.mode, 0640U);
  EXPECT_EQ(info.links, 1);
  EXPECT_TRUE(info.regular);
  EXPECT_OK(fs_->SyncDir("d"));
  EXPECT_OK(fs_->SyncDir(""));
  std::set<std::string> names;
  ASSERT_OK(fs_->List("d", [&](absl::string_view n) { names.emplace(n); }));
  EXPECT_THAT(names, ::testing::ElementsAre("f"));
  ASSERT_OK(fs_->Unlink("d/f"));
  EXPECT_THAT(fs_->Unlink("d/f"), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK_AND_ASSIGN(const SpaceInfo space, fs_->Space());
  EXPECT_GT(space.size_bytes, 0);
  EXPECT_NE(space.device, 0);
}

// Of a thread alone, which the C library's own call does not offer.
void BeUser(uid_t uid) { ::syscall(SYS_setresuid, -1, uid, -1); }

TEST_F(PosixTest, AFileThatMayNotBeOpenedIsToldByItsPath) {
  constexpr uid_t kNobody = 65534;
  const uid_t me = ::geteuid();
  const struct {
    const char* name;
    mode_t mode;
    bool readable;
  } files[] = {{"none", 0, false},
               {"owner", 0600, me != 0},  // looked at by another
               {"all", 0644, true}};
  for (const auto& file : files) {
    Put(file.name, "x");
    ASSERT_EQ(::chmod((root_ + "/" + file.name).c_str(), file.mode), 0);
  }
  if (me == 0) {
    BeUser(kNobody);
  }
  std::vector<bool> readable;
  std::vector<bool> opened;
  for (const auto& file : files) {
    const auto info = fs_->Stat(file.name);
    readable.push_back(info.ok() && info->readable);
    opened.push_back(fs_->Open(file.name, OpenMode::kRead).ok());
  }
  BeUser(me);
  for (size_t i = 0; i < readable.size(); ++i) {
    EXPECT_EQ(readable[i], files[i].readable) << files[i].name;
    EXPECT_EQ(opened[i], files[i].readable) << files[i].name;
  }
  ASSERT_OK_AND_ASSIGN(const FileInfo info, fs_->Stat("none"));
  EXPECT_EQ(info.readable, me == 0) << "root reads what it likes";
}

TEST_F(PosixTest, OnlyWhatIsOpenForReadingIsPassedOn) {
  Put("f", "panel");
  ASSERT_OK_AND_ASSIGN(const auto read, fs_->Open("f", OpenMode::kRead));
  ASSERT_OK_AND_ASSIGN(const auto write, fs_->Open("f", OpenMode::kReadWrite));
  EXPECT_EQ(write->ReadDescriptor(), std::nullopt);
  ASSERT_TRUE(read->ReadDescriptor().has_value());
  char bytes[8] = {};
  EXPECT_EQ(::pread(*read->ReadDescriptor(), bytes, sizeof(bytes), 0), 5);
  EXPECT_EQ(std::string(bytes), "panel");
  EXPECT_LT(::pwrite(*read->ReadDescriptor(), "x", 1, 0), 0);
}

TEST(LocalFileSystemTest, ProcIsNone) {
  ASSERT_OK_AND_ASSIGN(const auto proc, PosixFileSystem::Open("/proc"));
  EXPECT_FALSE(proc->PassesDescriptors());
  ASSERT_OK_AND_ASSIGN(const auto memory, PosixFileSystem::Open("/dev/shm"));
  EXPECT_TRUE(memory->PassesDescriptors());
}

TEST_F(PosixTest, RenameKeepsOrReplacesAsItSays) {
  Put("a", "1");
  Put("b", "2");
  EXPECT_THAT(fs_->RenameNoReplace("a", "b"),
              StatusIs(absl::StatusCode::kAlreadyExists));
  ASSERT_OK(fs_->RenameNoReplace("a", "c"));
  EXPECT_THAT(fs_->RenameNoReplace("a", "d"),
              StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(fs_->Rename("b", "c"));
  EXPECT_EQ(fs_->Stat("c")->size_bytes, 1);
  EXPECT_THAT(fs_->Stat("b"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(PosixTest, NothingResolvesOutsideOrThroughALink) {
  std::filesystem::create_directory(base_ + "/outside");
  std::filesystem::create_symlink(base_ + "/outside", root_ + "/link");
  std::filesystem::create_symlink("../outside", root_ + "/relative");
  Put("real", "x");
  std::filesystem::create_symlink("real", root_ + "/inside");
  std::filesystem::create_symlink("/proc/self/root", root_ + "/magic");
  for (const char* path :
       {"link/f", "relative/f", "../outside/f", "/etc/passwd", "magic/etc/f",
        "inside", "..", "link/../f"}) {
    SCOPED_TRACE(path);
    for (const OpenMode mode :
         {OpenMode::kRead, OpenMode::kReadWrite, OpenMode::kCreateNew}) {
      const auto opened = fs_->Open(path, mode);
      EXPECT_FALSE(opened.ok());
      EXPECT_FALSE(absl::IsNotFound(opened.status()));
    }
  }
  for (const char* path : {"link/f", "../f", "..", "d/..", ""}) {
    SCOPED_TRACE(path);
    EXPECT_FALSE(fs_->Mkdir(path, 0700).ok());
    EXPECT_FALSE(fs_->Unlink(path).ok());
    EXPECT_FALSE(fs_->Rename("real", path).ok());
    EXPECT_FALSE(fs_->RenameNoReplace("real", path).ok());
  }
  EXPECT_FALSE(fs_->SyncDir("link").ok());
  EXPECT_FALSE(fs_->List("link", [](absl::string_view) {}).ok());
  // A link of somebody's is seen, as something that is not a file.
  const auto info = fs_->Stat("inside");
  EXPECT_TRUE(!info.ok() || !info->regular);
  EXPECT_TRUE(std::filesystem::is_empty(base_ + "/outside"));
}

TEST_F(PosixTest, OnlyRegularFilesWithOneNameAreOpened) {
  Put("a", "1");
  std::filesystem::create_hard_link(root_ + "/a", root_ + "/b");
  EXPECT_THAT(fs_->Open("a", OpenMode::kRead),
              HasReason(reason::kMountPermission));
  EXPECT_EQ(fs_->Stat("a")->links, 2);
  ASSERT_EQ(::mkfifo((root_ + "/fifo").c_str(), 0600), 0);
  EXPECT_FALSE(fs_->Open("fifo", OpenMode::kRead).ok());  // and does not wait
  ASSERT_OK(fs_->Mkdir("d", 0700));
  EXPECT_FALSE(fs_->Open("d", OpenMode::kRead).ok());
}

TEST_F(PosixTest, TheLockHoldsAgainstAnotherOpeningAndAnotherProcess) {
  Put("lock", "");
  auto held = fs_->Lock("lock", "process 12");
  ASSERT_OK(held);
  ASSERT_OK_AND_ASSIGN(auto other, PosixFileSystem::Open(root_));
  const auto refused = other->Lock("lock", "process 13");
  EXPECT_THAT(refused, HasReason(reason::kMountInUse));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("process 12"));
  const pid_t child = ::fork();
  if (child == 0) {
    const auto opened = PosixFileSystem::Open(root_);
    const bool in_use =
        opened.ok() &&
        predella::HasReason((*opened)->Lock("lock", "child").status(),
                            reason::kMountInUse);
    ::_exit(in_use ? 0 : 1);
  }
  int status = 1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  held = absl::CancelledError();
  EXPECT_OK(other->Lock("lock", "process 13"));
}

TEST_F(PosixTest, SeesThatItsDirectoryWasReplaced) {
  EXPECT_OK(fs_->CheckRoot());
  std::filesystem::rename(root_, base_ + "/moved");
  EXPECT_THAT(fs_->CheckRoot(), HasReason(reason::kMountIdentityMismatch));
  std::filesystem::create_directory(root_);
  EXPECT_THAT(fs_->CheckRoot(), HasReason(reason::kMountIdentityMismatch));
  // What is written goes to the directory that was opened.
  Put("f", "x");
  EXPECT_TRUE(std::filesystem::exists(base_ + "/moved/f"));
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(PosixTest, AStoreWorksOnIt) {
  ASSERT_OK(InitMount(fs_.get(), RealClock(), RandomIds(), "store-1"));
  EXPECT_EQ(std::filesystem::file_size(root_ + "/.predella/fence") +
                std::filesystem::file_size(root_ + "/.predella/probe") +
                std::filesystem::file_size(root_ + "/.predella/tombstones"),
            4U << 20);
  const UploadSpec spec = SpecOf(1, 1, 5);
  const std::string bytes = Pattern(5 * kBlockBytes + 1, 8);
  {
    ASSERT_OK_AND_ASSIGN(
        const auto store,
        ImageStore::Open(fs_.get(), RealClock(), RandomIds(), StoreOptions()));
    ASSERT_TRUE(store->Probe().ok());
    ASSERT_OK_AND_ASSIGN(const auto staged, store->OpenStaged(spec));
    ASSERT_OK(AppendAll(staged.get(), bytes.substr(0, 2 * kBlockBytes + 5)));
    ASSERT_OK(staged->Checkpoint());
  }
  ASSERT_OK_AND_ASSIGN(
      const auto store,
      ImageStore::Open(fs_.get(), RealClock(), RandomIds(), StoreOptions()));
  ASSERT_OK(Upload(store.get(), spec, bytes));
  EXPECT_EQ(*ReadAll(store.get(), spec), bytes);
  struct stat st {};
  ASSERT_EQ(::stat((root_ + "/" + spec.image_id.ToString()).c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0640U);
  EXPECT_EQ(st.st_size, static_cast<int64_t>(bytes.size()));
  ASSERT_OK(store->CheckIdentity());
  ASSERT_OK(store->Remove(spec.image_id, spec.generation, spec.upload_id));
  EXPECT_EQ(store->image_count(), 0);
}

TEST(ErrnoTest, EachErrorHasItsOwnMeaning) {
  struct Case {
    int error;
    absl::StatusCode code;
    absl::string_view reason;
  };
  for (const Case& c : {
           Case{ENOSPC, absl::StatusCode::kResourceExhausted,
                reason::kMountFull},
           Case{EDQUOT, absl::StatusCode::kResourceExhausted,
                reason::kMountFull},
           Case{EROFS, absl::StatusCode::kFailedPrecondition,
                reason::kMountReadOnly},
           Case{EIO, absl::StatusCode::kUnavailable, reason::kMountFailed},
           Case{ESTALE, absl::StatusCode::kUnavailable, reason::kMountFailed},
           Case{ENODEV, absl::StatusCode::kUnavailable, reason::kMountFailed},
           Case{ENOENT, absl::StatusCode::kNotFound, ""},
           Case{EEXIST, absl::StatusCode::kAlreadyExists, ""},
           Case{EACCES, absl::StatusCode::kPermissionDenied,
                reason::kMountPermission},
           Case{ELOOP, absl::StatusCode::kPermissionDenied,
                reason::kMountPermission},
           Case{EMFILE, absl::StatusCode::kResourceExhausted,
                reason::kAgentOverloaded},
           Case{EOPNOTSUPP, absl::StatusCode::kUnimplemented, ""},
       }) {
    SCOPED_TRACE(c.error);
    const absl::Status status = ErrnoStatus(c.error, "write x in y");
    EXPECT_THAT(status, StatusIs(c.code, HasSubstr("write x in y")));
    EXPECT_EQ(ReasonOf(status), std::string(c.reason));
  }
}

}  // namespace
}  // namespace predella::agent
