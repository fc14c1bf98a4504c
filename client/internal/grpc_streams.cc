#include "client/internal/grpc_streams.h"

#include <grpcpp/generic/generic_stub.h>
#include <pthread.h>

#include <chrono>
#include <csignal>
#include <deque>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/read_codec.h"
#include "predella/v1/chunk_service.grpc.pb.h"

namespace predella::client_internal {
namespace {

// Messages read ahead of the application: 4 MiB.
constexpr size_t kReadAhead = 4;

constexpr char kReadImage[] = "/predella.v1.ChunkService/ReadImage";

// Waits until `deadline` in CLOCK_BOOTTIME; false when it has passed.
bool WaitUntil(CondVar* cv, Mutex* mu, absl::Duration deadline)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
  const absl::Duration left = deadline - RealClock()->Boot();
  if (left <= absl::ZeroDuration()) {
    return false;
  }
  cv->WaitFor(mu, absl::ToChronoNanoseconds(left));
  return true;
}

// Opens once. Shared by a stream and its reactor, so that the reactor may be
// destroyed while the one who opened it is still leaving.
class Gate {
 public:
  void Open() {
    MutexLock lock(&mu_);
    open_ = true;
    cv_.SignalAll();
  }
  void Wait() {
    MutexLock lock(&mu_);
    while (!open_) {
      cv_.Wait(&mu_);
    }
  }
  // Whether it opened in time.
  bool WaitFor(absl::Duration timeout) {
    const absl::Duration deadline = RealClock()->Boot() + timeout;
    MutexLock lock(&mu_);
    while (!open_) {
      if (!WaitUntil(&cv_, &mu_, deadline)) {
        return open_;
      }
    }
    return true;
  }

