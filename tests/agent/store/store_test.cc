// The store as a whole: what is published, found, read, listed and removed.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/fs/errno_status.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "agent/store/record_codec.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/generation.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/matchers.h"

namespace predella::agent {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fault;
using testing::HasReason;
using ::testing::HasSubstr;
using testing::StatusIs;
using ::testing::UnorderedElementsAre;

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(w_.InitAndOpen()); }

  World w_;
  const UploadSpec spec_ = SpecOf(1, 1, 5);
  const std::string bytes_ = Pattern(3 * kBlockBytes + 99, 4);
};

TEST_F(StoreTest, PublishedIsFoundReadAndListed) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  for (int round = 0; round < 2; ++round) {
    ASSERT_OK_AND_ASSIGN(const auto found, w_.store->Find(spec_.image_id));
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->upload_id, spec_.upload_id);
    EXPECT_EQ(found->generation, spec_.generation);
    EXPECT_EQ(found->location_key, spec_.location_key);
    ASSERT_EQ(found->hashes.size(), 1U);
    EXPECT_EQ(found->hashes[0].algorithm(), "sha512");
    EXPECT_EQ(found->publish_time_us, w_.clock.NowMicros());
    EXPECT_EQ(w_.store->image_count(), 1);
    const auto listed = ListAll(w_.store.get());
    ASSERT_EQ(listed.size(), 1U);
    EXPECT_EQ(listed[0].kind, ListEntry::Kind::kImage);
    EXPECT_EQ(listed[0].size_bytes, static_cast<int64_t>(bytes_.size()));
    ASSERT_OK(w_.Open());
  }
  // Plain bytes under the plain name, for the group of the directory.
  EXPECT_EQ(*w_.mem.GetFile(spec_.image_id.ToString()), bytes_);
  ASSERT_OK_AND_ASSIGN(const FileInfo info,
                       w_.mem.Stat(spec_.image_id.ToString()));
  EXPECT_EQ(info.mode, 0640U);
  EXPECT_EQ(info.gid, 42U);
  ASSERT_OK_AND_ASSIGN(const auto none, w_.store->Find(TestId(77)));
  EXPECT_FALSE(none.has_value());
}

TEST_F(StoreTest, RangesAreCutAtTheEnd) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  ASSERT_OK_AND_ASSIGN(const auto reader,
                       w_.store->OpenImage(spec_.image_id, spec_.generation));
  const int64_t size = static_cast<int64_t>(bytes_.size());
  struct Range {
    int64_t offset;
    int64_t length;
  };
  for (const Range r :
       {Range{0, 1}, Range{0, size}, Range{0, size + 5}, Range{size - 1, 10},
        Range{size, 10}, Range{kBlockBytes - 1, 2}, Range{kBlockBytes, 0},
        Range{kBlockBytes + 7, 2 * kBlockBytes}, Range{3 * kBlockBytes, 99}}) {
    SCOPED_TRACE(absl::StrCat(r.offset, "+", r.length));
    ASSERT_OK_AND_ASSIGN(const VerifiedBytes got,
                         reader->Read(r.offset, r.length));
    EXPECT_EQ(got.crc32c, Crc32c(got.bytes));
    EXPECT_EQ(got.bytes, bytes_.substr(static_cast<size_t>(r.offset),
                                       static_cast<size_t>(r.length)));
  }
  EXPECT_THAT(reader->Read(size + 1, 1), HasReason(reason::kReadPastEnd));
  EXPECT_THAT(reader->Read(-1, 1), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST_F(StoreTest, NeverAWrongByte) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  const std::string name = spec_.image_id.ToString();
  ASSERT_OK_AND_ASSIGN(const auto reader,
                       w_.store->OpenImage(spec_.image_id, spec_.generation));
  for (int64_t block = 0; block < 4; ++block) {
    SCOPED_TRACE(block);
    ASSERT_OK(w_.mem.FlipByte(name, block * kBlockBytes + 50));
    const auto bad = reader->Read(block * kBlockBytes, 10);
    EXPECT_THAT(bad, StatusIs(absl::StatusCode::kDataLoss));
    EXPECT_EQ(MetadataOf(bad.status())["offset"],
              absl::StrCat(block * kBlockBytes));
    EXPECT_OK(reader->Read((block + 1) % 4 * kBlockBytes, 10));
    ASSERT_OK(w_.mem.FlipByte(name, block * kBlockBytes + 50));
  }
  // A file that became shorter.
  ASSERT_OK_AND_ASSIGN(auto file, w_.mem.Open(name, OpenMode::kReadWrite));
  ASSERT_OK(file->Truncate(2 * kBlockBytes));
  EXPECT_THAT(reader->Read(2 * kBlockBytes, 1),
              HasReason(reason::kChecksumMismatch));
  EXPECT_OK(reader->Read(0, 2 * kBlockBytes));
}

