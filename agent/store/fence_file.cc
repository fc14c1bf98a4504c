#include "agent/store/fence_file.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "agent/fs/file_system.h"
#include "agent/store/layout.h"
#include "agent/store/slot_file.h"
#include "common/errors.h"
#include "common/generation.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {
namespace {

// About 14 bytes each; a slot holds twice as many.
constexpr int kMostEpochs = 1000;

}  // namespace

bool PairTable::Raise(const Generation& pair) {
  if (pair.none()) {
    return false;
  }
  int64_t& n = max_n_[{pair.epoch, pair.nonce}];
  if (pair.n <= n) {
    return false;
  }
  n = pair.n;
  return true;
}

void PairTable::Raise(const PairTable& other) {
  for (const auto& [key, n] : other.max_n_) {
    Raise(Generation{key.first, n, key.second});
  }
}

std::vector<storage::v1::FenceEntry> PairTable::Entries() const {
  std::vector<storage::v1::FenceEntry> out;
  out.reserve(max_n_.size());
  for (const auto& [key, n] : max_n_) {
    storage::v1::FenceEntry& entry = out.emplace_back();
    entry.set_epoch(key.first);
    entry.set_nonce(key.second);
    entry.set_max_n(n);
  }
  return out;
}

absl::StatusOr<std::unique_ptr<FenceFile>> FenceFile::Open(FileSystem* fs) {
  ASSIGN_OR_RETURN(auto slots,
                   SlotFile::Open(fs, layout::kFence, layout::kFenceSlots,
                                  layout::kFenceSlotBytes));
  std::unique_ptr<FenceFile> out(new FenceFile(std::move(slots)));
  storage::v1::Fence fence;
  if (!fence.ParseFromString(out->slots_->content())) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                     "the fence can't be parsed although its checksum is "
                     "right: it was written by another version");
  }
  for (const auto& entry : fence.entries()) {
    out->table_.Raise(Generation{entry.epoch(), entry.max_n(), entry.nonce()});
  }
  return out;
}

absl::Status FenceFile::Hear(const Generation& pair) {
  if (!table_.Raise(pair) && !dirty_) {
    return absl::OkStatus();
  }
  storage::v1::Fence fence;
  // The newest epochs, if there are very many: an index that was rolled back
  // to before one of the old ones lacks the new ones, too.
  std::vector<storage::v1::FenceEntry> entries = table_.Entries();
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.epoch() > b.epoch(); });
  for (const auto& entry : entries) {
    if (fence.entries_size() == kMostEpochs) {
      break;
    }
    *fence.add_entries() = entry;
  }
  dirty_ = true;
  RETURN_IF_ERROR(slots_->Write(fence.SerializeAsString()));
  dirty_ = false;
  return absl::OkStatus();
}

absl::Status FenceFile::Sync() {
  if (dirty_) {
    RETURN_IF_ERROR(Hear(Generation()));
  }
  const absl::Status synced = slots_->Sync();
  dirty_ = !synced.ok();
  return synced;
}

}  // namespace predella::agent
