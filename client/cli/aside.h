// Looks at a file system that may hang without hanging with it.
#ifndef PREDELLA_CLIENT_CLI_ASIDE_H_
#define PREDELLA_CLIENT_CLI_ASIDE_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"

namespace predella::cli {

struct Aside {
  // False: it did not come back in time, and what it was to find is as it was.
  bool answered = false;
  // The process that still hangs in it, when it did not; 0 for none.
  int64_t left = 0;
};

// Runs `look` in a child process, and copies the `size` bytes at `found`, where
// it left what it saw, back to here. A thread would not do: one that the kernel
// does not let go keeps its process from ending. The child is killed when it
// is late, and not waited for; it holds nothing of this process but its memory.
// It is a fork of a process that may have threads: `look` makes system calls,
// and neither allocates nor locks.
Aside LookAside(absl::FunctionRef<void()> look, void* found, size_t size,
                absl::Duration timeout);

template <typename Found>
Aside LookAside(absl::FunctionRef<void()> look, Found* found,
                absl::Duration timeout) {
  static_assert(std::is_trivially_copyable_v<Found>);
  return LookAside(look, found, sizeof(*found), timeout);
}

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_ASIDE_H_
