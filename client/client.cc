#include "predella/client.h"

#include <string>
#include <utility>

#include "common/errors.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella {

std::string ErrorReason(const absl::Status& status) { return ReasonOf(status); }

absl::StatusOr<std::optional<v1::Image>> ImageList::Next() {
  // A page may be empty without being the last.
  while (page_.empty() && !last_page_) {
    ASSIGN_OR_RETURN(v1::ListImagesResponse response,
                     connection_->ListImages(request_));
    for (v1::Image& image : *response.mutable_images()) {
      page_.push_back(std::move(image));
    }
    unreachable_.assign(response.unreachable().begin(),
                        response.unreachable().end());
    request_.set_page_token(response.next_page_token());
    last_page_ = response.next_page_token().empty();
  }
  if (page_.empty()) {
    return std::nullopt;
  }
  v1::Image image = std::move(page_.front());
  page_.pop_front();
  return image;
}

absl::StatusOr<Client> Client::Connect(const ClientOptions& options) {
  ASSIGN_OR_RETURN(auto connection, MakeConnection(options));
  return Client(std::move(connection));
}

absl::StatusOr<v1::Image> Client::GetImage(absl::string_view image) {
  ASSIGN_OR_RETURN(const Uuid id, ParseImageName(image));
  v1::GetImageRequest request;
  request.set_name(ImageName(id));
  return connection_->GetImage(request);
}

ImageList Client::ListImages(absl::string_view mount, int page_size,
                             v1::ImageHealth health) {
  v1::ListImagesRequest request;
  request.set_health(health);
  // A wrong name is the server's to refuse: this call has no status.
  if (!mount.empty()) {
    auto name = ParseMountName(mount);
    request.set_mount(name.ok() ? MountName(*name) : std::string(mount));
  }
  request.set_page_size(page_size);
  return ImageList(connection_, std::move(request));
}

absl::Status Client::DeleteImage(absl::string_view image,
                                 absl::string_view generation,
                                 bool allow_missing) {
  ASSIGN_OR_RETURN(const Uuid id, ParseImageName(image));
  v1::DeleteImageRequest request;
  request.set_name(ImageName(id));
  request.set_generation(std::string(generation));
  request.set_allow_missing(allow_missing);
  request.set_request_id(RandomIds()->NextUuid().ToString());
  return connection_->DeleteImage(request);
}

absl::StatusOr<v1::Image> Client::ChooseImage(absl::string_view image,
                                              absl::string_view generation,
                                              bool validate_only) {
  ASSIGN_OR_RETURN(const Uuid id, ParseImageName(image));
  v1::ChooseImageRequest request;
  request.set_name(ImageName(id));
  request.set_generation(std::string(generation));
  request.set_validate_only(validate_only);
  return connection_->ChooseImage(request);
}

absl::StatusOr<std::unique_ptr<ImageWriter>> Client::StartUpload(
    const UploadOptions& options) {
  return connection_->StartUpload(options);
}

absl::StatusOr<std::unique_ptr<ImageReader>> Client::ReadImage(
    const ReadOptions& options) {
  return connection_->ReadImage(options);
}

absl::StatusOr<v1::Upload> Client::GetUpload(absl::string_view upload) {
  ASSIGN_OR_RETURN(const Uuid id, ParseUploadName(upload));
  v1::GetUploadRequest request;
  request.set_name(UploadName(id));
  return connection_->GetUpload(request);
}

absl::StatusOr<v1::ListUploadsResponse> Client::ListUploads() {
  v1::ListUploadsResponse all;
  v1::ListUploadsRequest request;
  do {
    ASSIGN_OR_RETURN(v1::ListUploadsResponse page,
                     connection_->ListUploads(request));
    request.set_page_token(page.next_page_token());
    all.mutable_uploads()->MergeFrom(page.uploads());
  } while (!request.page_token().empty());
  return all;
}

absl::StatusOr<v1::Upload> Client::AbortUpload(absl::string_view upload) {
  ASSIGN_OR_RETURN(const Uuid id, ParseUploadName(upload));
  v1::AbortUploadRequest request;
  request.set_name(UploadName(id));
  return connection_->AbortUpload(request);
}

absl::StatusOr<v1::Mount> Client::GetMount(absl::string_view mount) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::GetMountRequest request;
  request.set_name(MountName(name));
  return connection_->GetMount(request);
}

