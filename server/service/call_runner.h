// How unary calls run: refused while draining, posted to the pool, finished
// with a status that carries its ErrorInfo.
#ifndef PREDELLA_SERVER_SERVICE_CALL_RUNNER_H_
#define PREDELLA_SERVER_SERVICE_CALL_RUNNER_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/executor.h"
#include "common/mutex.h"
#include "common/rpc/grpc_status.h"

namespace predella::server {

// Thread-safe.
class CallRunner {
 public:
  // `pool` must outlive every call and run each task it is given.
  explicit CallRunner(Executor* pool) : pool_(pool) {}

  // Runs `work` on the pool and finishes the call with what it returns. A call
  // that was cancelled, or whose deadline passed, before its turn came does
  // nothing. Request and response live until then.
  template <typename Response>
  grpc::ServerUnaryReactor* Run(
      grpc::CallbackServerContext* context, Response* response,
      std::function<absl::StatusOr<Response>()> work) {
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    if (absl::Status status = Begin(); !status.ok()) {
      reactor->Finish(ToGrpcStatus(status));
      return reactor;
    }
    pool_->Post([this, context, reactor, response, work = std::move(work)] {
      absl::Status status = Unwanted(context);
      if (status.ok()) {
        absl::StatusOr<Response> result = work();
        status = result.status();
        if (result.ok()) {
          *response = *std::move(result);
        }
      }
      reactor->Finish(ToGrpcStatus(status));
      End();
    });
    return reactor;
  }

  // Refuses new calls from now on: UNAVAILABLE, NOT_READY.
  void StartDraining();
  bool draining();
  // Waits until no call runs; false when `timeout` passed first.
  bool WaitIdle(absl::Duration timeout);

 private:
  absl::Status Begin();
  void End();
  static absl::Status Unwanted(grpc::CallbackServerContext* context);

  Executor* const pool_;
  Mutex mu_;
  CondVar idle_;
  int running_ ABSL_GUARDED_BY(mu_) = 0;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_SERVICE_CALL_RUNNER_H_
