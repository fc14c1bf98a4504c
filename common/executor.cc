#include "common/executor.h"

#include <pthread.h>

#include <utility>

namespace predella {

ThreadPool::ThreadPool(std::string name, int threads) : name_(std::move(name)) {
  threads_.reserve(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

ThreadPool::~ThreadPool() { Shutdown(); }

void ThreadPool::Shutdown() {
  {
    MutexLock lock(&mu_);
    if (stopping_) {
      return;
    }
    stopping_ = true;
    cv_.SignalAll();
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void ThreadPool::Post(std::function<void()> task) {
  MutexLock lock(&mu_);
  if (stopping_) {
    return;
  }
  queue_.push_back(std::move(task));
  cv_.Signal();
}

size_t ThreadPool::queued() {
  MutexLock lock(&mu_);
  return queue_.size();
}

void ThreadPool::Run() {
  pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(&mu_);
      while (queue_.empty() && !stopping_) {
        cv_.Wait(&mu_);
      }
      if (queue_.empty()) {
        return;
      }
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    task();
  }
}

struct Strand::State {
  explicit State(Executor* e) : executor(e) {}
  Executor* const executor;
  Mutex mu;
  std::deque<std::function<void()>> queue ABSL_GUARDED_BY(mu);
  bool running ABSL_GUARDED_BY(mu) = false;

  static void Drain(const std::shared_ptr<State>& state) {
    while (true) {
      std::function<void()> task;
      {
        MutexLock lock(&state->mu);
        if (state->queue.empty()) {
          state->running = false;
          return;
        }
        task = std::move(state->queue.front());
        state->queue.pop_front();
      }
      task();
    }
  }
};

Strand::Strand(Executor* executor)
    : state_(std::make_shared<State>(executor)) {}

void Strand::Post(std::function<void()> task) {
  {
    MutexLock lock(&state_->mu);
    state_->queue.push_back(std::move(task));
    if (state_->running) {
      return;
    }
    state_->running = true;
  }
  state_->executor->Post([state = state_] { State::Drain(state); });
}

}  // namespace predella
