// The frames on disk: what was written comes back, and no byte of it can
// change unseen.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/store/fence_file.h"
#include "agent/store/image_store.h"
#include "agent/store/label.h"
#include "agent/store/layout.h"
#include "agent/store/record_codec.h"
#include "agent/store/slot_file.h"
#include "agent/store/state_codec.h"
#include "common/errors.h"
#include "common/generation.h"
#include "tests/agent/store/store_world.h"
#include "tests/testing/matchers.h"
#include "tests/testing/mem_file_system.h"

namespace predella::agent {
namespace {

using ::testing::ElementsAre;
using testing::HasReason;
using testing::IsOk;
using testing::MemFileSystem;
using testing::StatusIs;

// `step` keeps large frames affordable; edges are always tried.
void ExpectEveryByteCounts(const std::string& good, size_t step,
                           const std::function<bool(absl::string_view)>& ok) {
  ASSERT_TRUE(ok(good));
  for (size_t i = 0; i < good.size(); i += i < 600 ? 1 : step) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    EXPECT_FALSE(ok(bad)) << "byte " << i;
  }
  for (const size_t size :
       {size_t{0}, size_t{1}, size_t{11}, good.size() / 2, good.size() - 1}) {
    EXPECT_FALSE(ok(good.substr(0, size))) << "cut to " << size;
  }
}

storage::v1::MountLabel SampleLabel() {
  storage::v1::MountLabel label;
  label.set_format_version(layout::kFormatVersion);
  label.set_mount_uid(TestId(1).bytes());
  label.set_cluster_uid(TestId(2).bytes());
  label.set_mount_name("store-1");
  label.set_create_time_us(12345);
  return label;
}

TEST(LabelTest, EveryByteCounts) {
  ExpectEveryByteCounts(EncodeLabel(SampleLabel()), 1, [](absl::string_view b) {
    return DecodeLabel(b).ok();
  });
}

TEST(LabelTest, AnotherVersionIsRefusedWithItsNumber) {
  auto label = SampleLabel();
  label.set_format_version(2);
  const auto decoded = DecodeLabel(EncodeLabel(label));
  EXPECT_THAT(decoded, HasReason(reason::kMountIdentityMismatch));
  EXPECT_THAT(std::string(decoded.status().message()),
              ::testing::HasSubstr("version 2"));
}

storage::v1::ReplicaRecord SampleRecord() {
  storage::v1::ReplicaRecord record;
  record.set_image_id(TestId(1).bytes());
  *record.mutable_generation() = Generation{3, 9, 77}.ToProto();
  record.set_upload_id(TestId(2).bytes());
  record.set_size_bytes(3 * kBlockBytes - 5);
  record.set_crc32c(0xdeadbeef);
  record.set_table_block_bytes(kBlockBytes);
  auto* const hash = record.add_hashes();
  hash->set_algorithm("sha512");
  hash->set_value(std::string(64, 'x'));
  record.mutable_decision()->set_winner("store-1");
  return record;
}

TEST(RecordTest, EveryByteOfHeaderAndTableCounts) {
  const std::vector<uint32_t> table = {1, 0xffffffff, 7};
  ASSERT_OK_AND_ASSIGN(const std::string good,
                       EncodeRecord(SampleRecord(), table));
  EXPECT_EQ(static_cast<int64_t>(good.size()), RecordBytes(3));
  ASSERT_OK_AND_ASSIGN(const auto header, DecodeRecordHeader(good));
  EXPECT_EQ(header.SerializeAsString(), SampleRecord().SerializeAsString());
  EXPECT_THAT(*DecodeRecordTable(good.substr(kRecordHeaderBytes), 3),
              ElementsAre(1, 0xffffffff, 7));
  ExpectEveryByteCounts(good, 13, [](absl::string_view b) {
    return DecodeRecordHeader(b).ok() && b.size() > kRecordHeaderBytes &&
           DecodeRecordTable(b.substr(kRecordHeaderBytes), 3).ok();
  });
  EXPECT_FALSE(DecodeRecordTable(good.substr(kRecordHeaderBytes), 2).ok());
}

TEST(RecordTest, ALongDecisionIsShortenedAndLongHashesAreRefused) {
  auto record = SampleRecord();
  for (int i = 0; i < 200; ++i) {
    auto* const verdict = record.mutable_decision()->add_verdicts();
    verdict->set_mount_name(absl::StrCat("a-rather-long-mount-name-", i));
    verdict->set_reason("NEAR_FULL");
  }
  ASSERT_OK_AND_ASSIGN(const std::string bytes, EncodeRecord(record, {}));
  ASSERT_OK_AND_ASSIGN(const auto header, DecodeRecordHeader(bytes));
  EXPECT_EQ(header.decision().winner(), "store-1");
  EXPECT_GT(header.decision().verdicts_size(), 10);
  EXPECT_LT(header.decision().verdicts_size(), 200);

  record.mutable_hashes(0)->set_value(std::string(5000, 'x'));
  EXPECT_THAT(EncodeRecord(record, {}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(StateTest, EveryByteCountsAndLengthsMustFit) {
  storage::v1::InflightState state;
  state.set_upload_id(TestId(1).bytes());
  state.set_tail_start(2 * kBlockBytes);
  state.set_tail_bytes(kBlockBytes + 1);
  state.set_prefix_bytes(5);
  for (uint32_t i = 0; i < 4; ++i) {
    state.add_crc_table(i * 1000);
  }
  ExpectEveryByteCounts(EncodeState(state), 1, [](absl::string_view b) {
    return DecodeState(b).ok();
  });
  state.set_tail_bytes(2 * kBlockBytes + 1);  // a block without checksum
  EXPECT_THAT(DecodeState(EncodeState(state)),
              HasReason(reason::kChecksumMismatch));
  state.set_tail_bytes(0);
  state.set_prefix_bytes(3 * kBlockBytes);  // beyond the tail's start
  EXPECT_FALSE(DecodeState(EncodeState(state)).ok());
}

TEST(SlotTest, EveryByteCounts) {
  ExpectEveryByteCounts(
      EncodeSlot(7, "some content"), 1,
      [](absl::string_view b) { return DecodeSlot(b).has_value(); });
}

TEST(SlotFileTest, ATornSlotLeavesTheOneBefore) {
  MemFileSystem mem;
  ASSERT_OK(mem.PutFile("slots", std::string(2 * 4096, '\0')));
  ASSERT_OK_AND_ASSIGN(auto file, SlotFile::Open(&mem, "slots", 2, 4096));
  EXPECT_TRUE(file->empty());
  for (const char* content : {"one", "two", "three"}) {
    ASSERT_OK(file->Write(content));
    ASSERT_OK(file->Sync());
  }
  // The third lies in the first slot again.
  ASSERT_OK(mem.FlipByte("slots", kSlotHeaderBytes + 2));
  ASSERT_OK_AND_ASSIGN(file, SlotFile::Open(&mem, "slots", 2, 4096));
  EXPECT_EQ(file->content(), "two");
  ASSERT_OK(file->Write("four"));
  ASSERT_OK_AND_ASSIGN(file, SlotFile::Open(&mem, "slots", 2, 4096));
  EXPECT_EQ(file->content(), "four");
}

TEST(SlotFileTest, NeverOverwritesWhatIsSyncedOrWhatWasWrittenLast) {
  MemFileSystem mem;
  ASSERT_OK(mem.PutFile("slots", std::string(3 * 4096, '\0')));
  ASSERT_OK_AND_ASSIGN(auto file, SlotFile::Open(&mem, "slots", 3, 4096));
  ASSERT_OK(file->Write("synced"));
  ASSERT_OK(file->Sync());
  for (int i = 0; i < 7; ++i) {
    ASSERT_OK(file->Write(absl::StrCat("later ", i)));
    ASSERT_OK_AND_ASSIGN(const std::string all, mem.GetFile("slots"));
    EXPECT_THAT(all, ::testing::HasSubstr("synced"));
    EXPECT_THAT(all, ::testing::HasSubstr(absl::StrCat("later ", i)));
    if (i > 0) {
      EXPECT_THAT(all, ::testing::HasSubstr(absl::StrCat("later ", i - 1)));
    }
  }
}

TEST(SlotFileTest, AFailedSyncIsNotRetriedOnTheCache) {
  MemFileSystem mem;
  ASSERT_OK(mem.PutFile("slots", std::string(2 * 4096, '\0')));
  ASSERT_OK_AND_ASSIGN(auto file, SlotFile::Open(&mem, "slots", 2, 4096));
  ASSERT_OK(file->Write("one"));
  ASSERT_OK(file->Sync());
  mem.FailNextDatasync("slots");
  ASSERT_OK(file->Write("two"));
  EXPECT_FALSE(file->Sync().ok());
  EXPECT_FALSE(file->Sync().ok());
  // The cache shows "two"; another process must not believe it.
  ASSERT_OK_AND_ASSIGN(auto other, SlotFile::Open(&mem, "slots", 2, 4096));
  EXPECT_EQ(other->content(), "one");
  // And this one recovers with what is to be kept next.
  ASSERT_OK(file->Write("three"));
  ASSERT_OK(file->Sync());
  mem.Crash(MemFileSystem::Keep::kNothing);
  ASSERT_OK_AND_ASSIGN(other, SlotFile::Open(&mem, "slots", 2, 4096));
  EXPECT_EQ(other->content(), "three");
}

TEST(SlotFileTest, TooMuchIsFullWithTheNumbers) {
  MemFileSystem mem;
  ASSERT_OK(mem.PutFile("slots", std::string(2 * 4096, '\0')));
  ASSERT_OK_AND_ASSIGN(auto file, SlotFile::Open(&mem, "slots", 2, 4096));
  EXPECT_THAT(file->Write(std::string(4096, 'x')),
              HasReason(reason::kMountFull));
  EXPECT_THAT(file->Write(std::string(4096 - kSlotHeaderBytes, 'x')), IsOk());
}

TEST(LayoutTest, TheZerosAreFourMebibytesAndIdsAreNames) {
  EXPECT_EQ(layout::kFenceSlots * layout::kFenceSlotBytes +
                layout::kProbeBytes +
                layout::kTombstoneSlots * layout::kTombstoneSlotBytes,
            int64_t{4} << 20);
  EXPECT_EQ(layout::ShardPath(0x0a), ".predella/records/0a");
  EXPECT_FALSE(layout::IdOfName("../etc").has_value());
  EXPECT_FALSE(
      layout::IdOfName("00000000-0000-0000-0000-000000000000").has_value());
  EXPECT_TRUE(layout::IdOfName(TestId(4).ToString()).has_value());
}

TEST(PairTableTest, KeepsTheHighestPerEpochAndNonce) {
  PairTable table;
  EXPECT_TRUE(table.Raise({1, 5, 9}));
  EXPECT_FALSE(table.Raise({1, 4, 9}));
  EXPECT_TRUE(table.Raise({1, 4, 10}));
  EXPECT_FALSE(table.Raise(Generation()));
  EXPECT_EQ(table.Entries().size(), 2U);
}

}  // namespace
}  // namespace predella::agent