absl::StatusOr<v1::ListMountsResponse> Client::ListMounts() {
  v1::ListMountsResponse all;
  v1::ListMountsRequest request;
  do {
    ASSIGN_OR_RETURN(v1::ListMountsResponse page,
                     connection_->ListMounts(request));
    request.set_page_token(page.next_page_token());
    all.mutable_mounts()->MergeFrom(page.mounts());
    *all.mutable_unreachable() = page.unreachable();
  } while (!request.page_token().empty());
  return all;
}

absl::StatusOr<v1::Mount> Client::CordonMount(absl::string_view mount,
                                              absl::string_view reason,
                                              bool validate_only) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::CordonMountRequest request;
  request.set_name(MountName(name));
  request.set_reason(std::string(reason));
  request.set_validate_only(validate_only);
  return connection_->CordonMount(request);
}

absl::StatusOr<v1::Mount> Client::UncordonMount(absl::string_view mount,
                                                bool validate_only) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::UncordonMountRequest request;
  request.set_name(MountName(name));
  request.set_validate_only(validate_only);
  return connection_->UncordonMount(request);
}

absl::StatusOr<v1::Mount> Client::MaintainMount(absl::string_view mount,
                                                absl::Time until,
                                                absl::string_view reason,
                                                bool validate_only) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::MaintainMountRequest request;
  request.set_name(MountName(name));
  const int64_t until_us = absl::ToUnixMicros(until);
  request.mutable_until_time()->set_seconds(until_us / 1'000'000);
  request.mutable_until_time()->set_nanos(
      static_cast<int32_t>(until_us % 1'000'000) * 1000);
  request.set_reason(std::string(reason));
  request.set_validate_only(validate_only);
  return connection_->MaintainMount(request);
}

absl::StatusOr<v1::Mount> Client::ScrubMount(absl::string_view mount,
                                             int64_t bytes_per_second,
                                             bool restart) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::ScrubMountRequest request;
  request.set_name(MountName(name));
  request.set_bytes_per_second(bytes_per_second);
  request.set_restart(restart);
  return connection_->ScrubMount(request);
}

absl::StatusOr<v1::Mount> Client::PauseScrub(absl::string_view mount) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::PauseScrubRequest request;
  request.set_name(MountName(name));
  return connection_->PauseScrub(request);
}

absl::StatusOr<v1::Mount> Client::RetireMount(absl::string_view mount,
                                              const AcceptedLoss& accept,
                                              absl::string_view reason,
                                              bool validate_only,
                                              bool accept_unlisted) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::RetireMountRequest request;
  request.set_name(MountName(name));
  request.set_accept_lost_image_count(accept.count);
  request.set_accept_lost_digest(accept.digest);
  request.set_reason(std::string(reason));
  request.set_validate_only(validate_only);
  request.set_accept_unlisted(accept_unlisted);
  return connection_->RetireMount(request);
}

absl::StatusOr<v1::Mount> Client::ReplaceMount(absl::string_view mount,
                                               absl::string_view new_uid,
                                               const AcceptedLoss& accept,
                                               absl::string_view reason,
                                               bool validate_only) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::ReplaceMountRequest request;
  request.set_name(MountName(name));
  request.set_new_uid(std::string(new_uid));
  request.set_accept_lost_image_count(accept.count);
  request.set_accept_lost_digest(accept.digest);
  request.set_reason(std::string(reason));
  request.set_validate_only(validate_only);
  return connection_->ReplaceMount(request);
}

absl::StatusOr<v1::ExplainImpactResponse> Client::ExplainImpact(
    const std::vector<std::string>& mounts, int page_size,
    absl::string_view page_token) {
  v1::ExplainImpactRequest request;
  for (const std::string& mount : mounts) {
    ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
    request.add_names(MountName(name));
  }
  request.set_page_size(page_size);
  request.set_page_token(std::string(page_token));
  return connection_->ExplainImpact(request);
}

absl::StatusOr<v1::Mount> Client::ConfirmMount(absl::string_view mount,
                                               bool validate_only) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::ConfirmMountRequest request;
  request.set_name(MountName(name));
  request.set_validate_only(validate_only);
  return connection_->ConfirmMount(request);
}

absl::StatusOr<v1::Mount> Client::CollectGarbage(absl::string_view mount,
                                                 int64_t accept_upload_count,
                                                 bool validate_only) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  v1::CollectGarbageRequest request;
  request.set_name(MountName(name));
  request.set_accept_upload_count(accept_upload_count);
  request.set_validate_only(validate_only);
  return connection_->CollectGarbage(request);
}

