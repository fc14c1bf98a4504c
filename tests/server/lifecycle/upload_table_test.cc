#include "server/lifecycle/upload_table.h"

#include <algorithm>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/generation.h"
#include "tests/testing/fake_ids.h"

namespace predella::testing {
namespace {

using ::predella::server::UploadEntry;
using ::predella::server::UploadTable;
using ::testing::UnorderedElementsAreArray;

std::vector<Uuid> IdsOf(const std::vector<UploadEntry>& entries) {
  std::vector<Uuid> ids;
  ids.reserve(entries.size());
  for (const UploadEntry& entry : entries) {
    ids.push_back(Uuid::FromBytesOrNone(entry.row.upload_id()));
  }
  return ids;
}

// What is found by mount and by being open is what a look at every row finds.
TEST(UploadTableTest, ListsAgreeWithTheRows) {
  std::mt19937 random(11);
  FakeIds ids;
  std::vector<Uuid> mounts(3);
  std::generate(mounts.begin(), mounts.end(), [&] { return ids.NextUuid(); });
  std::vector<Uuid> uploads(12);
  std::generate(uploads.begin(), uploads.end(), [&] { return ids.NextUuid(); });
  UploadTable table;
  for (int64_t step = 1; step <= 3000; ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    const Uuid& id = uploads[random() % uploads.size()];
    if (random() % 10 == 0) {
      table.Erase(id);
    } else {
      storage::v1::UploadRow row;
      row.set_upload_id(id.bytes());
      row.set_image_id(id.bytes());
      row.set_outcome(static_cast<storage::v1::UploadOutcome>(random() % 6));
      for (unsigned i = random() % 3; i > 0; --i) {
        storage::v1::UploadTargetRow* const target = row.add_targets();
        target->set_mount_uid(mounts[random() % mounts.size()].bytes());
        target->set_clean(random() % 2 == 0);
      }
      // Now and then one that was overtaken.
      const int64_t n = random() % 5 == 0 ? step / 2 : step;
      table.Put(row, Generation{1, n, 7}, absl::ZeroDuration());
    }
    std::vector<Uuid> open;
    std::vector<std::vector<Uuid>> left(mounts.size());
    for (const Uuid& upload : uploads) {
      const auto entry = table.Find(upload);
      if (!entry.has_value()) {
        continue;
      }
      if (entry->open()) {
        open.push_back(upload);
      }
      for (size_t m = 0; m < mounts.size(); ++m) {
        if (entry->LeftoverOn(mounts[m])) {
          left[m].push_back(upload);
        }
      }
    }
    ASSERT_EQ(table.open_count(), static_cast<int64_t>(open.size()));
    ASSERT_THAT(
        IdsOf(table.SelectOpen([](const UploadEntry&) { return true; })),
        UnorderedElementsAreArray(open));
    for (size_t m = 0; m < mounts.size(); ++m) {
      ASSERT_THAT(IdsOf(table.LeftoversOn(mounts[m])),
                  UnorderedElementsAreArray(left[m]));
    }
  }
}

}  // namespace
}  // namespace predella::testing
