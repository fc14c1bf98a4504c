#include "agent/store/sparse_write.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

// Ends at the first byte that is not zero, so data costs nothing.
bool AllZero(absl::string_view bytes) {
  return bytes.empty() ||
         (bytes.front() == '\0' &&
          std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

absl::StatusOr<SparseWrite> WriteSparse(File* file, int64_t offset,
                                        absl::string_view data) {
  const int64_t end = offset + static_cast<int64_t>(data.size());
  const auto part = [&](int64_t from, int64_t to) {
    return data.substr(static_cast<size_t>(from - offset),
                       static_cast<size_t>(to - from));
  };
  SparseWrite out;
  out.end = offset;
  int64_t pending = offset;  // what comes from here on is to be written
  for (int64_t at = offset; at < end;) {
    const int64_t next = std::min(end, (at / kHoleBytes + 1) * kHoleBytes);
    if (next - at == kHoleBytes && AllZero(part(at, next))) {
      if (pending < at) {
        RETURN_IF_ERROR(file->Pwrite(pending, part(pending, at)));
        out.end = at;
      }
      pending = next;
      out.hole_bytes += kHoleBytes;
    }
    at = next;
  }
  if (pending < end) {
    RETURN_IF_ERROR(file->Pwrite(pending, part(pending, end)));
    out.end = end;
  }
  return out;
}

}  // namespace predella::agent
