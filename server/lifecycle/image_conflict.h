// Two complete images under one id, after a rollback of the index: both are
// kept, and named, until an operator chooses (docs/adr/0010).
#ifndef PREDELLA_SERVER_LIFECYCLE_IMAGE_CONFLICT_H_
#define PREDELLA_SERVER_LIFECYCLE_IMAGE_CONFLICT_H_

#include <optional>

#include "absl/status/status.h"

#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/upload_table.h"

namespace predella::server {

// FAILED_PRECONDITION, IMAGE_CONFLICT while the image waits for a choice.
absl::Status CheckNoConflict(const PlacementIndex& index, const Uuid& image_id);

// The event and log line that go with a conflict.
storage::v1::EventRow ConflictEvent(const storage::v1::ConflictRow& row);

// Keeps `image` beside the row of its id; once is enough. `upload`: the open
// upload that brought it, which ends SUPERSEDED with nothing to clean: its file
// is the conflict's now. ABORTED: it has changed meanwhile.
absl::Status KeepAsConflict(const LifecycleDeps& deps,
                            const storage::v1::ImageRow& image,
                            const std::optional<storage::v1::UploadRow>& upload,
                            UploadTable* uploads);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_IMAGE_CONFLICT_H_
