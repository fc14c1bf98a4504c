// Reads a copy whole before something is removed that depends on it.
#ifndef PREDELLA_SERVER_LIFECYCLE_COPY_VERIFIER_H_
#define PREDELLA_SERVER_LIFECYCLE_COPY_VERIFIER_H_

#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "server/lifecycle/agent_session.h"

namespace predella::server {

// Thread-safe.
class CopyVerifier {
 public:
  // For whoever asks again right away: what was read longer ago may be
  // otherwise by now.
  static constexpr absl::Duration kKept = absl::Seconds(10);

  // Both must outlive it.
  CopyVerifier(AgentCommands* commands, Clock* clock)
      : commands_(commands), clock_(clock) {}

  // Has the mount's agent read the copy and compare it with its record. OK when
  // it is whole, DATA_LOSS when it is not, and anything else where it was not
  // read to its end. ABORTED, COMMIT_CONFLICT while that goes
  // on for longer than `wait`: it does so without this call, and the next one
  // for the same copy says what came of it. Each result is told once, and
  // within kKept; later it is read anew.
  absl::Status Verify(const Uuid& mount_uid, const Uuid& image_id,
                      const Generation& generation, absl::Duration wait);

 private:
  // Mount, image, generation.
  using Key = std::tuple<std::string, std::string, std::string>;

  struct Result {
    std::optional<absl::Status> status;  // absent: it is being read
    absl::Duration time;                 // when it was
  };

  // Whether the caller is to have it read.
  bool Begin(const Key& key);

  AgentCommands* const commands_;
  Clock* const clock_;
  Mutex mu_;
  CondVar answered_;
  std::map<Key, Result> results_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_COPY_VERIFIER_H_
