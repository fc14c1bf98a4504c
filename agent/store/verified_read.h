// Reads that give only bytes that agree with the checksums kept of them.
#ifndef PREDELLA_AGENT_STORE_VERIFIED_READ_H_
#define PREDELLA_AGENT_STORE_VERIFIED_READ_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/image_store.h"

namespace predella::agent {

// Reads [offset, offset + length) of `file` after checking every block it
// touches, whole; nothing is known from `known_end` on, and the range ends
// there at most. `table` holds the CRC32C of each block.
// DATA_LOSS, CHECKSUM_MISMATCH (metadata: offset, of the bad block).
absl::StatusOr<VerifiedBytes> ReadVerified(File* file,
                                           absl::Span<const uint32_t> table,
                                           int64_t known_end, int64_t offset,
                                           int64_t length);

// Where the good bytes of [start, end) end: the first block that can't be
// read as its checksum wants cuts. Errors of the disk are returned.
absl::StatusOr<int64_t> VerifiedEnd(File* file,
                                    absl::Span<const uint32_t> table,
                                    int64_t start, int64_t end);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_VERIFIED_READ_H_
