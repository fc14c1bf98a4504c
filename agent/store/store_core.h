// What the store, its uploads and its listing share: the seams, the registry,
// and how a name and its record are judged.
#ifndef PREDELLA_AGENT_STORE_STORE_CORE_H_
#define PREDELLA_AGENT_STORE_STORE_CORE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "agent/fs/file_system.h"
#include "agent/store/image_store.h"
#include "agent/store/registry.h"
#include "common/clock.h"
#include "common/generation.h"
#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

struct StoreCore {
  StoreCore(FileSystem* f, Clock* c, const StoreOptions& o)
      : fs(f), clock(c), options(o), locks(o.calls) {}
  FileSystem* const fs;  // must outlive this, as the clock
  Clock* const clock;
  const StoreOptions options;
  uint32_t group = 0;  // of image files; set once at open
  DiskLocks locks;
  Registry registry;
};

// What lies under an image's final name and in its record's place.
struct NameState {
  bool name = false;
  FileInfo info;  // of the name; not regular for anything odd
  bool record = false;
  bool damaged = false;  // the record is there and can't be trusted
  storage::v1::ReplicaRecord header;
  // The name is the record's image: they may be served and removed.
  bool image = false;
  // The last sync of its publication failed.
  bool unsure = false;
  // Why name or record can not be read: a permission, a link. Such a name may
  // still be an image, to be removed.
  absl::Status name_refused;
  absl::Status record_refused;

  Generation generation() const {
    return Generation::FromProto(header.generation());
  }
  Uuid upload_id() const { return Uuid::FromBytesOrNone(header.upload_id()); }
};

// The caller holds the lock of the id.
absl::StatusOr<NameState> Look(StoreCore* core, const Uuid& image_id);

// Of a directory of records: that it can not be listed takes no name away, for
// those lie in the root. One that is missing, or a file, is the mount's.
bool IsOfOneDirectory(const absl::Status& status);

// The record's checksums. DATA_LOSS when they are damaged.
absl::StatusOr<std::vector<uint32_t>> ReadTable(StoreCore* core,
                                                const PublishedImage& image);

// Removes the record and makes that durable.
absl::Status RemoveRecord(StoreCore* core, const Uuid& image_id);

// Errors that several of them give.
absl::Status NameTaken(const Uuid& image_id, const NameState& state);
absl::Status UnsureError(const Uuid& image_id);
// `what` can not be read, with the errno; DATA_LOSS, MOUNT_PERMISSION, for
// nothing but an operator ends it.
absl::Status RefusedError(absl::string_view what, const absl::Status& why);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_STORE_CORE_H_
