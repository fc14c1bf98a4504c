// absl::Status <-> grpc::Status, ErrorInfo included: a google.rpc.Status in
// the binary details, as every gRPC tool expects it.
#ifndef PREDELLA_COMMON_RPC_GRPC_STATUS_H_
#define PREDELLA_COMMON_RPC_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace predella {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace predella

#endif  // PREDELLA_COMMON_RPC_GRPC_STATUS_H_
