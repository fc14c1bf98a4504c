// What Client stands on. An application uses Client; its tests may put a
// MockConnection (predella/mocks/mock_connection.h) under it.
#ifndef PREDELLA_CLIENT_INCLUDE_PREDELLA_CONNECTION_H_
#define PREDELLA_CLIENT_INCLUDE_PREDELLA_CONNECTION_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "predella/client_options.h"
#include "predella/image_reader.h"
#include "predella/image_writer.h"
#include "predella/v1/cluster_service.pb.h"
#include "predella/v1/image_service.pb.h"
#include "predella/v1/mount_service.pb.h"

namespace predella {

// One coordinator and the agents it names. Calls block, have deadlines, and
// are tried again where that is safe. Safe for concurrent use.
class Connection {
 public:
  virtual ~Connection() = default;

  virtual absl::StatusOr<v1::Image> GetImage(
      const v1::GetImageRequest& request) = 0;
  virtual absl::StatusOr<v1::ListImagesResponse> ListImages(
      const v1::ListImagesRequest& request) = 0;
  virtual absl::Status DeleteImage(const v1::DeleteImageRequest& request) = 0;
  virtual absl::StatusOr<v1::Image> ChooseImage(
      const v1::ChooseImageRequest& request) = 0;
  virtual absl::StatusOr<v1::Upload> GetUpload(
      const v1::GetUploadRequest& request) = 0;
  virtual absl::StatusOr<v1::ListUploadsResponse> ListUploads(
      const v1::ListUploadsRequest& request) = 0;
  virtual absl::StatusOr<v1::Upload> AbortUpload(
      const v1::AbortUploadRequest& request) = 0;

  virtual absl::StatusOr<std::unique_ptr<ImageWriter>> StartUpload(
      const UploadOptions& options) = 0;
  virtual absl::StatusOr<std::unique_ptr<ImageReader>> ReadImage(
      const ReadOptions& options) = 0;

  virtual absl::StatusOr<v1::Mount> GetMount(
      const v1::GetMountRequest& request) = 0;
  virtual absl::StatusOr<v1::ListMountsResponse> ListMounts(
      const v1::ListMountsRequest& request) = 0;
  virtual absl::StatusOr<v1::Mount> CordonMount(
      const v1::CordonMountRequest& request) = 0;
  virtual absl::StatusOr<v1::Mount> UncordonMount(
      const v1::UncordonMountRequest& request) = 0;
  virtual absl::StatusOr<v1::Mount> MaintainMount(
      const v1::MaintainMountRequest& request) = 0;
  virtual absl::StatusOr<v1::Mount> RetireMount(
      const v1::RetireMountRequest& request) = 0;
  virtual absl::StatusOr<v1::Mount> ScrubMount(
      const v1::ScrubMountRequest& request) = 0;
  virtual absl::StatusOr<v1::Mount> PauseScrub(
      const v1::PauseScrubRequest& request) = 0;

  virtual absl::StatusOr<v1::Mount> ReplaceMount(
      const v1::ReplaceMountRequest& request) = 0;
  virtual absl::StatusOr<v1::ExplainImpactResponse> ExplainImpact(
      const v1::ExplainImpactRequest& request) = 0;
  virtual absl::StatusOr<v1::Mount> ConfirmMount(
      const v1::ConfirmMountRequest& request) = 0;
  virtual absl::StatusOr<v1::Mount> CollectGarbage(
      const v1::CollectGarbageRequest& request) = 0;

  virtual absl::StatusOr<v1::ListOrphansResponse> ListOrphans(
      const v1::ListOrphansRequest& request) = 0;
  virtual absl::StatusOr<v1::Orphan> RemoveOrphan(
      const v1::RemoveOrphanRequest& request) = 0;
  virtual absl::StatusOr<v1::Orphan> AdoptOrphan(
      const v1::AdoptOrphanRequest& request) = 0;
  virtual absl::StatusOr<v1::Cluster> GetCluster() = 0;
  virtual absl::StatusOr<v1::ListEventsResponse> ListEvents(
      const v1::ListEventsRequest& request) = 0;
  // Blocks, without a deadline, until `event` returns false (OK) or the stream
  // ends: UNAVAILABLE when the coordinator goes away.
  virtual absl::Status WatchEvents(
      const v1::WatchEventsRequest& request,
      const std::function<bool(const v1::Event&)>& event) = 0;
  virtual absl::StatusOr<v1::PlacementDecision> ExplainPlacement(
      const v1::ExplainPlacementRequest& request) = 0;
  virtual absl::StatusOr<v1::IndexBackup> BackupIndex() = 0;
  virtual absl::StatusOr<v1::CheckIndexResponse> CheckIndex(
      const v1::CheckIndexRequest& request) = 0;
};

// Nothing is dialled before the first call. INVALID_ARGUMENT when the
// endpoint is not an address.
absl::StatusOr<std::shared_ptr<Connection>> MakeConnection(
    const ClientOptions& options);

}  // namespace predella

#endif  // PREDELLA_CLIENT_INCLUDE_PREDELLA_CONNECTION_H_
