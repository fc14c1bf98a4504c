// A published image's record: a header of one 4 KiB block, then the checksums
// of every block of the image. Bytes: docs/on-disk-format.md.
#ifndef PREDELLA_AGENT_STORE_RECORD_CODEC_H_
#define PREDELLA_AGENT_STORE_RECORD_CODEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/store/image_store.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

inline constexpr int64_t kRecordHeaderBytes = 4096;

// Number of blocks that `size_bytes` take.
inline int64_t BlocksOf(int64_t size_bytes) {
  return (size_bytes + kBlockBytes - 1) / kBlockBytes;
}

// A decision too long for the header is shortened from its end.
// INVALID_ARGUMENT when it does not fit even without one (its hashes).
absl::StatusOr<std::string> EncodeRecord(storage::v1::ReplicaRecord record,
                                         absl::Span<const uint32_t> table);

// `bytes`: at least the header. DATA_LOSS, CHECKSUM_MISMATCH unless every
// byte of it is as it was written.
absl::StatusOr<storage::v1::ReplicaRecord> DecodeRecordHeader(
    absl::string_view bytes);

// `bytes`: what follows the header. DATA_LOSS, CHECKSUM_MISMATCH also when it
// does not hold `blocks` entries.
absl::StatusOr<std::vector<uint32_t>> DecodeRecordTable(absl::string_view bytes,
                                                        int64_t blocks);

// Bytes of a record for an image of that many blocks.
int64_t RecordBytes(int64_t blocks);

PublishedImage ImageOf(const storage::v1::ReplicaRecord& record);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_RECORD_CODEC_H_
