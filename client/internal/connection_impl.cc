#include <memory>
#include <utility>

#include "client/internal/image_reader_impl.h"
#include "client/internal/image_writer_impl.h"
#include "client/internal/stub.h"
#include "client/internal/upload_starter.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "common/rpc/listen.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "predella/connection.h"
#include "predella/upload_mark.h"

namespace predella {
namespace client_internal {
namespace {

// Retries of plain calls are the channel's; those of streams and of
// StartUpload are in ImageWriterImpl, ImageReaderImpl, StartUploadWithRetry.
class ConnectionImpl final : public Connection {
 public:
  ConnectionImpl(std::shared_ptr<Stub> stub, const ClientOptions& options)
      : stub_(std::move(stub)), options_(options) {}

  absl::StatusOr<v1::Image> GetImage(
      const v1::GetImageRequest& request) override {
    return stub_->GetImage(request);
  }
  absl::StatusOr<v1::ListImagesResponse> ListImages(
      const v1::ListImagesRequest& request) override {
    return stub_->ListImages(request);
  }
  absl::StatusOr<v1::Image> ChooseImage(
      const v1::ChooseImageRequest& request) override {
    return stub_->ChooseImage(request);
  }
  absl::Status DeleteImage(const v1::DeleteImageRequest& request) override {
    return stub_->DeleteImage(request);
  }
  absl::StatusOr<v1::Upload> GetUpload(
      const v1::GetUploadRequest& request) override {
    return stub_->GetUpload(request);
  }
  absl::StatusOr<v1::ListUploadsResponse> ListUploads(
      const v1::ListUploadsRequest& request) override {
    return stub_->ListUploads(request);
  }
  absl::StatusOr<v1::Upload> AbortUpload(
      const v1::AbortUploadRequest& request) override {
    return stub_->AbortUpload(request);
  }

  absl::StatusOr<std::unique_ptr<ImageWriter>> StartUpload(
      const UploadOptions& upload) override {
    ASSIGN_OR_RETURN(const Uuid image, ParseImageName(upload.image));
    std::string id;
    if (upload.upload_id.empty()) {
      ASSIGN_OR_RETURN(id, DrawUploadId(upload.writer));
    } else {
      ASSIGN_OR_RETURN(const Uuid given, ParseUploadName(upload.upload_id));
      id = given.ToString();
    }
    v1::StartUploadRequest request;
    request.set_image(ImageName(image));
    request.set_upload_id(id);
    if (upload.size_bytes.has_value()) {
      request.set_size_bytes(*upload.size_bytes);
    }
    ASSIGN_OR_RETURN(
        v1::Upload started,
        StartUploadWithRetry(
            stub_.get(), options_, request,
            upload.upload_id.empty() ? UploadId::kDrawn : UploadId::kGiven));
    return std::unique_ptr<ImageWriter>(std::make_unique<ImageWriterImpl>(
        stub_, options_, upload, request, std::move(started)));
  }
  absl::StatusOr<std::unique_ptr<ImageReader>> ReadImage(
      const ReadOptions& read) override {
    return ImageReaderImpl::Open(stub_, options_, read);
  }

  absl::StatusOr<v1::Mount> GetMount(
      const v1::GetMountRequest& request) override {
    return stub_->GetMount(request);
  }
  absl::StatusOr<v1::ListMountsResponse> ListMounts(
      const v1::ListMountsRequest& request) override {
    return stub_->ListMounts(request);
  }
  absl::StatusOr<v1::Mount> CordonMount(
      const v1::CordonMountRequest& request) override {
    return stub_->CordonMount(request);
  }
  absl::StatusOr<v1::Mount> UncordonMount(
      const v1::UncordonMountRequest& request) override {
    return stub_->UncordonMount(request);
  }
  absl::StatusOr<v1::Mount> MaintainMount(
      const v1::MaintainMountRequest& request) override {
    return stub_->MaintainMount(request);
  }
  absl::StatusOr<v1::Mount> ScrubMount(
      const v1::ScrubMountRequest& request) override {
    return stub_->ScrubMount(request);
  }
  absl::StatusOr<v1::Mount> PauseScrub(
      const v1::PauseScrubRequest& request) override {
    return stub_->PauseScrub(request);
  }
  absl::StatusOr<v1::Mount> RetireMount(
      const v1::RetireMountRequest& request) override {
    return stub_->RetireMount(request);
  }
  absl::StatusOr<v1::Mount> ReplaceMount(
      const v1::ReplaceMountRequest& request) override {
    return stub_->ReplaceMount(request);
  }
  absl::StatusOr<v1::ExplainImpactResponse> ExplainImpact(
      const v1::ExplainImpactRequest& request) override {
    return stub_->ExplainImpact(request);
  }
  absl::StatusOr<v1::ListEventsResponse> ListEvents(
      const v1::ListEventsRequest& request) override {
    return stub_->ListEvents(request);
  }
  absl::Status WatchEvents(
      const v1::WatchEventsRequest& request,
      const std::function<bool(const v1::Event&)>& event) override {
    return stub_->WatchEvents(request, event);
  }
  absl::StatusOr<v1::Mount> ConfirmMount(
      const v1::ConfirmMountRequest& request) override {
    return stub_->ConfirmMount(request);
  }
  absl::StatusOr<v1::Mount> CollectGarbage(
      const v1::CollectGarbageRequest& request) override {
    return stub_->CollectGarbage(request);
  }
  absl::StatusOr<v1::ListOrphansResponse> ListOrphans(
      const v1::ListOrphansRequest& request) override {
    return stub_->ListOrphans(request);
  }
  absl::StatusOr<v1::Orphan> RemoveOrphan(
      const v1::RemoveOrphanRequest& request) override {
    return stub_->RemoveOrphan(request);
  }
  absl::StatusOr<v1::Orphan> AdoptOrphan(
      const v1::AdoptOrphanRequest& request) override {
    return stub_->AdoptOrphan(request);
  }
  absl::StatusOr<v1::Cluster> GetCluster() override {
    return stub_->GetCluster(v1::GetClusterRequest());
  }
  absl::StatusOr<v1::PlacementDecision> ExplainPlacement(
      const v1::ExplainPlacementRequest& request) override {
    return stub_->ExplainPlacement(request);
  }
  absl::StatusOr<v1::IndexBackup> BackupIndex() override {
    return stub_->BackupIndex(v1::BackupIndexRequest());
  }
  absl::StatusOr<v1::CheckIndexResponse> CheckIndex(
      const v1::CheckIndexRequest& request) override {
    return stub_->CheckIndex(request);
  }

 private:
  const std::shared_ptr<Stub> stub_;  // shared with writers and readers
  const ClientOptions options_;
};

}  // namespace
}  // namespace client_internal

absl::StatusOr<std::shared_ptr<Connection>> MakeConnection(
    const ClientOptions& options) {
  RETURN_IF_ERROR(ParseAddress(options.endpoint).status());
  if (options.upload_window_bytes < 18 * kMiB) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     "upload_window_bytes is at least 18 MiB: an agent may be "
                     "16 MiB behind");
  }
  return std::shared_ptr<Connection>(
      std::make_shared<client_internal::ConnectionImpl>(
          client_internal::MakeGrpcStub(options), options));
}

}  // namespace predella
