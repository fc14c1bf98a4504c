// Writes that leave holes where the bytes are zero.
#ifndef PREDELLA_AGENT_STORE_SPARSE_WRITE_H_
#define PREDELLA_AGENT_STORE_SPARSE_WRITE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"

namespace predella::agent {

// What is left out is a multiple of this, at a multiple of this: Glance's
// filesystem store does the same with the chunks that it reads. Smaller holes
// would cost the file system more in extents than they save.
inline constexpr int64_t kHoleBytes = int64_t{64} << 10;

struct SparseWrite {
  int64_t end = 0;         // of the last byte that was written, or the offset
  int64_t hole_bytes = 0;  // left out
};

// Writes `data` at `offset` but for the whole runs of zeros in it. Only for
// where the file has nothing yet, since nothing is written over: what is left
// out reads as zeros once the file is longer than it.
absl::StatusOr<SparseWrite> WriteSparse(File* file, int64_t offset,
                                        absl::string_view data);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_SPARSE_WRITE_H_
