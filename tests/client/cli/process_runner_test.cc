// Children as serve starts them.
#include "client/cli/serve/process_runner.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/matchers.h"

namespace predella::cli {
namespace {

using ::predella::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(RunAndCaptureTest, OutputAndExitCode) {
  ASSERT_OK_AND_ASSIGN(
      const Captured run,
      RunAndCapture({"sh", "-c", "echo out; exit 3"}, absl::Seconds(30)));
  EXPECT_EQ(run.out, "out\n");
  EXPECT_EQ(run.exit_code, 3);
  EXPECT_THAT(
      RunAndCapture({"/no/such/program"}, absl::Seconds(30)).status(),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/program")));
}

TEST(RunAndCaptureTest, WhatDoesNotEndIsKilled) {
  EXPECT_THAT(
      RunAndCapture({"sleep", "600"}, absl::Milliseconds(50)).status(),
      StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("sleep")));
}

// Each notice would be taken for one of serve itself, and each variable for
// an option of the child.
TEST(RunAndCaptureTest, ChildrenGetNeitherOptionsNorTheNotifySocket) {
  setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
  setenv("PREDELLA_LISTEN", "0.0.0.0:1", 1);
  setenv("PREDELLA_LOG_LEVEL", "error", 1);
  setenv("KEPT_FOR_CHILDREN", "yes", 1);
  const absl::StatusOr<Captured> run =
      RunAndCapture({"env"}, absl::Seconds(30));
  for (const char* name :
       {"NOTIFY_SOCKET", "PREDELLA_LISTEN", "KEPT_FOR_CHILDREN"}) {
    unsetenv(name);
  }
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_THAT(run->out, AllOf(Not(HasSubstr("NOTIFY_SOCKET")),
                              Not(HasSubstr("PREDELLA_LISTEN")),
                              HasSubstr("PREDELLA_LOG_LEVEL=error\n"),
                              HasSubstr("KEPT_FOR_CHILDREN=yes\n")));
}

TEST(ProcessRunnerTest, AChildWhoseFirstThreadIsGoneIsHollow) {
  ASSERT_OK_AND_ASSIGN(auto runner, MakeProcessRunner());
  ASSERT_OK_AND_ASSIGN(const int64_t pid, runner->Start({"sleep", "600"}));
  EXPECT_FALSE(runner->Hollow(pid));
  runner->Signal(pid, SIGKILL);
  // Ended, and not yet reaped.
  siginfo_t info{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(runner->Hollow(pid));
  EXPECT_EQ(runner->Reap().size(), 1);
  EXPECT_FALSE(runner->Hollow(pid));
}

}  // namespace
}  // namespace predella::cli
