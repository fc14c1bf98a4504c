#include "agent/service/inventory_call.h"

#include <cstddef>
#include <utility>

#include "agent/service/network.h"
#include "common/rpc/grpc_status.h"

namespace predella::agent {
namespace {

// About 200 KiB each: enough to keep the network busy.
constexpr size_t kMostQueued = 4;

}  // namespace

InventoryCall::InventoryCall(std::shared_ptr<grpc::Channel> channel)
    : channel_(std::move(channel)),
      stub_(control::v1::AgentSessionService::NewStub(channel_)) {}

std::shared_ptr<InventoryCall> InventoryCall::Open(
    std::shared_ptr<grpc::Channel> channel) {
  std::shared_ptr<InventoryCall> call =
      ShareOnNetwork(new InventoryCall(std::move(channel)));
  {
    MutexLock lock(&call->mu_);
    call->self_ = call;
  }
  OnNetwork([call] {
    call->stub_->async()->ReportInventory(&call->context_, &call->receipt_,
                                          call.get());
    // Writes start outside of reactions.
    call->AddHold();
    call->StartCall();
    {
      MutexLock lock(&call->mu_);
      call->started_ = true;
    }
    call->Pump();
  });
  return call;
}

bool InventoryCall::Send(control::v1::InventoryPart part) {
  {
    MutexLock lock(&mu_);
    while (!closed_ && out_.size() >= kMostQueued) {
      cv_.Wait(&mu_);
    }
    if (closed_) {
      return false;
    }
    out_.push_back(std::move(part));
  }
  OnNetwork([self = shared_from_this()] { self->Pump(); });
  return true;
}

absl::Status InventoryCall::Finish() {
  {
    MutexLock lock(&mu_);
    finishing_ = true;
  }
  OnNetwork([self = shared_from_this()] { self->Pump(); });
  MutexLock lock(&mu_);
  while (!over_) {
    cv_.Wait(&mu_);
  }
  return status_;
}

void InventoryCall::Cancel() {
  OnNetwork([self = shared_from_this()] { self->context_.TryCancel(); });
}

void InventoryCall::Pump() {
  {
    MutexLock lock(&mu_);
    if (!started_ || writing_ || closed_) {
      return;
    }
    if (!out_.empty()) {
      writing_ = true;
      StartWrite(&out_.front());
      return;
    }
    if (!finishing_) {
      return;
    }
    closed_ = true;
    StartWritesDone();
  }
  RemoveHold();
}

void InventoryCall::OnWriteDone(bool ok) {
  {
    MutexLock lock(&mu_);
    writing_ = false;
    out_.pop_front();
    closed_ = !ok;  // the call is over; OnDone says why
    cv_.SignalAll();
  }
  if (ok) {
    Pump();
  } else {
    RemoveHold();
  }
}

void InventoryCall::OnDone(const grpc::Status& status) {
  std::shared_ptr<InventoryCall> self;
  MutexLock lock(&mu_);
  self = std::move(self_);
  self_ = nullptr;
  over_ = true;
  status_ = FromGrpcStatus(status);
  cv_.SignalAll();
}

}  // namespace predella::agent