 private:
  Mutex mu_;
  CondVar cv_;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
};

// How long the application waits for the end of a stream that it gives up. What
// gRPC has handed to the kernel is not taken back, so that of an agent which is
// stopped ends when it goes on, or is gone.
constexpr absl::Duration kCancelWait = absl::Seconds(1);

// Cancels it, and destroys it after OnDone: here, or where that does not come,
// on a thread that waits for nothing else.
template <typename Reactor>
void GiveUp(std::unique_ptr<Reactor> reactor) {
  reactor->Cancel();
  const std::shared_ptr<Gate> gate = reactor->gate();
  if (gate->WaitFor(kCancelWait)) {
    return;
  }
  std::shared_ptr<Reactor> held(std::move(reactor));
  // Signals are the application's.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  bool started = true;
  try {
    std::thread([held, gate]() mutable {
      gate->Wait();
      held.reset();
    }).detach();
  } catch (const std::system_error&) {
    started = false;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!started) {
    gate->Wait();
  }
}

// A reactor is destroyed by the application's thread after OnDone, or by one of
// GiveUp, never by a thread of gRPC's: its context may hold the last reference
// to the channel, and gRPC 1.51 cannot end its callback threads from one of
// them.
//
// A hold keeps OnDone back while the application may still start an
// operation; whoever sees the end of the reads takes it away, or the write
// that was under way then.
class WriteReactor final
    : public grpc::ClientBidiReactor<v1::WriteImageRequest,
                                     v1::WriteImageResponse> {
 public:
  explicit WriteReactor(std::shared_ptr<grpc::Channel> channel)
      : channel_(std::move(channel)),
        stub_(v1::ChunkService::NewStub(channel_)) {}

  void Start() {
    stub_->async()->WriteImage(&context_, this);
    AddHold();
    StartRead(&incoming_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }
  // Opens after OnDone.
  std::shared_ptr<Gate> gate() const { return gate_; }

  // One at a time is with gRPC; the others follow it without the application,
  // which may be waiting for its source.
  void Write(std::shared_ptr<const v1::WriteImageRequest> request) {
    const v1::WriteImageRequest* next = nullptr;
    {
      MutexLock lock(&mu_);
      if (broken_ || write_failed_) {
        return;  // the caller sees kEnd next
      }
      next = outgoing_.empty() ? request.get() : nullptr;
      outgoing_.push_back(std::move(request));
    }
    if (next != nullptr) {
      StartWrite(next);
    }
  }

  StreamEvent Wait(absl::Duration timeout, v1::WriteImageResponse* message,
                   absl::Status* status) {
    const absl::Duration deadline = RealClock()->Boot() + timeout;
    MutexLock lock(&mu_);
    while (true) {
      if (!messages_.empty()) {
        *message = std::move(messages_.front());
        messages_.pop_front();
        return StreamEvent::kMessage;
      }
      if (done_) {
        *status = status_;
        return StreamEvent::kEnd;
      }
      if (!WaitUntil(&cv_, &mu_, deadline)) {
        return StreamEvent::kTimeout;
      }
    }
  }

 private:
  void OnReadDone(bool ok) override {
    bool release = false;
    {
      MutexLock lock(&mu_);
      if (ok) {
        messages_.push_back(std::move(incoming_));
        cv_.SignalAll();
      } else {
        broken_ = true;
        release = outgoing_.empty();
      }
    }
    if (ok) {
      StartRead(&incoming_);
    } else if (release) {
      RemoveHold();
    }
  }

  void OnWriteDone(bool ok) override {
    const v1::WriteImageRequest* next = nullptr;
    bool release = false;
    {
      MutexLock lock(&mu_);
      outgoing_.pop_front();
      // No write follows one that failed; the reads end with the reason.
      write_failed_ = write_failed_ || !ok;
      if (write_failed_ || broken_) {
        outgoing_.clear();
      }
      next = outgoing_.empty() ? nullptr : outgoing_.front().get();
      release = broken_;
    }
    if (next != nullptr) {
      StartWrite(next);
    } else if (release) {
      RemoveHold();
    }
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<Gate> gate = gate_;
    {
      MutexLock lock(&mu_);
      done_ = true;
      status_ = FromGrpcStatus(status);
      cv_.SignalAll();
    }
    gate->Open();  // *this may be gone
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::ChunkService::Stub> stub_;
  grpc::ClientContext context_;
  v1::WriteImageResponse incoming_;
  const std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
  Mutex mu_;
  CondVar cv_;
  std::deque<v1::WriteImageResponse> messages_ ABSL_GUARDED_BY(mu_);
  // The first is with gRPC. No more than the window of the upload.
  std::deque<std::shared_ptr<const v1::WriteImageRequest>> outgoing_
      ABSL_GUARDED_BY(mu_);
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
  bool write_failed_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

// Raw, so that the bytes of a chunk stay where gRPC received them. The generic
// stub knows no calls that only read; on the wire a stream of one request is
// the same.
class ReadReactor final
    : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  ReadReactor(std::shared_ptr<grpc::Channel> channel,
              const v1::ReadImageRequest& request)
      : channel_(std::move(channel)), stub_(channel_) {
    const grpc::Slice slice(request.SerializeAsString());
    request_ = grpc::ByteBuffer(&slice, 1);
  }

  void Start() {
    stub_.PrepareBidiStreamingCall(&context_, kReadImage, grpc::StubOptions(),
                                   this);
    AddHold();
    StartRead(&incoming_);
    StartWriteLast(&request_, grpc::WriteOptions());
    StartCall();
  }

  // Opens after OnDone.
  std::shared_ptr<Gate> gate() const { return gate_; }
  void Cancel() {
    context_.TryCancel();
    bool release = false;
    {
      MutexLock lock(&mu_);
      // Otherwise the read that is under way fails and does this.
      release = paused_;
      paused_ = false;
      cancelled_ = true;
    }
    if (release) {
      RemoveHold();
    }
  }

  StreamEvent Wait(absl::Duration timeout, ReadMessage* message,
                   absl::Status* status) {
    const absl::Duration deadline = RealClock()->Boot() + timeout;
    bool resume = false;
    grpc::ByteBuffer wire;
    {
      MutexLock lock(&mu_);
      while (messages_.empty() && !done_) {
        if (!WaitUntil(&cv_, &mu_, deadline)) {
          return StreamEvent::kTimeout;
        }
      }
      if (messages_.empty()) {
        *status = status_;
        return StreamEvent::kEnd;
      }
      wire.Swap(&messages_.front());
      messages_.pop_front();
      resume = paused_;
      paused_ = false;
    }
    if (resume) {
      StartRead(&incoming_);
    }
    absl::StatusOr<ReadMessage> decoded = DecodeReadResponse(wire);
    if (!decoded.ok()) {
      *status = decoded.status();
      return StreamEvent::kEnd;
    }
    *message = *std::move(decoded);
    return StreamEvent::kMessage;
  }

 private:
  void OnReadDone(bool ok) override {
    bool more = false;
    {
      MutexLock lock(&mu_);
      if (ok) {
        messages_.emplace_back().Swap(&incoming_);
        more = cancelled_ || messages_.size() < kReadAhead;
        paused_ = !more;
        cv_.SignalAll();
      }
    }
    if (more) {
      StartRead(&incoming_);
    } else if (!ok) {
      RemoveHold();
    }
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<Gate> gate = gate_;
    {
      MutexLock lock(&mu_);
      done_ = true;
      status_ = FromGrpcStatus(status);
      cv_.SignalAll();
    }
    gate->Open();  // *this may be gone
  }

  const std::shared_ptr<grpc::Channel> channel_;
  grpc::GenericStub stub_;
  grpc::ByteBuffer request_;
  grpc::ClientContext context_;
  grpc::ByteBuffer incoming_;
  const std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
  Mutex mu_;
  CondVar cv_;
  std::deque<grpc::ByteBuffer> messages_ ABSL_GUARDED_BY(mu_);
  // No read is under way: the application is behind.
  bool paused_ ABSL_GUARDED_BY(mu_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

class GrpcWriteStream final : public WriteStream {
 public:
  explicit GrpcWriteStream(std::shared_ptr<grpc::Channel> channel)
      : reactor_(std::make_unique<WriteReactor>(std::move(channel))) {
    reactor_->Start();
  }
  ~GrpcWriteStream() override { GiveUp(std::move(reactor_)); }
  void Write(std::shared_ptr<const v1::WriteImageRequest> request) override {
    reactor_->Write(std::move(request));
  }
  StreamEvent Wait(absl::Duration timeout, v1::WriteImageResponse* message,
                   absl::Status* status) override {
    return reactor_->Wait(timeout, message, status);
  }

 private:
  std::unique_ptr<WriteReactor> reactor_;
};

class GrpcReadStream final : public ReadStream {
 public:
  GrpcReadStream(std::shared_ptr<grpc::Channel> channel,
                 const v1::ReadImageRequest& request)
      : reactor_(std::make_unique<ReadReactor>(std::move(channel), request)) {
    reactor_->Start();
  }
  ~GrpcReadStream() override { GiveUp(std::move(reactor_)); }
  StreamEvent Wait(absl::Duration timeout, ReadMessage* message,
                   absl::Status* status) override {
    return reactor_->Wait(timeout, message, status);
  }

 private:
  std::unique_ptr<ReadReactor> reactor_;
};

}  // namespace

std::unique_ptr<WriteStream> OpenWriteStream(
    std::shared_ptr<grpc::Channel> channel) {
  return std::make_unique<GrpcWriteStream>(std::move(channel));
}

std::unique_ptr<ReadStream> OpenReadStream(
    std::shared_ptr<grpc::Channel> channel,
    const v1::ReadImageRequest& request) {
  return std::make_unique<GrpcReadStream>(std::move(channel), request);
}

}  // namespace predella::client_internal
