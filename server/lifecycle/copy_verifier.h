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

#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "server/lifecycle/agent_session.h"

namespace predella::server {

// Thread-safe.
class CopyVerifier {
 public:
  // Must outlive it.
  explicit CopyVerifier(AgentCommands* commands) : commands_(commands) {}

  // Has the mount's agent read the copy and compare it with its record. OK when
  // it is whole, or what was found. ABORTED, COMMIT_CONFLICT while that goes
  // on for longer than `wait`: it does so without this call, and the next one
  // for the same copy says what came of it. Each result is told once.
  absl::Status Verify(const Uuid& mount_uid, const Uuid& image_id,
                      const Generation& generation, absl::Duration wait);

 private:
  // Mount, image, generation.
  using Key = std::tuple<std::string, std::string, std::string>;

  AgentCommands* const commands_;
  Mutex mu_;
  CondVar answered_;
  // Absent: it is being read.
  std::map<Key, std::optional<absl::Status>> results_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_COPY_VERIFIER_H_
