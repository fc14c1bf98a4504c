#include "client/internal/retry.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "common/errors.h"

namespace predella::client_internal {
namespace {

bool ReasonIn(const absl::Status& status,
              std::initializer_list<absl::string_view> reasons) {
  const std::string reason = ReasonOf(status);
  return std::find(reasons.begin(), reasons.end(), reason) != reasons.end();
}

}  // namespace

bool RetryBudget::Wait(const absl::Status& why) {
  const absl::Duration left = retry_for_ - used();
  if (left <= absl::ZeroDuration()) {
    return false;
  }
  if (on_waiting_ != nullptr) {
    on_waiting_(why, used());
  }
  absl::SleepFor(std::min(backoff_.Next(), left));
  return true;
}

bool IsUnanswered(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
      return true;
    default:
      // Without a reason of ours it comes from the transport.
      return (status.code() == absl::StatusCode::kInternal ||
              status.code() == absl::StatusCode::kUnknown) &&
             ReasonOf(status).empty();
  }
}

bool IsResumable(const absl::Status& status) {
  if (IsTargetFailure(status)) {
    return false;
  }
  // The agent has not yet seen that our last stream broke; or has not yet
  // heard of the upload again since it restarted; or what it got was damaged
  // on the way.
  return IsUnanswered(status) ||
         ReasonIn(status,
                  {reason::kUploadInProgress, reason::kUploadNotFound,
                   reason::kOffsetMismatch, reason::kAgentOverloaded}) ||
         (status.code() == absl::StatusCode::kDataLoss &&
          ReasonIn(status, {reason::kChecksumMismatch}));
}

bool IsTargetFailure(const absl::Status& status) {
  return ReasonIn(status,
                  {reason::kMountFailed, reason::kMountStalled,
                   reason::kMountReadOnly, reason::kMountPermission,
                   reason::kMountIdentityMismatch, reason::kAgentUnreachable});
}

absl::Status OutcomeOf(const v1::Upload& upload) {
  absl::StatusCode code = absl::StatusCode::kAborted;
  absl::string_view reason = reason::kUploadAborted;
  absl::string_view what = "was aborted";
  switch (upload.state()) {
    case v1::UPLOAD_STATE_OPEN:
    case v1::UPLOAD_STATE_COMMITTED:
      return absl::OkStatus();
    case v1::UPLOAD_STATE_SUPERSEDED:
      reason = reason::kUploadSuperseded;
      what = "was superseded by a newer upload of the same image";
      break;
    case v1::UPLOAD_STATE_EXPIRED:
      code = absl::StatusCode::kFailedPrecondition;
      reason = reason::kUploadExpired;
      what = "expired";
      break;
    case v1::UPLOAD_STATE_DELETED:
      code = absl::StatusCode::kFailedPrecondition;
      reason = reason::kUploadDeleted;
      what = "was committed, and its image deleted since";
      break;
    default:
      break;
  }
  if (!upload.reason().empty()) {
    reason = upload.reason();
  }
  if (code == absl::StatusCode::kAborted) {
    code = OutcomeCode(reason);
  }
  std::string message = absl::StrCat(upload.name(), " ", what);
  if (!upload.detail().empty()) {
    absl::StrAppend(&message, ": ", upload.detail());
  }
  return MakeError(code, reason, message,
                   {{"upload", upload.name()}, {"image", upload.image()}});
}

}  // namespace predella::client_internal
