#include "agent/service/write_call.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "agent/service/network.h"
#include "common/errors.h"
#include "common/rpc/grpc_status.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   message);
}

absl::StatusOr<CommitRequest> ToCommit(const v1::WriteCommit& commit) {
  CommitRequest out;
  out.size_bytes = commit.size_bytes();
  if (commit.has_crc32c()) {
    out.crc32c = commit.crc32c();
  }
  for (const v1::Hash& hash : commit.hashes()) {
    storage::v1::Hash& kept = out.hashes.emplace_back();
    kept.set_algorithm(hash.algorithm());
    ASSIGN_OR_RETURN(*kept.mutable_value(), FromHex(hash.hex()));
  }
  return out;
}

}  // namespace

WriteCall* WriteCall::Start(AgentCore* core, std::atomic<int64_t>* all_bytes) {
  std::shared_ptr<WriteCall> call(new WriteCall(core, all_bytes));
  WriteCall* const raw = call.get();
  {
    MutexLock lock(&raw->mu_);
    raw->self_ = std::move(call);
  }
  raw->StartRead(&raw->request_);
  return raw;
}

std::shared_ptr<UploadHandle> WriteCall::handle() {
  MutexLock lock(&mu_);
  return handle_;
}

void WriteCall::Refuse(const absl::Status& status) {
  // First, so that a client that hears of it may come again at once.
  const std::shared_ptr<UploadHandle> upload = handle();
  if (upload != nullptr) {
    core_->uploads()->Detach(upload);
  }
  Finish(status);
}

void WriteCall::OnReadDone(bool ok) {
  const std::shared_ptr<UploadHandle> upload = handle();
  if (!ok) {
    if (upload != nullptr) {
      core_->uploads()->EndOfStream(upload);
    } else {
      Refuse(Invalid("the stream ended before its header"));
    }
    return;
  }
  switch (request_.payload_case()) {
    case v1::WriteImageRequest::kHeader:
      OnHeader(request_.header());
      break;
    case v1::WriteImageRequest::kChunk:
      OnChunk(std::move(*request_.mutable_chunk()));
      break;
    case v1::WriteImageRequest::kCommit:
      OnCommit(request_.commit());
      break;
    default:
      Refuse(Invalid("a message is neither header nor chunk nor commit"));
      break;
  }
  ReadOn();
}

void WriteCall::OnHeader(const v1::WriteHeader& header) {
  if (handle() != nullptr) {
    Refuse(Invalid("a stream has one header"));
    return;
  }
  absl::StatusOr<std::shared_ptr<UploadHandle>> opened =
      core_->OpenWrite(header, shared_from_this());
  if (!opened.ok()) {
    Refuse(opened.status());
    return;
  }
  bool over = false;
  {
    MutexLock lock(&mu_);
    handle_ = *opened;
    over = self_ == nullptr;
  }
  if (over) {  // the client went away within this reaction
    core_->uploads()->Detach(*opened);
  }
}

void WriteCall::OnChunk(v1::Chunk chunk) {
  const std::shared_ptr<UploadHandle> upload = handle();
  const auto bytes = static_cast<int64_t>(chunk.data().size());
  if (upload == nullptr) {
    Refuse(Invalid("a chunk came before the header"));
    return;
  }
  if (bytes > kMaxChunkBytes) {
    Refuse(MakeError(
        absl::StatusCode::kInvalidArgument, reason::kChunkTooLarge,
        absl::StrCat("a chunk has ", bytes, " bytes; at most ", kMaxChunkBytes,
                     " are taken, ", kBlockBytes, " is best"),
        {{"chunk_bytes", absl::StrCat(bytes)},
         {"limit_bytes", absl::StrCat(kMaxChunkBytes)}}));
    return;
  }
  {
    MutexLock lock(&mu_);
    queued_ += bytes;
  }
  all_bytes_->fetch_add(bytes);
  core_->uploads()->Append(upload, std::move(chunk));
}

void WriteCall::OnCommit(const v1::WriteCommit& commit) {
  const std::shared_ptr<UploadHandle> upload = handle();
  if (upload == nullptr) {
    Refuse(Invalid("a commit came before the header"));
    return;
  }
  absl::StatusOr<CommitRequest> request = ToCommit(commit);
  if (!request.ok()) {
    Refuse(request.status());
    return;
  }
  core_->uploads()->Commit(upload, *request);
}

bool WriteCall::RoomLocked() const {
  const int64_t limit =
      all_bytes_->load() < kAllStreamsBytes ? kStreamBytes : kBlockBytes;
  return queued_ < limit;
}

void WriteCall::ReadOn() {
  MutexLock lock(&mu_);
  if (finish_.has_value()) {
    return;
  }
  if (RoomLocked()) {
    StartRead(&request_);
  } else {
    read_paused_ = true;
  }
}

void WriteCall::ChunkDone(int64_t bytes) {
  all_bytes_->fetch_sub(bytes);
  bool read = false;
  {
    MutexLock lock(&mu_);
    queued_ -= bytes;
    if (read_paused_ && !finish_.has_value() && RoomLocked()) {
      read_paused_ = false;
      read = true;
    }
  }
  if (read) {
    OnNetwork([self = shared_from_this()] { self->ReadOn(); });
  }
}

void WriteCall::Send(v1::WriteImageResponse response) {
  {
    MutexLock lock(&mu_);
    if (finish_.has_value()) {
      return;
    }
    out_.push_back(std::move(response));
  }
  PumpOnNetwork();
}

void WriteCall::Finish(const absl::Status& status) {
  {
    MutexLock lock(&mu_);
    if (finish_.has_value()) {
      return;
    }
    finish_ = status;
  }
  PumpOnNetwork();
}

void WriteCall::PumpOnNetwork() {
  OnNetwork([self = shared_from_this()] {
    MutexLock lock(&self->mu_);
    self->PumpLocked();
  });
}

void WriteCall::PumpLocked() {
  if (writing_ || finished_) {
    return;
  }
  if (!out_.empty()) {
    writing_ = true;
    StartWrite(&out_.front());
    return;
  }
  if (finish_.has_value()) {
    finished_ = true;
    Reactor::Finish(ToGrpcStatus(*finish_));
  }
}

void WriteCall::OnWriteDone(bool ok) {
  MutexLock lock(&mu_);
  writing_ = false;
  out_.pop_front();
  if (!ok) {
    // Nobody hears the rest; OnCancel or a failed read ends the call.
    out_.clear();
  }
  PumpLocked();
}

void WriteCall::OnCancel() {
  const std::shared_ptr<UploadHandle> upload = handle();
  if (upload != nullptr) {
    core_->uploads()->Detach(upload);
  }
  MutexLock lock(&mu_);
  // A write under way would still need its message.
  while (out_.size() > (writing_ ? 1 : 0)) {
    out_.pop_back();
  }
  if (!finish_.has_value()) {
    finish_ = absl::CancelledError("the client went away");
  }
  PumpLocked();
}

void WriteCall::OnDone() {
  std::shared_ptr<UploadHandle> upload;
  std::shared_ptr<WriteCall> self;
  {
    MutexLock lock(&mu_);
    finish_ = absl::CancelledError("the stream is over");
    finished_ = true;
    upload = std::move(handle_);
    handle_ = nullptr;
    self = std::move(self_);
    self_ = nullptr;
  }
  if (upload != nullptr) {
    core_->uploads()->Detach(upload);
  }
}

}  // namespace predella::agent
