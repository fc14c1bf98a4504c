#include "agent/service/chunk_service.h"

#include "agent/service/read_call.h"
#include "agent/service/write_call.h"

namespace predella::agent {

grpc::ServerBidiReactor<v1::WriteImageRequest, v1::WriteImageResponse>*
ChunkServiceImpl::WriteImage(grpc::CallbackServerContext* /*context*/) {
  return WriteCall::Start(core_, &all_bytes_);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ChunkServiceImpl::ReadImage(
    grpc::CallbackServerContext* /*context*/, const grpc::ByteBuffer* request) {
  return ReadCall::Start(core_, *request);
}

}  // namespace predella::agent
