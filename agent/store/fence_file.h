// The fence of a mount: the highest pair it heard, per epoch.
#ifndef PREDELLA_AGENT_STORE_FENCE_FILE_H_
#define PREDELLA_AGENT_STORE_FENCE_FILE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "agent/fs/file_system.h"
#include "agent/store/file_place.h"
#include "agent/store/slot_file.h"
#include "common/generation.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

// Highest n per (epoch, nonce). Not thread-safe.
class PairTable {
 public:
  // Whether it was raised.
  bool Raise(const Generation& pair);
  void Raise(const PairTable& other);
  std::vector<storage::v1::FenceEntry> Entries() const;

 private:
  std::map<std::pair<int64_t, uint32_t>, int64_t> max_n_;
};

// Not thread-safe.
class FenceFile {
 public:
  static absl::StatusOr<std::unique_ptr<FenceFile>> Open(FileSystem* fs);

  const PairTable& table() const { return table_; }
  // Written on return, not synced.
  absl::Status Hear(const Generation& pair);
  absl::Status Sync();
  std::shared_ptr<const FilePlace> place() const { return slots_->place(); }

 private:
  explicit FenceFile(std::unique_ptr<SlotFile> slots)
      : slots_(std::move(slots)) {}

  const std::unique_ptr<SlotFile> slots_;
  PairTable table_;
  // A failed write or sync: the table is to be written again.
  bool dirty_ = false;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_FENCE_FILE_H_
