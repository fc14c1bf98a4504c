// Makes files go: removal commands for what was deleted or lost, and, at every
// tick, what expires and settles.
#ifndef PREDELLA_SERVER_LIFECYCLE_REAPER_H_
#define PREDELLA_SERVER_LIFECYCLE_REAPER_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/executor.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/lifecycle/agent_session.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/single_run.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/trust_keeper.h"
#include "server/lifecycle/upload_manager.h"

namespace predella::server {

// Thread-safe. Calls post their work to the pool.
class Reaper {
 public:
  Reaper(const LifecycleDeps& deps, AgentCommands* commands, TrustKeeper* trust,
         UploadTable* uploads, UploadManager* upload_manager,
         Tombstones* tombstones);

  // Everything that time brings; a second call while one runs does nothing.
  void Tick();
  // Sends what waits for removal, to every trusted mount, soon.
  void SendRemovals();
  // Mounts an operator gave up confirm nothing: they count as clean.
  void SettleRetired();
  int64_t PendingOn(const Uuid& mount_uid) const;

 private:
  struct Removal {
    Uuid image_id;
    storage::v1::Generation generation;
    Uuid upload_id;
  };
  // Session, image, generation.
  using SentKey = std::tuple<int64_t, std::string, std::string>;

  void RunTick();
  void SendTo(const Uuid& mount_uid);
  std::vector<Removal> WaitingOn(const Uuid& mount_uid) const;
  void SendLater(const SentKey& key);
  // False: the index does not have it.
  bool Confirm(const Uuid& mount_uid, const Removal& removal);

  const LifecycleDeps deps_;
  AgentCommands* const commands_;
  TrustKeeper* const trust_;
  UploadTable* const uploads_;
  UploadManager* const upload_manager_;
  Tombstones* const tombstones_;
  // Confirmations commit one after the other.
  Strand confirmations_;

  SingleRun ticks_;
  Mutex mu_;
  // Sent in this session and not confirmed: when to send again, or not before
  // there is an answer.
  std::map<SentKey, absl::Duration> sent_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_REAPER_H_
