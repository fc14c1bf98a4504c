// predella.v1.ChunkService over AgentCore.
#ifndef PREDELLA_AGENT_SERVICE_CHUNK_SERVICE_H_
#define PREDELLA_AGENT_SERVICE_CHUNK_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>

#include "agent/control/agent_core.h"
#include "predella/v1/chunk_service.grpc.pb.h"

namespace predella::agent {

// ReadImage is raw: the bytes of a chunk are never in a generated message.
using ChunkServiceBase = v1::ChunkService::WithCallbackMethod_WriteImage<
    v1::ChunkService::WithRawCallbackMethod_ReadImage<
        v1::ChunkService::Service>>;

// Reactions never block: all work on the disk is posted to it.
class ChunkServiceImpl final : public ChunkServiceBase {
 public:
  // `core` must outlive this and every call.
  explicit ChunkServiceImpl(AgentCore* core) : core_(core) {}

  grpc::ServerBidiReactor<v1::WriteImageRequest, v1::WriteImageResponse>*
  WriteImage(grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* ReadImage(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;

 private:
  AgentCore* const core_;
  std::atomic<int64_t> all_bytes_{0};
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_CHUNK_SERVICE_H_
