#include "agent/store/image_reader.h"

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "agent/store/verified_read.h"
#include "common/errors.h"

namespace predella::agent {

absl::StatusOr<VerifiedBytes> ImageReaderImpl::Read(int64_t offset,
                                                    int64_t length) {
  if (offset < 0 || length < 0 || offset > image_.size_bytes) {
    return MakeError(absl::StatusCode::kOutOfRange, reason::kReadPastEnd,
                     absl::StrCat(length, " bytes at ", offset,
                                  " were asked of an image of ",
                                  image_.size_bytes, " bytes"),
                     {{"size", absl::StrCat(image_.size_bytes)}});
  }
  auto bytes = ReadVerified(file_.get(), table_, image_.size_bytes, offset,
                            std::min(length, image_.size_bytes - offset));
  if (!bytes.ok()) {
    return Annotate(bytes.status(),
                    absl::StrCat("image ", image_.image_id.ToString()));
  }
  return bytes;
}

}  // namespace predella::agent
