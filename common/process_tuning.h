// What a process sets up for speed before anything else.
#ifndef PREDELLA_COMMON_PROCESS_TUNING_H_
#define PREDELLA_COMMON_PROCESS_TUNING_H_

namespace predella {

// Called first in main.
//
// Keeps glibc from giving every chunk back to the kernel: a freed buffer of
// 1 MiB is otherwise unmapped, and the next one costs 256 page faults;
// streaming is 1.6 to 2 times as fast with it (docs/performance.md).
//
// In release builds also ends Abseil's search for deadlocks: Debian's library
// is built without NDEBUG, so each of gRPC's locks would be noted in a graph
// under one lock of the whole process.
void TuneProcess();

}  // namespace predella

#endif  // PREDELLA_COMMON_PROCESS_TUNING_H_
