// Numbers by which somebody who runs a test chooses how much of it, or repeats
// one.
#ifndef PREDELLA_TESTS_TESTING_ENVIRONMENT_H_
#define PREDELLA_TESTS_TESTING_ENVIRONMENT_H_

#include <cstdint>
#include <cstdlib>

#include "absl/strings/numbers.h"

namespace predella::testing {

// `otherwise` where it is unset or no number.
inline int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* const text = std::getenv(name);
  int64_t value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_TESTING_ENVIRONMENT_H_
