// An executor whose tasks run when the test says so.
#ifndef PREDELLA_TESTS_TESTING_MANUAL_EXECUTOR_H_
#define PREDELLA_TESTS_TESTING_MANUAL_EXECUTOR_H_

#include <deque>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"

#include "common/executor.h"
#include "common/mutex.h"

namespace predella::testing {

class ManualExecutor final : public Executor {
 public:
  void Post(std::function<void()> task) override {
    MutexLock lock(&mu_);
    queue_.push_back(std::move(task));
  }
  size_t size() {
    MutexLock lock(&mu_);
    return queue_.size();
  }
  // Runs the oldest task; false if there is none.
  bool RunOne() {
    std::function<void()> task;
    {
      MutexLock lock(&mu_);
      if (queue_.empty()) {
        return false;
      }
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task();
    return true;
  }
  // Runs until nothing is left; returns how many ran.
  int RunAll() {
    int ran = 0;
    while (RunOne()) {
      ++ran;
    }
    return ran;
  }

 private:
  Mutex mu_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_TESTING_MANUAL_EXECUTOR_H_
