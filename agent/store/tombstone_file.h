// Copies of the coordinator's tombstones, and the roster of mounts.
#ifndef PREDELLA_AGENT_STORE_TOMBSTONE_FILE_H_
#define PREDELLA_AGENT_STORE_TOMBSTONE_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_set.h"
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
  // Image, and epoch, number and nonce of its generation.
  using Key = std::tuple<std::string, int64_t, int64_t, uint32_t>;
  static Key KeyOf(const storage::v1::Tombstone& tombstone);
  explicit TombstoneFile(std::unique_ptr<SlotFile> slots)
      : slots_(std::move(slots)) {}
  absl::Status Replace(storage::v1::TombstoneSlot content);
  absl::Status Write(const storage::v1::TombstoneSlot& content);
  void Index();

  const std::unique_ptr<SlotFile> slots_;
  storage::v1::TombstoneSlot content_;
  // Those of `content_`.
  absl::flat_hash_set<Key> keys_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_TOMBSTONE_FILE_H_
