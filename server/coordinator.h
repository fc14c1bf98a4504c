// The coordinator as one object: index, lifecycle, services, server, in the
// order they start and stop.
#ifndef PREDELLA_SERVER_COORDINATOR_H_
#define PREDELLA_SERVER_COORDINATOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/executor.h"
#include "common/mutex.h"
#include "common/rpc/listen.h"
#include "common/rpc/server_runner.h"
#include "server/index/kv_store.h"
#include "server/index/placement_index.h"
#include "server/index_backups.h"
#include "server/lifecycle/lifecycle.h"
#include "server/placement/mount_registry.h"
#include "server/service/agent_session_service_impl.h"
#include "server/service/call_runner.h"
#include "server/service/cluster_service_impl.h"
#include "server/service/image_service_impl.h"
#include "server/service/mount_service_impl.h"
#include "server/state_dir.h"

namespace predella::server {

struct CoordinatorOptions {
  std::string state_dir;
  std::vector<std::string> listen;
  std::vector<std::string> health_listen;
  bool insecure_plaintext_on_network = false;
  // PlacementIndex::OpenOptions::above_epoch.
  int64_t above_epoch = 0;
  RegistryOptions registry;
  LifecycleOptions lifecycle;
  absl::Duration drain = absl::Seconds(30);
  // Empty: <state-dir>/backups.
  std::string backup_dir;
  // Zero: only when it is asked for.
  absl::Duration backup_interval = absl::Hours(1);
  int backup_keep = 24;
};

class Coordinator {
 public:
  // Checks what can be checked without starting: addresses, limits.
  static absl::Status Validate(const CoordinatorOptions& options);

  // Serves when this returns. FAILED_PRECONDITION when another coordinator
  // holds the state directory: the sentence names its pid. `failed` is called
  // once, on a thread of the coordinator's, when the index broke in a way that
  // only a restart helps; it must not block.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(
      const CoordinatorOptions& options, std::function<void()> failed);
  ~Coordinator();

  const std::vector<Address>& addresses() const { return server_->addresses(); }

  // Refuses new calls, lets running ones end, has the fences synced, marks the
  // index as cleanly closed, ends sessions. Idempotent.
  void Stop();

 private:
  Coordinator(const CoordinatorOptions& options, std::function<void()> failed);
  absl::Status Open();
  absl::Status Serve();
  void SetServing(bool serving);
  void TickUntilStopped();
  void CheckIndex();
  void SyncFences();

  const CoordinatorOptions options_;
  std::function<void()> failed_;

  // In the order of their construction; the destructor goes backwards.
  std::unique_ptr<StateLock> state_lock_;
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<EpochFile> epoch_file_;
  std::unique_ptr<PlacementIndex> index_;
  std::unique_ptr<MountRegistry> registry_;
  std::unique_ptr<IndexBackups> backups_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Lifecycle> lifecycle_;
  std::unique_ptr<CallRunner> runner_;
  std::unique_ptr<ImageServiceImpl> images_;
  std::unique_ptr<MountServiceImpl> mounts_;
  std::unique_ptr<ClusterServiceImpl> cluster_;
  std::unique_ptr<AgentSessionServiceImpl> sessions_;
  std::unique_ptr<ServerRunner> server_;

  Mutex mu_;
  CondVar stop_cv_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool failed_said_ = false;  // ticker only
  std::thread ticker_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_COORDINATOR_H_
