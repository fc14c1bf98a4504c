// Looks that do not come back are left behind.
#include "client/cli/aside.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace predella::cli {
namespace {

TEST(AsideTest, WhatWasSeenComesBack) {
  struct Found {
    int number = 1;
    char text[6000] = {};  // more than a pipe takes at once
    pid_t by = 0;
  } found;
  const Aside aside = LookAside(
      [&found] {
        found.number = 42;
        found.text[5999] = 'z';
        found.by = getpid();
      },
      &found, absl::Seconds(30));
  EXPECT_TRUE(aside.answered);
  EXPECT_EQ(found.number, 42);
  EXPECT_EQ(found.text[5999], 'z');
  EXPECT_NE(found.by, getpid());
  EXPECT_EQ(kill(found.by, 0), -1) << "it was waited for";
}

TEST(AsideTest, ALookThatHangsIsLeftAndChangesNothing) {
  int found = 1;
  const Aside aside = LookAside(
      [&found] {
        found = 2;
        while (true) {
          pause();
        }
      },
      &found, absl::Milliseconds(50));
  EXPECT_FALSE(aside.answered);
  EXPECT_EQ(found, 1);
  // Nothing of the kernel's holds this one.
  EXPECT_EQ(aside.left, 0);
}

TEST(AsideTest, ALookThatDiesHasNotAnswered) {
  int found = 1;
  const Aside aside =
      LookAside([] { raise(SIGKILL); }, &found, absl::Seconds(30));
  EXPECT_FALSE(aside.answered);
  EXPECT_EQ(found, 1);
}

// It would hold locks, and the end of a pipe that somebody waits for.
TEST(AsideTest, AChildHoldsNoDescriptorOfThisProcess) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, 0), 0);
  struct Found {
    bool open = true;
    bool output = true;
  } found;
  const Aside aside = LookAside(
      [&found, &ends] {
        found.open = fcntl(ends[1], F_GETFD) >= 0;
        found.output = fcntl(STDOUT_FILENO, F_GETFD) >= 0 ||
                       fcntl(STDERR_FILENO, F_GETFD) >= 0;
      },
      &found, absl::Seconds(30));
  close(ends[0]);
  close(ends[1]);
  ASSERT_TRUE(aside.answered);
  EXPECT_FALSE(found.open);
  EXPECT_FALSE(found.output);
}

TEST(AsideTest, BesideOtherThreads) {
  int found = 0;
  Aside aside;
  std::thread([&] {
    aside = LookAside([&found] { found = 7; }, &found, absl::Seconds(30));
  }).join();
  EXPECT_TRUE(aside.answered);
  EXPECT_EQ(found, 7);
}

}  // namespace
}  // namespace predella::cli
