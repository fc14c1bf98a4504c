// Where work runs.
#ifndef PREDELLA_COMMON_EXECUTOR_H_
#define PREDELLA_COMMON_EXECUTOR_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"

#include "common/mutex.h"

namespace predella {

// Safe for concurrent use.
class Executor {
 public:
  virtual ~Executor() = default;
  // Runs `task` some time later, on a thread of the executor's; never inside
  // this call (but for InlineExecutor).
  virtual void Post(std::function<void()> task) = 0;
};

// Some threads over one queue. The destructor finishes what was
// posted and joins.
class ThreadPool final : public Executor {
 public:
  // `on_start` runs first on each thread.
  ThreadPool(std::string name, int threads,
             std::function<void()> on_start = nullptr);
  ~ThreadPool() override;
  void Post(std::function<void()> task) override;
  // Finishes what was posted, and what those tasks post, and joins; other tasks
  // are dropped. Idempotent.
  void Shutdown();
  // Adds threads, made by the calling one, or lets as many end as are too many,
  // each when it has nothing to do or its task came back. Less than asked for
  // where the system gives no more. Not while Shutdown runs.
  void Resize(int threads);
  size_t queued();
  // Threads that have not ended.
  int threads();

 private:
  void AddLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Run();

  const std::string name_;
  const std::function<void()> on_start_;
  Mutex mu_;
  CondVar cv_;
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  int wanted_ ABSL_GUARDED_BY(mu_) = 0;
  int alive_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::thread::id> ended_ ABSL_GUARDED_BY(mu_);  // to be joined
  std::vector<std::thread> threads_;
};

// Runs tasks one after the other, in order, on another executor; between two
// of them others get their turn there. May be destroyed while tasks are queued:
// they still run.
class Strand final : public Executor {
 public:
  // `executor` must outlive every task.
  explicit Strand(Executor* executor);
  void Post(std::function<void()> task) override;

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with the task that drains it
};

// For tests and tools: Post runs the task at once.
class InlineExecutor final : public Executor {
 public:
  void Post(std::function<void()> task) override { task(); }
};

}  // namespace predella

#endif  // PREDELLA_COMMON_EXECUTOR_H_
