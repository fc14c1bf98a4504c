// predella.v1.ImageService: checks names and hands over to the lifecycle.
#ifndef PREDELLA_SERVER_SERVICE_IMAGE_SERVICE_IMPL_H_
#define PREDELLA_SERVER_SERVICE_IMAGE_SERVICE_IMPL_H_

#include <grpcpp/grpcpp.h>

#include "predella/v1/image_service.grpc.pb.h"
#include "server/lifecycle/image_catalog.h"
#include "server/lifecycle/upload_manager.h"
#include "server/service/call_runner.h"

namespace predella::server {

class ImageServiceImpl final : public v1::ImageService::CallbackService {
 public:
  // All must outlive the server this is registered with.
  ImageServiceImpl(CallRunner* runner, ImageCatalog* images,
                   UploadManager* uploads)
      : runner_(runner), images_(images), uploads_(uploads) {}

  grpc::ServerUnaryReactor* GetImage(grpc::CallbackServerContext* context,
                                     const v1::GetImageRequest* request,
                                     v1::Image* response) override;
  grpc::ServerUnaryReactor* ListImages(
      grpc::CallbackServerContext* context,
      const v1::ListImagesRequest* request,
      v1::ListImagesResponse* response) override;
  grpc::ServerUnaryReactor* ChooseImage(grpc::CallbackServerContext* context,
                                        const v1::ChooseImageRequest* request,
                                        v1::Image* response) override;
  grpc::ServerUnaryReactor* DeleteImage(
      grpc::CallbackServerContext* context,
      const v1::DeleteImageRequest* request,
      google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* StartUpload(grpc::CallbackServerContext* context,
                                        const v1::StartUploadRequest* request,
                                        v1::Upload* response) override;
  grpc::ServerUnaryReactor* GetUpload(grpc::CallbackServerContext* context,
                                      const v1::GetUploadRequest* request,
                                      v1::Upload* response) override;
  grpc::ServerUnaryReactor* ListUploads(
      grpc::CallbackServerContext* context,
      const v1::ListUploadsRequest* request,
      v1::ListUploadsResponse* response) override;
  grpc::ServerUnaryReactor* AbortUpload(grpc::CallbackServerContext* context,
                                        const v1::AbortUploadRequest* request,
                                        v1::Upload* response) override;

 private:
  CallRunner* const runner_;
  ImageCatalog* const images_;
  UploadManager* const uploads_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_SERVICE_IMAGE_SERVICE_IMPL_H_
