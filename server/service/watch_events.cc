// ClusterService.WatchEvents. The stream holds a place in the log and the few
// events it is sending: a client that reads slowly finds the rest in the index.
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/errors.h"
#include "common/mutex.h"
#include "common/rpc/grpc_status.h"
#include "server/service/cluster_service_impl.h"

namespace predella::server {
namespace {

constexpr int64_t kAtOnce = 100;

// One of reading and writing is under way at a time; Finish is called once,
// when neither is. Deletes itself when gRPC is done with it.
class WatchReactor final : public grpc::ServerWriteReactor<v1::Event> {
 public:
  WatchReactor(CallRunner* runner, EventLog* events, Executor* pool,
               std::string after)
      : runner_(runner),
        events_(events),
        pool_(pool),
        after_(std::move(after)) {
    auto follower = events_->Follow([this] { Wake(); });
    if (!follower.ok()) {
      End(follower.status());
      return;
    }
    follower_ = *follower;
    Wake();
  }

  void OnWriteDone(bool ok) override {
    const v1::Event* next = nullptr;
    {
      MutexLock lock(&mu_);
      ++sent_;
      if (!ok && !ending_) {
        ending_ = true;
        status_ = absl::CancelledError("the client has gone");
      }
      if (!ending_ && sent_ < batch_.size()) {
        next = &batch_[sent_];
      } else {
        busy_ = false;
      }
    }
    if (next != nullptr) {
      StartWrite(next);
      return;
    }
    FinishIfEnding();
    Wake();
  }

  void OnCancel() override { End(absl::CancelledError("the client has gone")); }

  void OnDone() override {
    if (follower_ != 0) {
      events_->Unfollow(follower_);
    }
    delete this;
  }

 private:
  // Reads on, unless that, or a write, is under way: those go on by themselves.
  void Wake() {
    {
      MutexLock lock(&mu_);
      if (busy_ || ending_) {
        return;
      }
      busy_ = true;
    }
    // Not finished while busy, so this is there.
    pool_->Post([this] { Read(); });
  }

  void Read() {
    absl::Status status;
    std::vector<v1::Event> events;
    if (runner_->draining()) {
      status = MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                         "the coordinator is stopping: go on with the next one "
                         "behind the last event");
    } else {
      if (after_.empty()) {
        auto newest = events_->Newest();
        status = newest.status();
        after_ = newest.ok() ? *std::move(newest) : "";
      }
      if (status.ok()) {
        auto read = events_->After(after_, kAtOnce);
        status = read.status();
        if (read.ok()) {
          events = *std::move(read);
        }
      }
    }
    if (!events.empty()) {
      after_ = events.back().id();
    }
    // No callback of gRPC keeps this alive here: nothing of it is touched once
    // another may end it.
    const v1::Event* first = nullptr;
    bool finish = false;
    {
      MutexLock lock(&mu_);
      if (!status.ok() && !ending_) {
        ending_ = true;
        status_ = status;
      }
      batch_ = std::move(events);
      sent_ = 0;
      if (!ending_ && !batch_.empty()) {
        first = &batch_[0];
      } else {
        busy_ = false;
        finish = ending_ && !finished_;
        finished_ = finished_ || finish;
        status = status_;
      }
    }
    if (first != nullptr) {
      StartWrite(first);
    } else if (finish) {
      Finish(ToGrpcStatus(status));
    }
  }

  void End(absl::Status status) {
    {
      MutexLock lock(&mu_);
      if (!ending_) {
        ending_ = true;
        status_ = std::move(status);
      }
    }
    FinishIfEnding();
  }

  void FinishIfEnding() {
    absl::Status status;
    {
      MutexLock lock(&mu_);
      if (!ending_ || busy_ || finished_) {
        return;
      }
      finished_ = true;
      status = status_;
    }
    Finish(ToGrpcStatus(status));
  }

  CallRunner* const runner_;
  EventLog* const events_;
  Executor* const pool_;
  int64_t follower_ = 0;  // constant after the constructor
  std::string after_;     // of whoever is busy
  Mutex mu_;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;  // reading, or writing `batch_`
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::Event> batch_ ABSL_GUARDED_BY(mu_);
  size_t sent_ ABSL_GUARDED_BY(mu_) = 0;
};

class RefusedWatch final : public grpc::ServerWriteReactor<v1::Event> {
 public:
  explicit RefusedWatch(const absl::Status& status) {
    Finish(ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerWriteReactor<v1::Event>* ClusterServiceImpl::WatchEvents(
    grpc::CallbackServerContext*, const v1::WatchEventsRequest* request) {
  if (!request->after().empty()) {
    if (const absl::Status id = EventLog::CheckId(request->after()); !id.ok()) {
      return new RefusedWatch(id);
    }
  }
  return new WatchReactor(runner_, events_, pool_, request->after());
}

}  // namespace predella::server
