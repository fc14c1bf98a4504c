#include "client/internal/upload_starter.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "client/internal/retry.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::client_internal {

absl::StatusOr<v1::Upload> StartUploadWithRetry(
    Stub* stub, const ClientOptions& options,
    const v1::StartUploadRequest& request, UploadId id) {
  RetryBudget budget(options);
  while (true) {
    absl::StatusOr<v1::Upload> upload = stub->StartUpload(request);
    if (upload.ok()) {
      RETURN_IF_ERROR(OutcomeOf(*upload));
      return upload;
    }
    if (!IsUnanswered(upload.status())) {
      return upload.status();
    }
    const bool refused = !ReasonOf(upload.status()).empty();
    if ((refused && budget.used() >= options.refused_for) ||
        !budget.Wait(upload.status())) {
      if (id == UploadId::kDrawn) {
        v1::AbortUploadRequest abort;
        abort.set_name(absl::StrCat("uploads/", request.upload_id()));
        // Best effort: the caller hears why there is no upload.
        stub->AbortUpload(abort).status().IgnoreError();
      }
      return Annotate(upload.status(),
                      absl::StrCat("no upload could be started for ",
                                   absl::FormatDuration(absl::Trunc(
                                       budget.used(), absl::Seconds(1)))));
    }
    if (upload.status().code() == absl::StatusCode::kUnavailable) {
      continue;
    }
    // Perhaps it was begun, perhaps it has even ended. Only StartUpload gives
    // the capability, so an open one is asked for again.
    v1::GetUploadRequest get;
    get.set_name(absl::StrCat("uploads/", request.upload_id()));
    const absl::StatusOr<v1::Upload> begun = stub->GetUpload(get);
    if (begun.ok()) {
      RETURN_IF_ERROR(OutcomeOf(*begun));
      if (begun->state() == v1::UPLOAD_STATE_COMMITTED) {
        return begun;
      }
    }
  }
}

}  // namespace predella::client_internal
