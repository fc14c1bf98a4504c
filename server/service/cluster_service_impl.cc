#include "server/service/cluster_service_impl.h"

#include "absl/status/statusor.h"

namespace predella::server {

grpc::ServerUnaryReactor* ClusterServiceImpl::GetCluster(
    grpc::CallbackServerContext* context, const v1::GetClusterRequest*,
    v1::Cluster* response) {
  return runner_->Run<v1::Cluster>(
      context, response,
      [this]() -> absl::StatusOr<v1::Cluster> { return cluster_->Get(); });
}

grpc::ServerUnaryReactor* ClusterServiceImpl::ExplainPlacement(
    grpc::CallbackServerContext* context,
    const v1::ExplainPlacementRequest* request,
    v1::PlacementDecision* response) {
  return runner_->Run<v1::PlacementDecision>(
      context, response,
      [this, request] { return cluster_->Explain(*request); });
}

grpc::ServerUnaryReactor* ClusterServiceImpl::ListEvents(
    grpc::CallbackServerContext* context, const v1::ListEventsRequest* request,
    v1::ListEventsResponse* response) {
  return runner_->Run<v1::ListEventsResponse>(
      context, response, [this, request] { return events_->List(*request); });
}

grpc::ServerUnaryReactor* ClusterServiceImpl::BackupIndex(
    grpc::CallbackServerContext* context,
    const v1::BackupIndexRequest* /*request*/, v1::IndexBackup* response) {
  return runner_->Run<v1::IndexBackup>(context, response, backup_);
}

grpc::ServerUnaryReactor* ClusterServiceImpl::CheckIndex(
    grpc::CallbackServerContext* context, const v1::CheckIndexRequest* request,
    v1::CheckIndexResponse* response) {
  return runner_->Run<v1::CheckIndexResponse>(
      context, response, [this, request] { return audit_->Check(*request); });
}

}  // namespace predella::server
