#include "server/service/image_service_impl.h"

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::server {
namespace {

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   message);
}

absl::StatusOr<ImageCatalog::DeleteRequest> ParseDelete(
    const v1::DeleteImageRequest& request) {
  ImageCatalog::DeleteRequest out;
  ASSIGN_OR_RETURN(out.image_id, ParseImageName(request.name()));
  out.allow_missing = request.allow_missing();
  if (!request.generation().empty()) {
    const auto generation = Generation::Parse(request.generation());
    if (!generation.ok()) {
      return Invalid(generation.status().message());
    }
    out.generation = *generation;
  }
  if (!request.request_id().empty() &&
      !Uuid::Parse(request.request_id()).ok()) {
    return Invalid("request_id has to be a UUID, or empty");
  }
  return out;
}

absl::StatusOr<UploadManager::StartRequest> ParseStart(
    const v1::StartUploadRequest& request) {
  UploadManager::StartRequest out;
  ASSIGN_OR_RETURN(out.image_id, ParseImageName(request.image()));
  ASSIGN_OR_RETURN(out.upload_id, ParseUploadName(request.upload_id()));
  if (request.has_size_bytes()) {
    if (request.size_bytes() < 0) {
      return Invalid(absl::StrCat("size_bytes is ", request.size_bytes(),
                                  ": leave it away when it is not known"));
    }
    out.size_bytes = request.size_bytes();
  }
  return out;
}

}  // namespace

grpc::ServerUnaryReactor* ImageServiceImpl::GetImage(
    grpc::CallbackServerContext* context, const v1::GetImageRequest* request,
    v1::Image* response) {
  return runner_->Run<v1::Image>(
      context, response, [this, request]() -> absl::StatusOr<v1::Image> {
        ASSIGN_OR_RETURN(const Uuid id, ParseImageName(request->name()));
        return images_->Get(id);
      });
}

grpc::ServerUnaryReactor* ImageServiceImpl::ListImages(
    grpc::CallbackServerContext* context, const v1::ListImagesRequest* request,
    v1::ListImagesResponse* response) {
  return runner_->Run<v1::ListImagesResponse>(
      context, response, [this, request] { return images_->List(*request); });
}

grpc::ServerUnaryReactor* ImageServiceImpl::DeleteImage(
    grpc::CallbackServerContext* context, const v1::DeleteImageRequest* request,
    google::protobuf::Empty* response) {
  return runner_->Run<google::protobuf::Empty>(
      context, response,
      [this, request]() -> absl::StatusOr<google::protobuf::Empty> {
        ASSIGN_OR_RETURN(const ImageCatalog::DeleteRequest parsed,
                         ParseDelete(*request));
        if (!request->request_id().empty()) {
          LogInfo("delete_requested", {{"image", request->name()},
                                       {"request_id", request->request_id()}});
        }
        RETURN_IF_ERROR(images_->Delete(parsed));
        return google::protobuf::Empty();
      });
}

grpc::ServerUnaryReactor* ImageServiceImpl::ChooseImage(
    grpc::CallbackServerContext* context, const v1::ChooseImageRequest* request,
    v1::Image* response) {
  return runner_->Run<v1::Image>(
      context, response, [this, request]() -> absl::StatusOr<v1::Image> {
        ASSIGN_OR_RETURN(const Uuid id, ParseImageName(request->name()));
        const auto generation = Generation::Parse(request->generation());
        if (!generation.ok()) {
          return Invalid(generation.status().message());
        }
        return images_->Choose(id, *generation, request->validate_only());
      });
}

grpc::ServerUnaryReactor* ImageServiceImpl::StartUpload(
    grpc::CallbackServerContext* context, const v1::StartUploadRequest* request,
    v1::Upload* response) {
  return runner_->Run<v1::Upload>(
      context, response, [this, request]() -> absl::StatusOr<v1::Upload> {
        ASSIGN_OR_RETURN(const UploadManager::StartRequest parsed,
                         ParseStart(*request));
        return uploads_->Start(parsed);
      });
}

grpc::ServerUnaryReactor* ImageServiceImpl::GetUpload(
    grpc::CallbackServerContext* context, const v1::GetUploadRequest* request,
    v1::Upload* response) {
  return runner_->Run<v1::Upload>(
      context, response, [this, request]() -> absl::StatusOr<v1::Upload> {
        ASSIGN_OR_RETURN(const Uuid id, ParseUploadName(request->name()));
        return uploads_->Get(id);
      });
}

grpc::ServerUnaryReactor* ImageServiceImpl::ListUploads(
    grpc::CallbackServerContext* context, const v1::ListUploadsRequest* request,
    v1::ListUploadsResponse* response) {
  return runner_->Run<v1::ListUploadsResponse>(
      context, response, [this, request] { return uploads_->List(*request); });
}

grpc::ServerUnaryReactor* ImageServiceImpl::AbortUpload(
    grpc::CallbackServerContext* context, const v1::AbortUploadRequest* request,
    v1::Upload* response) {
  return runner_->Run<v1::Upload>(
      context, response, [this, request]() -> absl::StatusOr<v1::Upload> {
        ASSIGN_OR_RETURN(const Uuid id, ParseUploadName(request->name()));
        return uploads_->Abort(id);
      });
}

}  // namespace predella::server
