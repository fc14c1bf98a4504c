// Streams over the callback API.
#ifndef PREDELLA_CLIENT_INTERNAL_GRPC_STREAMS_H_
#define PREDELLA_CLIENT_INTERNAL_GRPC_STREAMS_H_

#include <grpcpp/grpcpp.h>

#include <memory>

#include "client/internal/stub.h"
#include "predella/v1/chunk_service.pb.h"

namespace predella::client_internal {

std::unique_ptr<WriteStream> OpenWriteStream(
    std::shared_ptr<grpc::Channel> channel);
std::unique_ptr<ReadStream> OpenReadStream(
    std::shared_ptr<grpc::Channel> channel,
    const v1::ReadImageRequest& request);

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_GRPC_STREAMS_H_
