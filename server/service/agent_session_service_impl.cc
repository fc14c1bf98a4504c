#include "server/service/agent_session_service_impl.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"

#include "common/errors.h"
#include "common/mutex.h"
#include "common/rpc/grpc_status.h"

namespace predella::server {
namespace {

using Reactor = grpc::ServerBidiReactor<control::v1::AgentMessage,
                                        control::v1::CoordinatorMessage>;

// The write side of a stream. One write is under way at a time, and Finish is
// called once and never during a write, so the reactor, which lives until it
// was finished, is there whenever it is used; it is never called with `mu_`
// held, since gRPC may call back at once.
class GrpcSession final : public AgentSession {
 public:
  GrpcSession(int64_t number, Reactor* reactor)
      : number_(number), reactor_(reactor) {}

  int64_t number() const override { return number_; }

  void Send(control::v1::CoordinatorMessage message) override {
    {
      MutexLock lock(&mu_);
      if (closing_) {
        return;
      }
      queue_.push_back(std::move(message));
      if (writing_) {
        return;
      }
      writing_ = true;
    }
    WriteNext();
  }

  void Close(absl::Status status) override {
    {
      MutexLock lock(&mu_);
      if (closing_) {
        return;
      }
      closing_ = true;
      status_ = std::move(status);
      if (writing_) {
        return;  // WriteDone finishes
      }
      finished_ = true;
    }
    Finish();
  }

  void WriteDone(bool ok) {
    bool finish = false;
    {
      MutexLock lock(&mu_);
      queue_.pop_front();
      if (!ok && !closing_) {
        closing_ = true;
        status_ = absl::UnavailableError("the agent has gone");
      }
      finish = closing_ && !finished_;
      if (finish) {
        finished_ = true;
        writing_ = false;
      } else if (queue_.empty()) {
        writing_ = false;
        return;
      }
    }
    if (finish) {
      Finish();
    } else {
      WriteNext();
    }
  }

  bool closing() {
    MutexLock lock(&mu_);
    return closing_;
  }

 private:
  // The caller has set writing_.
  void WriteNext() {
    const control::v1::CoordinatorMessage* message = nullptr;
    {
      MutexLock lock(&mu_);
      message = &queue_.front();  // a deque keeps its elements in place
    }
    reactor_->StartWrite(message);
  }

  void Finish() {
    absl::Status status;
    {
      MutexLock lock(&mu_);
      status = status_;
    }
    reactor_->Finish(ToGrpcStatus(status));
  }

  const int64_t number_;
  Reactor* const reactor_;
  Mutex mu_;
  std::deque<control::v1::CoordinatorMessage> queue_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool closing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

// Deletes itself when gRPC is done with it.
class SessionReactor final : public Reactor {
 public:
  explicit SessionReactor(SessionManager* sessions)
      : sessions_(sessions),
        session_(std::make_shared<GrpcSession>(sessions->NextSessionNumber(),
                                               this)) {
    sessions_->Opened(session_);
    StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      session_->Close(absl::OkStatus());
      return;
    }
    sessions_->Deliver(session_->number(), message_);
    if (!session_->closing()) {
      StartRead(&message_);
    }
  }

  void OnWriteDone(bool ok) override { session_->WriteDone(ok); }

  void OnCancel() override {
    // The mount counts as without a session from now on, not when the last
    // operation has returned.
    sessions_->Closed(session_->number());
    session_->Close(absl::CancelledError("the agent has gone"));
  }

  void OnDone() override {
    sessions_->Closed(session_->number());
    delete this;
  }

 private:
  SessionManager* const sessions_;
  const std::shared_ptr<GrpcSession> session_;  // shared with the manager
  control::v1::AgentMessage message_;
};

// Reads the next part when the last one was taken in: a listing of a million
// images holds one part in memory. Deletes itself when gRPC is done with it.
class InventoryReactor final
    : public grpc::ServerReadReactor<control::v1::InventoryPart> {
 public:
  InventoryReactor(SessionManager* sessions, Executor* pool,
                   control::v1::InventoryReceipt* receipt)
      : sessions_(sessions), pool_(pool), receipt_(receipt) {
    StartRead(&part_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    // Not finished before the task ends, so this is there.
    pool_->Post([this] {
      const absl::Status status = sessions_->TakeInventory(part_);
      if (!status.ok()) {
        Finish(ToGrpcStatus(status));
        return;
      }
      receipt_->set_entries(receipt_->entries() + part_.entries_size());
      part_.Clear();
      StartRead(&part_);
    });
  }

  void OnDone() override { delete this; }

 private:
  SessionManager* const sessions_;
  Executor* const pool_;
  control::v1::InventoryReceipt* const receipt_;
  control::v1::InventoryPart part_;
};

class RefusedInventory final
    : public grpc::ServerReadReactor<control::v1::InventoryPart> {
 public:
  explicit RefusedInventory(const absl::Status& status) {
    Finish(ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }
};

class RefusedReactor final : public Reactor {
 public:
  explicit RefusedReactor(const absl::Status& status) {
    Finish(ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }
};

absl::Status Stopping() {
  return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                   "the coordinator is stopping: dial again in a moment");
}

}  // namespace

Reactor* AgentSessionServiceImpl::Session(grpc::CallbackServerContext*) {
  if (runner_->draining()) {
    return new RefusedReactor(Stopping());
  }
  return new SessionReactor(sessions_);
}

grpc::ServerReadReactor<control::v1::InventoryPart>*
AgentSessionServiceImpl::ReportInventory(
    grpc::CallbackServerContext*, control::v1::InventoryReceipt* receipt) {
  if (runner_->draining()) {
    return new RefusedInventory(Stopping());
  }
  return new InventoryReactor(sessions_, pool_, receipt);
}

}  // namespace predella::server
