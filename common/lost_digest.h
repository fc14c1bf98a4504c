// Which images are given up with a mount, in a few characters: what an operator
// was shown, and says again to accept it.
#ifndef PREDELLA_COMMON_LOST_DIGEST_H_
#define PREDELLA_COMMON_LOST_DIGEST_H_

#include <cstdint>
#include <string>

#include "common/generation.h"
#include "common/hash_sum.h"
#include "common/ids.h"

namespace predella {

// Of ids and generations, in any order: an image that was deleted and stored
// again under its id is another one.
class LostDigest {
 public:
  void Add(const Uuid& image_id, const Generation& generation);
  int64_t count() const { return sum_.count(); }
  // 32 hexadecimal digits; empty when none was added, or none can be made.
  std::string ToString() const;

 private:
  HashSum sum_;
};

}  // namespace predella

#endif  // PREDELLA_COMMON_LOST_DIGEST_H_
