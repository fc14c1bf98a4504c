// Starting an upload, under one id however often it takes.
#ifndef PREDELLA_CLIENT_INTERNAL_UPLOAD_STARTER_H_
#define PREDELLA_CLIENT_INTERNAL_UPLOAD_STARTER_H_

#include "absl/status/statusor.h"

#include "client/internal/stub.h"
#include "predella/client_options.h"
#include "predella/v1/image_service.pb.h"

namespace predella::client_internal {

// StartUpload until it is answered or options.retry_for is over. After a call
// whose answer was lost the coordinator is asked first what came of it. An
// upload that ended without commit is an error.
absl::StatusOr<v1::Upload> StartUploadWithRetry(
    Stub* stub, const ClientOptions& options,
    const v1::StartUploadRequest& request);

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_UPLOAD_STARTER_H_
