#include "agent/service/session_call.h"

#include <utility>

#include "agent/service/network.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/server_runner.h"

namespace predella::agent {

std::shared_ptr<SessionCall> SessionCall::Dial(AgentCore* core,
                                               const std::string& address) {
  std::shared_ptr<SessionCall> call = ShareOnNetwork(new SessionCall(core));
  {
    MutexLock lock(&call->mu_);
    call->self_ = call;
  }
  // A channel of its own: a broken one would delay by gRPC's backoff, which
  // grows far beyond a second.
  call->channel_ = DialChannel(address);
  call->stub_ = control::v1::AgentSessionService::NewStub(call->channel_);
  call->stub_->async()->Session(&call->context_, call.get());
  // Writes start outside of reactions: the call stays until the read side
  // ended.
  call->AddHold();
  call->session_ = core->OnConnected(call);
  call->StartRead(&call->incoming_);
  call->StartCall();
  return call;
}

void SessionCall::Send(control::v1::AgentMessage message) {
  {
    MutexLock lock(&mu_);
    if (ending_) {
      return;
    }
    out_.push_back(std::move(message));
  }
  OnNetwork([self = shared_from_this()] {
    MutexLock lock(&self->mu_);
    self->PumpLocked();
  });
}

void SessionCall::PumpLocked() {
  if (!writing_ && !ending_ && !out_.empty()) {
    writing_ = true;
    StartWrite(&out_.front());
  }
}

std::shared_ptr<InventoryStream> SessionCall::OpenInventory() {
  std::shared_ptr<InventoryCall> call = InventoryCall::Open(channel_);
  bool over = false;
  {
    MutexLock lock(&mu_);
    over = over_;
    inventory_ = call;
  }
  if (over) {
    call->Cancel();
  }
  return call;
}

void SessionCall::CancelInventory() {
  std::shared_ptr<InventoryCall> call;
  {
    MutexLock lock(&mu_);
    call = inventory_.lock();
  }
  if (call != nullptr) {
    call->Cancel();
  }
}

void SessionCall::Disconnect(absl::string_view /*why*/) {
  CancelInventory();
  OnNetwork([self = shared_from_this()] { self->context_.TryCancel(); });
}

void SessionCall::OnReadDone(bool ok) {
  if (!ok) {
    {
      MutexLock lock(&mu_);
      ending_ = true;
    }
    RemoveHold();
    return;
  }
  {
    MutexLock lock(&mu_);
    heard_ = true;
  }
  core_->OnMessage(session_, incoming_);
  incoming_.Clear();
  StartRead(&incoming_);
}

void SessionCall::OnWriteDone(bool ok) {
  MutexLock lock(&mu_);
  writing_ = false;
  out_.pop_front();
  if (!ok) {
    ending_ = true;  // the read side ends as well and says why
  }
  PumpLocked();
}

void SessionCall::OnDone(const grpc::Status& status) {
  core_->OnDisconnected(session_);
  CancelInventory();
  std::shared_ptr<SessionCall> self;
  MutexLock lock(&mu_);
  self = std::move(self_);
  self_ = nullptr;
  over_ = true;
  status_ = FromGrpcStatus(status);
  cv_.SignalAll();
}

absl::Status SessionCall::Wait(bool* heard) {
  MutexLock lock(&mu_);
  while (!over_) {
    cv_.Wait(&mu_);
  }
  *heard = heard_;
  return status_;
}

}  // namespace predella::agent
