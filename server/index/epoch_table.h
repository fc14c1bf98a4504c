// Epochs of the past and the last n of each.
#ifndef PREDELLA_SERVER_INDEX_EPOCH_TABLE_H_
#define PREDELLA_SERVER_INDEX_EPOCH_TABLE_H_

#include <cstdint>

#include "predella/storage/v1/storage.pb.h"

namespace predella::server {

// Null if the table's past has no such epoch; nonces tell apart two of one
// number.
const storage::v1::FenceEntry* FindEpoch(const storage::v1::EpochTable& table,
                                         int64_t epoch, uint32_t nonce);
// Puts `entry` into the table's past, or raises what stands there.
void RaiseEpoch(const storage::v1::FenceEntry& entry,
                storage::v1::EpochTable* table);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_EPOCH_TABLE_H_
