#include "agent/service/descriptor_client.h"

#include <poll.h>

#include <optional>

#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/fs/disk_calls.h"
#include "common/errors.h"
#include "common/rpc_status.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

constexpr size_t kMostRequestBytes = size_t{16} << 10;

absl::Status NotPassed() {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kNotReady,
                   "the mount is no file system of a local disk or of memory: "
                   "its files are not handed out");
}

}  // namespace

DescriptorClient::~DescriptorClient() {
  static_cast<void>(reader_.release());
  if (store_ != nullptr) {
    static_cast<void>(new std::shared_ptr<ImageStore>(std::move(store_)));
  }
}

short DescriptorClient::events() const {
  return state_ == State::kAnswer ? short{POLLOUT} : short{POLLIN};
}

void DescriptorClient::Handle(short seen) {
  if (seen != 0 && state_ == State::kAnswer) {
    Write();
  } else if (seen != 0) {
    Read();
  }
  if ((state_ == State::kRequest || state_ == State::kAnswer) &&
      RealClock()->Boot() >= deadline_) {
    Close();
  }
}

void DescriptorClient::Read() {
  char bytes[4096];
  const absl::StatusOr<ReceivedBytes> got =
      ReceiveOnce(socket_.get(), bytes, sizeof(bytes));
  if (!got.ok() || got->end ||
      (got->size > 0 && state_ != State::kRequest)) {  // nothing is said then
    Close();
    return;
  }
  in_.append(bytes, got->size);
  Parse();
}

void DescriptorClient::Parse() {
  if (state_ != State::kRequest || in_.size() < kFrameHeaderBytes) {
    return;
  }
  const size_t size = FramedBytes(in_);
  if (size > kMostRequestBytes || in_.size() > kFrameHeaderBytes + size) {
    Close();
    return;
  }
  if (in_.size() < kFrameHeaderBytes + size) {
    return;
  }
  v1::ReadImageRequest request;
  if (!request.ParseFromString(in_.substr(kFrameHeaderBytes))) {
    Close();
    return;
  }
  absl::StatusOr<ReadGrant> grant =
      loop_->core()->OpenRead(request, shared_from_this());
  absl::Status status = grant.status();
  if (status.ok() && !grant->store->passes_descriptors()) {
    status = NotPassed();
  }
  if (!status.ok()) {
    if (grant.ok()) {
      // Its last owner may be here: it goes where it may touch the disk.
      strand_.Post([store = std::move(grant->store)] {});
    }
    Answer(status);
    return;
  }
  state_ = State::kDisk;
  strand_.Post([self = shared_from_this(), grant = *std::move(grant),
                offset = request.offset()] { self->Open(grant, offset); });
}

void DescriptorClient::Open(const ReadGrant& grant, int64_t offset) {
  const DiskCalls::Work work(
      loop_->core()->calls(),
      [self = shared_from_this()](const absl::Status& why) {
        self->Stalled(why);
      });
  auto reader = grant.store->OpenImage(grant.image_id, grant.generation);
  if (!reader.ok()) {
    // Only then: an open is no sign that a disk lives.
    loop_->core()->ReadDone(grant, offset, reader.status());
  }
  absl::Status status = reader.status();
  const uint64_t number = loop_->NextNumber();
  std::string frame;
  if (reader.ok()) {
    store_ = grant.store;
    reader_ = *std::move(reader);
    absl::StatusOr<std::string> passed = Pass(number);
    status = passed.status();
    if (passed.ok()) {
      frame = *std::move(passed);
    } else {
      reader_.reset();
      store_.reset();
    }
  }
  loop_->Post(
      [self = shared_from_this(), status, number, frame = std::move(frame)] {
        if (status.ok()) {
          self->Opened(number, frame);
        } else {
          self->Answer(status);
        }
      });
}

absl::StatusOr<std::string> DescriptorClient::Pass(uint64_t number) {
  const std::optional<int> descriptor = reader_->ReadDescriptor();
  if (!descriptor.has_value()) {
    return NotPassed();
  }
  const PublishedImage& image = reader_->image();
  v1::OpenImageResponse response;
  response.mutable_header()->set_size_bytes(image.size_bytes);
  response.mutable_header()->set_generation(image.generation.ToString());
  response.mutable_header()->set_crc32c_hex(
      absl::StrFormat("%08x", image.crc32c));
  const absl::Span<const uint32_t> blocks = reader_->block_crc32c();
  response.mutable_block_crc32c()->Add(blocks.begin(), blocks.end());
  RETURN_IF_ERROR(loop_->pipe()->Send(number, *descriptor));
  return FrameOf(response);
}

void DescriptorClient::Opened(uint64_t number, std::string frame) {
  file_ = loop_->Take(number);
  if (state_ != State::kDisk) {  // the client went away, or was sent away
    LetGo();
    return;
  }
  if (!file_.valid()) {
    LetGo();
    Answer(MakeError(absl::StatusCode::kResourceExhausted,
                     reason::kAgentOverloaded,
                     "the agent has no room for another open file"));
    return;
  }
  held_after_ = true;
  state_ = State::kAnswer;
  deadline_ = RealClock()->Boot() + kDescriptorPatience;
  out_ = std::move(frame);
  Write();
}

void DescriptorClient::Answer(const absl::Status& status) {
  if (state_ == State::kClosed) {
    return;
  }
  v1::OpenImageResponse response;
  *response.mutable_error() = ToRpcStatus(status);
  state_ = State::kAnswer;
  deadline_ = RealClock()->Boot() + kDescriptorPatience;
  out_ = FrameOf(response);
  Write();
}

void DescriptorClient::Write() {
  while (sent_ < out_.size()) {
    const absl::StatusOr<size_t> sent =
        SendOnce(socket_.get(), absl::string_view(out_).substr(sent_),
                 sent_ == 0 ? file_.get() : -1);
    if (!sent.ok()) {
      Close();
      return;
    }
    if (*sent == 0) {
      return;
    }
    sent_ += *sent;
  }
  out_.clear();
  if (!held_after_) {
    Close();
    return;
  }
  state_ = State::kHeld;
  LetGo();
}

void DescriptorClient::Withdraw(const absl::Status& why) {
  if (state_ == State::kDisk) {
    Answer(why);
  } else if (state_ != State::kRequest) {
    Close();
  }
}

void DescriptorClient::LetGo() {
  file_.Close();
  strand_.Post([self = shared_from_this()] {
    self->reader_.reset();
    self->store_.reset();
  });
}

void DescriptorClient::Close() {
  if (state_ == State::kAnswer && held_after_) {
    LetGo();
  }
  state_ = State::kClosed;
  socket_.Close();
}

}  // namespace predella::agent
