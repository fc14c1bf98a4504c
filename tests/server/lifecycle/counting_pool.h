// A thread pool that can be waited for: idle when nothing is queued or runs.
#ifndef PREDELLA_TESTS_SERVER_LIFECYCLE_COUNTING_POOL_H_
#define PREDELLA_TESTS_SERVER_LIFECYCLE_COUNTING_POOL_H_

#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"

#include "common/executor.h"
#include "common/mutex.h"

namespace predella::testing {

class CountingPool final : public Executor {
 public:
  explicit CountingPool(int threads) : pool_("test", threads) {}

  void Post(std::function<void()> task) override {
    {
      MutexLock lock(&mu_);
      ++pending_;
    }
    pool_.Post([this, task = std::move(task)]() mutable {
      task();
      task = nullptr;  // what it holds goes before it counts as done
      MutexLock lock(&mu_);
      --pending_;
      idle_.SignalAll();
    });
  }

  void WaitIdle() {
    MutexLock lock(&mu_);
    while (pending_ > 0) {
      idle_.Wait(&mu_);
    }
  }

 private:
  Mutex mu_;
  CondVar idle_;
  int pending_ ABSL_GUARDED_BY(mu_) = 0;
  ThreadPool pool_;
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_SERVER_LIFECYCLE_COUNTING_POOL_H_
