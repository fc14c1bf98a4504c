#include "agent/service/grpc_peer_writer.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "agent/service/network.h"
#include "agent/store/image_store.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/mutex.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/server_runner.h"
#include "predella/v1/chunk_service.grpc.pb.h"

namespace predella::agent {
namespace {

// One try at one address. Keeps itself alive until OnDone.
class PeerCall final : public grpc::ClientBidiReactor<v1::WriteImageRequest,
                                                      v1::WriteImageResponse>,
                       public std::enable_shared_from_this<PeerCall> {
 public:
  static void Start(PeerCopy copy, size_t turn);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  PeerCall(PeerCopy copy, size_t turn) : copy_(std::move(copy)), turn_(turn) {}
  void Next(int64_t offset);
  void OnBytes(int64_t offset, absl::StatusOr<std::string> bytes);

  PeerCopy copy_;
  const size_t turn_;
  std::unique_ptr<v1::ChunkService::Stub> stub_;
  grpc::ClientContext context_;
  v1::WriteImageResponse incoming_;
  v1::WriteImageRequest outgoing_;

  Mutex mu_;
  std::shared_ptr<PeerCall> self_ ABSL_GUARDED_BY(mu_);
  bool begun_ ABSL_GUARDED_BY(mu_) = false;  // the first Progress came
  bool header_written_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  int64_t next_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status error_ ABSL_GUARDED_BY(mu_);
};

void PeerCall::Start(PeerCopy copy, size_t turn) {
  std::shared_ptr<PeerCall> call =
      ShareOnNetwork(new PeerCall(std::move(copy), turn));
  {
    MutexLock lock(&call->mu_);
    call->self_ = call;
  }
  call->stub_ =
      v1::ChunkService::NewStub(DialChannel(call->copy_.addresses[turn]));
  *call->outgoing_.mutable_header() = call->copy_.header;
  call->stub_->async()->WriteImage(&call->context_, call.get());
  // Chunks are written outside of reactions.
  call->AddHold();
  call->StartWrite(&call->outgoing_);
  call->StartRead(&call->incoming_);
  call->StartCall();
}

void PeerCall::OnReadDone(bool ok) {
  if (!ok) {
    {
      MutexLock lock(&mu_);
      ended_ = true;
    }
    RemoveHold();
    return;
  }
  bool first = false;
  const int64_t next = incoming_.progress().next_offset();
  if (incoming_.has_progress()) {
    MutexLock lock(&mu_);
    if (!begun_) {
      begun_ = true;
      next_ = next;
      first = header_written_;
    }
  }
  StartRead(&incoming_);
  if (first) {
    Next(next);
  }
}

void PeerCall::Next(int64_t offset) {
  std::shared_ptr<PeerCall> self;
  {
    MutexLock lock(&mu_);
    next_ = offset;
    if (ended_) {
      return;
    }
    if (offset >= copy_.end) {
      StartWritesDone();
      return;
    }
    self = self_;
  }
  const int64_t block_end = (offset / kBlockBytes + 1) * kBlockBytes;
  const int64_t length = std::min(block_end, copy_.end) - offset;
  copy_.read(offset, length, [self, offset](absl::StatusOr<std::string> bytes) {
    // Read on a disk thread.
    OnNetwork([self, offset, bytes = std::move(bytes)]() mutable {
      self->OnBytes(offset, std::move(bytes));
    });
  });
}

void PeerCall::OnBytes(int64_t offset, absl::StatusOr<std::string> bytes) {
  MutexLock lock(&mu_);
  if (ended_) {
    return;
  }
  if (!bytes.ok() || bytes->empty()) {
    error_ =
        !bytes.ok()
            ? bytes.status()
            : MakeError(
                  absl::StatusCode::kDataLoss, reason::kUploadBytesLost,
                  absl::StrCat("nothing is left of the prefix at ", offset));
    context_.TryCancel();
    return;
  }
  next_ = offset + static_cast<int64_t>(bytes->size());
  v1::Chunk* chunk = outgoing_.mutable_chunk();
  chunk->set_offset(offset);
  chunk->set_crc32c(Crc32c(*bytes));
  *chunk->mutable_data() = std::move(*bytes);
  StartWrite(&outgoing_);
}

void PeerCall::OnWriteDone(bool ok) {
  int64_t next = 0;
  {
    MutexLock lock(&mu_);
    if (!ok) {
      return;
    }
    // Chunks begin when the header is out and the first Progress is here,
    // whichever is later.
    header_written_ = true;
    if (!begun_) {
      return;
    }
    next = next_;
  }
  Next(next);
}

void PeerCall::OnDone(const grpc::Status& status) {
  absl::Status result = FromGrpcStatus(status);
  std::shared_ptr<PeerCall> self;
  bool begun = false;
  {
    MutexLock lock(&mu_);
    self = std::move(self_);
    self_ = nullptr;
    begun = begun_;
    if (!error_.ok()) {
      result = error_;
    }
  }
  if (!begun && absl::IsUnavailable(result) &&
      turn_ + 1 < copy_.addresses.size()) {
    Start(std::move(copy_), turn_ + 1);
    return;
  }
  copy_.done(result);
}

}  // namespace

void GrpcPeerWriter::Copy(PeerCopy copy) {
  if (copy.addresses.empty()) {
    copy.done(MakeError(absl::StatusCode::kUnavailable,
                        reason::kAgentUnreachable,
                        "the next mount has no address"));
    return;
  }
  OnNetwork([copy = std::move(copy)]() mutable {
    PeerCall::Start(std::move(copy), 0);
  });
}

}  // namespace predella::agent
