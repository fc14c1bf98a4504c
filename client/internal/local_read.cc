#include "client/internal/local_read.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <deque>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/mutex.h"
#include "common/status_macros.h"

namespace predella::client_internal {
namespace {

constexpr int64_t kBlock = int64_t{1} << 20;  // what a checksum is of
constexpr int kMostBuffers = 8;
// Who waits is woken for so many blocks at once: for each of them the two
// threads would take turns on one processor, and the turns cost more than the
// copying. The first ones come alone, so that a small image does not wait.
constexpr size_t kMostAtOnce = 4;
// How often a thread that waits for its reader looks whether the agent wants
// the file back.
constexpr std::chrono::milliseconds kLookEvery(500);

std::atomic<int> left_behind{0};

struct Buffer {
  alignas(4096) char bytes[kBlock];
};

// Shared by the stream, its thread, and the slices that the application still
// looks at.
class LocalReadState : public std::enable_shared_from_this<LocalReadState> {
 public:
  // ---- the thread
  absl::Status Run(const LocalImageOpener& open, int64_t offset, int64_t end);
  void End(const absl::Status& status);

  // ---- the stream
  StreamEvent Wait(absl::Duration timeout, ReadMessage* message,
                   absl::Status* status);
  void Close();

 private:
  // Keeps a buffer for as long as a slice shows it.
  struct Lent {
    std::shared_ptr<LocalReadState> state;
    std::unique_ptr<Buffer> buffer;
  };

  // Null when the stream was closed or the file is wanted back.
  std::unique_ptr<Buffer> TakeBuffer(LocalImage* image);
  void GiveBack(std::unique_ptr<Buffer> buffer);
  void Push(ReadMessage message);
  grpc::Slice Lend(std::unique_ptr<Buffer> buffer, size_t from, size_t size);
  absl::Status ReadBlock(LocalImage* image, int64_t offset, int64_t end);

  Mutex mu_;
  CondVar cv_;
  std::deque<ReadMessage> ready_ ABSL_GUARDED_BY(mu_);
  size_t at_once_ ABSL_GUARDED_BY(mu_) = 1;
  std::vector<std::unique_ptr<Buffer>> free_ ABSL_GUARDED_BY(mu_);
  int buffers_ ABSL_GUARDED_BY(mu_) = 0;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool timed_out_ ABSL_GUARDED_BY(mu_) = false;
  bool left_ ABSL_GUARDED_BY(mu_) = false;  // counted as left behind
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);
};

std::unique_ptr<Buffer> LocalReadState::TakeBuffer(LocalImage* image) {
  while (true) {
    if (image->Withdrawn()) {
      return nullptr;
    }
    MutexLock lock(&mu_);
    if (closed_) {
      return nullptr;
    }
    if (!free_.empty()) {
      std::unique_ptr<Buffer> out = std::move(free_.back());
      free_.pop_back();
      return out;
    }
    if (buffers_ < kMostBuffers) {
      ++buffers_;
      // Not cleared: all that is shown of it was read.
      return std::unique_ptr<Buffer>(new Buffer);
    }
    cv_.SignalAll();
    cv_.WaitFor(&mu_, kLookEvery);
  }
}

void LocalReadState::GiveBack(std::unique_ptr<Buffer> buffer) {
  MutexLock lock(&mu_);
  free_.push_back(std::move(buffer));
  if (free_.size() >= kMostAtOnce) {
    cv_.SignalAll();
  }
}

void LocalReadState::Push(ReadMessage message) {
  MutexLock lock(&mu_);
  if (!closed_) {  // else it would keep this, and this it
    ready_.push_back(std::move(message));
    if (ready_.size() >= at_once_) {
      at_once_ = std::min(kMostAtOnce, at_once_ * 2);
      cv_.SignalAll();
    }
  }
}

grpc::Slice LocalReadState::Lend(std::unique_ptr<Buffer> buffer, size_t from,
                                 size_t size) {
  char* const bytes = buffer->bytes + from;
  auto lent = std::make_unique<Lent>();
  lent->state = shared_from_this();
  lent->buffer = std::move(buffer);
  return grpc::Slice(
      bytes, size,
      [](void* kept) {
        const std::unique_ptr<Lent> back(static_cast<Lent*>(kept));
        back->state->GiveBack(std::move(back->buffer));
      },
      lent.release());
}

absl::Status LocalReadState::ReadBlock(LocalImage* image, int64_t offset,
                                       int64_t end) {
  const int64_t size = image->answer().header().size_bytes();
  const int64_t begin = offset / kBlock * kBlock;
  const auto whole = static_cast<size_t>(std::min(kBlock, size - begin));
  const auto from = static_cast<size_t>(offset - begin);
  const size_t length =
      std::min(whole - from, static_cast<size_t>(end - offset));
  std::unique_ptr<Buffer> buffer = TakeBuffer(image);
  if (buffer == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "the agent wants its file back");
  }
  ASSIGN_OR_RETURN(const size_t got, image->Read(begin, whole, buffer->bytes));
  const absl::string_view bytes(buffer->bytes, got);
  uint32_t crc32c =
      image->answer().block_crc32c(static_cast<int>(begin / kBlock));
  if (got < whole || (length < whole && Crc32c(bytes) != crc32c)) {
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
        got < whole ? absl::StrCat("the open file ends at ",
                                   begin + static_cast<int64_t>(got))
                    : absl::StrCat("the block at ", begin,
                                   " of the open file does not agree with its "
                                   "checksum"));
  }
  if (length < whole) {
    crc32c = Crc32c(bytes.substr(from, length));
  }
  ReadMessage message;
  message.message.mutable_chunk()->set_offset(offset);
  message.message.mutable_chunk()->set_crc32c(crc32c);
  message.data.push_back(Lend(std::move(buffer), from, length));
  Push(std::move(message));
  return absl::OkStatus();
}