TEST_F(StoreTest, ADamagedRecordIsAnErrorAndNeverNotFound) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  const std::string record = layout::RecordPath(spec_.image_id);
  ASSERT_OK(w_.mem.FlipByte(record, kRecordHeaderBytes + 5));  // its table
  EXPECT_THAT(w_.store->OpenImage(spec_.image_id, spec_.generation),
              StatusIs(absl::StatusCode::kDataLoss));
  ASSERT_OK(w_.mem.FlipByte(record, 100));
  EXPECT_THAT(w_.store->OpenImage(spec_.image_id, spec_.generation),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(w_.store->Find(spec_.image_id),
              StatusIs(absl::StatusCode::kDataLoss));
  ASSERT_OK_AND_ASSIGN(
      const RemoveOutcome kept,
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id));
  EXPECT_FALSE(kept.removed);
  EXPECT_TRUE(kept.other_present);
  ASSERT_OK(w_.Open());  // and does not keep the mount away
  const auto listed = ListAll(w_.store.get());
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].kind, ListEntry::Kind::kForeign);
}

TEST_F(StoreTest, PublishingTwiceIsOneImageOnlyForTheSameUpload) {
  ASSERT_OK_AND_ASSIGN(const auto first, Upload(w_.store.get(), spec_, bytes_));
  ASSERT_OK_AND_ASSIGN(auto again, w_.store->OpenStaged(spec_));
  EXPECT_EQ(again->tail_next(), static_cast<int64_t>(bytes_.size()));
  EXPECT_EQ(*again->ReadBack(5, 10), bytes_.substr(5, 10));
  EXPECT_THAT(again->AppendTail(again->tail_next(), {"x"}, {}),
              HasReason(reason::kSizeMismatch));
  ASSERT_OK_AND_ASSIGN(const auto second, again->Publish(CommitOf(bytes_)));
  EXPECT_EQ(second.publish_time_us, first.publish_time_us);
  EXPECT_EQ(w_.store->image_count(), 1);

  UploadSpec later = SpecOf(1, 2, 6);
  const auto taken = Upload(w_.store.get(), later, "other");
  EXPECT_THAT(taken, StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(taken, HasReason(reason::kNameTaken));
  EXPECT_EQ(MetadataOf(taken.status())["generation"],
            spec_.generation.ToString());
  // After the removal the same staged bytes are published.
  ASSERT_OK(
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id));
  ASSERT_OK(Upload(w_.store.get(), later, "other"));
  EXPECT_EQ(*ReadAll(w_.store.get(), later), "other");
}

// V4 of the protocol's model: the index was lost, and a client tries the same
// upload again under a new generation. Not "done already": no read would serve
// what lies here under the row's generation.
TEST_F(StoreTest, TheSameUploadUnderAnotherGenerationIsNotDone) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  UploadSpec again = spec_;
  again.generation.epoch += 1;
  const auto taken = Upload(w_.store.get(), again, bytes_);
  EXPECT_THAT(taken, HasReason(reason::kNameTaken));
  EXPECT_EQ(MetadataOf(taken.status())["generation"],
            spec_.generation.ToString());
  const absl::Status read =
      w_.store->OpenImage(spec_.image_id, again.generation).status();
  EXPECT_THAT(read, AllOf(StatusIs(absl::StatusCode::kDataLoss),
                          HasReason(reason::kReplicaMissing)));
  EXPECT_THAT(std::string(read.message()),
              AllOf(HasSubstr(spec_.generation.ToString()),
                    HasSubstr(again.generation.ToString())));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes_);
}

