// Files that no row of the index names: quarantine, and files moved by hand.
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using testing::Fault;
using testing::HasReason;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::StatusIs;

class StoreOrphansTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(w_.InitAndOpen()); }

  std::vector<std::string> InQuarantine() {
    std::vector<std::string> names;
    EXPECT_OK(w_.mem.List(layout::kQuarantineDir, [&](absl::string_view name) {
      names.emplace_back(name);
    }));
    return names;
  }
  storage::v1::ReplicaRecord RecordOf(absl::string_view bytes) const {
    storage::v1::ReplicaRecord record;
    record.set_image_id(spec_.image_id.bytes());
    *record.mutable_generation() = spec_.generation.ToProto();
    record.set_upload_id(spec_.upload_id.bytes());
    record.set_location_key(spec_.location_key);
    record.set_size_bytes(static_cast<int64_t>(bytes.size()));
    record.set_crc32c(Crc32c(bytes));
    return record;
  }

  World w_;
  const UploadSpec spec_ = SpecOf(1, 1, 5);
  const std::string bytes_ = Pattern(3 * kBlockBytes + 99, 4);
};

TEST_F(StoreOrphansTest, QuarantineTakesNameAndRecordAndLasts) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  EXPECT_THAT(w_.store->Quarantine(spec_.image_id, std::nullopt),
              HasReason(reason::kGenerationMismatch));
  EXPECT_THAT(w_.store->Quarantine(spec_.image_id, Generation{3, 6, 0xabcd}),
              HasReason(reason::kGenerationMismatch));
  EXPECT_THAT(w_.store->Quarantine(TestId(9), std::nullopt),
              StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(w_.store->Quarantine(spec_.image_id, spec_.generation));
  EXPECT_EQ(w_.store->image_count(), 0);
  w_.store.reset();
  w_.mem.Crash(testing::MemFileSystem::Keep::kNothing);
  ASSERT_OK(w_.Open());
  EXPECT_THAT(ListAll(w_.store.get()), IsEmpty());
  EXPECT_THAT(InQuarantine(), SizeIs(2));
  // Its id is free, and can be stored and removed again.
  ASSERT_OK(Upload(w_.store.get(), SpecOf(1, 2, 7), "again"));
  w_.clock.Advance(absl::Seconds(1));
  ASSERT_OK(w_.store->Quarantine(spec_.image_id, Generation{3, 7, 0xabcd}));
  EXPECT_THAT(InQuarantine(), SizeIs(4));
}

TEST_F(StoreOrphansTest, AFileWithoutRecordIsQuarantinedOnlyAsOne) {
  ASSERT_OK(w_.mem.PutFile(spec_.image_id.ToString(), "whose"));
  EXPECT_THAT(w_.store->Quarantine(spec_.image_id, spec_.generation),
              HasReason(reason::kGenerationMismatch));
  ASSERT_OK(w_.store->Quarantine(spec_.image_id, std::nullopt));
  EXPECT_THAT(InQuarantine(), SizeIs(1));
}

TEST_F(StoreOrphansTest, TheQuarantineExpiresAndKeepsWhatIsNotOurs) {
  const absl::Duration week = absl::Hours(24 * 7);
  ASSERT_OK(w_.mem.PutFile(
      absl::StrCat(layout::kQuarantineDir, "/kept-by-hand.qcow2"), "x"));
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  ASSERT_OK(w_.store->Quarantine(spec_.image_id, spec_.generation));
  w_.clock.Advance(week);
  ASSERT_OK_AND_ASSIGN(int expired, w_.store->ExpireQuarantine(week, 100));
  EXPECT_EQ(expired, 0);
  w_.clock.Advance(absl::Seconds(1));
  // More than is likely in one pass: none goes.
  EXPECT_FALSE(w_.store->ExpireQuarantine(week, 1).ok());
  EXPECT_THAT(InQuarantine(), SizeIs(3));
  ASSERT_OK_AND_ASSIGN(expired, w_.store->ExpireQuarantine(week, 100));
  EXPECT_EQ(expired, 2);
  EXPECT_THAT(InQuarantine(), SizeIs(1));
}

TEST_F(StoreOrphansTest, AFileThatWasMovedHereBecomesItsImage) {
  ASSERT_OK(w_.mem.PutFile(spec_.image_id.ToString(), bytes_));
  const storage::v1::ReplicaRecord record = RecordOf(bytes_);
  ASSERT_OK(w_.store->AdoptFile(record, AdoptedMode::kOfImages));
  ASSERT_OK(w_.store->AdoptFile(record, AdoptedMode::kOfImages))
      << "asked again";
  EXPECT_EQ(w_.store->image_count(), 1);
  w_.store.reset();
  w_.mem.Crash(testing::MemFileSystem::Keep::kNothing);
  ASSERT_OK(w_.Open());
  ASSERT_OK_AND_ASSIGN(const std::string read, ReadAll(w_.store.get(), spec_));
  EXPECT_EQ(read, bytes_);
  ASSERT_OK_AND_ASSIGN(const auto found, w_.store->Find(spec_.image_id));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->location_key, spec_.location_key);
}

