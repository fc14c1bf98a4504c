#include "client/internal/image_reader_impl.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/crc32c.h"
#include "common/errors.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::client_internal {
namespace {

// An error of a disk may be a passing one, but is not waited for like an agent
// that starts again.
constexpr int kMostDiskErrorRounds = 3;

// A connection that was refused is tried again after a second at the latest
// (common/rpc). Until then its calls fail by what was so before, also when the
// coordinator is back; the tries of the channel itself end sooner.
constexpr absl::Duration kOldNews = absl::Seconds(2);

absl::Status Damaged(absl::string_view message) {
  return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                   message);
}

// Found out by its agent, or by its silence for longer than a restart takes.
bool IsOut(v1::Health health) {
  return health == v1::HEALTH_ABSENT || health == v1::HEALTH_HUNG ||
         health == v1::HEALTH_FAILED || health == v1::HEALTH_UNREACHABLE;
}

absl::string_view View(const grpc::Slice& slice) {
  return absl::string_view(reinterpret_cast<const char*>(slice.begin()),
                           slice.size());
}

}  // namespace

ImageReaderImpl::ImageReaderImpl(std::shared_ptr<Stub> stub,
                                 const ClientOptions& options, v1::Image image,
                                 int64_t offset, int64_t end, bool offers)
    : stub_(std::move(stub)),
      options_(options),
      image_(std::move(image)),
      current_(image_),
      begin_(offset),
      offset_(offset),
      end_(end),
      offers_(offers),
      budget_(options) {}

absl::StatusOr<std::unique_ptr<ImageReader>> ImageReaderImpl::Open(
    std::shared_ptr<Stub> stub, const ClientOptions& options,
    const ReadOptions& read) {
  ASSIGN_OR_RETURN(const Uuid id, ParseImageName(read.image));
  if (read.offset < 0 || read.length < 0) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     "offset and length of a read are not negative");
  }
  v1::GetImageRequest request;
  request.set_name(ImageName(id));
  RetryBudget budget(options);
  absl::StatusOr<v1::Image> found = stub->GetImage(request);
  while (absl::IsUnavailable(found.status()) &&
         ReasonOf(found.status()).empty() && budget.used() < kOldNews &&
         budget.Wait(found.status())) {
    found = stub->GetImage(request);
  }
  ASSIGN_OR_RETURN(v1::Image image, std::move(found));
  if (image.health() == v1::IMAGE_HEALTH_LOST) {
    // An agent that is still there may have it: it was given up all the same.
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kReplicaMissing,
        absl::StrCat(image.name(), " is LOST: ", image.health_detail()),
        {{"image", image.name()}});
  }
  const int64_t size = image.size_bytes();
  if (read.offset > size || read.length > size - read.offset) {
    return MakeError(
        absl::StatusCode::kOutOfRange, reason::kReadPastEnd,
        absl::StrCat("the image ends at byte ", size, ", wanted were ",
                     read.length, " bytes from ", read.offset),
        {{"size_bytes", absl::StrCat(size)}});
  }
  const int64_t end = read.length == 0 ? size : read.offset + read.length;
  return std::unique_ptr<ImageReader>(
      new ImageReaderImpl(std::move(stub), options, std::move(image),
                          read.offset, end, read.offers_memory));
}

bool ImageReaderImpl::Offer(int64_t offset, char* out, size_t size,
                            std::shared_ptr<void> keep) {
  return offers_ && local_ && stream_ != nullptr &&
         stream_->Offer(offset, out, size, std::move(keep));
}

absl::StatusOr<absl::string_view> ImageReaderImpl::Read() {
  RETURN_IF_ERROR(error_);
  if (next_slice_ < message_.data.size()) {
    return View(message_.data[next_slice_++]);
  }
  next_slice_ = 0;
  while (offset_ < end_) {
    absl::StatusOr<bool> step = Step();
    if (step.ok() && *step) {
      return View(message_.data[next_slice_++]);
    }
    message_.data.clear();  // none of it was checked
    if (step.ok()) {
      continue;
    }
    stream_.reset();
    if (std::exchange(local_, false)) {
      // Whatever it was: the agent looks at the same place, and says it.
      try_local_ = false;
      silent_ = false;
      continue;
    }
    if (absl::Status status = Recover(step.status()); !status.ok()) {
      error_ = status;
      return error_;
    }
  }
  stream_.reset();
  message_.data.clear();
  return absl::string_view();
}

