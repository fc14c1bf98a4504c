// Keeps the number of images on a mount still while somebody decides by it.
#ifndef PREDELLA_SERVER_LIFECYCLE_MOUNT_GATE_H_
#define PREDELLA_SERVER_LIFECYCLE_MOUNT_GATE_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"

#include "common/ids.h"
#include "common/mutex.h"

namespace predella::server {

// An image that is committed between the count and the write of a retirement
// would be acknowledged and given up at once, and no condition on one row can
// tell. Of one mount there are any number of Adding at a time, or one
// Counting; neither is ever taken by a thread that holds one. Thread-safe;
// outlives both.
class MountGate {
 public:
  // While an image is committed on the mount. Waits for a Counting.
  class Adding {
   public:
    Adding(MountGate* gate, const Uuid& mount_uid);
    ~Adding();
    Adding(const Adding&) = delete;
    Adding& operator=(const Adding&) = delete;

   private:
    MountGate* const gate_;
    const Uuid mount_uid_;
  };

  // From the count to the commit that depends on it. Keeps later Adding out
  // and waits for the present ones.
  class Counting {
   public:
    Counting(MountGate* gate, const Uuid& mount_uid);
    ~Counting();
    Counting(const Counting&) = delete;
    Counting& operator=(const Counting&) = delete;

   private:
    MountGate* const gate_;
    const Uuid mount_uid_;
  };

 private:
  struct State {
    int64_t adding = 0;
    bool counting = false;
  };
  void DropIfIdleLocked(const Uuid& mount_uid)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  CondVar cv_;
  absl::flat_hash_map<Uuid, State> mounts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_MOUNT_GATE_H_
