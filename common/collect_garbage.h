// What coordinator and agent call the discarding of held garbage by.
#ifndef PREDELLA_COMMON_COLLECT_GARBAGE_H_
#define PREDELLA_COMMON_COLLECT_GARBAGE_H_

#include "absl/strings/string_view.h"

namespace predella {

// In Hello.capabilities of an agent that knows the command.
inline constexpr absl::string_view kCanCollectGarbage = "collect_garbage";

namespace reason {
// Another number of uploads is held than the one that was accepted.
inline constexpr absl::string_view kGarbageChanged = "GARBAGE_CHANGED";
}  // namespace reason

}  // namespace predella

#endif  // PREDELLA_COMMON_COLLECT_GARBAGE_H_