TEST_F(StoreTest, AForeignFileIsNeverTouched) {
  const std::string name = spec_.image_id.ToString();
  ASSERT_OK(w_.mem.PutFile(name, "theirs"));
  const auto taken = Upload(w_.store.get(), spec_, bytes_);
  EXPECT_THAT(taken, HasReason(reason::kNameTaken));
  EXPECT_EQ(MetadataOf(taken.status())["foreign"], "true");
  EXPECT_THAT(w_.store->Find(spec_.image_id), HasReason(reason::kNameTaken));
  EXPECT_THAT(w_.store->OpenImage(spec_.image_id, spec_.generation),
              HasReason(reason::kReplicaMissing));
  ASSERT_OK_AND_ASSIGN(
      const auto outcome,
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id));
  EXPECT_TRUE(outcome.other_present);
  EXPECT_TRUE(outcome.other.none());
  EXPECT_EQ(*w_.mem.GetFile(name), "theirs");
  EXPECT_EQ(w_.store->image_count(), 0);
}

TEST_F(StoreTest, AFileThatCameBetweenRecordAndNameStaysForeign) {
  // The agent dies after the record and before the name …
  ASSERT_OK_AND_ASSIGN(auto staged, w_.store->OpenStaged(spec_));
  ASSERT_OK(AppendAll(staged.get(), bytes_));
  ASSERT_OK(staged->Checkpoint());
  Fault fault;
  fault.op = "rename_noreplace";
  fault.path = std::string(layout::kInflightDir);
  fault.forever = true;
  w_.fault.Inject(fault);
  EXPECT_FALSE(staged->Publish(CommitOf(bytes_)).ok());
  staged.reset();
  w_.store.reset();
  w_.fault.Reset();
  // … (its clean-up undone here, as a kill would leave it) …
  World other;
  ASSERT_OK(other.InitAndOpen());
  ASSERT_OK(Upload(other.store.get(), spec_, bytes_));
  ASSERT_OK(
      w_.mem.PutFile(layout::RecordPath(spec_.image_id),
                     *other.mem.GetFile(layout::RecordPath(spec_.image_id))));
  // … and somebody puts a file there.
  ASSERT_OK(w_.mem.PutFile(spec_.image_id.ToString(), "theirs"));
  ASSERT_OK(w_.Open());
  EXPECT_EQ(w_.store->image_count(), 0);
  EXPECT_THAT(w_.store->Find(spec_.image_id), HasReason(reason::kNameTaken));
  ASSERT_OK(
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id));
  EXPECT_EQ(*w_.mem.GetFile(spec_.image_id.ToString()), "theirs");
  const auto listed = ListAll(w_.store.get());
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].kind, ListEntry::Kind::kForeign);
}

TEST_F(StoreTest, OnlyTheGenerationThatWasNamedIsRemoved) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  const Generation other{3, 6, 0xabcd};
  const Generation other_nonce{3, 5, 0xabce};
  for (const Generation& wrong : {other, other_nonce}) {
    ASSERT_OK_AND_ASSIGN(
        const auto outcome,
        w_.store->Remove(spec_.image_id, wrong, spec_.upload_id));
    EXPECT_FALSE(outcome.removed);
    EXPECT_TRUE(outcome.other_present);
    EXPECT_EQ(outcome.other, spec_.generation);
  }
  EXPECT_THAT(w_.store->OpenImage(spec_.image_id, other),
              HasReason(reason::kReplicaMissing));
  ASSERT_OK_AND_ASSIGN(const auto reader,
                       w_.store->OpenImage(spec_.image_id, spec_.generation));
  ASSERT_OK_AND_ASSIGN(
      const auto outcome,
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id));
  EXPECT_TRUE(outcome.removed);
  EXPECT_FALSE(outcome.other_present);
  EXPECT_OK(reader->Read(0, 100));  // an open read goes on
  ASSERT_OK_AND_ASSIGN(
      const auto again,
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id));
  EXPECT_FALSE(again.removed);
  EXPECT_FALSE(w_.mem.Exists(layout::RecordPath(spec_.image_id)));
}

