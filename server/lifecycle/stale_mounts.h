// Mounts that have not heard of images the index has on them: directories that
// are older copies of what was mounted before (a snapshot put back, the disk
// of before a move). Law 4: nothing is written there, and what is not there is
// not called missing, until an operator says that this one is all there is.
//
// What was synced in a mount's fence since the coordinator started is known
// from its heartbeats. From before that only the rows tell: an agent has heard
// of an image's generation before the image is published, and the record it
// leaves bears it. A mount that a row names and that has neither heard of it
// nor bears it was not there.
#ifndef PREDELLA_SERVER_LIFECYCLE_STALE_MOUNTS_H_
#define PREDELLA_SERVER_LIFECYCLE_STALE_MOUNTS_H_

#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"

#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/lifecycle/lifecycle_options.h"

namespace predella::server {

// Thread-safe.
class StaleMounts {
 public:
  explicit StaleMounts(const LifecycleDeps& deps) : deps_(deps) {}

  // The agent of the mount, which is attached, says that the pair is synced in
  // its fence. (What it was told with Attach need not be: a mount that takes no
  // writes is attached, too.)
  void Synced(const Uuid& mount_uid, const Generation& pair);
  // The directory is the mount from here on.
  void Attached(const Uuid& mount_uid);
  // What a mount knows, when it registers. FAILED_PRECONDITION, MOUNT_STALE
  // with the numbers; reads the index's list of the mount's images only where
  // the newest of them is one that the mount has not heard of.
  absl::Status Check(const Uuid& mount_uid, const std::string& name,
                     absl::Span<const storage::v1::FenceEntry> known);
  // Whether the last directory that came for the mount was refused for that,
  // and nobody let it in.
  bool Refused(const Uuid& mount_uid) const;
  // Whether it was refused, and somebody let it in; until it is attached.
  bool Accepted(const Uuid& mount_uid) const;
  // Lets that directory in, at its agent's next try; once it is attached it
  // has heard of everything. Another one is judged anew. Not kept over a start
  // of the coordinator.
  void Accept(const Uuid& mount_uid);

 private:
  struct Copy {
    Generation heard;  // the last it knows
    bool accepted = false;
  };

  const LifecycleDeps deps_;
  mutable Mutex mu_;
  absl::flat_hash_map<Uuid, Copy> copies_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, Generation> synced_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_STALE_MOUNTS_H_
