// `predella index check`.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/context.h"
#include "client/cli/exit_code.h"
#include "client/mocks/mock_connection.h"
#include "tests/client/cli/command_fixture.h"

namespace predella::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Return;

class IndexCheckCommandTest : public CommandFixture {
 protected:
  IndexCheckCommandTest() : CommandFixture({"index", "check"}) {}
  static v1::CheckIndexResponse Found() {
    v1::CheckIndexResponse page;
    v1::IndexFinding* finding = page.add_findings();
    finding->set_finding_class(v1::FINDING_CLASS_FATAL);
    finding->set_code("COPY_MISSING");
    finding->set_mount("mounts/m-01");
    finding->set_image("images/11111111-1111-4111-8111-111111111111");
    finding->set_detail("no file\x1b[31m");
    finding->set_next_step("put it back");
    finding = page.add_findings();
    finding->set_finding_class(v1::FINDING_CLASS_ERROR_REPAIRABLE);
    finding->set_code("ROW_X");
    finding->set_row("image/\\x11");
    page.set_row_count(7);
    page.add_compared("mounts/m-01");
    return page;
  }
};

TEST_F(IndexCheckCommandTest, CleanIsExitCodeZero) {
  EXPECT_CALL(*connection_, CheckIndex)
      .WillOnce([](const v1::CheckIndexRequest& request) {
        EXPECT_TRUE(request.index_only());
        EXPECT_EQ(request.page_token(), "");
        v1::CheckIndexResponse page;
        page.set_row_count(3);
        page.set_next_page_token("more");
        return page;
      })
      .WillOnce([](const v1::CheckIndexRequest& request) {
        EXPECT_EQ(request.page_token(), "more");
        return v1::CheckIndexResponse();
      });
  EXPECT_EQ(Run({"--index-only"}), kExitDone);
  EXPECT_EQ(out_.str(),
            "0 findings: 0 fatal (0 repairable), 0 others (0 repairable); 3 "
            "rows read, no mount was listed\n");
}

TEST_F(IndexCheckCommandTest, FindingsAreExitCodeSix) {
  ON_CALL(*connection_, CheckIndex).WillByDefault(Return(Found()));
  EXPECT_EQ(Run({}), kExitUnhealthy);
  EXPECT_THAT(out_.str(), HasSubstr("FATAL    no      COPY_MISSING "));
  EXPECT_THAT(out_.str(),
              HasSubstr("m-01/11111111-1111-4111-8111-111111111111"));
  EXPECT_THAT(out_.str(), HasSubstr("no file\\x1b[31m"));
  EXPECT_THAT(out_.str(), HasSubstr("ERROR    yes     ROW_X "));
  EXPECT_THAT(out_.str(), HasSubstr("next (COPY_MISSING): put it back\n"));
  EXPECT_THAT(out_.str(),
              HasSubstr("2 findings: 1 fatal (0 repairable), 1 others (1 "
                        "repairable); 7 rows read, compared with m-01\n"));
}

TEST_F(IndexCheckCommandTest, JsonIsOneFindingALine) {
  ON_CALL(*connection_, CheckIndex).WillByDefault(Return(Found()));
  EXPECT_EQ(Run({"-o", "json"}), kExitUnhealthy);
  EXPECT_THAT(out_.str(), HasSubstr("\"code\":\"COPY_MISSING\""));
  EXPECT_THAT(
      out_.str(),
      HasSubstr("{\"summary\":{\"findings\":2,\"fatal\":1,\"fatalRepairable\":"
                "0,\"error\":0,\"errorRepairable\":1,\"rows\":7,\"indexOnly\":"
                "false,\"compared\":[\"m-01\"]}}\n"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("next (")));
}

TEST_F(IndexCheckCommandTest, WhatIsAwaitedIsSaid) {
  v1::CheckIndexResponse waits;
  waits.add_awaited("mounts/m-02");
  waits.set_next_page_token("later");
  EXPECT_CALL(*connection_, CheckIndex)
      .WillOnce(Return(waits))
      .WillOnce(Return(v1::CheckIndexResponse()));
  EXPECT_EQ(Run({}), kExitDone);
  EXPECT_THAT(err_.str(), HasSubstr("being listed: m-02\n"));
  EXPECT_THAT(out_.str(), HasSubstr("no mount could be compared"));
}

TEST_F(IndexCheckCommandTest, ACheckThatBreaksOffIsNoCleanOne) {
  v1::CheckIndexResponse page;
  page.set_next_page_token("more");
  EXPECT_CALL(*connection_, CheckIndex)
      .WillOnce(Return(page))
      .WillOnce(Return(absl::UnavailableError("gone")));
  EXPECT_EQ(Run({}), kExitUnavailable);
}

}  // namespace
}  // namespace predella::cli
