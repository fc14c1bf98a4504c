#include "common/listing_digest.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "common/ids.h"
#include "tests/testing/fake_ids.h"

namespace predella {
namespace {

control::v1::InventoryEntry Entry() {
  control::v1::InventoryEntry entry;
  entry.set_image_id(std::string("0123456789abcdef"));
  entry.set_named(true);
  entry.set_size_bytes(4096);
  storage::v1::ReplicaRecord* const record = entry.mutable_record();
  record->set_image_id(entry.image_id());
  record->mutable_generation()->set_epoch(7);
  record->mutable_generation()->set_n(20);
  record->mutable_generation()->set_nonce(3);
  record->set_size_bytes(4096);
  record->set_crc32c(0x1234abcd);
  return entry;
}

std::string SumOf(const std::vector<control::v1::InventoryEntry>& entries) {
  ListingSum sum;
  for (const control::v1::InventoryEntry& entry : entries) {
    sum.Add(entry);
  }
  EXPECT_TRUE(sum.Matches(sum.ToProto()));
  EXPECT_EQ(sum.ToProto().digest().size(), 16u);
  return sum.ToProto().digest();
}

// Agents and coordinators of other versions make the same one: checked against
// Python's hashlib.
TEST(ListingDigestTest, IsWhatItWas) {
  EXPECT_EQ(ToHex(SumOf({})), std::string(32, '0'));
  EXPECT_EQ(ToHex(SumOf({Entry()})), "183eafb0737da8b7f89851e46e28634f");
  control::v1::InventoryEntry foreign;
  foreign.set_image_id(std::string(16, '\xff'));
  foreign.set_named(true);
  foreign.set_size_bytes(-1);
  EXPECT_EQ(ToHex(SumOf({Entry(), foreign, Entry()})),
            "a8314283027e170533f125c8879b9bb3");
}

TEST(ListingDigestTest, AnyOrderIsTheSameAndCountsMatter) {
  testing::FakeIds ids;
  std::vector<control::v1::InventoryEntry> entries;
  for (int i = 0; i < 50; ++i) {
    entries.push_back(Entry());
    entries.back().set_image_id(ids.NextUuid().bytes());
  }
  const std::string sum = SumOf(entries);
  std::reverse(entries.begin(), entries.end());
  EXPECT_EQ(SumOf(entries), sum);
  std::rotate(entries.begin(), entries.begin() + 17, entries.end());
  EXPECT_EQ(SumOf(entries), sum);
  entries.push_back(entries[3]);
  const std::string twice = SumOf(entries);
  EXPECT_NE(twice, sum) << "one that comes twice is not one, nor none";
  entries.push_back(entries[3]);
  EXPECT_NE(SumOf(entries), sum);
  EXPECT_NE(SumOf(entries), twice);
}

TEST(ListingDigestTest, EveryFieldThatIsJudgedChangesIt) {
  const std::vector<std::function<void(control::v1::InventoryEntry*)>> changes =
      {
          [](auto* e) { e->mutable_image_id()->back() = 'g'; },
          [](auto* e) { e->set_size_bytes(4097); },
          [](auto* e) { e->clear_record(); },
          [](auto* e) {
            e->mutable_record()->mutable_image_id()->back() = 'g';
          },
          [](auto* e) {
            e->mutable_record()->mutable_generation()->set_epoch(8);
          },
          [](auto* e) { e->mutable_record()->mutable_generation()->set_n(21); },
          [](auto* e) {
            e->mutable_record()->mutable_generation()->set_nonce(4);
          },
          [](auto* e) { e->mutable_record()->set_size_bytes(4097); },
          [](auto* e) { e->mutable_record()->set_crc32c(0x1234abce); },
          // What is one thing's in one field and the other's in the next.
          [](auto* e) { e->set_image_id(e->image_id().substr(1)); },
          [](auto* e) { e->set_image_id(""); },
      };
  std::set<std::string> seen = {SumOf({Entry()})};
  for (size_t i = 0; i < changes.size(); ++i) {
    control::v1::InventoryEntry entry = Entry();
    changes[i](&entry);
    EXPECT_TRUE(seen.insert(SumOf({entry})).second) << "change " << i;
  }
}

TEST(ListingDigestTest, GarbageIsNoPartOfIt) {
  control::v1::InventoryEntry unnamed = Entry();
  unnamed.set_named(false);
  EXPECT_EQ(SumOf({Entry(), unnamed}), SumOf({Entry()}));
}

TEST(ListingDigestTest, AnotherCountOrALengthThatIsNoneMatchesNothing) {
  ListingSum sum;
  sum.Add(Entry());
  control::v1::ListingDigest digest = sum.ToProto();
  EXPECT_EQ(digest.images(), 1);
  EXPECT_TRUE(sum.Matches(digest));
  digest.set_images(2);
  EXPECT_FALSE(sum.Matches(digest));
  digest = sum.ToProto();
  digest.mutable_digest()->pop_back();
  EXPECT_FALSE(sum.Matches(digest));
  EXPECT_FALSE(ListingSum().Matches(control::v1::ListingDigest()))
      << "an empty mount has a digest too";
  EXPECT_TRUE(ListingSum().Matches(ListingSum().ToProto()));
}

}  // namespace
}  // namespace predella