absl::StatusOr<v1::IndexBackup> Client::BackupIndex() {
  return connection_->BackupIndex();
}

absl::StatusOr<v1::CheckIndexResponse> Client::CheckIndex(
    bool index_only, absl::string_view page_token) {
  v1::CheckIndexRequest request;
  request.set_index_only(index_only);
  request.set_page_token(std::string(page_token));
  return connection_->CheckIndex(request);
}

absl::StatusOr<v1::ListOrphansResponse> Client::ListOrphans(
    absl::string_view mount) {
  v1::ListOrphansResponse all;
  v1::ListOrphansRequest request;
  if (!mount.empty()) {
    ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
    request.set_mount(MountName(name));
  }
  do {
    ASSIGN_OR_RETURN(v1::ListOrphansResponse page,
                     connection_->ListOrphans(request));
    request.set_page_token(page.next_page_token());
    all.mutable_orphans()->MergeFrom(page.orphans());
    *all.mutable_unlisted() = page.unlisted();
  } while (!request.page_token().empty());
  return all;
}

absl::StatusOr<std::string> Client::OrphanGeneration(const std::string& mount,
                                                     const std::string& image) {
  ASSIGN_OR_RETURN(const v1::ListOrphansResponse all, ListOrphans(mount));
  for (const v1::Orphan& orphan : all.orphans()) {
    if (orphan.image() == image) {
      return orphan.generation();
    }
  }
  return std::string();  // the coordinator says that there is none
}

absl::StatusOr<v1::Orphan> Client::RemoveOrphan(
    absl::string_view mount, absl::string_view image, bool validate_only,
    const std::optional<std::string>& generation) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  ASSIGN_OR_RETURN(const Uuid id, ParseImageName(image));
  v1::RemoveOrphanRequest request;
  request.set_mount(MountName(name));
  request.set_image(ImageName(id));
  if (generation.has_value()) {
    request.set_generation(*generation);
  } else {
    ASSIGN_OR_RETURN(*request.mutable_generation(),
                     OrphanGeneration(request.mount(), request.image()));
  }
  request.set_validate_only(validate_only);
  return connection_->RemoveOrphan(request);
}

absl::StatusOr<v1::Orphan> Client::AdoptOrphan(absl::string_view mount,
                                               absl::string_view image,
                                               bool validate_only,
                                               const v1::PlainFile* plain) {
  ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
  ASSIGN_OR_RETURN(const Uuid id, ParseImageName(image));
  v1::AdoptOrphanRequest request;
  request.set_mount(MountName(name));
  request.set_image(ImageName(id));
  if (plain != nullptr) {
    *request.mutable_plain() = *plain;
  } else {
    ASSIGN_OR_RETURN(*request.mutable_generation(),
                     OrphanGeneration(request.mount(), request.image()));
  }
  request.set_validate_only(validate_only);
  return connection_->AdoptOrphan(request);
}

absl::StatusOr<v1::Cluster> Client::GetCluster() {
  return connection_->GetCluster();
}

absl::StatusOr<v1::ListEventsResponse> Client::ListEvents(
    absl::string_view mount, absl::string_view kind, int page_size,
    absl::string_view page_token) {
  v1::ListEventsRequest request;
  if (!mount.empty()) {
    ASSIGN_OR_RETURN(const std::string name, ParseMountName(mount));
    request.set_mount(MountName(name));
  }
  request.set_kind(std::string(kind));
  request.set_page_size(page_size);
  request.set_page_token(std::string(page_token));
  return connection_->ListEvents(request);
}

absl::Status Client::WatchEvents(
    absl::string_view after,
    const std::function<bool(const v1::Event&)>& event) {
  v1::WatchEventsRequest request;
  request.set_after(std::string(after));
  return connection_->WatchEvents(request, event);
}

absl::StatusOr<v1::PlacementDecision> Client::ExplainPlacement(
    std::optional<int64_t> size_bytes, absl::string_view image) {
  v1::ExplainPlacementRequest request;
  if (size_bytes.has_value()) {
    request.set_size_bytes(*size_bytes);
  }
  if (!image.empty()) {
    ASSIGN_OR_RETURN(const Uuid id, ParseImageName(image));
    request.set_image(ImageName(id));
  }
  return connection_->ExplainPlacement(request);
}

}  // namespace predella
