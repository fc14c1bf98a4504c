// Something else where a file or a directory of ours should be, under a living
// agent and when it starts: against the kernel, which answers each of them in
// its own way.
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/fs/posix_file_system.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/ids.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;
using testing::StatusIs;

enum class By { kFile, kDirectory, kFifo, kLink };

class InTheWayTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = ::testing::TempDir() + "predella-way-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    base_ = path;
    std::filesystem::create_directory(base_ + "/mount");
    ASSERT_OK_AND_ASSIGN(fs_, PosixFileSystem::Open(base_ + "/mount"));
    ASSERT_OK(InitMount(fs_.get(), &clock_, &ids_, "store-1").status());
    ASSERT_OK(Open());
    ASSERT_OK(Upload(store_.get(), spec_, bytes_));
  }
  void TearDown() override {
    store_.reset();
    fs_.reset();
    std::filesystem::remove_all(base_);
  }
  absl::Status Open() {
    store_.reset();
    auto opened = ImageStore::Open(fs_.get(), &clock_, &ids_, options_);
    if (opened.ok()) {
      store_ = *std::move(opened);
    }
    return opened.status();
  }
  std::string Real(absl::string_view path) const {
    return absl::StrCat(base_, "/mount/", path);
  }
  std::string Kept() const { return base_ + "/kept"; }
  void Replace(absl::string_view path, By by) {
    std::filesystem::rename(Real(path), Kept());
    switch (by) {
      case By::kFile:
        std::ofstream(Real(path)).put('x');
        break;
      case By::kDirectory:
        std::filesystem::create_directory(Real(path));
        break;
      case By::kFifo:
        ASSERT_EQ(::mkfifo(Real(path).c_str(), 0600), 0);
        break;
      case By::kLink:
        std::filesystem::create_symlink(Kept(), Real(path));
        break;
    }
  }
  void PutBack(absl::string_view path) {
    std::filesystem::remove(Real(path));
    std::filesystem::rename(Kept(), Real(path));
  }
  // All 256 directories have had their turn after it.
  absl::Status Check() {
    absl::Status checked;
    for (int i = 0; i < 32 && checked.ok(); ++i) {
      checked = store_->CheckIdentity();
    }
    return checked;
  }

  std::string base_;
  testing::FakeClock clock_;
  testing::FakeIds ids_;
  std::unique_ptr<FileSystem> fs_;
  std::unique_ptr<ImageStore> store_;
  StoreOptions options_;
  const UploadSpec spec_ = SpecOf(1, 1, 1);
  const std::string bytes_ = Pattern(10'000, 1);
};

TEST_F(InTheWayTest, IsNoticedUnderALivingAgentAndWhenItStarts) {
  const struct {
    std::string path;
    bool directory;
  } ours[] = {{std::string(layout::kLabel), false},
              {std::string(layout::kLock), false},
              {std::string(layout::kFence), false},
              {std::string(layout::kProbe), false},
              {std::string(layout::kTombstones), false},
              {std::string(layout::kInflightDir), true},
              {std::string(layout::kRecordsDir), true},
              {std::string(layout::kQuarantineDir), true},
              {layout::ShardPathOf(spec_.image_id), true}};
  for (const auto& [path, directory] : ours) {
    for (const By by : {By::kFile, By::kDirectory, By::kFifo, By::kLink}) {
      if (by == (directory ? By::kDirectory : By::kFile)) {
        continue;  // as it should be
      }
      SCOPED_TRACE(absl::StrCat(path, " ", static_cast<int>(by)));
      ASSERT_OK(Check());
      Replace(path, by);
      const absl::Status living = Check();
      EXPECT_THAT(living, HasReason(reason::kMountIdentityMismatch));
      EXPECT_THAT(std::string(living.message()), HasSubstr(path));
      PutBack(path);
    }
  }
  for (const auto& [path, directory] : ours) {
    for (const By by : {directory ? By::kFile : By::kDirectory, By::kLink}) {
      SCOPED_TRACE(absl::StrCat(path, " ", static_cast<int>(by)));
      Replace(path, by);
      const absl::Status starting = Open();
      EXPECT_THAT(starting, HasReason(reason::kMountIdentityMismatch));
      EXPECT_THAT(std::string(starting.message()), HasSubstr(path));
      PutBack(path);
    }
  }
  ASSERT_OK(Open());
  // Also where what the fence says is remembered, and so looked at first.
  ASSERT_OK(store_->Hear(Generation{1, 1, 1}));
  ASSERT_OK(store_->SyncFence());
  options_.memory.mount_uid = store_->label().mount_uid();
  options_.memory.fence = Generation{1, 1, 1};
  Replace(layout::kFence, By::kDirectory);
  EXPECT_THAT(Open(), HasReason(reason::kMountIdentityMismatch));
  PutBack(layout::kFence);
  ASSERT_OK(Open());
  EXPECT_EQ(*ReadAll(store_.get(), spec_), bytes_);
}

// No waiting makes a directory of a file.
TEST_F(InTheWayTest, EndsAReadAtOnceAndADeleteWithoutAWordOfSuccess) {
  for (const std::string& path : {std::string(layout::kRecordsDir),
                                  layout::ShardPathOf(spec_.image_id)}) {
    Replace(path, By::kFile);
    EXPECT_THAT(store_->OpenImage(spec_.image_id, spec_.generation),
                AllOf(StatusIs(absl::StatusCode::kDataLoss),
                      HasReason(reason::kMountPermission)));
    EXPECT_FALSE(
        store_->Remove(spec_.image_id, spec_.generation, spec_.upload_id).ok());
    PutBack(path);
  }
  EXPECT_EQ(*ReadAll(store_.get(), spec_), bytes_);
}

TEST_F(InTheWayTest, SendsAnUploadElsewhere) {
  Replace(layout::kInflightDir, By::kFile);
  EXPECT_THAT(store_->OpenStaged(SpecOf(2, 2, 2)),
              HasReason(reason::kMountPermission));
  PutBack(layout::kInflightDir);
  EXPECT_OK(store_->OpenStaged(SpecOf(2, 2, 2)).status());
}

// As a copy of the directory by hard links leaves it.
TEST_F(InTheWayTest, ASecondNameOfAnImageIsSeenByItsListing) {
  const std::string path = layout::ImagePath(spec_.image_id);
  const auto listed = [&] {
    const std::vector<ListEntry> entries = ListAll(store_.get());
    return entries.size() == 1 ? entries[0] : ListEntry();
  };
  ASSERT_EQ(listed().kind, ListEntry::Kind::kImage);
  std::filesystem::create_hard_link(Real(path), Kept());
  EXPECT_EQ(listed().kind, ListEntry::Kind::kForeign);
  EXPECT_THAT(listed().read_error,
              AllOf(HasSubstr("EMLINK: "), HasSubstr("2 names")));
  EXPECT_THAT(store_->OpenImage(spec_.image_id, spec_.generation),
              HasReason(reason::kMountPermission));
  EXPECT_THAT(store_->OpenCheck(spec_.image_id),
              HasReason(reason::kReplicaMissing));
  std::filesystem::remove(Kept());
  EXPECT_EQ(listed().kind, ListEntry::Kind::kImage);
  EXPECT_EQ(*ReadAll(store_.get(), spec_), bytes_);
}

}  // namespace
}  // namespace predella::agent
