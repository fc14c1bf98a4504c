// Copies an upload's prefix to another agent over gRPC.
#ifndef PREDELLA_AGENT_SERVICE_GRPC_PEER_WRITER_H_
#define PREDELLA_AGENT_SERVICE_GRPC_PEER_WRITER_H_

#include "agent/control/upload_stream.h"

namespace predella::agent {

// Each copy is a WriteImage stream of its own; addresses are tried in their
// order while none answers. Thread-safe.
class GrpcPeerWriter final : public PeerWriter {
 public:
  void Copy(PeerCopy copy) override;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_GRPC_PEER_WRITER_H_
