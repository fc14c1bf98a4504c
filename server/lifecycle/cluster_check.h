// How the parts of ClusterView write a check down; private to them.
#ifndef PREDELLA_SERVER_LIFECYCLE_CLUSTER_CHECK_H_
#define PREDELLA_SERVER_LIFECYCLE_CLUSTER_CHECK_H_

#include <cstdint>

#include "absl/strings/string_view.h"

#include "predella/v1/cluster_service.pb.h"
#include "server/placement/mount_registry.h"

namespace predella::server {

// Every code has its section in docs/operations.md (tests/house looks). The
// cluster is at least as unwell as the check says.
v1::HealthCheck* AddCheck(v1::Cluster* cluster, absl::string_view code,
                          v1::ClusterHealth severity, absl::string_view detail,
                          absl::string_view next_step);
void AboutMount(const MountInfo& info, int64_t images, v1::HealthCheck* check);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_CLUSTER_CHECK_H_
