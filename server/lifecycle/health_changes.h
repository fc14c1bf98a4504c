// Which changes of a mount's health are written as events, and when.
#ifndef PREDELLA_SERVER_LIFECYCLE_HEALTH_CHANGES_H_
#define PREDELLA_SERVER_LIFECYCLE_HEALTH_CHANGES_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"

#include "predella/v1/mount_service.pb.h"

namespace predella::server {

// A change is another health, or another errno of the same: a SUSPECT mount can
// fail anew. Every one is due at once, until there were more than kBurst of
// them within kEvery: then the mount flaps, and what is due waits until its
// health has been the same for kStands, or kEvery has passed since the last was
// written. Of those that wait each state that is not ONLINE is kept once with
// each errno, as it was when it came first, and the last change of all; the
// others are counted. A change always bears its own time.
//
// Durations are of one monotonic clock. One thread at a time.
class HealthChanges {
 public:
  static constexpr size_t kBurst = 10;
  static constexpr absl::Duration kEvery = absl::Minutes(1);
  static constexpr absl::Duration kStands = absl::Seconds(10);

  struct Change {
    v1::Health from = v1::HEALTH_ONLINE;
    v1::Health to = v1::HEALTH_ONLINE;
    int64_t time_us = 0;
    std::string why;
    std::string error;  // name of the errno; empty without one
    int64_t images = 0;
    int64_t left_out = 0;  // changes between the one before it and this
  };

  HealthChanges() = default;
  // As written last.
  HealthChanges(v1::Health health, std::string error)
      : written_(health), seen_(health), seen_error_(std::move(error)) {}

  // A look at the mount: `look` without `from`, which is what was seen last.
  void See(Change look, absl::Duration now);
  // What is to be written now, in order. Until Written() it stays so.
  std::vector<Change> Due(absl::Duration now) const;
  void Written(absl::Duration now);

 private:
  bool Flaps(absl::Duration now) const;
  std::vector<Change> Waiting() const;

  v1::Health written_ = v1::HEALTH_ONLINE;
  v1::Health seen_ = v1::HEALTH_ONLINE;
  std::string seen_error_;
  std::deque<absl::Duration> times_;  // of changes, kEvery back
  std::vector<Change> kept_;
  // The last change, when it is not kept, and how many are not since the last
  // one that is kept or written.
  std::optional<Change> last_;
  int64_t left_out_ = 0;
  absl::Duration written_at_ = -absl::InfiniteDuration();
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_HEALTH_CHANGES_H_
