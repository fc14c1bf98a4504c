// predella.v1.ClusterService.
#ifndef PREDELLA_SERVER_SERVICE_CLUSTER_SERVICE_IMPL_H_
#define PREDELLA_SERVER_SERVICE_CLUSTER_SERVICE_IMPL_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <utility>

#include "absl/status/statusor.h"

#include "common/executor.h"
#include "predella/v1/cluster_service.grpc.pb.h"
#include "server/lifecycle/cluster_view.h"
#include "server/lifecycle/event_log.h"
#include "server/lifecycle/index_audit.h"
#include "server/service/call_runner.h"

namespace predella::server {

class ClusterServiceImpl final : public v1::ClusterService::CallbackService {
 public:
  using Backup = std::function<absl::StatusOr<v1::IndexBackup>()>;

  // All must outlive the server this is registered with; `pool` reads what
  // those who watch are sent. `backup` makes a copy of the index.
  ClusterServiceImpl(CallRunner* runner, ClusterView* cluster, EventLog* events,
                     IndexAudit* audit, Executor* pool, Backup backup)
      : runner_(runner),
        cluster_(cluster),
        events_(events),
        audit_(audit),
        pool_(pool),
        backup_(std::move(backup)) {}

  grpc::ServerUnaryReactor* GetCluster(grpc::CallbackServerContext* context,
                                       const v1::GetClusterRequest* request,
                                       v1::Cluster* response) override;
  grpc::ServerUnaryReactor* ExplainPlacement(
      grpc::CallbackServerContext* context,
      const v1::ExplainPlacementRequest* request,
      v1::PlacementDecision* response) override;
  grpc::ServerUnaryReactor* ListEvents(
      grpc::CallbackServerContext* context,
      const v1::ListEventsRequest* request,
      v1::ListEventsResponse* response) override;
  // watch_events.cc.
  grpc::ServerWriteReactor<v1::Event>* WatchEvents(
      grpc::CallbackServerContext* context,
      const v1::WatchEventsRequest* request) override;
  grpc::ServerUnaryReactor* BackupIndex(grpc::CallbackServerContext* context,
                                        const v1::BackupIndexRequest* request,
                                        v1::IndexBackup* response) override;
  grpc::ServerUnaryReactor* CheckIndex(
      grpc::CallbackServerContext* context,
      const v1::CheckIndexRequest* request,
      v1::CheckIndexResponse* response) override;

 private:
  CallRunner* const runner_;
  ClusterView* const cluster_;
  EventLog* const events_;
  IndexAudit* const audit_;
  Executor* const pool_;
  const Backup backup_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_SERVICE_CLUSTER_SERVICE_IMPL_H_
