// The lifecycle as one object: everything between the index and the services.
#ifndef PREDELLA_SERVER_LIFECYCLE_LIFECYCLE_H_
#define PREDELLA_SERVER_LIFECYCLE_LIFECYCLE_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/lifecycle/agent_watch.h"
#include "server/lifecycle/cluster_view.h"
#include "server/lifecycle/copy_verifier.h"
#include "server/lifecycle/event_log.h"
#include "server/lifecycle/event_recorder.h"
#include "server/lifecycle/image_catalog.h"
#include "server/lifecycle/index_audit.h"
#include "server/lifecycle/inventory.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/mount_admin.h"
#include "server/lifecycle/mount_gate.h"
#include "server/lifecycle/notifier.h"
#include "server/lifecycle/orphans.h"
#include "server/lifecycle/reaper.h"
#include "server/lifecycle/scrub_keeper.h"
#include "server/lifecycle/session_manager.h"
#include "server/lifecycle/single_run.h"
#include "server/lifecycle/stale_mounts.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/trust_keeper.h"
#include "server/lifecycle/upload_manager.h"
#include "server/lifecycle/upload_table.h"

namespace predella::server {

// Thread-safe after Create. What was posted to the pool must have run before
// it is destroyed: shut the pool down first.
class Lifecycle {
 public:
  // Reads mounts, uploads, tombstones and the state of trust from the index
  // into the registry and memory.
  static absl::StatusOr<std::unique_ptr<Lifecycle>> Create(
      const LifecycleDeps& deps, const PlacementOptions& placement);

  SessionManager& sessions() { return sessions_; }
  UploadManager& uploads() { return upload_manager_; }
  ImageCatalog& images() { return images_; }
  MountAdmin& mounts() { return mounts_; }
  ClusterView& cluster() { return cluster_; }
  EventLog& events() { return events_; }
  Reaper& reaper() { return reaper_; }
  Inventory& inventory() { return inventory_; }
  Orphans& orphans() { return orphans_; }
  IndexAudit& index_audit() { return index_audit_; }
  TrustKeeper& trust() { return trust_; }
  Tombstones& tombstones() { return tombstones_; }
  ScrubKeeper& scrubs() { return scrubs_; }
  UploadTable& upload_table() { return uploads_; }

  // Once a second.
  void Tick() {
    reaper_.Tick();
    sessions_.Tick();
    inventory_.Tick();
    recording_.Post(deps_.pool, [this] { RecordEvents(); });
    scrubs_.Tick();
    orphans_.Tick();
  }

 private:
  Lifecycle(const LifecycleDeps& deps, const PlacementOptions& placement);
  absl::Status Load();
  void RecordEvents();

  const LifecycleDeps deps_;
  Notifier changed_;
  MountGate gate_;
  UploadTable uploads_;
  TrustKeeper trust_;
  StaleMounts stale_;
  AgentWatch watch_;
  SessionManager sessions_;
  CopyVerifier verifier_;
  Tombstones tombstones_;
  UploadManager upload_manager_;
  Reaper reaper_;
  Inventory inventory_;
  ScrubKeeper scrubs_;
  Orphans orphans_;
  IndexAudit index_audit_;
  ImageCatalog images_;
  MountAdmin mounts_;
  ClusterView cluster_;
  EventLog events_;
  EventRecorder recorder_;
  SingleRun recording_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_LIFECYCLE_H_
