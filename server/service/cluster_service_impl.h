// predella.v1.ClusterService.
#ifndef PREDELLA_SERVER_SERVICE_CLUSTER_SERVICE_IMPL_H_
#define PREDELLA_SERVER_SERVICE_CLUSTER_SERVICE_IMPL_H_

#include <grpcpp/grpcpp.h>

#include "predella/v1/cluster_service.grpc.pb.h"
#include "server/lifecycle/cluster_view.h"
#include "server/service/call_runner.h"

namespace predella::server {

class ClusterServiceImpl final : public v1::ClusterService::CallbackService {
 public:
  // Both must outlive the server this is registered with.
  ClusterServiceImpl(CallRunner* runner, ClusterView* cluster)
      : runner_(runner), cluster_(cluster) {}

  grpc::ServerUnaryReactor* GetCluster(grpc::CallbackServerContext* context,
                                       const v1::GetClusterRequest* request,
                                       v1::Cluster* response) override;
  grpc::ServerUnaryReactor* ExplainPlacement(
      grpc::CallbackServerContext* context,
      const v1::ExplainPlacementRequest* request,
      v1::PlacementDecision* response) override;

 private:
  CallRunner* const runner_;
  ClusterView* const cluster_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_SERVICE_CLUSTER_SERVICE_IMPL_H_
