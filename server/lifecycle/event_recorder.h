// Writes down what the coordinator sees happen: mounts that change, agents
// that are refused, copies that go bad. What operators do is written by the
// commits that do it.
#ifndef PREDELLA_SERVER_LIFECYCLE_EVENT_RECORDER_H_
#define PREDELLA_SERVER_LIFECYCLE_EVENT_RECORDER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/mount_service.pb.h"
#include "server/lifecycle/agent_watch.h"
#include "server/lifecycle/health_changes.h"
#include "server/lifecycle/lifecycle_options.h"

namespace predella::server {

// Looks once a second, so a heartbeat writes nothing, and compares with what
// was written last, so a state is written once; health comes from the registry
// change by change. An event bears the time of what it tells, also where it is
// written later: because the mount flaps (HealthChanges; kBurst and kEvery for
// the rest), or the index took no writes.
class EventRecorder {
 public:
  static constexpr int kBurst = 10;
  static constexpr absl::Duration kEvery = absl::Minutes(1);
  // Garbage is held, or is not, for so long before it is written: at each
  // registration the agent looks anew, and removals are still to come.
  static constexpr absl::Duration kGarbageStands = absl::Seconds(10);

  EventRecorder(const LifecycleDeps& deps, AgentWatch* watch);

  // Takes the states that were written last from the index: a mount that broke
  // or came back while no coordinator ran is news.
  absl::Status Load();
  // One commit for everything that changed; what could not be written is
  // written by a later call. Not called twice at a time.
  void Tick();

 private:
  // So many events may be written at once; one more per kEvery.
  class Budget {
   public:
    bool Take(absl::Duration now);

   private:
    double left_ = kBurst;
    absl::Duration filled_;
  };
  struct Mount {
    HealthChanges health;
    v1::Fullness fullness = v1::FULLNESS_OK;       // as written last
    v1::Fullness fullness_seen = v1::FULLNESS_OK;  // at the last look
    int64_t fullness_us = 0;                       // since when
    int64_t faults = 0;                            // as written last
    int64_t faults_seen = 0;                       // at the last look
    int64_t faults_us = 0;                         // since when
    bool garbage = false;                          // held, as written last
    bool garbage_seen = false;                     // at the last look
    absl::Duration garbage_since;                  // Boot(); it is seen so
    int64_t garbage_us = 0;                        // the same by the clock
    Budget budget;
  };

  // Takes down how the mount is; what of it is written comes later.
  void See(const MountInfo& info, Mount* mount) const;
  void LookAtMount(const MountInfo& info, Mount* mount,
                   std::vector<storage::v1::EventRow>* events) const;
  void LookAtHealth(const std::string& name, Mount* mount,
                    std::vector<storage::v1::EventRow>* events) const;
  void LookAtGarbage(const MountInfo& info, Mount* mount,
                     std::vector<storage::v1::EventRow>* events) const;
  void LookAtAgents(std::map<std::string, bool>* refused, Budget* budget,
                    std::vector<storage::v1::EventRow>* events) const;

  const LifecycleDeps deps_;
  AgentWatch* const watch_;

  Mutex mu_;
  absl::flat_hash_map<Uuid, Mount> mounts_ ABSL_GUARDED_BY(mu_);
  // Refusals that are written, by mount, reason and identity.
  std::map<std::string, bool> refused_ ABSL_GUARDED_BY(mu_);
  Budget refusals_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_EVENT_RECORDER_H_
