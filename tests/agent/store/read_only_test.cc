// A mount that takes no writes when it is opened, and gives no exclusive lock.
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/matchers.h"
#include "tests/testing/nfs_file_system.h"

namespace predella::agent {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::IsOkAndHolds;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

class ReadOnlyTest : public ::testing::Test {
 protected:
  using Opened = absl::StatusOr<std::unique_ptr<ImageStore>>;

  void SetUp() override {
    ASSERT_OK(world_.Init());
    ASSERT_OK_AND_ASSIGN(const auto store, Open(&first_));
    ASSERT_OK(Upload(store.get(), spec_, bytes_).status());
  }
  Opened Open(FileSystem* fs) {
    return ImageStore::Open(fs, &world_.clock, &world_.ids, world_.options);
  }
  void ExpectNothingIsWritten(ImageStore* store) {
    EXPECT_THAT(store->Hear(Generation{3, 99, 0xabcd}),
                HasReason(reason::kMountReadOnly));
    EXPECT_THAT(store->StoreTombstone(storage::v1::Tombstone()),
                HasReason(reason::kMountReadOnly));
    EXPECT_THAT(Upload(store, SpecOf(2, 2, 11), "x"),
                HasReason(reason::kMountReadOnly));
    EXPECT_THAT(store->Remove(spec_.image_id, spec_.generation, TestId(9)),
                HasReason(reason::kMountReadOnly));
    const ProbeOutcome probe = store->Probe();
    EXPECT_THAT(probe.write, HasReason(reason::kMountReadOnly));
    EXPECT_OK(probe.read);
    EXPECT_THAT(ReadAll(store, spec_), IsOkAndHolds(bytes_));
  }

  World world_;
  const UploadSpec spec_ = SpecOf(1, 1, 10);
  const std::string bytes_ = Pattern(kBlockBytes + 5, 1);
  testing::NfsLock lock_;
  // Two hosts on one export.
  testing::NfsFileSystem first_{&world_.mem, &lock_};
  testing::NfsFileSystem second_{&world_.mem, &lock_};
};

TEST_F(ReadOnlyTest, ItsImagesAreRead) {
  first_.read_only = true;
  ASSERT_OK_AND_ASSIGN(const auto store, Open(&first_));
  EXPECT_EQ(store->image_count(), 1);
  ExpectNothingIsWritten(store.get());
  EXPECT_FALSE(store->writable_again());
}

// ext4 does so when its journal has given up: what is in the cache need not be
// on the disk.
TEST_F(ReadOnlyTest, OneThatCanNotSyncWhatItShowsIsNotReadAndSaysWhy) {
  first_.read_only = true;
  testing::Fault fault;
  fault.op = "sync_dir";
  fault.status =
      MakeError(absl::StatusCode::kFailedPrecondition, reason::kMountReadOnly,
                "could not sync directory /mem: Read-only file "
                "system",
                {{"errno", "EROFS"}});
  fault.forever = true;
  first_.Inject(fault);
  const absl::Status status = Open(&first_).status();
  EXPECT_THAT(status, HasReason(reason::kMountFailed));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("went read-only after an error"),
                    HasSubstr("mount it anew")));
  EXPECT_EQ(MetadataOf(status)["errno"], "EROFS");
}

// Another agent may read it with the same lock, and would write, too.
TEST_F(ReadOnlyTest, WithASharedLockNothingIsWrittenWhenTheMountTakesWrites) {
  first_.read_only = true;
  ASSERT_OK_AND_ASSIGN(auto store, Open(&first_));
  ASSERT_OK_AND_ASSIGN(const std::string fence,
                       world_.mem.GetFile(".predella/fence"));
  first_.read_only = false;
  first_.Trace(true);
  ExpectNothingIsWritten(store.get());
  for (const std::string& call : first_.trace()) {
    EXPECT_THAT(call, Not(AnyOf(HasSubstr("write"), HasSubstr("unlink"),
                                HasSubstr("rename"), HasSubstr("create"))));
  }
  EXPECT_THAT(world_.mem.GetFile(".predella/fence"), IsOkAndHolds(fence));
  EXPECT_TRUE(store->writable_again());
  store.reset();
  ASSERT_OK_AND_ASSIGN(store, Open(&first_));
  EXPECT_FALSE(store->writable_again());
  EXPECT_OK(store->Hear(Generation{3, 99, 0xabcd}));
  EXPECT_TRUE(store->Probe().ok());
}

TEST_F(ReadOnlyTest, ReadersAndAWriterExcludeEachOther) {
  first_.read_only = true;
  {
    ASSERT_OK_AND_ASSIGN(const auto reader, Open(&first_));
    EXPECT_THAT(Open(&second_), HasReason(reason::kMountInUse));
    second_.read_only = true;
    ASSERT_OK_AND_ASSIGN(const auto other, Open(&second_));
    EXPECT_THAT(ReadAll(other.get(), spec_), IsOkAndHolds(bytes_));
  }
  second_.read_only = false;
  ASSERT_OK_AND_ASSIGN(const auto writer, Open(&second_));
  EXPECT_THAT(Open(&first_), HasReason(reason::kMountInUse));
}

}  // namespace
}  // namespace predella::agent
