// One run at a time of something that is asked for again and again.
#ifndef PREDELLA_SERVER_LIFECYCLE_SINGLE_RUN_H_
#define PREDELLA_SERVER_LIFECYCLE_SINGLE_RUN_H_

#include <atomic>
#include <functional>
#include <utility>

#include "common/executor.h"

namespace predella::server {

// Thread-safe. Must outlive what it posted.
class SingleRun {
 public:
  // Posts `run`, unless an earlier one was posted and has not ended: when the
  // index is slow the one that runs sees what is new.
  void Post(Executor* pool, std::function<void()> run) {
    if (running_.exchange(true)) {
      return;
    }
    pool->Post([this, run = std::move(run)] {
      run();
      running_ = false;
    });
  }

 private:
  std::atomic<bool> running_ = false;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_SINGLE_RUN_H_
