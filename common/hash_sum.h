// A digest of a set of entries, in whatever order they come.
#ifndef PREDELLA_COMMON_HASH_SUM_H_
#define PREDELLA_COMMON_HASH_SUM_H_

#include <cstdint>
#include <string>

#include "absl/numeric/int128.h"
#include "absl/strings/string_view.h"

namespace predella {

// The sum modulo 2^128 of a hash of each entry: a multiset hash by addition
// (Bellare and Micciancio, EUROCRYPT 1997), which, unlike one by XOR, also
// tells apart entries that come twice. The hash is the first 128 bits of
// SHA-256 (FIPS 180-4). Two sets that differ agree with a chance of 2^-128,
// where nobody searches for such.
class HashSum {
 public:
  static constexpr int kBytes = 16;

  // No two different entries may be written as the same bytes.
  void Add(absl::string_view entry);
  int64_t count() const { return count_; }
  // 16 bytes, the highest first; empty when the crypto library refused, which
  // no caller may take for equal to anything.
  std::string bytes() const;

 private:
  int64_t count_ = 0;
  absl::uint128 sum_ = 0;
  bool failed_ = false;
};

}  // namespace predella

#endif  // PREDELLA_COMMON_HASH_SUM_H_
