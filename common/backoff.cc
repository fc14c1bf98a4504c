#include "common/backoff.h"

#include <algorithm>

namespace predella {

Backoff::Backoff(absl::Duration first, absl::Duration most, IdGenerator* ids)
    : first_(first), most_(most), ids_(ids), current_(first) {}

absl::Duration Backoff::Next() {
  const double jitter =
      0.5 + 0.5 * static_cast<double>(ids_->NextUint64() >> 11) * 0x1p-53;
  const absl::Duration delay = current_ * jitter;
  current_ = std::min(current_ * 2, most_);
  return delay;
}

void Backoff::Reset() { current_ = first_; }

}  // namespace predella