TEST_F(StoreTest, RemoveTakesBytesInFlightOfThatGenerationOnly) {
  ASSERT_OK(w_.store->OpenStaged(spec_));
  ASSERT_OK(w_.store->Remove(spec_.image_id, {3, 6, 0xabcd}, spec_.upload_id));
  EXPECT_TRUE(w_.store->InflightBytes(spec_.upload_id).has_value());
  ASSERT_OK(
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id));
  EXPECT_FALSE(w_.store->InflightBytes(spec_.upload_id).has_value());
  EXPECT_FALSE(w_.mem.Exists(layout::InflightPath(spec_.upload_id)));
  EXPECT_FALSE(w_.mem.Exists(layout::StatePath(spec_.upload_id)));
}

TEST_F(StoreTest, ARecordWithoutItsFileIsMissingDataAndGivesWay) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  ASSERT_OK(w_.mem.Unlink(spec_.image_id.ToString()));
  EXPECT_THAT(w_.store->OpenImage(spec_.image_id, spec_.generation),
              HasReason(reason::kReplicaMissing));
  const auto listed = ListAll(w_.store.get());
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].kind, ListEntry::Kind::kRecordOnly);
  const UploadSpec later = SpecOf(1, 2, 6);
  ASSERT_OK(Upload(w_.store.get(), later, "new"));
  EXPECT_EQ(*ReadAll(w_.store.get(), later), "new");
}

TEST_F(StoreTest, ListTellsEveryKindAndIgnoresWhatIsNobodys) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  ASSERT_OK(w_.store->OpenStaged(SpecOf(2, 2, 6)));
  ASSERT_OK(w_.mem.PutFile(TestId(3).ToString(), "theirs"));
  ASSERT_OK(w_.mem.PutFile(".nfs000001", ""));
  ASSERT_OK(w_.mem.PutFile(".fuse_hidden0001", ""));
  ASSERT_OK(w_.mem.PutFile("README", ""));
  std::vector<ListEntry::Kind> kinds;
  for (const ListEntry& entry : ListAll(w_.store.get())) {
    kinds.push_back(entry.kind);
  }
  EXPECT_THAT(kinds, UnorderedElementsAre(ListEntry::Kind::kImage,
                                          ListEntry::Kind::kInflight,
                                          ListEntry::Kind::kForeign));
}

TEST_F(StoreTest, KnowsEveryGenerationOfRecordsAndUploadsAfterARestart) {
  ASSERT_OK(Upload(w_.store.get(), spec_, "x"));
  UploadSpec open = SpecOf(2, 2, 9);
  open.generation.epoch = 4;
  ASSERT_OK(w_.store->OpenStaged(open));
  ASSERT_OK(w_.store->Hear({2, 8, 1}));
  ASSERT_OK(w_.store->SyncFence());
  for (int round = 0; round < 2; ++round) {
    std::vector<std::string> known;
    for (const auto& entry : w_.store->Known()) {
      known.push_back(absl::StrCat(entry.epoch(), "/", entry.max_n()));
    }
    EXPECT_THAT(known, ElementsAre("2/8", "3/5", "4/9"));
    ASSERT_OK(w_.Open());
  }
}

