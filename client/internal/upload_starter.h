// Starting an upload, under one id however often it takes.
#ifndef PREDELLA_CLIENT_INTERNAL_UPLOAD_STARTER_H_
#define PREDELLA_CLIENT_INTERNAL_UPLOAD_STARTER_H_

#include "absl/status/statusor.h"

#include "client/internal/stub.h"
#include "predella/client_options.h"
#include "predella/v1/image_service.pb.h"

namespace predella::client_internal {

enum class UploadId {
  kDrawn,  // nobody else knows it
  kGiven,  // whoever gave it may come with it again
};

// StartUpload until it is answered or options.retry_for is over. After a call
// whose answer was lost the coordinator is asked first what came of it. An
// upload that ended without commit is an error. One whose id was drawn is
// aborted where it is given up: the coordinator may have begun it, and would
// keep room for it until it expires.
absl::StatusOr<v1::Upload> StartUploadWithRetry(
    Stub* stub, const ClientOptions& options,
    const v1::StartUploadRequest& request, UploadId id);

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_UPLOAD_STARTER_H_