TEST_F(StoreOrphansTest, OnlyAMovedFileGetsTheModeOfImages) {
  const std::string name = spec_.image_id.ToString();
  for (const AdoptedMode mode : {AdoptedMode::kKept, AdoptedMode::kOfImages}) {
    World w;
    ASSERT_OK(w.InitAndOpen());
    ASSERT_OK(w.mem.PutFile(name, bytes_));
    ASSERT_OK_AND_ASSIGN(const FileInfo before, w.mem.Stat(name));
    ASSERT_NE(before.mode & 0777U, 0640U);
    ASSERT_OK(w.store->AdoptFile(RecordOf(bytes_), mode));
    ASSERT_OK_AND_ASSIGN(const FileInfo after, w.mem.Stat(name));
    EXPECT_EQ(after.mode,
              mode == AdoptedMode::kKept ? before.mode : uint32_t{0640});
    EXPECT_EQ(after.modify_time_us, before.modify_time_us);
  }
}

// Copied here with its record, and nobody synced them.
TEST_F(StoreOrphansTest, AnImageThatWasCopiedHereIsSynced) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  const std::string name = spec_.image_id.ToString();
  const std::string record_path = layout::RecordPath(spec_.image_id);
  const std::string record = *w_.mem.GetFile(record_path);
  ASSERT_OK(w_.store->Quarantine(spec_.image_id, spec_.generation));
  for (const auto& [path, bytes] :
       {std::make_pair(record_path, record), std::make_pair(name, bytes_)}) {
    ASSERT_OK_AND_ASSIGN(const auto file,
                         w_.mem.Open(path, OpenMode::kCreateNew));
    ASSERT_OK(file->Pwrite(0, bytes));
  }
  ASSERT_OK(w_.store->AdoptFile(RecordOf(bytes_), AdoptedMode::kOfImages));
  w_.store.reset();
  w_.mem.Crash(testing::MemFileSystem::Keep::kNothing);
  ASSERT_OK(w_.Open());
  ASSERT_OK_AND_ASSIGN(const std::string read, ReadAll(w_.store.get(), spec_));
  EXPECT_EQ(read, bytes_);
}

TEST_F(StoreOrphansTest, OtherBytesAreNotAdopted) {
  std::string other = bytes_;
  other[kBlockBytes + 7] = static_cast<char>(other[kBlockBytes + 7] ^ 1);
  for (const std::string& bytes : {other, bytes_ + "x", std::string()}) {
    ASSERT_OK(w_.mem.PutFile(spec_.image_id.ToString(), bytes));
    EXPECT_THAT(w_.store->AdoptFile(RecordOf(bytes_), AdoptedMode::kOfImages),
                HasReason(reason::kChecksumMismatch));
    EXPECT_EQ(*w_.mem.GetFile(spec_.image_id.ToString()), bytes);
    const auto listed = ListAll(w_.store.get());
    ASSERT_EQ(listed.size(), 1U);
    EXPECT_EQ(listed[0].kind, ListEntry::Kind::kForeign);
  }
  ASSERT_OK(w_.mem.Unlink(spec_.image_id.ToString()));
  EXPECT_THAT(w_.store->AdoptFile(RecordOf(bytes_), AdoptedMode::kOfImages),
              StatusIs(absl::StatusCode::kNotFound));
}

// A fault at every call: afterwards it is the image or nobody's file, never
// something in between, and the bytes are where they were.
TEST_F(StoreOrphansTest, AFaultAnywhereLeavesImageOrFile) {
  int faults = 0;
  for (int call = 1;; ++call) {
    World w;
    ASSERT_OK(w.InitAndOpen());
    ASSERT_OK(w.mem.PutFile(spec_.image_id.ToString(), bytes_));
    Fault fault;
    fault.at = call;
    fault.status =
        MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
    w.fault.Inject(fault);
    const absl::Status adopted =
        w.store->AdoptFile(RecordOf(bytes_), AdoptedMode::kOfImages);
    const bool hit = w.fault.injected();
    w.store.reset();
    w.fault.Reset();
    w.mem.Crash(testing::MemFileSystem::Keep::kNothing);
    ASSERT_OK(w.Open());
    EXPECT_EQ(*w.mem.GetFile(spec_.image_id.ToString()), bytes_);
    const auto listed = ListAll(w.store.get());
    ASSERT_EQ(listed.size(), 1U) << call;
    if (adopted.ok()) {
      EXPECT_EQ(listed[0].kind, ListEntry::Kind::kImage) << call;
    }
    if (listed[0].kind == ListEntry::Kind::kImage) {
      ASSERT_OK_AND_ASSIGN(const std::string read,
                           ReadAll(w.store.get(), spec_));
      EXPECT_EQ(read, bytes_);
    } else {
      EXPECT_EQ(listed[0].kind, ListEntry::Kind::kForeign) << call;
    }
    if (!hit) {
      break;
    }
    ++faults;
  }
  EXPECT_GT(faults, 8);
}

}  // namespace
}  // namespace predella::agent