TEST_F(StoreTest, TombstonesAndRosterWorkOnAFullDisk) {
  ASSERT_OK_AND_ASSIGN(const SpaceInfo space, w_.store->Space());
  w_.mem.SetCapacity(space.size_bytes - space.available_bytes, 1);
  storage::v1::Tombstone t;
  t.set_image_id(TestId(1).bytes());
  *t.mutable_generation() = Generation{1, 2, 3}.ToProto();
  ASSERT_OK(w_.store->StoreTombstone(t));
  ASSERT_OK(w_.store->StoreTombstone(t));
  storage::v1::RosterEntry entry;
  entry.set_mount_name("store-2");
  ASSERT_OK(w_.store->StoreRoster({entry}));
  ASSERT_OK(w_.store->Hear({1, 2, 3}));
  ASSERT_OK(w_.store->SyncFence());
  ASSERT_TRUE(w_.store->Probe().ok());
  ASSERT_OK(w_.Open());
  ASSERT_EQ(w_.store->Tombstones().size(), 1U);
  ASSERT_EQ(w_.store->Roster().size(), 1U);
  EXPECT_EQ(w_.store->Roster()[0].mount_name(), "store-2");
  storage::v1::Tombstone other = t;
  other.mutable_generation()->set_n(3);
  ASSERT_OK(w_.store->DropTombstones({other}));
  ASSERT_EQ(w_.store->Tombstones().size(), 1U);
  ASSERT_OK(w_.store->DropTombstones({t}));
  EXPECT_TRUE(w_.store->Tombstones().empty());
  EXPECT_EQ(w_.store->Roster().size(), 1U);
}

TEST_F(StoreTest, TheLabelIsClaimedOnceAndWatched) {
  const std::string cluster = TestId(50).bytes();
  ASSERT_OK(w_.store->ClaimLabel(cluster));
  ASSERT_OK(w_.store->ClaimLabel(cluster));
  EXPECT_THAT(w_.store->ClaimLabel(TestId(51).bytes()),
              HasReason(reason::kClusterMismatch));
  ASSERT_OK(w_.store->CheckIdentity());
  ASSERT_OK(w_.Open());
  EXPECT_EQ(w_.store->label().cluster_uid(), cluster);
  World other;
  ASSERT_OK(other.Init());
  ASSERT_OK(w_.mem.Unlink(layout::kLabel));
  EXPECT_THAT(w_.store->CheckIdentity(),
              HasReason(reason::kMountIdentityMismatch));
  other.ids.RandomBytes(5);
  ASSERT_OK(w_.mem.PutFile(layout::kLabel, "not a label"));
  EXPECT_THAT(w_.store->CheckIdentity(),
              HasReason(reason::kMountIdentityMismatch));
  Fault fault;
  fault.status =
      MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed, "EIO");
  w_.fault.Inject(fault);
  EXPECT_THAT(w_.store->CheckIdentity(), HasReason(reason::kMountFailed));
}

TEST_F(StoreTest, AFileOfOursThatIsRemovedIsMissed) {
  for (const absl::string_view path :
       {layout::kTombstones, layout::kFence, layout::kLock}) {
    for (const bool put_back : {false, true}) {
      World w;
      ASSERT_OK(w.Init());
      ASSERT_OK(w.Open());
      ASSERT_OK(w.store->CheckIdentity());
      ASSERT_OK(w.mem.Unlink(path));
      if (put_back) {
        ASSERT_OK(w.mem.PutFile(path, ""));
      }
      const absl::Status checked = w.store->CheckIdentity();
      EXPECT_THAT(checked, HasReason(reason::kMountIdentityMismatch));
      EXPECT_THAT(std::string(checked.message()),
                  AllOf(HasSubstr(std::string(path)),
                        HasSubstr(put_back ? "another file" : "was removed")));
    }
  }
}

// What it says is not known, and it may be readable again later.
TEST_F(StoreTest, NothingIsRemovedForSureWhileItsRecordMayNotBeRead) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  Fault fault;
  fault.path = layout::RecordPath(spec_.image_id);
  fault.forever = true;
  fault.status = ErrnoStatus(EACCES, "look at it");
  w_.fault.Inject(fault);
  const absl::Status refused =
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id)
          .status();
  EXPECT_THAT(refused, HasReason(reason::kMountPermission));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("EACCES"));
  w_.fault.Reset();
  ASSERT_OK_AND_ASSIGN(
      const auto outcome,
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id));
  EXPECT_TRUE(outcome.removed);
}

