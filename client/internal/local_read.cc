#include "client/internal/local_read.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <deque>
#include <map>
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
  explicit LocalReadState(bool offers) : offers_(offers) {}

  // ---- the thread
  absl::Status Run(const LocalImageOpener& open, int64_t offset, int64_t end);
  void End(const absl::Status& status);

  // ---- the stream
  StreamEvent Wait(absl::Duration timeout, ReadMessage* message,
                   absl::Status* status);
  bool Offer(int64_t offset, char* out, size_t size,
             std::shared_ptr<void> keep);
  void Close();

 private:
  // Where a block is put: a buffer, or memory of the application's.
  struct Place {
    char* bytes = nullptr;
    std::unique_ptr<Buffer> buffer;
    std::shared_ptr<void> keep;
  };
  struct Offered {
    char* bytes = nullptr;
    size_t size = 0;
    std::shared_ptr<void> keep;
  };
  // Keeps a place for as long as a slice shows it.
  struct Lent {
    std::shared_ptr<LocalReadState> state;
    Place place;
  };

  // For the block at `begin` with `size` bytes. Nowhere when the stream was
  // closed or the file is wanted back.
  Place TakePlace(LocalImage* image, int64_t begin, size_t size);
  Place FindPlaceLocked(int64_t begin, size_t size)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void GiveBack(std::unique_ptr<Buffer> buffer);
  void Push(ReadMessage message);
  grpc::Slice Lend(Place place, size_t from, size_t size);
  absl::Status ReadBlock(LocalImage* image, int64_t offset, int64_t end);

  const bool offers_;
  Mutex mu_;
  CondVar cv_;
  // By their offsets; none below next_, where the thread will go on.
  std::map<int64_t, Offered> offered_ ABSL_GUARDED_BY(mu_);
  int64_t next_ ABSL_GUARDED_BY(mu_) = 0;
  // All 0 until the image is open.
  int64_t range_begin_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t image_size_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t range_end_ ABSL_GUARDED_BY(mu_) = 0;
  // Somebody waits for a block that was not offered a place.
  bool hungry_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<ReadMessage> ready_ ABSL_GUARDED_BY(mu_);
  size_t at_once_ ABSL_GUARDED_BY(mu_) = 1;
  std::vector<std::unique_ptr<Buffer>> free_ ABSL_GUARDED_BY(mu_);
  int buffers_ ABSL_GUARDED_BY(mu_) = 0;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool timed_out_ ABSL_GUARDED_BY(mu_) = false;
  bool left_ ABSL_GUARDED_BY(mu_) = false;  // counted as left behind
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);
};

LocalReadState::Place LocalReadState::FindPlaceLocked(int64_t begin,
                                                      size_t size) {
  next_ = begin;
  Place place;
  const auto found = offered_.find(begin);
  if (found != offered_.end() && found->second.size == size) {
    place.bytes = found->second.bytes;
    place.keep = std::move(found->second.keep);
    offered_.erase(found);
    next_ = begin + static_cast<int64_t>(size);
    return place;
  }
  if (offers_ && !hungry_) {
    return place;
  }
  if (!free_.empty()) {
    place.buffer = std::move(free_.back());
    free_.pop_back();
  } else if (buffers_ < kMostBuffers) {
    ++buffers_;
    // Not cleared: all that is shown of it was read.
    place.buffer = std::unique_ptr<Buffer>(new Buffer);
  }
  if (place.buffer != nullptr) {
    place.bytes = place.buffer->bytes;
    next_ = begin + static_cast<int64_t>(size);
    hungry_ = false;
  }
  return place;
}

LocalReadState::Place LocalReadState::TakePlace(LocalImage* image,
                                                int64_t begin, size_t size) {
  while (!image->Withdrawn()) {
    MutexLock lock(&mu_);
    if (closed_) {
      break;
    }
    Place place = FindPlaceLocked(begin, size);
    if (place.bytes != nullptr) {
      return place;
    }
    cv_.SignalAll();
    cv_.WaitFor(&mu_, kLookEvery);
  }
  return Place();
}

bool LocalReadState::Offer(int64_t offset, char* out, size_t size,
                           std::shared_ptr<void> keep) {
  MutexLock lock(&mu_);
  // Whole blocks alone: what is read of one that is not is not what is shown.
  const bool fits =
      offset % kBlock == 0 && offset >= range_begin_ && offset < range_end_ &&
      static_cast<int64_t>(size) == std::min(kBlock, range_end_ - offset) &&
      (range_end_ == image_size_ ||
       offset + static_cast<int64_t>(size) < range_end_ ||
       range_end_ % kBlock == 0);
  if (!offers_ || !fits || offset < next_ || closed_ || end_.has_value()) {
    return false;
  }
  offered_[offset] = {out, size, std::move(keep)};
  if (offered_.size() * 2 >= kMostAtOnce) {
    cv_.SignalAll();
  }
  return true;
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
    hungry_ = false;
    if (ready_.size() >= at_once_) {
      at_once_ = std::min(kMostAtOnce, at_once_ * 2);
      cv_.SignalAll();
    }
  }
}

grpc::Slice LocalReadState::Lend(Place place, size_t from, size_t size) {
  char* const bytes = place.bytes + from;
  auto lent = std::make_unique<Lent>();
  lent->state = shared_from_this();
  lent->place = std::move(place);
  return grpc::Slice(
      bytes, size,
      [](void* kept) {
        const std::unique_ptr<Lent> back(static_cast<Lent*>(kept));
        if (back->place.buffer != nullptr) {
          back->state->GiveBack(std::move(back->place.buffer));
        }
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
  Place place = TakePlace(image, begin, whole);
  if (place.bytes == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "the agent wants its file back");
  }
  ASSIGN_OR_RETURN(const size_t got, image->Read(begin, whole, place.bytes));
  const absl::string_view bytes(place.bytes, got);
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
  message.data.push_back(Lend(std::move(place), from, length));
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
  {
    MutexLock lock(&mu_);
    next_ = range_begin_ = offset;
    image_size_ = size;
    range_end_ = end;
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
    if (offers_) {
      hungry_ = offered_.find(next_) == offered_.end();
      cv_.SignalAll();  // an offer alone may not have been worth it
    }
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
  // Given back without the lock.
  std::deque<ReadMessage> unread;
  std::map<int64_t, Offered> unused;
  MutexLock lock(&mu_);
  closed_ = true;
  unread.swap(ready_);
  unused.swap(offered_);
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
  bool Offer(int64_t offset, char* out, size_t size,
             std::shared_ptr<void> keep) override {
    return state_->Offer(offset, out, size, std::move(keep));
  }

 private:
  const std::shared_ptr<LocalReadState> state_;
};

}  // namespace

std::unique_ptr<ReadStream> StartLocalRead(LocalImageOpener open,
                                           int64_t offset, int64_t end,
                                           bool offers) {
  if (left_behind.load() >= kMostThreadsLeftBehind) {
    return nullptr;
  }
  auto state = std::make_shared<LocalReadState>(offers);
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
