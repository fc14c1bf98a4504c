// Trying again: for how long, and what is worth it.
#ifndef PREDELLA_CLIENT_INTERNAL_RETRY_H_
#define PREDELLA_CLIENT_INTERNAL_RETRY_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/backoff.h"
#include "common/clock.h"
#include "common/ids.h"
#include "predella/client_options.h"
#include "predella/v1/image_service.pb.h"

namespace predella::client_internal {

class RetryBudget {
 public:
  // Runs from now on.
  explicit RetryBudget(const ClientOptions& options)
      : retry_for_(options.retry_for),
        on_waiting_(options.on_waiting),
        backoff_(options.first_backoff, options.most_backoff, RandomIds()),
        alive_(RealClock()->Boot()) {}

  // A sign of life: the budget is whole again.
  void Refill() {
    alive_ = RealClock()->Boot();
    backoff_.Reset();
  }
  // Sleeps before the next try because of `why`; false when the budget is
  // used up.
  bool Wait(const absl::Status& why);
  absl::Duration used() const { return RealClock()->Boot() - alive_; }

 private:
  const absl::Duration retry_for_;
  const std::function<void(const absl::Status&, absl::Duration)> on_waiting_;
  Backoff backoff_;
  absl::Duration alive_;
};

// A call to the coordinator of which nobody knows whether it was done.
bool IsUnanswered(const absl::Status& status);

// A stream's end after which it is worth to open another to the same target.
bool IsResumable(const absl::Status& status);

// An end that speaks against the mount rather than the upload: before any
// byte is safe, another mount may do.
bool IsTargetFailure(const absl::Status& status);

// OK for an upload that is open or committed; otherwise why it ended.
absl::Status OutcomeOf(const v1::Upload& upload);

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_RETRY_H_
