#include "client/python/native/jobs.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/clock.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::native {

Job::~Job() {
  MutexLock lock(&mu_);
  if (descriptor_ >= 0) {
    close(descriptor_);
  }
}

bool Job::Ready() {
  MutexLock lock(&mu_);
  return ReadyLocked();
}

bool Job::Wait(absl::Duration timeout) {
  const absl::Duration deadline = RealClock()->Boot() + timeout;
  MutexLock lock(&mu_);
  while (!ReadyLocked()) {
    const absl::Duration left = deadline - RealClock()->Boot();
    if (left <= absl::ZeroDuration()) {
      return false;
    }
    cv_.WaitFor(&mu_, absl::ToChronoNanoseconds(left));
  }
  return true;
}

absl::StatusOr<int> Job::Descriptor() {
  MutexLock lock(&mu_);
  if (descriptor_ < 0) {
    // Readable at first: what changed before it was made counts too.
    descriptor_ = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (descriptor_ < 0) {
      return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                       absl::StrCat("no descriptor could be opened in this "
                                    "process: ",
                                    std::strerror(errno)));
    }
  }
  return descriptor_;
}

void Job::Drain() {
  MutexLock lock(&mu_);
  eventfd_t value = 0;
  if (descriptor_ >= 0) {
    static_cast<void>(eventfd_read(descriptor_, &value));  // empty is fine
  }
}

void Job::Changed() {
  cv_.SignalAll();
  if (descriptor_ >= 0) {
    static_cast<void>(eventfd_write(descriptor_, 1));  // full is readable too
  }
}

absl::StatusOr<std::shared_ptr<ReadJob>> ReadJob::Start(
    std::shared_ptr<Connections> connections, const ReadOptions& read) {
  std::shared_ptr<ReadJob> job(new ReadJob(read));
  RETURN_IF_ERROR(Spawn("predella-get", [job, connections] {
    job->End(job->Run(connections.get()));
  }));
  return job;
}

void ReadJob::End(const absl::Status& status) {
  MutexLock lock(&mu_);
  error_ = status;
  Changed();
}

ReadJob::~ReadJob() = default;

bool ReadJob::ReadyLocked() const {
  if (!error_.ok()) {
    return true;
  }
  return slots_.empty() ? image_.has_value() : slots_.front().filled;
}

absl::StatusOr<v1::Image> ReadJob::Image() {
  MutexLock lock(&mu_);
  if (image_.has_value()) {
    return *image_;
  }
  RETURN_IF_ERROR(error_);
  return absl::FailedPreconditionError("the image is not open yet");
}

void ReadJob::Ask(char* data, size_t size, void* owner) {
  MutexLock lock(&mu_);
  Slot& slot = slots_.emplace_back();
  slot.data = data;
  slot.size = size;
  slot.offset = next_offset_;
  slot.memory = std::make_shared<Memory>(owner);
  next_offset_ += static_cast<int64_t>(size);
  Changed();
}

absl::StatusOr<ReadJob::Taken> ReadJob::Take() {
  MutexLock lock(&mu_);
  if (!slots_.empty() && slots_.front().filled) {
    const Slot slot = std::move(slots_.front());
    slots_.pop_front();
    taken_ = true;
    // What the reader still holds of it buries nobody.
    return slot.copied ? Taken{nullptr, slot.copy}
                       : Taken{std::exchange(slot.memory->owner, nullptr), ""};
  }
  RETURN_IF_ERROR(error_);
  return absl::FailedPreconditionError("nothing was read yet");
}

void ReadJob::Close() {
  MutexLock lock(&mu_);
  closed_ = true;
  Changed();
}

ReadJob::Slot* ReadJob::NextSlot() {
  MutexLock lock(&mu_);
  while (!closed_) {
    for (Slot& slot : slots_) {
      if (!slot.filled) {
        return &slot;  // stays where it is: only filled ones are taken
      }
    }
    cv_.Wait(&mu_);
  }
  return nullptr;
}

bool ReadJob::WorthWakingLocked() const {
  const auto filled =
      std::count_if(slots_.begin(), slots_.end(),
                    [](const Slot& slot) { return slot.filled; });
  return !taken_ || static_cast<size_t>(filled) * 2 >= slots_.size();
}

void ReadJob::OfferSlots(ImageReader* reader) {
  MutexLock lock(&mu_);
  for (Slot& slot : slots_) {
    if (!slot.filled && !slot.offered) {
      slot.offered =
          reader->Offer(slot.offset, slot.data, slot.size, slot.memory);
    }
  }
}

absl::Status ReadJob::Fill(ImageReader* reader, absl::string_view* rest,
                           Slot* slot) {
  size_t filled = 0;
  while (filled < slot->size) {
    if (rest->empty()) {
      OfferSlots(reader);
      ASSIGN_OR_RETURN(*rest, reader->Read());
    }
    if (rest->empty()) {
      return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                       absl::StrCat(read_.image, " ended early"));
    }
    const size_t n = std::min(rest->size(), slot->size - filled);
    if (slot->offered && rest->data() != slot->data + filled) {
      // It was given away, and the bytes came otherwise.
      slot->copied = true;
      slot->copy.append(rest->data(), n);
    } else if (rest->data() != slot->data + filled) {
      std::memcpy(slot->data + filled, rest->data(), n);
    }
    rest->remove_prefix(n);
    filled += n;
  }
  return absl::OkStatus();
}

absl::Status ReadJob::Run(Connections* connections) {
  ASSIGN_OR_RETURN(Client client, connections->Get());
  ReadOptions read = read_;
  read.offers_memory = true;
  ASSIGN_OR_RETURN(std::unique_ptr<ImageReader> reader, client.ReadImage(read));
  {
    MutexLock lock(&mu_);
    image_ = reader->image();
    Changed();
  }
  absl::string_view rest;
  while (Slot* const slot = NextSlot()) {
    RETURN_IF_ERROR(Fill(reader.get(), &rest, slot));
    MutexLock lock(&mu_);
    slot->filled = true;
    if (WorthWakingLocked()) {
      Changed();
    }
  }
  return absl::CancelledError("the read was closed");
}

absl::StatusOr<std::shared_ptr<CallJob>> CallJob::Start(
    std::shared_ptr<Connections> connections, Call call) {
  auto job = std::make_shared<CallJob>();
  RETURN_IF_ERROR(
      Spawn("predella-call", [job, connections, call = std::move(call)] {
        absl::StatusOr<Client> client = connections->Get();
        job->End(client.ok() ? call(*client) : client.status());
      }));
  return job;
}

void CallJob::End(absl::StatusOr<Answer> result) {
  MutexLock lock(&mu_);
  result_ = std::move(result);
  Changed();
}

bool CallJob::ReadyLocked() const { return result_.has_value(); }

absl::StatusOr<CallJob::Answer> CallJob::Result() {
  MutexLock lock(&mu_);
  if (!result_.has_value()) {
    return absl::FailedPreconditionError("the call has not ended");
  }
  return *result_;
}

}  // namespace predella::native
