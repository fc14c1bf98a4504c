#include "client/python/native/process.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/clock.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::native {
namespace {

// The process that used gRPC first; 0: none did.
std::atomic<pid_t>& FirstUser() {
  static std::atomic<pid_t> pid{0};
  return pid;
}

// Of the process. Never destroyed: threads may outlive main.
struct Shared {
  Mutex mu;
  CondVar cv;
  int threads ABSL_GUARDED_BY(mu) = 0;
  std::vector<void*> buried ABSL_GUARDED_BY(mu);
};
Shared* Everybodys() {
  static Shared* const shared = new Shared;
  return shared;
}

thread_local const WaitingScope::OnWaiting* this_thread_waits = nullptr;

ClientOptions WithWaiting(ClientOptions options) {
  options.on_waiting = [](const absl::Status& why, absl::Duration waited) {
    if (this_thread_waits != nullptr) {
      (*this_thread_waits)(why, waited);
    }
  };
  return options;
}

}  // namespace

Connections::Connections(ClientOptions options)
    : options_(WithWaiting(std::move(options))) {}

Connections::~Connections() {
  MutexLock lock(&mu_);
  if (pid_ != getpid()) {
    // Its threads are not in this process: the memory is all there is of it.
    static_cast<void>(client_.release());
  }
}

absl::StatusOr<Client> Connections::Get() {
  pid_t first = 0;
  // Before any lock: another thread of the parent may have held it.
  if (!FirstUser().compare_exchange_strong(first, getpid()) &&
      first != getpid()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kNotReady,
        absl::StrCat("process ", getpid(), " was forked from process ", first,
                     " after that had used Predella; gRPC does not survive a "
                     "fork: let workers be forked first, or use lazy apps"));
  }
  MutexLock lock(&mu_);
  if (client_ == nullptr) {
    ASSIGN_OR_RETURN(Client client, Client::Connect(options_));
    client_ = std::make_unique<Client>(std::move(client));
    pid_ = getpid();
  }
  return *client_;
}

void Bury(void* owner) {
  Shared* const shared = Everybodys();
  if (owner != nullptr) {
    MutexLock lock(&shared->mu);
    shared->buried.push_back(owner);
  }
}

std::vector<void*> Exhume() {
  Shared* const shared = Everybodys();
  MutexLock lock(&shared->mu);
  return std::exchange(shared->buried, {});
}

bool WaitIdle(absl::Duration timeout) {
  const absl::Duration deadline = RealClock()->Boot() + timeout;
  Shared* const shared = Everybodys();
  MutexLock lock(&shared->mu);
  while (shared->threads > 0) {
    const absl::Duration left = deadline - RealClock()->Boot();
    if (left <= absl::ZeroDuration()) {
      return false;
    }
    shared->cv.WaitFor(&shared->mu, absl::ToChronoNanoseconds(left));
  }
  return true;
}

absl::Status Spawn(const char* name, std::function<void()> run) {
  Shared* const shared = Everybodys();
  {
    MutexLock lock(&shared->mu);
    ++shared->threads;
  }
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  absl::Status status;
  try {
    std::thread([shared, name, run = std::move(run)]() mutable {
      pthread_setname_np(pthread_self(), name);
      run();
      run = nullptr;  // before it counts as gone
      MutexLock lock(&shared->mu);
      --shared->threads;
      shared->cv.SignalAll();
    }).detach();
  } catch (const std::system_error& error) {
    status = MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                       absl::StrCat("no thread could be started in this "
                                    "process: ",
                                    error.what()));
    MutexLock lock(&shared->mu);
    --shared->threads;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return status;
}

WaitingScope::WaitingScope(OnWaiting on_waiting)
    : on_waiting_(std::move(on_waiting)) {
  this_thread_waits = &on_waiting_;
}

WaitingScope::~WaitingScope() { this_thread_waits = nullptr; }

}  // namespace predella::native
