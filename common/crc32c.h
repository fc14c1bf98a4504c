// CRC32C (Castagnoli), as iSCSI, ext4 and gRPC storage APIs use it: initial
// value and final inversion included. Crc32c("123456789") = 0xe3069283.
#ifndef PREDELLA_COMMON_CRC32C_H_
#define PREDELLA_COMMON_CRC32C_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace predella {

// CRC of the bytes before, extended by `data`. CRC of nothing is 0.
uint32_t ExtendCrc32c(uint32_t crc, absl::string_view data);

inline uint32_t Crc32c(absl::string_view data) { return ExtendCrc32c(0, data); }

// CRC of A followed by B, from the CRCs of both and B's length; the method is
// zlib's crc32_combine (powers of the shift operator over GF(2)), O(log n).
uint32_t CombineCrc32c(uint32_t crc_a, uint32_t crc_b, uint64_t length_b);

}  // namespace predella

#endif  // PREDELLA_COMMON_CRC32C_H_
