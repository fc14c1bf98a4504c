// Whose directory it is: init, label, lock, and what a start does first.
#include <cerrno>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/fs/errno_status.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "common/errors.h"
#include "predella/storage/v1/storage.pb.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using testing::Fault;
using testing::HasReason;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST(InitTest, AnEmptyDirectoryIsLabelledOnce) {
  World w;
  ASSERT_OK(w.mem.Mkdir("lost+found", 0700));
  EXPECT_THAT(ReadLabel(&w.mem), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK_AND_ASSIGN(const auto label,
                       InitMount(&w.mem, &w.clock, &w.ids, "store-1"));
  ASSERT_OK_AND_ASSIGN(const auto again,
                       InitMount(&w.mem, &w.clock, &w.ids, "store-1"));
  EXPECT_EQ(label.SerializeAsString(), again.SerializeAsString());
  EXPECT_EQ(label.mount_name(), "store-1");
  EXPECT_EQ(label.mount_uid().size(), 16U);
  EXPECT_THAT(
      InitMount(&w.mem, &w.clock, &w.ids, "store-2"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("store-1")));
  EXPECT_THAT(InitMount(&w.mem, &w.clock, &w.ids, "../x"),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(InitTest, ADirectoryWithThingsInItIsLeftAlone) {
  World w;
  ASSERT_OK(w.mem.PutFile("a", "1"));
  ASSERT_OK(w.mem.PutFile("b", "2"));
  const auto init = InitMount(&w.mem, &w.clock, &w.ids, "store-1");
  EXPECT_THAT(init, HasReason(reason::kMountNotEmpty));
  EXPECT_EQ(MetadataOf(init.status())["entries"], "2");
  EXPECT_FALSE(w.mem.Exists(".predella"));
}

TEST(InitTest, FilesOfAnotherStoreStayWhenThatIsSaid) {
  World w;
  const auto init = [&] {
    return InitMount(&w.mem, &w.clock, &w.ids, "store-1", InitInto::kImages);
  };
  ASSERT_OK(w.mem.PutFile("a", "1"));
  EXPECT_THAT(init(), HasReason(reason::kMountNotEmpty))
      << "nothing here is named as an image";
  ASSERT_OK(w.mem.PutFile(TestId(1).ToString(), "2"));
  EXPECT_THAT(w.Init(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("--with-images")));
  EXPECT_FALSE(w.mem.Exists(".predella"));
  ASSERT_OK(init());
  EXPECT_TRUE(w.mem.Exists("a"));
  EXPECT_TRUE(w.mem.Exists(TestId(1).ToString()));
  EXPECT_OK(w.Open());
}

TEST(InitTest, AMountThatLostItsLabelIsNotLabelledAnew) {
  World w;
  ASSERT_OK(w.InitAndOpen());
  storage::v1::Tombstone tombstone;
  tombstone.set_image_id(TestId(1).bytes());
  ASSERT_OK(w.store->StoreTombstone(tombstone));
  w.store.reset();
  ASSERT_OK(w.mem.Unlink(layout::kLabel));
  EXPECT_THAT(w.Init(), HasReason(reason::kMountNotEmpty));
}

TEST(InitTest, AFullDiskLeavesNoLabel) {
  World w;
  w.mem.SetCapacity(1 << 20, 10000);
  EXPECT_THAT(w.Init(), HasReason(reason::kMountFull));
  EXPECT_THAT(w.Open(), HasReason(reason::kMountIdentityMismatch));
  w.mem.SetCapacity(1 << 30, 10000);
  EXPECT_OK(w.Init());
  EXPECT_OK(w.Open());
}

TEST(OpenTest, WithoutALabelNotOneByteIsWritten) {
  World w;
  w.fault.Trace(true);
  EXPECT_THAT(w.Open(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("mount init")));
  EXPECT_THAT(w.fault.trace(), ElementsAre(absl::StrCat(
                                   "1 open ", std::string(layout::kLabel))));
  ASSERT_OK(w.Init());
  ASSERT_OK(w.mem.FlipByte(layout::kLabel, 3));
  EXPECT_THAT(w.Open(), HasReason(reason::kMountIdentityMismatch));
}

// Another mount over ours: its agent holds it, and nothing of it is ours.
TEST(OpenTest, AnothersDirectoryIsNotTouched) {
  World w;
  ASSERT_OK(w.InitAndOpen());
  w.options.mount_name = "store-2";
  w.fault.Trace(true);
  const auto opened = ImageStore::Open(&w.fault, &w.clock, &w.ids, w.options);
  EXPECT_THAT(opened, HasReason(reason::kMountIdentityMismatch));
  EXPECT_THAT(std::string(opened.status().message()),
              HasSubstr("bears the label of the mount 'store-1', not of "
                        "'store-2'"));
  EXPECT_THAT(w.fault.trace(), Each(HasSubstr(std::string(layout::kLabel))));
}

TEST(OpenTest, OneAgentAtATime) {
  World w;
  w.options.holder = "predella-agent, process 17";
  ASSERT_OK(w.InitAndOpen());
  const auto second =
      ImageStore::Open(&w.mem, &w.clock, &w.ids, StoreOptions());
  EXPECT_THAT(second, HasReason(reason::kMountInUse));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("process 17"));
  w.store.reset();
  EXPECT_OK(ImageStore::Open(&w.mem, &w.clock, &w.ids, StoreOptions()));
}

TEST(OpenTest, EveryDirectoryIsSyncedBeforeAnythingIsRead) {
  World w;
  ASSERT_OK(w.Init());
  w.fault.Trace(true);
  ASSERT_OK(w.Open());
  int syncs = 0;
  bool listed = false;
  for (const std::string& call : w.fault.trace()) {
    listed = listed || call.find(" list ") != std::string::npos;
    if (call.find(" sync_dir ") != std::string::npos) {
      EXPECT_FALSE(listed) << call;
      ++syncs;
    }
  }
  EXPECT_EQ(syncs, 259);
  Fault fault;
  fault.op = "sync_dir";
  fault.at = 100;
  fault.status =
      MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
  w.fault.Inject(fault);
  EXPECT_THAT(w.Open(), HasReason(reason::kMountFailed));
}

// Its agent starts with all others, and it is taken in once its mode is mended;
// until then nobody says that anything there is not, or is gone.
TEST(OpenTest, OneDirectoryOfRecordsKeepsNoMountFromBeingOpened) {
  World w;
  ASSERT_OK(w.Init());
  ASSERT_OK(w.Open());
  const std::string bytes = Pattern(10'000, 1);
  const UploadSpec there = SpecOf(1, 1, 1);
  const UploadSpec other = SpecOf(2, 2, 2);
  ASSERT_NE(layout::ShardPathOf(there.image_id),
            layout::ShardPathOf(other.image_id));
  ASSERT_OK(Upload(w.store.get(), there, bytes));
  ASSERT_OK(Upload(w.store.get(), other, bytes));
  const auto kinds = [&] {
    std::map<Uuid, ListEntry> out;
    for (const ListEntry& entry : ListAll(w.store.get())) {
      if (entry.kind != ListEntry::Kind::kDirectory) {
        out[entry.image_id] = entry;
      }
    }
    return out;
  };
  testing::Fault fault;
  fault.path = layout::ShardPathOf(there.image_id);
  fault.forever = true;
  fault.op = "sync_dir";  // also where its records could be read: they may be
                          // in the cache alone
  fault.status = ErrnoStatus(EACCES, "open it");
  w.store.reset();
  w.fault.Inject(fault);
  ASSERT_OK(w.Open());
  const auto seen = kinds();
  ASSERT_EQ(seen.size(), 2);
  EXPECT_EQ(seen.at(there.image_id).kind, ListEntry::Kind::kForeign);
  EXPECT_THAT(seen.at(there.image_id).read_error, HasSubstr("EACCES: "));
  EXPECT_EQ(seen.at(other.image_id).kind, ListEntry::Kind::kImage);
  EXPECT_EQ(*ReadAll(w.store.get(), other), bytes);
  EXPECT_THAT(w.store->OpenImage(there.image_id, there.generation),
              HasReason(reason::kMountPermission));
  EXPECT_FALSE(
      w.store->Remove(there.image_id, there.generation, there.upload_id).ok());
  w.fault.Reset();
  EXPECT_EQ(kinds().at(there.image_id).kind, ListEntry::Kind::kImage);
  EXPECT_EQ(*ReadAll(w.store.get(), there), bytes);
  // What was synced and does not give its names.
  fault.op = "list";
  for (const int error : {EACCES, EIO}) {
    fault.status = ErrnoStatus(error, "list it");
    w.store.reset();
    w.fault.Inject(fault);
    ASSERT_OK(w.Open());
    EXPECT_EQ(*ReadAll(w.store.get(), there), bytes);
    w.fault.Reset();
  }
}

}  // namespace
}  // namespace predella::agent
