// absl::Status <-> google.rpc.Status, for errors inside messages. No gRPC.
#ifndef PREDELLA_COMMON_RPC_STATUS_H_
#define PREDELLA_COMMON_RPC_STATUS_H_

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace predella {

// Payloads become details.
google::rpc::Status ToRpcStatus(const absl::Status& status);
absl::Status FromRpcStatus(const google::rpc::Status& proto);

}  // namespace predella

#endif  // PREDELLA_COMMON_RPC_STATUS_H_
