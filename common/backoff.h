// Delays between tries: exponential, with jitter.
#ifndef PREDELLA_COMMON_BACKOFF_H_
#define PREDELLA_COMMON_BACKOFF_H_

#include "absl/time/time.h"

#include "common/ids.h"

namespace predella {

class Backoff {
 public:
  // `ids` draws the jitter and must outlive this.
  Backoff(absl::Duration first, absl::Duration most, IdGenerator* ids);

  // The next delay: doubles up to the most, each between half and whole.
  absl::Duration Next();
  void Reset();

 private:
  const absl::Duration first_;
  const absl::Duration most_;
  IdGenerator* const ids_;
  absl::Duration current_;
};

}  // namespace predella

#endif  // PREDELLA_COMMON_BACKOFF_H_
