// GoogleMock classes for the tests of applications.
#ifndef PREDELLA_CLIENT_MOCKS_MOCK_CONNECTION_H_
#define PREDELLA_CLIENT_MOCKS_MOCK_CONNECTION_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"

#include "predella/connection.h"
#include "predella/image_reader.h"
#include "predella/image_writer.h"

namespace predella {

class MockImageWriter : public ImageWriter {
 public:
  using ImageWriter::Commit;
  MOCK_METHOD(absl::Status, Write, (absl::string_view data), (override));
  MOCK_METHOD(absl::StatusOr<v1::Image>, Commit,
              (const std::vector<v1::Hash>& hashes), (override));
  MOCK_METHOD(absl::Status, Abort, (), (override));
  MOCK_METHOD(std::string, upload_id, (), (const, override));
  MOCK_METHOD(std::string, mount, (), (const, override));
  MOCK_METHOD(int64_t, bytes_written, (), (const, override));
};

class MockImageReader : public ImageReader {
 public:
  MOCK_METHOD(absl::StatusOr<absl::string_view>, Read, (), (override));
  MOCK_METHOD(const v1::Image&, image, (), (const, override));
};

class MockConnection : public Connection {
 public:
  MOCK_METHOD(absl::StatusOr<v1::Image>, GetImage,
              (const v1::GetImageRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::ListImagesResponse>, ListImages,
              (const v1::ListImagesRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Image>, ChooseImage,
              (const v1::ChooseImageRequest& request), (override));
  MOCK_METHOD(absl::Status, DeleteImage,
              (const v1::DeleteImageRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Upload>, GetUpload,
              (const v1::GetUploadRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::ListUploadsResponse>, ListUploads,
              (const v1::ListUploadsRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Upload>, AbortUpload,
              (const v1::AbortUploadRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<std::unique_ptr<ImageWriter>>, StartUpload,
              (const UploadOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<std::unique_ptr<ImageReader>>, ReadImage,
              (const ReadOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, GetMount,
              (const v1::GetMountRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::ListMountsResponse>, ListMounts,
              (const v1::ListMountsRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, CordonMount,
              (const v1::CordonMountRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, UncordonMount,
              (const v1::UncordonMountRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, MaintainMount,
              (const v1::MaintainMountRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, ScrubMount,
              (const v1::ScrubMountRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, PauseScrub,
              (const v1::PauseScrubRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, RetireMount,
              (const v1::RetireMountRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, ReplaceMount,
              (const v1::ReplaceMountRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::ExplainImpactResponse>, ExplainImpact,
              (const v1::ExplainImpactRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::ListEventsResponse>, ListEvents,
              (const v1::ListEventsRequest& request), (override));
  MOCK_METHOD(absl::Status, WatchEvents,
              (const v1::WatchEventsRequest& request,
               const std::function<bool(const v1::Event&)>& event),
              (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, ConfirmMount,
              (const v1::ConfirmMountRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Mount>, CollectGarbage,
              (const v1::CollectGarbageRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::ListOrphansResponse>, ListOrphans,
              (const v1::ListOrphansRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Orphan>, RemoveOrphan,
              (const v1::RemoveOrphanRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Orphan>, AdoptOrphan,
              (const v1::AdoptOrphanRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::Cluster>, GetCluster, (), (override));
  MOCK_METHOD(absl::StatusOr<v1::PlacementDecision>, ExplainPlacement,
              (const v1::ExplainPlacementRequest& request), (override));
  MOCK_METHOD(absl::StatusOr<v1::IndexBackup>, BackupIndex, (), (override));
  MOCK_METHOD(absl::StatusOr<v1::CheckIndexResponse>, CheckIndex,
              (const v1::CheckIndexRequest& request), (override));
};

}  // namespace predella

#endif  // PREDELLA_CLIENT_MOCKS_MOCK_CONNECTION_H_
