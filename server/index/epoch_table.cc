#include "server/index/epoch_table.h"

#include <algorithm>

namespace predella::server {

const storage::v1::FenceEntry* FindEpoch(const storage::v1::EpochTable& table,
                                         int64_t epoch, uint32_t nonce) {
  for (const storage::v1::FenceEntry& entry : table.past()) {
    if (entry.epoch() == epoch && entry.nonce() == nonce) {
      return &entry;
    }
  }
  return nullptr;
}

void RaiseEpoch(const storage::v1::FenceEntry& entry,
                storage::v1::EpochTable* table) {
  for (storage::v1::FenceEntry& present : *table->mutable_past()) {
    if (present.epoch() == entry.epoch() && present.nonce() == entry.nonce()) {
      present.set_max_n(std::max(present.max_n(), entry.max_n()));
      return;
    }
  }
  *table->add_past() = entry;
}

}  // namespace predella::server
