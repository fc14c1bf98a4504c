#include "server/service/call_runner.h"

#include <chrono>

#include "common/errors.h"

namespace predella::server {

absl::Status CallRunner::Begin() {
  MutexLock lock(&mu_);
  if (draining_) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "the coordinator is stopping: try again in a moment");
  }
  ++running_;
  return absl::OkStatus();
}

void CallRunner::End() {
  MutexLock lock(&mu_);
  --running_;
  idle_.SignalAll();
}

absl::Status CallRunner::Unwanted(grpc::CallbackServerContext* context) {
  if (context->IsCancelled()) {
    return absl::CancelledError("the client has gone");
  }
  if (context->deadline() < std::chrono::system_clock::now()) {
    return absl::DeadlineExceededError(
        "the deadline passed before the call's turn came");
  }
  return absl::OkStatus();
}

void CallRunner::StartDraining() {
  MutexLock lock(&mu_);
  draining_ = true;
}

bool CallRunner::draining() {
  MutexLock lock(&mu_);
  return draining_;
}

bool CallRunner::WaitIdle(absl::Duration timeout) {
  const auto end =
      std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  MutexLock lock(&mu_);
  while (running_ > 0) {
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) {
      return false;
    }
    idle_.WaitFor(&mu_, left);
  }
  return true;
}

}  // namespace predella::server
