// Cryptographic hashes as Glance names them, piece by piece.
#ifndef PREDELLA_COMMON_DIGEST_H_
#define PREDELLA_COMMON_DIGEST_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace predella {

// One thread at a time.
class Digest {
 public:
  // `algorithm`: "md5", "sha256", "sha512", ... Null for one that the crypto
  // library does not have (or forbids, as md5 in FIPS mode).
  static std::unique_ptr<Digest> Make(absl::string_view algorithm);

  virtual ~Digest() = default;
  // Bytes of the result.
  virtual size_t size() const = 0;
  virtual void Update(absl::string_view data) = 0;
  // Of everything so far; nothing may be called after it.
  virtual std::string Finish() = 0;
};

}  // namespace predella

#endif  // PREDELLA_COMMON_DIGEST_H_
