#include "agent/control/session_state.h"

#include <utility>

namespace predella::agent {

SessionState::SessionState(Clock* clock) : clock_(clock) {}

uint64_t SessionState::Begin(std::shared_ptr<CoordinatorLink> link) {
  MutexLock lock(&mu_);
  link_ = std::move(link);
  session_ = ++last_session_;
  attached_ = false;
  asked_.clear();
  answered_.reset();
  return session_;
}

void SessionState::End(uint64_t session) {
  MutexLock lock(&mu_);
  if (session_ != session) {
    return;
  }
  session_ = 0;
  attached_ = false;
  link_.reset();
}

void SessionState::Disconnect(uint64_t session, absl::string_view why) {
  MutexLock lock(&mu_);
  if (session_ == session && link_ != nullptr) {
    link_->Disconnect(why);
  }
}

uint64_t SessionState::current() {
  MutexLock lock(&mu_);
  return session_;
}

void SessionState::SetAttached(uint64_t session) {
  MutexLock lock(&mu_);
  if (session_ == session) {
    attached_ = true;
  }
}

bool SessionState::attached() {
  MutexLock lock(&mu_);
  return attached_;
}

bool SessionState::Send(uint64_t session, control::v1::AgentMessage message) {
  MutexLock lock(&mu_);
  if (session == 0 || session_ != session) {
    return false;
  }
  link_->Send(std::move(message));
  return true;
}

std::shared_ptr<InventoryStream> SessionState::OpenInventory(uint64_t session) {
  MutexLock lock(&mu_);
  return session == 0 || session_ != session ? nullptr : link_->OpenInventory();
}

bool SessionState::SendAttached(control::v1::AgentMessage message) {
  MutexLock lock(&mu_);
  if (!attached_) {
    return false;
  }
  link_->Send(std::move(message));
  return true;
}

void SessionState::NoteAsked(int64_t sequence) {
  MutexLock lock(&mu_);
  asked_.push_back({sequence, clock_->Boot()});
}

void SessionState::NoteAnswered(int64_t sequence, int64_t coordinator_time_us) {
  MutexLock lock(&mu_);
  while (!asked_.empty() && asked_.front().sequence <= sequence) {
    if (asked_.front().sequence == sequence) {
      answered_ = asked_.front().at;
    }
    asked_.pop_front();
  }
  if (coordinator_time_us != 0) {
    coordinator_time_us_ = coordinator_time_us;
    coordinator_time_at_ = clock_->Boot();
  }
}

bool SessionState::MayPublish() {
  MutexLock lock(&mu_);
  return attached_ && answered_.has_value() &&
         clock_->Boot() - *answered_ <= kPublishLease;
}

std::optional<int64_t> SessionState::CoordinatorTimeUs() {
  MutexLock lock(&mu_);
  if (!coordinator_time_at_.has_value()) {
    return std::nullopt;
  }
  return coordinator_time_us_ +
         absl::ToInt64Microseconds(clock_->Boot() - *coordinator_time_at_);
}

}  // namespace predella::agent
