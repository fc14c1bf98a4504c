// The cluster as a whole: capacity, and what needs attention.
#ifndef PREDELLA_SERVER_LIFECYCLE_CLUSTER_VIEW_H_
#define PREDELLA_SERVER_LIFECYCLE_CLUSTER_VIEW_H_

#include <set>

#include "absl/status/statusor.h"

#include "predella/v1/cluster_service.pb.h"
#include "server/lifecycle/agent_watch.h"
#include "server/lifecycle/inventory.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/trust_keeper.h"
#include "server/lifecycle/upload_table.h"

namespace predella::server {

// Thread-safe; never blocks on an agent.
class ClusterView {
 public:
  ClusterView(const LifecycleDeps& deps, const PlacementOptions& placement,
              TrustKeeper* trust, UploadTable* uploads, Tombstones* tombstones,
              Inventory* inventory, AgentWatch* watch);

  v1::Cluster Get() const;
  // INVALID_ARGUMENT for a negative size or a name that is not an image's.
  absl::StatusOr<v1::PlacementDecision> Explain(
      const v1::ExplainPlacementRequest& request) const;

 private:
  struct Counted {
    int writable = 0;
    std::set<int> groups;  // mounts of one space are counted once
    std::set<int> usable_groups;
  };
  void CountMount(const MountInfo& info, Counted* counted,
                  v1::Cluster* cluster) const;

  // cluster_mount_checks.cc
  void CheckMount(const MountInfo& info, v1::Cluster* cluster) const;
  void CheckHealth(const MountInfo& info, v1::Cluster* cluster) const;
  void CheckTrust(const MountInfo& info, v1::Cluster* cluster) const;
  void CheckSpace(const MountInfo& info, v1::Cluster* cluster) const;
  void CheckExcused(const MountInfo& info, v1::Cluster* cluster) const;
  // Missing and damaged ones.
  void CheckCopies(const MountInfo& info, v1::Cluster* cluster) const;
  void CheckLost(const MountInfo& info, v1::Cluster* cluster) const;
  // What the agent's circuit breaker keeps.
  void CheckGarbage(const MountInfo& info, v1::Cluster* cluster) const;
  // What the listings of a mount said.
  void CheckInventory(const MountInfo& info, v1::Cluster* cluster) const;

  // cluster_checks.cc
  void CheckIndex(v1::Cluster* cluster) const;
  void CheckRecovery(v1::Cluster* cluster) const;
  void CheckUnadopted(v1::Cluster* cluster) const;
  void CheckDeletes(v1::Cluster* cluster) const;
  void CheckConflicts(v1::Cluster* cluster) const;
  void CheckAgents(v1::Cluster* cluster) const;

  const LifecycleDeps deps_;
  const PlacementOptions placement_;
  TrustKeeper* const trust_;
  UploadTable* const uploads_;
  Tombstones* const tombstones_;
  Inventory* const inventory_;
  AgentWatch* const watch_;
  const int64_t start_time_us_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_CLUSTER_VIEW_H_
