// predella.v1.MountService.
#ifndef PREDELLA_SERVER_SERVICE_MOUNT_SERVICE_IMPL_H_
#define PREDELLA_SERVER_SERVICE_MOUNT_SERVICE_IMPL_H_

#include <grpcpp/grpcpp.h>

#include "predella/v1/mount_service.grpc.pb.h"
#include "server/lifecycle/mount_admin.h"
#include "server/lifecycle/orphans.h"
#include "server/service/call_runner.h"

namespace predella::server {

class MountServiceImpl final : public v1::MountService::CallbackService {
 public:
  // All must outlive the server this is registered with.
  MountServiceImpl(CallRunner* runner, MountAdmin* mounts, Orphans* orphans)
      : runner_(runner), mounts_(mounts), orphans_(orphans) {}

  grpc::ServerUnaryReactor* GetMount(grpc::CallbackServerContext* context,
                                     const v1::GetMountRequest* request,
                                     v1::Mount* response) override;
  grpc::ServerUnaryReactor* ListMounts(
      grpc::CallbackServerContext* context,
      const v1::ListMountsRequest* request,
      v1::ListMountsResponse* response) override;
  grpc::ServerUnaryReactor* CordonMount(grpc::CallbackServerContext* context,
                                        const v1::CordonMountRequest* request,
                                        v1::Mount* response) override;
  grpc::ServerUnaryReactor* UncordonMount(
      grpc::CallbackServerContext* context,
      const v1::UncordonMountRequest* request, v1::Mount* response) override;
  grpc::ServerUnaryReactor* MaintainMount(
      grpc::CallbackServerContext* context,
      const v1::MaintainMountRequest* request, v1::Mount* response) override;
  grpc::ServerUnaryReactor* RetireMount(grpc::CallbackServerContext* context,
                                        const v1::RetireMountRequest* request,
                                        v1::Mount* response) override;
  grpc::ServerUnaryReactor* ReplaceMount(grpc::CallbackServerContext* context,
                                         const v1::ReplaceMountRequest* request,
                                         v1::Mount* response) override;
  grpc::ServerUnaryReactor* ExplainImpact(
      grpc::CallbackServerContext* context,
      const v1::ExplainImpactRequest* request,
      v1::ExplainImpactResponse* response) override;

  grpc::ServerUnaryReactor* ScrubMount(grpc::CallbackServerContext* context,
                                       const v1::ScrubMountRequest* request,
                                       v1::Mount* response) override;
  grpc::ServerUnaryReactor* PauseScrub(grpc::CallbackServerContext* context,
                                       const v1::PauseScrubRequest* request,
                                       v1::Mount* response) override;
  grpc::ServerUnaryReactor* ConfirmMount(grpc::CallbackServerContext* context,
                                         const v1::ConfirmMountRequest* request,
                                         v1::Mount* response) override;
  grpc::ServerUnaryReactor* CollectGarbage(
      grpc::CallbackServerContext* context,
      const v1::CollectGarbageRequest* request, v1::Mount* response) override;
  grpc::ServerUnaryReactor* ListOrphans(
      grpc::CallbackServerContext* context,
      const v1::ListOrphansRequest* request,
      v1::ListOrphansResponse* response) override;
  grpc::ServerUnaryReactor* RemoveOrphan(grpc::CallbackServerContext* context,
                                         const v1::RemoveOrphanRequest* request,
                                         v1::Orphan* response) override;
  grpc::ServerUnaryReactor* AdoptOrphan(grpc::CallbackServerContext* context,
                                        const v1::AdoptOrphanRequest* request,
                                        v1::Orphan* response) override;

 private:
  CallRunner* const runner_;
  MountAdmin* const mounts_;
  Orphans* const orphans_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_SERVICE_MOUNT_SERVICE_IMPL_H_
