#include "server/lifecycle/health_changes.h"

#include <algorithm>
#include <utility>

namespace predella::server {

bool HealthChanges::Flaps(absl::Duration now) const {
  return std::count_if(times_.begin(), times_.end(), [now](absl::Duration at) {
           return now - at < kEvery;
         }) > static_cast<int64_t>(kBurst);
}

void HealthChanges::See(Change look, absl::Duration now) {
  const std::string error_before = std::exchange(seen_error_, look.error);
  if (look.to == seen_ && (look.error.empty() || look.error == error_before)) {
    return;
  }
  look.from = std::exchange(seen_, look.to);
  while (!times_.empty() && now - times_.front() >= kEvery) {
    times_.pop_front();
  }
  times_.push_back(now);
  const bool keep =
      kept_.empty() && !Flaps(now)
          ? true
          : look.to != v1::HEALTH_ONLINE &&
                std::none_of(
                    kept_.begin(), kept_.end(), [&look](const Change& kept) {
                      return kept.to == look.to && kept.error == look.error;
                    });
  if (keep) {
    look.left_out = std::exchange(left_out_, 0);
    kept_.push_back(std::move(look));
    last_.reset();
  } else {
    look.left_out = left_out_++;
    last_ = std::move(look);
  }
}

std::vector<HealthChanges::Change> HealthChanges::Waiting() const {
  std::vector<Change> waiting = kept_;
  if (last_.has_value() &&
      last_->to != (kept_.empty() ? written_ : kept_.back().to)) {
    waiting.push_back(*last_);
  }
  return waiting;
}

std::vector<HealthChanges::Change> HealthChanges::Due(
    absl::Duration now) const {
  const bool stands = times_.empty() || now - times_.back() >= kStands;
  if (Flaps(now) && !stands && now - written_at_ < kEvery) {
    return {};
  }
  return Waiting();
}

void HealthChanges::Written(absl::Duration now) {
  const std::vector<Change> written = Waiting();
  if (written.empty()) {
    return;
  }
  if (last_.has_value() && written.size() > kept_.size()) {
    left_out_ = 0;
  }
  written_ = written.back().to;
  kept_.clear();
  last_.reset();
  written_at_ = now;
}

}  // namespace predella::server
