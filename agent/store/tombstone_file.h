// Copies of the coordinator's tombstones, and the roster of mounts.
#ifndef PREDELLA_AGENT_STORE_TOMBSTONE_FILE_H_
#define PREDELLA_AGENT_STORE_TOMBSTONE_FILE_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/file_place.h"
#include "agent/store/slot_file.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

// Everything is durable when a call returns OK. Not thread-safe.
class TombstoneFile {
 public:
  static absl::StatusOr<std::unique_ptr<TombstoneFile>> Open(FileSystem* fs);

  const storage::v1::TombstoneSlot& content() const { return content_; }
  absl::Status Store(const storage::v1::Tombstone& tombstone);
  absl::Status Drop(absl::Span<const storage::v1::Tombstone> tombstones);
  absl::Status StoreRoster(absl::Span<const storage::v1::RosterEntry> roster);
  std::shared_ptr<const FilePlace> place() const { return slots_->place(); }

 private:
  explicit TombstoneFile(std::unique_ptr<SlotFile> slots)
      : slots_(std::move(slots)) {}
  absl::Status Replace(storage::v1::TombstoneSlot content);

  const std::unique_ptr<SlotFile> slots_;
  storage::v1::TombstoneSlot content_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_TOMBSTONE_FILE_H_
