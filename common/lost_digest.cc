#include "common/lost_digest.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace predella {

void LostDigest::Add(const Uuid& image_id, const Generation& generation) {
  // Of one length, so no two are written the same.
  sum_.Add(absl::StrCat(image_id.bytes(),
                        absl::StrFormat("%016x%016x%08x", generation.epoch,
                                        generation.n, generation.nonce)));
}

std::string LostDigest::ToString() const {
  return sum_.count() == 0 ? "" : ToHex(sum_.bytes());
}

}  // namespace predella
