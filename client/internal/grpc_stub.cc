#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "google/protobuf/empty.pb.h"

#include "client/internal/grpc_streams.h"
#include "client/internal/local_image.h"
#include "client/internal/local_read.h"
#include "client/internal/stub.h"
#include "common/mutex.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/listen.h"
#include "common/rpc/server_runner.h"
#include "predella/v1/cluster_service.grpc.pb.h"
#include "predella/v1/image_service.grpc.pb.h"
#include "predella/v1/mount_service.grpc.pb.h"

namespace predella::client_internal {
namespace {

// It reads all of the index once.
constexpr absl::Duration kBackupTimeout = absl::Minutes(10);
// One page; that of the counters reads all rows.
constexpr absl::Duration kCheckTimeout = absl::Minutes(2);
// An agent unlinks what may be thousands of files.
constexpr absl::Duration kCollectTimeout = absl::Minutes(1);

class GrpcStub final : public Stub {
 public:
  explicit GrpcStub(const ClientOptions& options)
      : options_(options),
        channel_(DialChannel(options.endpoint)),
        images_(v1::ImageService::NewStub(channel_)),
        mounts_(v1::MountService::NewStub(channel_)),
        cluster_(v1::ClusterService::NewStub(channel_)) {}

  absl::StatusOr<v1::Image> GetImage(
      const v1::GetImageRequest& request) override {
    return Get(images_.get(), &v1::ImageService::Stub::GetImage, request);
  }
  absl::StatusOr<v1::ListImagesResponse> ListImages(
      const v1::ListImagesRequest& request) override {
    return Get(images_.get(), &v1::ImageService::Stub::ListImages, request);
  }
  absl::Status DeleteImage(const v1::DeleteImageRequest& request) override {
    return Change(images_.get(), &v1::ImageService::Stub::DeleteImage, request)
        .status();
  }
  absl::StatusOr<v1::Image> ChooseImage(
      const v1::ChooseImageRequest& request) override {
    return Change(images_.get(), &v1::ImageService::Stub::ChooseImage, request);
  }
  absl::StatusOr<v1::Upload> StartUpload(
      const v1::StartUploadRequest& request) override {
    return Change(images_.get(), &v1::ImageService::Stub::StartUpload, request);
  }
  absl::StatusOr<v1::Upload> GetUpload(
      const v1::GetUploadRequest& request) override {
    return Get(images_.get(), &v1::ImageService::Stub::GetUpload, request);
  }
  absl::StatusOr<v1::ListUploadsResponse> ListUploads(
      const v1::ListUploadsRequest& request) override {
    return Get(images_.get(), &v1::ImageService::Stub::ListUploads, request);
  }
  absl::StatusOr<v1::Upload> AbortUpload(
      const v1::AbortUploadRequest& request) override {
    return Change(images_.get(), &v1::ImageService::Stub::AbortUpload, request);
  }
  absl::StatusOr<v1::Mount> GetMount(
      const v1::GetMountRequest& request) override {
    return Get(mounts_.get(), &v1::MountService::Stub::GetMount, request);
  }
  absl::StatusOr<v1::ListMountsResponse> ListMounts(
      const v1::ListMountsRequest& request) override {
    return Get(mounts_.get(), &v1::MountService::Stub::ListMounts, request);
  }
  absl::StatusOr<v1::Mount> CordonMount(
      const v1::CordonMountRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::CordonMount, request);
  }
  absl::StatusOr<v1::Mount> UncordonMount(
      const v1::UncordonMountRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::UncordonMount,
                  request);
  }
  absl::StatusOr<v1::Mount> MaintainMount(
      const v1::MaintainMountRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::MaintainMount,
                  request);
  }
  absl::StatusOr<v1::Mount> ScrubMount(
      const v1::ScrubMountRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::ScrubMount, request);
  }
  absl::StatusOr<v1::Mount> PauseScrub(
      const v1::PauseScrubRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::PauseScrub, request);
  }
  absl::StatusOr<v1::Mount> RetireMount(
      const v1::RetireMountRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::RetireMount, request);
  }
  absl::StatusOr<v1::Mount> ReplaceMount(
      const v1::ReplaceMountRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::ReplaceMount,
                  request);
  }
  absl::StatusOr<v1::ExplainImpactResponse> ExplainImpact(
      const v1::ExplainImpactRequest& request) override {
    return Get(mounts_.get(), &v1::MountService::Stub::ExplainImpact, request);
  }
  absl::StatusOr<v1::ListEventsResponse> ListEvents(
      const v1::ListEventsRequest& request) override {
    return Get(cluster_.get(), &v1::ClusterService::Stub::ListEvents, request);
  }
  absl::Status WatchEvents(
      const v1::WatchEventsRequest& request,
      const std::function<bool(const v1::Event&)>& event) override {
    grpc::ClientContext context;
    const auto reader = cluster_->WatchEvents(&context, request);
    v1::Event next;
    bool wanted = true;
    while (wanted && reader->Read(&next)) {
      wanted = event(next);
    }
    if (wanted) {
      return FromGrpcStatus(reader->Finish());
    }
    context.TryCancel();
    while (reader->Read(&next)) {
    }
    reader->Finish();  // cancelled by us
    return absl::OkStatus();
  }
  absl::StatusOr<v1::Mount> ConfirmMount(
      const v1::ConfirmMountRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::ConfirmMount,
                  request);
  }
  absl::StatusOr<v1::Mount> CollectGarbage(
      const v1::CollectGarbageRequest& request) override {
    return Call(mounts_.get(), &v1::MountService::Stub::CollectGarbage, request,
                kCollectTimeout);
  }
  absl::StatusOr<v1::ListOrphansResponse> ListOrphans(
      const v1::ListOrphansRequest& request) override {
    return Get(mounts_.get(), &v1::MountService::Stub::ListOrphans, request);
  }
  absl::StatusOr<v1::Orphan> RemoveOrphan(
      const v1::RemoveOrphanRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::RemoveOrphan,
                  request);
  }
  absl::StatusOr<v1::Orphan> AdoptOrphan(
      const v1::AdoptOrphanRequest& request) override {
    return Change(mounts_.get(), &v1::MountService::Stub::AdoptOrphan, request);
  }
  absl::StatusOr<v1::Cluster> GetCluster(
      const v1::GetClusterRequest& request) override {
    return Get(cluster_.get(), &v1::ClusterService::Stub::GetCluster, request);
  }
  absl::StatusOr<v1::PlacementDecision> ExplainPlacement(
      const v1::ExplainPlacementRequest& request) override {
    return Get(cluster_.get(), &v1::ClusterService::Stub::ExplainPlacement,
               request);
  }
  absl::StatusOr<v1::IndexBackup> BackupIndex(
      const v1::BackupIndexRequest& request) override {
    return Call(cluster_.get(), &v1::ClusterService::Stub::BackupIndex, request,
                kBackupTimeout);
  }
  absl::StatusOr<v1::CheckIndexResponse> CheckIndex(
      const v1::CheckIndexRequest& request) override {
    return Call(cluster_.get(), &v1::ClusterService::Stub::CheckIndex, request,
                kCheckTimeout);
  }

  std::unique_ptr<WriteStream> OpenWrite(const std::string& address) override {
    return OpenWriteStream(AgentChannel(address));
  }
  std::unique_ptr<ReadStream> OpenRead(
      const std::string& address,
      const v1::ReadImageRequest& request) override {
    return OpenReadStream(AgentChannel(address), request);
  }
  std::unique_ptr<ReadStream> OpenLocalRead(const std::string& address,
                                            const v1::ReadImageRequest& request,
                                            bool offers) override {
    const absl::StatusOr<Address> parsed = ParseAddress(address);
    if (options_.local_reads == ClientOptions::LocalReads::kNever ||
        !parsed.ok() || !parsed->unix_socket) {
      return nullptr;
    }
    return StartLocalRead(
        [path = parsed->path, request, timeout = options_.local_stall_timeout] {
          return OpenLocalImage(path, request, timeout);
        },
        request.offset(), request.offset() + request.length(), offers);
  }

 private:
  template <typename Service, typename Request, typename Response>
  using Method = grpc::Status (Service::*)(grpc::ClientContext*, const Request&,
                                           Response*);

  template <typename Service, typename Request, typename Response>
  static absl::StatusOr<Response> Call(
      Service* service, Method<Service, Request, Response> method,
      const Request& request, absl::Duration timeout) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         absl::ToChronoMicroseconds(timeout));
    Response response;
    const grpc::Status status =
        (service->*method)(&context, request, &response);
    if (!status.ok()) {
      return FromGrpcStatus(status);
    }
    return response;
  }
  template <typename Service, typename Request, typename Response>
  absl::StatusOr<Response> Get(Service* service,
                               Method<Service, Request, Response> method,
                               const Request& request) {
    return Call(service, method, request, options_.get_timeout);
  }
  template <typename Service, typename Request, typename Response>
  absl::StatusOr<Response> Change(Service* service,
                                  Method<Service, Request, Response> method,
                                  const Request& request) {
    return Call(service, method, request, options_.change_timeout);
  }

  std::shared_ptr<grpc::Channel> AgentChannel(const std::string& address) {
    MutexLock lock(&mu_);
    std::shared_ptr<grpc::Channel>& channel = agents_[address];
    if (channel == nullptr) {
      channel = DialChannel(address);
    }
    return channel;
  }

  const ClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::ImageService::Stub> images_;
  const std::unique_ptr<v1::MountService::Stub> mounts_;
  const std::unique_ptr<v1::ClusterService::Stub> cluster_;
  Mutex mu_;
  // As many as there are addresses of agents: they stay.
  std::map<std::string, std::shared_ptr<grpc::Channel>> agents_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace

std::shared_ptr<Stub> MakeGrpcStub(const ClientOptions& options) {
  return std::make_shared<GrpcStub>(options);
}

}  // namespace predella::client_internal