absl::Status LocalReadState::Run(const LocalImageOpener& open, int64_t offset,
                                 int64_t end) {
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalImage> image, open());
  const v1::OpenImageResponse& answer = image->answer();
  const int64_t size = answer.header().size_bytes();
  if (answer.block_crc32c_size() != (size + kBlock - 1) / kBlock ||
      end > size) {
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
        absl::StrCat("the agent has ", answer.block_crc32c_size(),
                     " checksums of an image of ", size, " bytes"));
  }
  ReadMessage header;
  *header.message.mutable_header() = answer.header();
  Push(std::move(header));
  while (offset < end) {
    RETURN_IF_ERROR(ReadBlock(image.get(), offset, end));
    offset = std::min(end, (offset / kBlock + 1) * kBlock);
  }
  return absl::OkStatus();
}

void LocalReadState::End(const absl::Status& status) {
  MutexLock lock(&mu_);
  end_ = status;
  if (left_) {
    --left_behind;
  }
  cv_.SignalAll();
}

StreamEvent LocalReadState::Wait(absl::Duration timeout, ReadMessage* message,
                                 absl::Status* status) {
  // What it shows goes back first: the thread may be waiting for it. It takes
  // the lock.
  message->data.clear();
  const absl::Duration deadline = RealClock()->Boot() + timeout;
  MutexLock lock(&mu_);
  while (ready_.empty() && !end_.has_value()) {
    const absl::Duration left = deadline - RealClock()->Boot();
    if (left <= absl::ZeroDuration()) {
      timed_out_ = true;
      return StreamEvent::kTimeout;
    }
    cv_.WaitFor(&mu_, absl::ToChronoNanoseconds(left));
  }
  if (ready_.empty()) {
    *status = *end_;
    return StreamEvent::kEnd;
  }
  *message = std::move(ready_.front());
  ready_.pop_front();
  return StreamEvent::kMessage;
}

void LocalReadState::Close() {
  std::deque<ReadMessage> unread;  // gives its buffers back without the lock
  MutexLock lock(&mu_);
  closed_ = true;
  unread.swap(ready_);
  if (timed_out_ && !end_.has_value()) {
    left_ = true;
    ++left_behind;
  }
  cv_.SignalAll();
}

class LocalReadStream final : public ReadStream {
 public:
  explicit LocalReadStream(std::shared_ptr<LocalReadState> state)
      : state_(std::move(state)) {}
  ~LocalReadStream() override { state_->Close(); }
  StreamEvent Wait(absl::Duration timeout, ReadMessage* message,
                   absl::Status* status) override {
    return state_->Wait(timeout, message, status);
  }

 private:
  const std::shared_ptr<LocalReadState> state_;
};

}  // namespace

std::unique_ptr<ReadStream> StartLocalRead(LocalImageOpener open,
                                           int64_t offset, int64_t end) {
  if (left_behind.load() >= kMostThreadsLeftBehind) {
    return nullptr;
  }
  auto state = std::make_shared<LocalReadState>();
  // Signals are the application's.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  bool started = true;
  try {
    std::thread([state, open = std::move(open), offset, end]() mutable {
      pthread_setname_np(pthread_self(), "predella-local");
      const absl::Status status = state->Run(open, offset, end);
      open = nullptr;
      state->End(status);
    }).detach();
  } catch (const std::system_error&) {
    started = false;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!started) {
    return nullptr;
  }
  return std::make_unique<LocalReadStream>(std::move(state));
}

}  // namespace predella::client_internal
