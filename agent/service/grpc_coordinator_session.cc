#include "agent/service/grpc_coordinator_session.h"

#include <utility>

#include "agent/service/session_call.h"
#include "common/backoff.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/logging.h"

namespace predella::agent {
namespace {

// A session that ended sooner was refused, by one side or the other: that is
// tried and told like a coordinator that is not there.
constexpr absl::Duration kLasting = absl::Seconds(5);
constexpr absl::Duration kRefusedPause = absl::Seconds(5);

}  // namespace

GrpcCoordinatorSession::GrpcCoordinatorSession(
    AgentCore* core, std::vector<std::string> addresses, IdGenerator* ids)
    : core_(core), addresses_(std::move(addresses)), ids_(ids) {}

GrpcCoordinatorSession::~GrpcCoordinatorSession() { Stop(); }

void GrpcCoordinatorSession::Start() {
  thread_ = std::thread([this] { Run(); });
}

void GrpcCoordinatorSession::Stop() {
  std::shared_ptr<SessionCall> call;
  {
    MutexLock lock(&mu_);
    stopping_ = true;
    call = call_;
    cv_.SignalAll();
  }
  if (call != nullptr) {
    call->Disconnect("the agent stops");
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

bool GrpcCoordinatorSession::Pause(absl::Duration delay) {
  MutexLock lock(&mu_);
  if (!stopping_) {
    cv_.WaitFor(&mu_, absl::ToChronoNanoseconds(delay));
  }
  return stopping_;
}

void GrpcCoordinatorSession::Run() {
  Backoff backoff(absl::Milliseconds(100), absl::Seconds(1), ids_);
  std::string last_error;
  for (size_t turn = 0;; ++turn) {
    const std::string& address = addresses_[turn % addresses_.size()];
    std::shared_ptr<SessionCall> call;
    {
      MutexLock lock(&mu_);
      if (stopping_) {
        return;
      }
      // Under the lock, so that Stop sees either no call or this one.
      call_ = call = SessionCall::Dial(core_, address);
    }
    const absl::Duration began = RealClock()->Boot();
    bool heard = false;
    const absl::Status status = call->Wait(&heard);
    const bool lasted = heard && RealClock()->Boot() - began >= kLasting;
    {
      MutexLock lock(&mu_);
      call_ = nullptr;
      if (stopping_) {
        return;
      }
    }
    const std::string error = status.ToString();
    if (lasted || error != last_error) {
      LogWarning("session_ended",
                 {{"coordinator", address}, {"status", error}});
      last_error = error;
    }
    if (lasted) {
      backoff.Reset();
    }
    // Refused for what somebody has to put right: not asked as often as a
    // coordinator that is starting, or that has not yet seen our last session
    // end.
    const bool refused = (absl::IsFailedPrecondition(status) &&
                          !HasReason(status, reason::kMountInUse)) ||
                         HasReason(status, reason::kStaleEpoch);
    if (Pause(refused ? kRefusedPause : backoff.Next())) {
      return;
    }
  }
}

}  // namespace predella::agent