TEST_F(StoreTest, NorWhileItsDirectoryOfRecordsIsAway) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  const std::string shard = layout::ShardPathOf(spec_.image_id);
  Fault fault;  // of all that begins so
  fault.path = shard;
  fault.forever = true;
  fault.status = ErrnoStatus(ENOENT, "look at it");
  w_.fault.Inject(fault);
  EXPECT_THAT(
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id),
      HasReason(reason::kMountIdentityMismatch));
  // And it is noticed without anybody who asks for it.
  absl::Status checked;
  for (int i = 0; i < 32 && checked.ok(); ++i) {
    checked = w_.store->CheckIdentity();
  }
  EXPECT_THAT(checked, HasReason(reason::kMountIdentityMismatch));
  EXPECT_THAT(std::string(checked.message()), HasSubstr(shard));
}

TEST_F(StoreTest, SoIsWhatNobodyKeepsOpen) {
  ASSERT_OK(w_.mem.Unlink(layout::kProbe));
  const absl::Status checked = w_.store->CheckIdentity();
  EXPECT_THAT(checked, HasReason(reason::kMountIdentityMismatch));
  EXPECT_THAT(std::string(checked.message()),
              HasSubstr(std::string(layout::kProbe)));
  EXPECT_THAT(w_.Open(), HasReason(reason::kMountIdentityMismatch));
  ASSERT_OK(w_.mem.PutFile(layout::kProbe, ""));
  EXPECT_OK(w_.Open());
}

// Before anybody looked: what went to a file without a name is nowhere.
TEST_F(StoreTest, NothingIsStoredInAFileThatWasRemoved) {
  storage::v1::Tombstone t;
  t.set_image_id(TestId(7).bytes());
  *t.mutable_generation() = Generation{1, 2, 3}.ToProto();
  ASSERT_OK(w_.mem.Unlink(layout::kTombstones));
  EXPECT_THAT(w_.store->StoreTombstone(t),
              HasReason(reason::kMountIdentityMismatch));
  EXPECT_FALSE(w_.store->StoreTombstone(t).ok()) << "it is not there for that";
  EXPECT_TRUE(w_.store->Tombstones().empty());
  ASSERT_OK(w_.store->Hear(Generation{1, 5, 9}));
  ASSERT_OK(w_.mem.Unlink(layout::kFence));
  EXPECT_THAT(w_.store->SyncFence(), HasReason(reason::kMountIdentityMismatch));
}

// Its blocks are whole; a scrub calls it damaged.
TEST_F(StoreTest, AFileLongerThanItsRecordIsNotRead) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  const std::string path = layout::ImagePath(spec_.image_id);
  ASSERT_OK(w_.mem.PutFile(path, bytes_ + "x"));
  const absl::Status read =
      w_.store->OpenImage(spec_.image_id, spec_.generation).status();
  EXPECT_THAT(read, AllOf(StatusIs(absl::StatusCode::kDataLoss),
                          HasReason(reason::kChecksumMismatch)));
  EXPECT_THAT(std::string(read.message()),
              AllOf(HasSubstr(absl::StrCat(bytes_.size())),
                    HasSubstr(absl::StrCat(bytes_.size() + 1))));
  ASSERT_OK(w_.mem.PutFile(path, bytes_));
  EXPECT_EQ(*ReadAll(w_.store.get(), spec_), bytes_);
}

