// Keeps glibc from giving every chunk back to the kernel.
#ifndef PREDELLA_COMMON_MALLOC_TUNING_H_
#define PREDELLA_COMMON_MALLOC_TUNING_H_

namespace predella {

// Called first in main. A freed buffer of 1 MiB is otherwise unmapped, and the
// next one costs 256 page faults: streaming is 1.6 to 2 times as fast with it
// (docs/performance.md).
void TuneMalloc();

}  // namespace predella

#endif  // PREDELLA_COMMON_MALLOC_TUNING_H_