absl::StatusOr<bool> ImageReaderImpl::Step() {
  if (stream_ == nullptr) {
    RETURN_IF_ERROR(OpenNext());
  }
  absl::Status ended;
  switch (stream_->Wait(
      local_ ? options_.local_stall_timeout : options_.stall_timeout, &message_,
      &ended)) {
    case StreamEvent::kMessage:
      break;
    case StreamEvent::kEnd:
      if (ended.ok()) {
        return Damaged(absl::StrCat("the copy on ",
                                    current_.copies(copy_).mount(),
                                    " ends at byte ", offset_));
      }
      return ended;
    case StreamEvent::kTimeout:
      silent_ = true;
      return MakeError(
          absl::StatusCode::kUnavailable, reason::kMountStalled,
          absl::StrCat("the agent of ", current_.copies(copy_).mount(),
                       " was silent for ",
                       absl::FormatDuration(options_.stall_timeout)));
  }
  const v1::ReadImageResponse& message = message_.message;
  if (message.has_header()) {
    RETURN_IF_ERROR(CheckHeader(message.header()));
    return false;
  }
  if (!message.has_chunk()) {
    return false;
  }
  RETURN_IF_ERROR(TakeChunk(message.chunk(), message_.data));
  return true;
}

absl::Status ImageReaderImpl::OpenNext() {
  if (copy_ >= current_.copies_size() ||
      current_.copies(copy_).addresses().empty()) {
    return MakeError(
        absl::StatusCode::kUnavailable, reason::kAgentUnreachable,
        absl::StrCat("no agent is known that could serve ", image_.name()));
  }
  const v1::Copy& copy = current_.copies(copy_);
  v1::ReadImageRequest request;
  request.set_image(image_.name());
  request.set_generation(image_.generation());
  request.set_mount_uid(copy.mount_uid());
  request.set_capability(copy.read_capability());
  request.set_offset(offset_);
  request.set_length(end_ - offset_);
  // Who is out hands out nothing, and to ask would only take time.
  if (try_local_ && !IsOut(copy.health())) {
    stream_ = stub_->OpenLocalRead(copy.addresses(address_), request, offers_);
    local_ = stream_ != nullptr;
  }
  if (!local_) {
    stream_ = stub_->OpenRead(copy.addresses(address_), request);
  }
  return absl::OkStatus();
}

absl::Status ImageReaderImpl::CheckHeader(const v1::ReadHeader& header) const {
  if (header.generation() != image_.generation() ||
      header.size_bytes() != image_.size_bytes()) {
    return Damaged(absl::StrCat(
        current_.copies(copy_).mount(), " has generation ", header.generation(),
        " of ", header.size_bytes(), " bytes, the index says ",
        image_.generation(), " of ", image_.size_bytes()));
  }
  return absl::OkStatus();
}

absl::Status ImageReaderImpl::TakeChunk(const v1::Chunk& chunk,
                                        const std::vector<grpc::Slice>& data) {
  int64_t size = 0;
  uint32_t crc = 0;
  for (const grpc::Slice& slice : data) {
    size += static_cast<int64_t>(slice.size());
    crc = ExtendCrc32c(crc, View(slice));
  }
  if (chunk.offset() != offset_ || size == 0 || size > end_ - offset_) {
    return Damaged(absl::StrCat("the agent sent ", size, " bytes of ",
                                chunk.offset(), ", wanted from ", offset_));
  }
  if (!chunk.has_crc32c() || chunk.crc32c() != crc) {
    return Damaged(absl::StrCat("bytes ", offset_, " to ", offset_ + size,
                                " from ", current_.copies(copy_).mount(),
                                " do not match their checksum"));
  }
  const uint32_t whole =
      CombineCrc32c(crc32c_, crc, static_cast<uint64_t>(size));
  if (begin_ == 0 && offset_ + size == image_.size_bytes() &&
      !image_.crc32c_hex().empty() &&
      image_.crc32c_hex() != absl::StrCat(absl::Hex(whole, absl::kZeroPad8))) {
    // Every chunk was as its agent read it, but the image is another.
    return Damaged(absl::StrCat("all of ", image_.name(), " has the CRC32C ",
                                absl::Hex(whole, absl::kZeroPad8),
                                ", the index says ", image_.crc32c_hex()));
  }
  crc32c_ = whole;
  offset_ += size;
  recovering_ = false;
  round_had_damage_only_ = true;
  round_had_disk_errors_only_ = true;
  round_had_disk_faults_only_ = true;
  disk_error_rounds_ = 0;
  worst_ = absl::OkStatus();
  refreshed_for_capability_ = false;
  asked_after_damage_ = false;
  return absl::OkStatus();
}

absl::Status ImageReaderImpl::Told(const absl::Status& broken) const {
  // The coordinator has the image. That a mount has not, or has another
  // generation, is damage: NOT_FOUND would be taken for an image that was
  // deleted.
  if (absl::IsNotFound(broken) ||
      HasReason(broken, reason::kGenerationMismatch)) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kReplicaMissing,
                     broken.message(), MetadataOf(broken));
  }
  if (copy_ >= current_.copies_size()) {
    return broken;
  }
  const std::string& mount = current_.copies(copy_).mount();
  if (IsUnanswered(broken) && ReasonOf(broken).empty()) {
    // Of the transport's, which names nobody.
    return MakeError(
        absl::StatusCode::kUnavailable, reason::kAgentUnreachable,
        absl::StrCat("the agent of ", mount, ": ", broken.message()),
        {{"mount", mount}});
  }
  // What an agent says of its disk does not name the mount.
  return !silent_ && (HasReason(broken, reason::kMountStalled) ||
                      HasReason(broken, reason::kMountFailed))
             ? Annotate(broken, mount)
             : broken;
}