TEST_F(StoreTest, WhatMayNotBeReadIsSaidWithItsErrno) {
  ASSERT_OK(Upload(w_.store.get(), spec_, bytes_));
  const std::string paths[] = {layout::ImagePath(spec_.image_id),
                               layout::RecordPath(spec_.image_id)};
  for (const std::string& path : paths) {
    Fault fault;
    fault.path = path;
    fault.forever = true;
    fault.status = ErrnoStatus(EACCES, "look at it");
    w_.fault.Inject(fault);
    const absl::Status read =
        w_.store->OpenImage(spec_.image_id, spec_.generation).status();
    EXPECT_THAT(read, AllOf(StatusIs(absl::StatusCode::kDataLoss),
                            HasReason(reason::kMountPermission)));
    EXPECT_THAT(std::string(read.message()), HasSubstr("EACCES"));
    const absl::Status check = w_.store->OpenCheck(spec_.image_id).status();
    EXPECT_THAT(check, StatusIs(absl::StatusCode::kDataLoss));
    EXPECT_THAT(std::string(check.message()), HasSubstr("EACCES"));
    EXPECT_EQ(MetadataOf(check)["bytes"], kBytesAsWritten);
    // Nor is it said to be without a record.
    std::vector<ListEntry> entries;
    ASSERT_OK(w_.store->List(
        [&](const ListEntry& entry) { entries.push_back(entry); }));
    ASSERT_FALSE(entries.empty());
    EXPECT_EQ(entries[0].kind, ListEntry::Kind::kForeign);
    EXPECT_THAT(entries[0].read_error, HasSubstr("EACCES: "));
  }
  w_.fault.Reset();
  // It may be looked at, and its mode says that it may not be opened: seen
  // without opening it, and removed all the same.
  {
    ASSERT_OK_AND_ASSIGN(const auto file,
                         w_.mem.Open(paths[0], OpenMode::kReadWrite));
    ASSERT_OK(file->SetOwnership(0, std::nullopt));
    const absl::Status check = w_.store->OpenCheck(spec_.image_id).status();
    EXPECT_THAT(check, HasReason(reason::kReplicaMissing));
    EXPECT_EQ(MetadataOf(check)["bytes"], kBytesAsWritten);
    const std::vector<ListEntry> entries = ListAll(w_.store.get());
    ASSERT_EQ(entries.size(), 1);
    EXPECT_EQ(entries[0].kind, ListEntry::Kind::kForeign);
    EXPECT_FALSE(entries[0].image.has_value());
    EXPECT_EQ(entries[0].size_bytes, static_cast<int64_t>(bytes_.size()));
    EXPECT_THAT(entries[0].read_error, HasSubstr("EACCES: "));
    ASSERT_OK(file->SetOwnership(0600, std::nullopt));
    EXPECT_EQ(ListAll(w_.store.get())[0].kind, ListEntry::Kind::kImage);
    ASSERT_OK(file->SetOwnership(0, std::nullopt));
  }
  Fault fault;
  fault.op = "open";
  fault.path = paths[0];
  fault.status = ErrnoStatus(EACCES, "open it");
  w_.fault.Inject(fault);
  EXPECT_THAT(w_.store->OpenImage(spec_.image_id, spec_.generation),
              AllOf(StatusIs(absl::StatusCode::kDataLoss),
                    HasReason(reason::kMountPermission)));
  ASSERT_OK_AND_ASSIGN(
      const auto outcome,
      w_.store->Remove(spec_.image_id, spec_.generation, spec_.upload_id));
  EXPECT_TRUE(outcome.removed);
}

TEST_F(StoreTest, TheProbeSeesAReadThatIsNotWhatWasWritten) {
  EXPECT_TRUE(w_.store->Probe().ok());
  w_.mem.FailNextDatasync("probe");
  const ProbeOutcome failed = w_.store->Probe();
  EXPECT_THAT(failed.write, HasReason(reason::kMountFailed));
  EXPECT_OK(failed.read);
  w_.fault.Skip("pwrite");
  const ProbeOutcome forgot = w_.store->Probe();
  EXPECT_OK(forgot.write);
  EXPECT_THAT(forgot.read, HasReason(reason::kChecksumMismatch));
}

TEST_F(StoreTest, PublishAndRemovalOfOneIdExcludeEachOther) {
  constexpr int kRounds = 40;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < kRounds; ++i) {
        const UploadSpec spec = SpecOf(
            1, static_cast<uint64_t>(t) * kRounds + static_cast<uint64_t>(i),
            t * kRounds + i + 1);
        const auto published = Upload(w_.store.get(), spec, "bytes");
        if (published.ok()) {
          EXPECT_TRUE(
              w_.store->Remove(spec.image_id, spec.generation, spec.upload_id)
                  ->removed);
        } else {
          EXPECT_THAT(published, HasReason(reason::kNameTaken));
          EXPECT_OK(w_.store->Discard(spec.upload_id));
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_TRUE(ListAll(w_.store.get()).empty());
  EXPECT_EQ(w_.store->image_count(), 0);
}

}  // namespace
}  // namespace predella::agent
