#include "common/wait.h"

#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "common/executor.h"
#include "common/mutex.h"

namespace predella {
namespace {

// Goes on by what is waited for, and only by that.
class WaitedClock final : public Clock {
 public:
  absl::Time Now() override { return absl::UnixEpoch(); }
  absl::Duration Boot() override { return absl::ZeroDuration(); }
  absl::Duration Steady() override { return steady_; }
  void WaitFor(CondVar* /*cv*/, Mutex* /*mu*/,
               absl::Duration timeout) override {
    ++waits_;
    // As a wake that is spurious.
    steady_ += waits_ == 1 ? timeout / 4 : timeout;
  }
  int waits() const { return waits_; }

 private:
  absl::Duration steady_ = absl::Hours(3);
  int waits_ = 0;
};

TEST(DeadlineTest, IsOneOverSeveralWaits) {
  WaitedClock clock;
  Mutex mu;
  CondVar cv;
  MutexLock lock(&mu);
  const Deadline deadline(&clock, absl::Seconds(8));
  EXPECT_EQ(deadline.left(), absl::Seconds(8));
  EXPECT_TRUE(deadline.WaitOn(&cv, &mu));
  EXPECT_EQ(deadline.left(), absl::Seconds(6));
  EXPECT_TRUE(deadline.WaitOn(&cv, &mu));
  EXPECT_FALSE(deadline.WaitOn(&cv, &mu));
  EXPECT_EQ(clock.waits(), 2);
}

TEST(AnswerTest, IsAbsentWhenNobodyBringsIt) {
  WaitedClock clock;
  Answer<int> answer;
  EXPECT_EQ(answer.Await(&clock, absl::Seconds(1)), std::nullopt);
  EXPECT_EQ(clock.waits(), 2);
  answer.Set(7);  // too late for the first, and no harm
  EXPECT_EQ(answer.Await(&clock, absl::Seconds(1)), 7);
  EXPECT_EQ(clock.waits(), 2) << "it was there";
}

TEST(AnswerTest, ComesFromAnotherThread) {
  const auto answer = std::make_shared<Answer<std::string>>();
  ThreadPool pool("answer", 1);
  pool.Post([answer] { answer->Set("here"); });
  EXPECT_EQ(answer->Await(RealClock(), absl::Minutes(5)), "here");
}

}  // namespace
}  // namespace predella
