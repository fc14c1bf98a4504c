#include "common/executor.h"

#include <pthread.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace predella {
namespace {

// The pool whose thread this is.
thread_local const ThreadPool* t_pool = nullptr;

}  // namespace

ThreadPool::ThreadPool(std::string name, int threads,
                       std::function<void()> on_start)
    : name_(std::move(name)), on_start_(std::move(on_start)) {
  threads_.reserve(static_cast<size_t>(threads));
  MutexLock lock(&mu_);
  wanted_ = threads;
  while (alive_ < wanted_) {
    AddLocked();
  }
}

void ThreadPool::AddLocked() {
  threads_.emplace_back([this] { Run(); });
  ++alive_;
}

void ThreadPool::Resize(int threads) {
  std::vector<std::thread::id> ended;
  {
    MutexLock lock(&mu_);
    if (stopping_) {
      return;
    }
    ended.swap(ended_);
    wanted_ = threads;
    try {
      while (alive_ < wanted_) {
        AddLocked();
      }
    } catch (const std::system_error&) {
      wanted_ = alive_;
    }
    cv_.SignalAll();
  }
  for (const std::thread::id id : ended) {
    const auto it =
        std::find_if(threads_.begin(), threads_.end(),
                     [id](const std::thread& t) { return t.get_id() == id; });
    it->join();
    threads_.erase(it);
  }
}

int ThreadPool::threads() {
  MutexLock lock(&mu_);
  return alive_;
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
  // A task that is being finished may post its next step.
  if (stopping_ && t_pool != this) {
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
  t_pool = this;
  pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
  if (on_start_) {
    on_start_();
  }
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(&mu_);
      while (queue_.empty() && !stopping_ && alive_ <= wanted_) {
        cv_.Wait(&mu_);
      }
      if (alive_ > wanted_ && !stopping_) {
        --alive_;
        ended_.push_back(std::this_thread::get_id());
        cv_.Signal();  // what woke this one may have been meant for another
        return;
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

  // One task, then the back of the executor's queue: a strand that never runs
  // dry must not keep a thread from the others.
  static void RunOne(const std::shared_ptr<State>& state) {
    std::function<void()> task;
    {
      MutexLock lock(&state->mu);
      task = std::move(state->queue.front());
      state->queue.pop_front();
    }
    task();
    task = nullptr;  // what it holds may post here
    {
      MutexLock lock(&state->mu);
      if (state->queue.empty()) {
        state->running = false;
        return;
      }
    }
    state->executor->Post([state] { RunOne(state); });
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
  state_->executor->Post([state = state_] { State::RunOne(state); });
}

}  // namespace predella
