// The generated stubs behind one interface: absl::StatusOr, deadlines, and
// streams that can be waited on with a timeout. No retries here but those
// that the channel's service config makes.
#ifndef PREDELLA_CLIENT_INTERNAL_STUB_H_
#define PREDELLA_CLIENT_INTERNAL_STUB_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/rpc/read_codec.h"
#include "predella/client_options.h"
#include "predella/v1/chunk_service.pb.h"
#include "predella/v1/cluster_service.pb.h"
#include "predella/v1/image_service.pb.h"
#include "predella/v1/mount_service.pb.h"

namespace predella::client_internal {

enum class StreamEvent {
  kMessage,  // one came
  kEnd,      // the stream is over; its status is set
  kTimeout,
};

// One WriteImage call. Used by one thread; destroying it cancels the call.
class WriteStream {
 public:
  virtual ~WriteStream() = default;
  // Returns at once. They are sent in this order while the caller does other
  // things; how many wait is the caller's to limit.
  virtual void Write(std::shared_ptr<const v1::WriteImageRequest> request) = 0;
  // What comes first; messages before the end.
  virtual StreamEvent Wait(absl::Duration timeout,
                           v1::WriteImageResponse* message,
                           absl::Status* status) = 0;
};

// One ReadImage call. Used by one thread; destroying it cancels the call.
class ReadStream {
 public:
  virtual ~ReadStream() = default;
  // What cannot be parsed ends the stream: DATA_LOSS.
  virtual StreamEvent Wait(absl::Duration timeout, ReadMessage* message,
                           absl::Status* status) = 0;
  // As ImageReader::Offer.
  virtual bool Offer(int64_t offset, char* out, size_t size,
                     std::shared_ptr<void> keep) {
    static_cast<void>(offset);
    static_cast<void>(out);
    static_cast<void>(size);
    static_cast<void>(keep);
    return false;
  }
};

// Safe for concurrent use.
class Stub {
 public:
  virtual ~Stub() = default;

  virtual absl::StatusOr<v1::Image> GetImage(
      const v1::GetImageRequest& request) = 0;
  virtual absl::StatusOr<v1::ListImagesResponse> ListImages(
      const v1::ListImagesRequest& request) = 0;
  virtual absl::Status DeleteImage(const v1::DeleteImageRequest& request) = 0;
  virtual absl::StatusOr<v1::Image> ChooseImage(
      const v1::ChooseImageRequest& request) = 0;
  virtual absl::StatusOr<v1::Upload> StartUpload(
      const v1::StartUploadRequest& request) = 0;
  virtual absl::StatusOr<v1::Upload> GetUpload(
      const v1::GetUploadRequest& request) = 0;
  virtual absl::StatusOr<v1::ListUploadsResponse> ListUploads(
      const v1::ListUploadsRequest& request) = 0;
  virtual absl::StatusOr<v1::Upload> AbortUpload(
      const v1::AbortUploadRequest& request) = 0;
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
  virtual absl::StatusOr<v1::Mount> ReplaceMount(
      const v1::ReplaceMountRequest& request) = 0;
  virtual absl::StatusOr<v1::ExplainImpactResponse> ExplainImpact(
      const v1::ExplainImpactRequest& request) = 0;
  virtual absl::StatusOr<v1::ListEventsResponse> ListEvents(
      const v1::ListEventsRequest& request) = 0;
  // As Connection says it.
  virtual absl::Status WatchEvents(
      const v1::WatchEventsRequest& request,
      const std::function<bool(const v1::Event&)>& event) = 0;
  virtual absl::StatusOr<v1::Mount> ScrubMount(
      const v1::ScrubMountRequest& request) = 0;
  virtual absl::StatusOr<v1::Mount> PauseScrub(
      const v1::PauseScrubRequest& request) = 0;
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
  virtual absl::StatusOr<v1::Cluster> GetCluster(
      const v1::GetClusterRequest& request) = 0;
  virtual absl::StatusOr<v1::PlacementDecision> ExplainPlacement(
      const v1::ExplainPlacementRequest& request) = 0;
  virtual absl::StatusOr<v1::IndexBackup> BackupIndex(
      const v1::BackupIndexRequest& request) = 0;
  virtual absl::StatusOr<v1::CheckIndexResponse> CheckIndex(
      const v1::CheckIndexRequest& request) = 0;

  virtual std::unique_ptr<WriteStream> OpenWrite(
      const std::string& address) = 0;
  virtual std::unique_ptr<ReadStream> OpenRead(
      const std::string& address, const v1::ReadImageRequest& request) = 0;
  // The same through the open file, as StartLocalRead; `request.length()` is
  // not 0. Null where that is not to be tried.
  virtual std::unique_ptr<ReadStream> OpenLocalRead(
      const std::string& address, const v1::ReadImageRequest& request,
      bool offers) = 0;
};

std::shared_ptr<Stub> MakeGrpcStub(const ClientOptions& options);

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_STUB_H_
