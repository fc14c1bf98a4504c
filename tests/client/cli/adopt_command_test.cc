// `orphan adopt --read`: what a file holds, and what it should hold.
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/mocks/mock_connection.h"
#include "common/errors.h"
#include "tests/client/cli/command_fixture.h"

namespace predella::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Invoke;
using ::testing::Return;

constexpr char kAdoptImage[] = "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0";
constexpr char kMd5OfAbc[] = "900150983cd24fb0d6963f7d28e17f72";

class AdoptCommandTest : public CommandFixture {
 protected:
  AdoptCommandTest()
      : CommandFixture({"orphan", "adopt", "store-1", kAdoptImage}),
        path_(absl::StrCat(::testing::TempDir(), "/", kAdoptImage)) {
    std::ofstream(path_) << "abc";
  }
  ~AdoptCommandTest() override { std::remove(path_.c_str()); }
  int Adopt(const std::vector<std::string>& more) {
    std::vector<const char*> arguments;
    arguments.reserve(more.size());
    for (const std::string& one : more) {
      arguments.push_back(one.c_str());
    }
    return Run(arguments);
  }

  const std::string path_;
};

TEST_F(AdoptCommandTest, SaysWhatTheFileHolds) {
  EXPECT_CALL(*connection_, ListOrphans).Times(0);
  EXPECT_CALL(*connection_, AdoptOrphan)
      .WillOnce(Invoke([&](const v1::AdoptOrphanRequest& request) {
        EXPECT_EQ(request.generation(), "");
        EXPECT_EQ(request.plain().size_bytes(), 3);
        EXPECT_EQ(request.plain().crc32c_hex(), "364b3fb7");
        EXPECT_EQ(request.plain().hashes_size(), 3);
        EXPECT_EQ(request.plain().hashes(0).algorithm(), "md5");
        EXPECT_EQ(request.plain().hashes(0).hex(), kMd5OfAbc);
        EXPECT_EQ(request.plain().hashes(2).algorithm(), "sha256");
        return v1::Orphan();
      }));
  EXPECT_EQ(
      Adopt(
          {"--read", path_, "--size", "3", "--hash",
           absl::StrCat("MD5:", kMd5OfAbc), "--hash",
           "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f200"
           "15ad"}),
      kExitDone)
      << err_.str();
}

TEST_F(AdoptCommandTest, AFileThatIsNotAsExpectedIsNotSpokenOf) {
  EXPECT_CALL(*connection_, AdoptOrphan).Times(0);
  EXPECT_EQ(Adopt({"--read", path_, "--size", "4"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("size 3, and not 4"));
  const std::string other(32, '0');
  EXPECT_EQ(Adopt({"--read", path_, "--hash", absl::StrCat("md5:", other)}),
            kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr(kMd5OfAbc));
  for (const std::string bad : {"md5", "md5:00", "md6:00", "sha512:zz"}) {
    EXPECT_EQ(Adopt({"--read", path_, "--hash", bad}), kExitUsage) << bad;
  }
  EXPECT_EQ(Adopt({"--read", ::testing::TempDir()}), kExitUsage);
  EXPECT_EQ(Adopt({"--read", path_ + ".no"}), kExitUsage);
  EXPECT_EQ(Adopt({"--size", "3"}), kExitUsage) << "without a file to read";
}

// An earlier try came as far as the record, and not to the index.
TEST_F(AdoptCommandTest, OneThatHasItsRecordByNowIsTakenByThat) {
  v1::ListOrphansResponse listed;
  v1::Orphan* const orphan = listed.add_orphans();
  orphan->set_mount("mounts/store-1");
  orphan->set_image(absl::StrCat("images/", kAdoptImage));
  orphan->set_generation("7-20-00000003");
  EXPECT_CALL(*connection_, ListOrphans).WillRepeatedly(Return(listed));
  EXPECT_CALL(*connection_, AdoptOrphan)
      .WillOnce(Return(MakeError(absl::StatusCode::kAborted,
                                 reason::kGenerationMismatch, "it has one")))
      .WillOnce(Invoke([&](const v1::AdoptOrphanRequest& request) {
        EXPECT_EQ(request.generation(), "7-20-00000003");
        EXPECT_FALSE(request.has_plain());
        return *orphan;
      }));
  EXPECT_EQ(Adopt({"--read", path_}), kExitDone) << err_.str();
}

}  // namespace
}  // namespace predella::cli
