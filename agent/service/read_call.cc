#include "agent/service/read_call.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "agent/service/network.h"
#include "common/errors.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/read_codec.h"

namespace predella::agent {

ReadCall* ReadCall::Start(AgentCore* core, const grpc::ByteBuffer& wire) {
  std::shared_ptr<ReadCall> call(new ReadCall(core));
  ReadCall* const raw = call.get();
  {
    MutexLock lock(&raw->mu_);
    raw->self_ = call;
    raw->reading_ = true;
  }
  grpc::ByteBuffer copy(wire);  // refers to the same bytes
  v1::ReadImageRequest request;
  const grpc::Status parsed =
      grpc::SerializationTraits<v1::ReadImageRequest>::Deserialize(&copy,
                                                                   &request);
  if (!parsed.ok()) {
    raw->End(MakeError(absl::StatusCode::kInvalidArgument,
                       reason::kInvalidArgument,
                       absl::StrCat("the request of ", wire.Length(),
                                    " bytes is no ReadImageRequest")));
    return raw;
  }
  raw->offset_ = request.offset();
  raw->end_ = request.length();
  absl::StatusOr<ReadGrant> grant = core->OpenRead(request, call);
  if (!grant.ok()) {
    raw->End(grant.status());
    return raw;
  }
  raw->strand_.Post([call, grant = std::move(*grant)] { call->Open(grant); });
  return raw;
}

void ReadCall::Stalled(const absl::Status& why) {
  End(why);
  // A client that takes nothing would keep the call, and the call the store.
  strand_.Post([self = shared_from_this()] {
    self->reader_.reset();
    self->grant_.store.reset();
  });
}

DiskCalls::Work ReadCall::Watched() {
  return DiskCalls::Work(core_->calls(),
                         [self = shared_from_this()](const absl::Status& why) {
                           self->Stalled(why);
                         });
}

void ReadCall::Open(const ReadGrant& grant) {
  {
    MutexLock lock(&mu_);
    if (finish_.has_value()) {
      return;
    }
  }
  grant_ = grant;
  const DiskCalls::Work work = Watched();
  absl::StatusOr<std::unique_ptr<ImageReader>> reader =
      grant_.store->OpenImage(grant.image_id, grant.generation);
  if (!reader.ok()) {
    // Only then: an open may be served by the page cache, and is no sign that a
    // disk lives.
    core_->ReadDone(grant_, offset_, reader.status());
    End(reader.status());
    return;
  }
  reader_ = std::move(*reader);
  const PublishedImage& image = reader_->image();
  if (offset_ > image.size_bytes) {
    // The store words the error; nothing is read.
    End(reader_->Read(offset_, 1).status());
    return;
  }
  // Until here end_ was the length that is asked for.
  end_ = end_ == 0 || end_ > image.size_bytes - offset_ ? image.size_bytes
                                                        : offset_ + end_;
  v1::ReadHeader header;
  header.set_size_bytes(image.size_bytes);
  header.set_generation(image.generation.ToString());
  header.set_crc32c_hex(absl::StrFormat("%08x", image.crc32c));
  {
    MutexLock lock(&mu_);
    out_.emplace_back(std::move(header));
  }
  PumpOnNetwork();
  ReadAhead();
}

bool ReadCall::WantsMore() {
  MutexLock lock(&mu_);
  if (finish_.has_value() || ahead_ >= kReadAheadBytes) {
    reading_ = false;
    return false;
  }
  return true;
}

void ReadCall::ReadAhead() {
  const DiskCalls::Work work = Watched();
  while (offset_ < end_) {
    if (!WantsMore()) {
      return;
    }
    // To the end of the block: each is read and verified once.
    const int64_t block_end = (offset_ / kBlockBytes + 1) * kBlockBytes;
    const int64_t length = std::min(block_end, end_) - offset_;
    absl::StatusOr<VerifiedBytes> read = reader_->Read(offset_, length);
    core_->ReadDone(grant_, offset_, read.status());
    if (!read.ok()) {
      End(read.status());
      return;
    }
    Block block{offset_, read->crc32c, std::move(read->bytes)};
    offset_ += length;
    {
      MutexLock lock(&mu_);
      ahead_ += length;
      out_.emplace_back(std::move(block));
    }
    PumpOnNetwork();
  }
  End(absl::OkStatus());
}

void ReadCall::End(const absl::Status& status) {
  {
    MutexLock lock(&mu_);
    if (finish_.has_value()) {
      return;
    }
    finish_ = status;
  }
  PumpOnNetwork();
}

void ReadCall::PumpOnNetwork() {
  OnNetwork([self = shared_from_this()] {
    MutexLock lock(&self->mu_);
    self->PumpLocked();
  });
}

void ReadCall::PumpLocked() {
  if (writing_ || finished_) {
    return;
  }
  if (!out_.empty()) {
    writing_ = true;
    if (auto* block = std::get_if<Block>(&out_.front())) {
      sending_bytes_ = static_cast<int64_t>(block->bytes.size());
      sending_ = EncodeReadChunk(block->offset, block->crc32c,
                                 std::move(block->bytes));
    } else {
      v1::ReadImageResponse response;
      *response.mutable_header() = std::get<v1::ReadHeader>(out_.front());
      sending_bytes_ = 0;
      sending_ = EncodeReadResponse(response);
    }
    out_.pop_front();
    StartWrite(&sending_);
    return;
  }
  if (finish_.has_value()) {
    finished_ = true;
    Reactor::Finish(ToGrpcStatus(*finish_));
  }
}

void ReadCall::OnWriteDone(bool ok) {
  MutexLock lock(&mu_);
  writing_ = false;
  ahead_ -= sending_bytes_;
  sending_.Clear();
  if (!ok) {
    out_.clear();
    if (!finish_.has_value()) {
      finish_ = absl::CancelledError("the client went away");
    }
  }
  PumpLocked();
  if (!reading_ && !finish_.has_value() && ahead_ <= kReadAheadBytes / 2) {
    reading_ = true;
    strand_.Post([call = self_] { call->ReadAhead(); });
  }
}

void ReadCall::OnCancel() {
  MutexLock lock(&mu_);
  out_.clear();
  if (!finish_.has_value()) {
    finish_ = absl::CancelledError("the client went away");
  }
  PumpLocked();
}

void ReadCall::OnDone() {
  std::shared_ptr<ReadCall> self;
  {
    MutexLock lock(&mu_);
    finish_ = absl::CancelledError("the stream is over");
    finished_ = true;
    self = std::move(self_);
    self_ = nullptr;
  }
  // Behind every read of this stream, on a thread that owns the descriptors.
  strand_.Post([self] {
    self->reader_.reset();
    self->grant_.store.reset();
  });
}

}  // namespace predella::agent
