// Random bytes from a seed: the same run again.
#ifndef PREDELLA_TESTS_TESTING_FAKE_IDS_H_
#define PREDELLA_TESTS_TESTING_FAKE_IDS_H_

#include <cstdint>
#include <random>
#include <string>

#include "absl/base/thread_annotations.h"

#include "common/ids.h"
#include "common/mutex.h"

namespace predella::testing {

class FakeIds final : public IdGenerator {
 public:
  explicit FakeIds(uint64_t seed = 1) : engine_(seed) {}
  std::string RandomBytes(size_t n) override {
    MutexLock lock(&mu_);
    std::string out(n, '\0');
    for (char& c : out) {
      c = static_cast<char>(engine_());
    }
    return out;
  }

 private:
  Mutex mu_;
  std::mt19937_64 engine_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_TESTING_FAKE_IDS_H_
