#include "agent/store/verified_read.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/image_store.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::agent {

absl::StatusOr<VerifiedBytes> ReadVerified(File* file,
                                           absl::Span<const uint32_t> table,
                                           int64_t known_end, int64_t offset,
                                           int64_t length) {
  if (length <= 0) {
    return VerifiedBytes();
  }
  // Whole blocks around the range, read in one go.
  const int64_t begin = offset / kBlockBytes * kBlockBytes;
  const int64_t end =
      std::min((offset + length + kBlockBytes - 1) / kBlockBytes * kBlockBytes,
               known_end);
  std::string out(static_cast<size_t>(end - begin), '\0');
  ASSIGN_OR_RETURN(const size_t got,
                   file->Pread(begin, out.size(), out.data()));
  const absl::string_view bytes(out.data(), got);
  uint32_t crc32c = 0;
  for (int64_t at = begin; at < end; at += kBlockBytes) {
    const size_t size = static_cast<size_t>(std::min(kBlockBytes, end - at));
    const size_t from = static_cast<size_t>(at - begin);
    const bool there = from + size <= got;
    const uint32_t want = table[static_cast<size_t>(at / kBlockBytes)];
    if (!there || Crc32c(bytes.substr(from, size)) != want) {
      return MakeError(
          absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
          there ? absl::StrCat("the block at ", at,
                               " does not agree with its checksum ",
                               absl::Hex(want))
                : absl::StrCat(
                      "the file ends at ", begin + static_cast<int64_t>(got),
                      "; the block at ", at, " should have ", size, " bytes"),
          {{"offset", absl::StrCat(at)}});
    }
    crc32c = at == begin ? want : CombineCrc32c(crc32c, want, size);
  }
  if (begin != offset || end > offset + length) {
    out.resize(static_cast<size_t>(std::min(end, offset + length) - begin));
    out.erase(0, static_cast<size_t>(offset - begin));
    crc32c = Crc32c(out);
  }
  return VerifiedBytes{std::move(out), crc32c};
}

absl::StatusOr<int64_t> VerifiedEnd(File* file,
                                    absl::Span<const uint32_t> table,
                                    int64_t start, int64_t end) {
  for (int64_t at = start; at < end; at += kBlockBytes) {
    const auto block =
        ReadVerified(file, table, end, at, std::min(kBlockBytes, end - at));
    if (HasReason(block.status(), reason::kChecksumMismatch)) {
      return at;
    }
    RETURN_IF_ERROR(block.status());
  }
  return end;
}

}  // namespace predella::agent