absl::Status ImageReaderImpl::Recover(const absl::Status& broken) {
  const absl::Status failed = Told(broken);
  const bool stalled = !silent_ && HasReason(failed, reason::kMountStalled);
  silent_ = false;
  if (!recovering_) {
    // The time the application took is not held against the agents.
    recovering_ = true;
    budget_.Refill();
  }
  if (failed.code() == absl::StatusCode::kInvalidArgument ||
      failed.code() == absl::StatusCode::kOutOfRange) {
    return failed;
  }
  if (HasReason(failed, reason::kCapabilityInvalid) &&
      !refreshed_for_capability_) {
    refreshed_for_capability_ = true;
    return Refresh();
  }
  const bool damaged = absl::IsDataLoss(failed);
  if (worst_.ok() || damaged) {
    worst_ = failed;
  }
  round_had_damage_only_ = round_had_damage_only_ && damaged;
  round_had_disk_errors_only_ =
      round_had_disk_errors_only_ &&
      (damaged || HasReason(failed, reason::kMountFailed));
  round_had_disk_faults_only_ =
      round_had_disk_faults_only_ &&
      (damaged || stalled || HasReason(failed, reason::kMountFailed));
  // Another address of the same agent, then the next copy.
  if (!damaged && copy_ < current_.copies_size() &&
      address_ + 1 < current_.copies(copy_).addresses_size()) {
    ++address_;
    return absl::OkStatus();
  }
  address_ = 0;
  if (++copy_ < current_.copies_size()) {
    try_local_ = true;
    return absl::OkStatus();
  }
  if (round_had_damage_only_) {
    return AskAfterDamage(
        Annotate(worst_, absl::StrCat("every copy of ", image_.name(),
                                      " is damaged at byte ", offset_)));
  }
  if ((round_had_disk_errors_only_ &&
       ++disk_error_rounds_ >= kMostDiskErrorRounds) ||
      (round_had_disk_faults_only_ && budget_.used() >= options_.stalled_for) ||
      !budget_.Wait(worst_)) {
    return Annotate(
        worst_,
        absl::StrCat(image_.name(), " could not be read at byte ", offset_));
  }
  return Refresh();
}

absl::Status ImageReaderImpl::AskAfterDamage(const absl::Status& damaged) {
  if (std::exchange(asked_after_damage_, true)) {
    return damaged;
  }
  const auto mounts = [](const v1::Image& image) {
    std::vector<std::string> out;
    for (const v1::Copy& copy : image.copies()) {
      out.push_back(absl::StrCat(copy.mount(), " ", copy.mount_uid()));
    }
    std::sort(out.begin(), out.end());
    return out;
  };
  const std::vector<std::string> before = mounts(current_);
  RETURN_IF_ERROR(Refresh());
  return mounts(current_) == before ? damaged : absl::OkStatus();
}

absl::Status ImageReaderImpl::Refresh() {
  copy_ = 0;
  address_ = 0;
  round_had_damage_only_ = true;
  round_had_disk_errors_only_ = true;
  round_had_disk_faults_only_ = true;
  v1::GetImageRequest request;
  request.set_name(image_.name());
  absl::StatusOr<v1::Image> now = stub_->GetImage(request);
  if (!now.ok()) {
    // The coordinator is away: what is known of the copies still holds.
    return IsUnanswered(now.status()) ? absl::OkStatus() : now.status();
  }
  if (now->generation() != image_.generation()) {
    return MakeError(
        absl::StatusCode::kAborted, reason::kGenerationMismatch,
        absl::StrCat(image_.name(),
                     " was replaced while it was "
                     "read: generation ",
                     image_.generation(), " is now ", now->generation()));
  }
  current_ = *std::move(now);
  // Who hears from the mounts knows that asking again does not help. An agent
  // that has just lost its session is none of these: it may be starting.
  const bool settled =
      current_.copies_size() > 0 &&
      std::all_of(current_.copies().begin(), current_.copies().end(),
                  [](const v1::Copy& copy) {
                    return IsOut(copy.health()) ||
                           copy.fault() == v1::COPY_FAULT_MISSING;
                  });
  if (settled && !worst_.ok()) {
    std::string states;
    for (const v1::Copy& copy : current_.copies()) {
      absl::StrAppend(
          &states, states.empty() ? "" : ", ", copy.mount(), " ",
          copy.fault() == v1::COPY_FAULT_MISSING
              ? "lacks it"
              : absl::StrCat("is ",
                             absl::StripPrefix(v1::Health_Name(copy.health()),
                                               "HEALTH_")));
    }
    return Annotate(worst_, absl::StrCat("none of the ", current_.copies_size(),
                                         " copies of ", image_.name(),
                                         " can be read now (", states, ")"));
  }
  return absl::OkStatus();
}

}  // namespace predella::client_internal
