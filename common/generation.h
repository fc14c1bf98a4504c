// The generation of an upload: when in the cluster's history it began.
#ifndef PREDELLA_COMMON_GENERATION_H_
#define PREDELLA_COMMON_GENERATION_H_

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "predella/storage/v1/storage.pb.h"

namespace predella {

// (epoch, n) orders; the nonce only tells apart two epochs that were given the
// same number by accident. Two generations are the same only as a whole.
struct Generation {
  int64_t epoch = 0;
  int64_t n = 0;
  uint32_t nonce = 0;

  bool none() const { return epoch == 0; }
  bool operator==(const Generation&) const = default;
  // Whether this one is later in the order.
  bool After(const Generation& other) const {
    return std::tie(epoch, n) > std::tie(other.epoch, other.n);
  }

  // "12-345-9fa3c1d2"; the API's opaque form.
  std::string ToString() const;
  static absl::StatusOr<Generation> Parse(absl::string_view text);

  static Generation FromProto(const storage::v1::Generation& proto);
  storage::v1::Generation ToProto() const;

  template <typename H>
  friend H AbslHashValue(H h, const Generation& g) {
    return H::combine(std::move(h), g.epoch, g.n, g.nonce);
  }
};

// Whether somebody who heard `known` has heard of this one: of it or a later
// one of its epoch, or of any later epoch, which begins when all earlier ones
// have ended.
bool HasHeardOf(absl::Span<const storage::v1::FenceEntry> known,
                const Generation& generation);

}  // namespace predella

#endif  // PREDELLA_COMMON_GENERATION_H_
