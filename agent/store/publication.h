// The steps that make an upload's bytes an image, in the order of
// docs/on-disk-format.md.
#ifndef PREDELLA_AGENT_STORE_PUBLICATION_H_
#define PREDELLA_AGENT_STORE_PUBLICATION_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/image_store.h"
#include "agent/store/store_core.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

// One try. The caller holds the lock of the image's id.
class Publication {
 public:
  // `record` is complete. All must outlive this.
  Publication(StoreCore* core, File* file,
              const storage::v1::ReplicaRecord& record,
              absl::Span<const uint32_t> table);

  absl::StatusOr<PublishedImage> Run();
  // After a failure: the bytes must never be published any more.
  bool condemned() const { return condemned_; }

 private:
  // Sets done_ when this upload was published before.
  absl::Status CheckName();
  // The file under inflight/ is still the one that was written.
  absl::Status CheckBytes();
  absl::Status WriteRecord();
  absl::Status TakeName();
  // The name may be there and may not last: takes it and the record away.
  void Undo();
  absl::Status Condemn(const absl::Status& status, absl::string_view what);

  StoreCore* const core_;
  File* const file_;
  const storage::v1::ReplicaRecord& record_;
  const absl::Span<const uint32_t> table_;
  const PublishedImage image_;
  const std::string name_path_;
  const std::string record_path_;
  const std::string inflight_path_;
  FileInfo info_;
  bool done_ = false;
  bool replace_record_ = false;
  bool condemned_ = false;
};

// A directory that mount init made is not there: UNAVAILABLE, MOUNT_FAILED,
// since "not found" must never be taken for that of an image. Any other status
// as it is.
absl::Status FailedLayout(const absl::Status& status);

// A failed sync as an error that says so: code and reason are kept where
// there is a reason (full is not failed), else UNAVAILABLE, MOUNT_FAILED.
absl::Status FailedSync(const absl::Status& status, absl::string_view what);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_PUBLICATION_H_
