#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "server/index/placement_index.h"
#include "tests/server/index/index_test_rows.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

class PosixEpochFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "predella-epoch-XXXXXX";
    directory_ = mkdtemp(name.data());
    file_ = MakePosixEpochFile(directory_);
  }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  std::string directory_;
  std::unique_ptr<EpochFile> file_;
};

TEST_F(PosixEpochFileTest, KeepsWhatWasWrittenLast) {
  ASSERT_OK_AND_ASSIGN(const auto none, file_->Read());
  EXPECT_FALSE(none.has_value());
  storage::v1::EpochTable table;
  for (int epoch = 1; epoch <= 3; ++epoch) {
    *table.add_past() = Known(epoch, 5, 7);
    table.set_current_epoch(epoch + 1);
    ASSERT_OK(file_->Write(table));
    ASSERT_OK_AND_ASSIGN(const auto read,
                         MakePosixEpochFile(directory_)->Read());
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->SerializeAsString(), table.SerializeAsString());
  }
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/epoch.tmp"));
}

TEST_F(PosixEpochFileTest, ALeftoverOfABrokenWriteDoesNotMatter) {
  std::ofstream(directory_ + "/epoch.tmp") << "half";
  storage::v1::EpochTable table;
  table.set_current_epoch(2);
  ASSERT_OK(file_->Write(table));
  ASSERT_OK_AND_ASSIGN(const auto read, file_->Read());
  EXPECT_EQ(read->current_epoch(), 2);
}

TEST_F(PosixEpochFileTest, DamageIsNotTakenForAbsence) {
  storage::v1::EpochTable table;
  table.set_current_epoch(2);
  ASSERT_OK(file_->Write(table));
  const std::string path = directory_ + "/epoch";
  for (const auto size : {std::filesystem::file_size(path) - 1,
                          std::uintmax_t{10}, std::uintmax_t{0}}) {
    std::filesystem::resize_file(path, size);
    EXPECT_THAT(file_->Read(),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("is damaged")));
  }
}

TEST_F(PosixEpochFileTest, SaysWhyItCannotWrite) {
  const auto nowhere = MakePosixEpochFile(directory_ + "/no");
  EXPECT_THAT(nowhere->Write({}), StatusIs(absl::StatusCode::kUnavailable,
                                           HasSubstr("cannot make")));
}

}  // namespace
}  // namespace predella::server
