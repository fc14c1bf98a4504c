#include "tests/bench/sink_server.h"

#include <grpcpp/grpcpp.h>

#include "common/rpc/server_runner.h"
#include "predella/v1/chunk_service.grpc.pb.h"

namespace predella::bench {
namespace {

class Sink final : public v1::ChunkService::Service {
  grpc::Status WriteImage(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::WriteImageResponse, v1::WriteImageRequest>*
          stream) override {
    v1::WriteImageRequest request;
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  }
};

}  // namespace

struct SinkServer::Impl {
  Sink service;
  std::unique_ptr<ServerRunner> server;
  std::shared_ptr<grpc::Channel> channel;
};

SinkServer::SinkServer(const std::string& socket_path)
    : impl_(std::make_unique<Impl>()) {
  ServerOptions options;
  options.listen.push_back(*ParseAddress("unix:" + socket_path));
  impl_->server = *ServerRunner::Start(options, {&impl_->service});
  impl_->channel = DialChannel("unix:" + socket_path);
}

SinkServer::~SinkServer() = default;

void SinkServer::Upload(const std::string& piece, int64_t bytes) {
  auto stub = v1::ChunkService::NewStub(impl_->channel);
  grpc::ClientContext context;
  auto stream = stub->WriteImage(&context);
  v1::WriteImageRequest request;
  for (int64_t done = 0; done < bytes;
       done += static_cast<int64_t>(piece.size())) {
    request.mutable_chunk()->set_offset(done);
    request.mutable_chunk()->set_data(piece);
    if (!stream->Write(request)) {
      break;
    }
  }
  stream->WritesDone();
  v1::WriteImageResponse response;
  while (stream->Read(&response)) {
  }
  stream->Finish();
}

}  // namespace predella::bench
