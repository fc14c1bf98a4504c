// Agents that are not attached, and why: no row of the index tells of them.
#ifndef PREDELLA_SERVER_LIFECYCLE_AGENT_WATCH_H_
#define PREDELLA_SERVER_LIFECYCLE_AGENT_WATCH_H_

#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"

namespace predella::server {

// Thread-safe.
class AgentWatch {
 public:
  struct Agent {
    control::v1::Hello hello;
    // Why its session was ended; OK: it has one, and no mount.
    absl::Status refusal;
    control::v1::MountHealth health;
    absl::Duration seen;
  };

  // An agent that is not heard of for so long is somebody else's to miss: it
  // dials every few seconds.
  static constexpr absl::Duration kForgetAfter = absl::Minutes(1);

  void Refused(const control::v1::Hello& hello, const absl::Status& why,
               absl::Duration now);
  // It has a session, and could not yet say which mount it serves.
  void WithoutMount(const control::v1::Hello& hello,
                    const control::v1::MountHealth& health, absl::Duration now);
  // One that had no mount is gone.
  void Left(const std::string& mount_name);
  // It has registered.
  void Registered(const std::string& mount_name);

  // In the order of their mounts' names.
  std::vector<Agent> List(absl::Duration now) const;

 private:
  void Note(Agent agent);

  mutable Mutex mu_;
  std::map<std::string, Agent> agents_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_AGENT_WATCH_H_
