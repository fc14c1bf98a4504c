#include "server/service/mount_service_impl.h"

namespace predella::server {

grpc::ServerUnaryReactor* MountServiceImpl::GetMount(
    grpc::CallbackServerContext* context, const v1::GetMountRequest* request,
    v1::Mount* response) {
  return runner_->Run<v1::Mount>(
      context, response, [this, request] { return mounts_->Get(*request); });
}

grpc::ServerUnaryReactor* MountServiceImpl::ListMounts(
    grpc::CallbackServerContext* context, const v1::ListMountsRequest* request,
    v1::ListMountsResponse* response) {
  return runner_->Run<v1::ListMountsResponse>(
      context, response, [this, request] { return mounts_->List(*request); });
}

grpc::ServerUnaryReactor* MountServiceImpl::CordonMount(
    grpc::CallbackServerContext* context, const v1::CordonMountRequest* request,
    v1::Mount* response) {
  return runner_->Run<v1::Mount>(
      context, response, [this, request] { return mounts_->Cordon(*request); });
}

grpc::ServerUnaryReactor* MountServiceImpl::UncordonMount(
    grpc::CallbackServerContext* context,
    const v1::UncordonMountRequest* request, v1::Mount* response) {
  return runner_->Run<v1::Mount>(context, response, [this, request] {
    return mounts_->Uncordon(*request);
  });
}

grpc::ServerUnaryReactor* MountServiceImpl::MaintainMount(
    grpc::CallbackServerContext* context,
    const v1::MaintainMountRequest* request, v1::Mount* response) {
  return runner_->Run<v1::Mount>(context, response, [this, request] {
    return mounts_->Maintain(*request);
  });
}

grpc::ServerUnaryReactor* MountServiceImpl::RetireMount(
    grpc::CallbackServerContext* context, const v1::RetireMountRequest* request,
    v1::Mount* response) {
  return runner_->Run<v1::Mount>(
      context, response, [this, request] { return mounts_->Retire(*request); });
}

grpc::ServerUnaryReactor* MountServiceImpl::ReplaceMount(
    grpc::CallbackServerContext* context,
    const v1::ReplaceMountRequest* request, v1::Mount* response) {
  return runner_->Run<v1::Mount>(context, response, [this, request] {
    return mounts_->Replace(*request);
  });
}

grpc::ServerUnaryReactor* MountServiceImpl::ExplainImpact(
    grpc::CallbackServerContext* context,
    const v1::ExplainImpactRequest* request,
    v1::ExplainImpactResponse* response) {
  return runner_->Run<v1::ExplainImpactResponse>(
      context, response,
      [this, request] { return mounts_->ExplainImpact(*request); });
}

grpc::ServerUnaryReactor* MountServiceImpl::ScrubMount(
    grpc::CallbackServerContext* context, const v1::ScrubMountRequest* request,
    v1::Mount* response) {
  return runner_->Run<v1::Mount>(
      context, response, [this, request] { return mounts_->Scrub(*request); });
}

grpc::ServerUnaryReactor* MountServiceImpl::PauseScrub(
    grpc::CallbackServerContext* context, const v1::PauseScrubRequest* request,
    v1::Mount* response) {
  return runner_->Run<v1::Mount>(context, response, [this, request] {
    return mounts_->PauseScrub(*request);
  });
}

grpc::ServerUnaryReactor* MountServiceImpl::ConfirmMount(
    grpc::CallbackServerContext* context,
    const v1::ConfirmMountRequest* request, v1::Mount* response) {
  return runner_->Run<v1::Mount>(context, response, [this, request] {
    return mounts_->Confirm(*request);
  });
}

grpc::ServerUnaryReactor* MountServiceImpl::CollectGarbage(
    grpc::CallbackServerContext* context,
    const v1::CollectGarbageRequest* request, v1::Mount* response) {
  return runner_->Run<v1::Mount>(context, response, [this, request] {
    return mounts_->CollectGarbage(*request);
  });
}

grpc::ServerUnaryReactor* MountServiceImpl::ListOrphans(
    grpc::CallbackServerContext* context, const v1::ListOrphansRequest* request,
    v1::ListOrphansResponse* response) {
  return runner_->Run<v1::ListOrphansResponse>(
      context, response, [this, request] { return orphans_->List(*request); });
}

grpc::ServerUnaryReactor* MountServiceImpl::RemoveOrphan(
    grpc::CallbackServerContext* context,
    const v1::RemoveOrphanRequest* request, v1::Orphan* response) {
  return runner_->Run<v1::Orphan>(context, response, [this, request] {
    return orphans_->Remove(*request);
  });
}

grpc::ServerUnaryReactor* MountServiceImpl::AdoptOrphan(
    grpc::CallbackServerContext* context, const v1::AdoptOrphanRequest* request,
    v1::Orphan* response) {
  return runner_->Run<v1::Orphan>(
      context, response, [this, request] { return orphans_->Adopt(*request); });
}

}  // namespace predella::server
