#include "client/internal/image_writer_impl.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "client/internal/upload_starter.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "predella/upload_mark.h"

namespace predella::client_internal {
namespace {

// Ends that are no sign of trouble elsewhere are tried only so often.
constexpr int kMostDamagedInARow = 3;
// An agent that has not yet heard that its coordinator's clock was set back
// takes new ones for expired until its next heartbeat, 2 s at most; these tries
// last about 5 s.
constexpr int kMostRefusedCapabilities = 8;

}  // namespace

ImageWriterImpl::ImageWriterImpl(std::shared_ptr<Stub> stub,
                                 const ClientOptions& options,
                                 const UploadOptions& asked,
                                 const v1::StartUploadRequest& request,
                                 v1::Upload upload)
    : stub_(std::move(stub)),
      options_(options),
      writer_(asked.writer),
      request_(request),
      upload_(std::move(upload)),
      may_start_anew_(asked.upload_id.empty()),
      window_(options.upload_window_bytes),
      budget_(options) {}

absl::Status ImageWriterImpl::Fail(const absl::Status& status) {
  error_ = status;
  stream_.reset();
  return status;
}

absl::Status ImageWriterImpl::Write(absl::string_view data) {
  RETURN_IF_ERROR(error_);
  if (commit_.has_value()) {
    return absl::FailedPreconditionError("the image was committed");
  }
  while (!data.empty()) {
    if (upload_.state() == v1::UPLOAD_STATE_COMMITTED) {
      // By an earlier try under this id: only its checksum matters now.
      window_.DropBelow(window_.end());
    }
    data.remove_prefix(window_.Append(data));
    if (window_.at_boundary() &&
        upload_.state() != v1::UPLOAD_STATE_COMMITTED) {
      if (absl::Status status = Pump(Goal::kRoom); !status.ok()) {
        return Fail(status);
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Image> ImageWriterImpl::Commit(
    const std::vector<v1::Hash>& hashes) {
  if (image_.has_value()) {
    return *image_;
  }
  RETURN_IF_ERROR(error_);
  if (request_.has_size_bytes() && request_.size_bytes() != window_.end()) {
    return Fail(
        MakeError(absl::StatusCode::kOutOfRange, reason::kSizeMismatch,
                  absl::StrCat(request_.size_bytes(), " bytes were announced, ",
                               window_.end(), " were written"),
                  {{"expected_bytes", absl::StrCat(request_.size_bytes())},
                   {"actual_bytes", absl::StrCat(window_.end())}}));
  }
  window_.Seal();
  v1::WriteCommit* commit = commit_.emplace().mutable_commit();
  commit->set_size_bytes(window_.end());
  commit->set_crc32c(window_.crc32c());
  for (const v1::Hash& hash : hashes) {
    *commit->add_hashes() = hash;
  }
  if (upload_.state() != v1::UPLOAD_STATE_COMMITTED) {
    if (absl::Status status = Pump(Goal::kCommit); !status.ok()) {
      return Fail(status);
    }
  }
  stream_.reset();
  auto image = Committed();
  if (!image.ok()) {
    return Fail(image.status());
  }
  image_ = *std::move(image);
  return *image_;
}

absl::StatusOr<v1::Image> ImageWriterImpl::Committed() {
  v1::GetImageRequest get;
  get.set_name(request_.image());
  absl::StatusOr<v1::Image> image = stub_->GetImage(get);
  RetryBudget budget(options_);
  while (!image.ok() && IsUnanswered(image.status()) &&
         budget.used() < options_.change_timeout &&
         budget.Wait(image.status())) {
    image = stub_->GetImage(get);
  }
  const std::string crc_hex =
      absl::StrCat(absl::Hex(commit_->commit().crc32c(), absl::kZeroPad8));
  if (image.ok() && image->generation() == upload_.generation()) {
    if (image->size_bytes() != window_.end() ||
        image->crc32c_hex() != crc_hex) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, reason::kCommitConflict,
          absl::StrCat(upload_.name(), " committed ", image->size_bytes(),
                       " bytes with the CRC32C ", image->crc32c_hex(),
                       " before; these are ", window_.end(), " bytes with ",
                       crc_hex));
    }
    return image;
  }
  if (!result_.has_value() && !image.ok()) {
    return image.status();
  }
  // Durable and acknowledged; it may be deleted or replaced since, or the
  // coordinator is away. The essentials are known here.
  v1::Image known;
  known.set_name(request_.image());
  known.set_generation(upload_.generation());
  known.set_size_bytes(window_.end());
  known.set_crc32c_hex(crc_hex);
  known.set_upload(upload_.name());
  *known.mutable_hashes() = commit_->commit().hashes();
  return known;
}

absl::Status ImageWriterImpl::Abort() {
  stream_.reset();
  if (image_.has_value()) {
    return absl::FailedPreconditionError("the image was committed");
  }
  Fail(MakeError(absl::StatusCode::kAborted, reason::kUploadAborted,
                 "the upload was given up"))
      .IgnoreError();  // kept in error_
  v1::AbortUploadRequest request;
  request.set_name(absl::StrCat("uploads/", request_.upload_id()));
  RetryBudget budget(options_);
  while (true) {
    const absl::Status status = stub_->AbortUpload(request).status();
    if (status.ok() || absl::IsNotFound(status)) {
      return absl::OkStatus();
    }
    // The agent may not yet have seen that the stream is closed.
    const bool again =
        IsUnanswered(status) || HasReason(status, reason::kUploadInProgress);
    if (!again || budget.used() > options_.change_timeout ||
        !budget.Wait(status)) {
      return status;
    }
  }
}

bool ImageWriterImpl::Reached(Goal goal) const {
  return goal == Goal::kRoom ? !window_.full() : result_.has_value();
}

std::shared_ptr<const v1::WriteImageRequest> ImageWriterImpl::NextToSend()
    const {
  if (!ready_ || commit_sent_) {
    return nullptr;
  }
  if (auto chunk = window_.ChunkAt(sent_offset_)) {
    return chunk;
  }
  // The agent may have more than we were given yet: then nothing is sent.
  if (commit_.has_value() && sent_offset_ >= window_.end()) {
    return std::make_shared<v1::WriteImageRequest>(*commit_);
  }
  return nullptr;
}

void ImageWriterImpl::Send(
    const std::shared_ptr<const v1::WriteImageRequest>& request) {
  if (request->has_commit()) {
    commit_sent_ = true;
    commit_sent_at_ = RealClock()->Boot();
  } else {
    sent_offset_ += static_cast<int64_t>(request->chunk().data().size());
  }
  stream_->Write(request);
}

absl::Status ImageWriterImpl::Stalled() const {
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kAgentUnreachable,
      absl::StrCat("no message from the agent of ", upload_.target().mount(),
                   " for ", absl::FormatDuration(options_.stall_timeout),
                   " at byte ", sent_offset_),
      {{"mount", upload_.target().mount()}});
}

absl::Status ImageWriterImpl::GaveUp(const absl::Status& status) const {
  const std::string what =
      absl::StrCat("gave up after ", absl::FormatDuration(options_.retry_for),
                   " of trying to go on");
  if (!ReasonOf(status).empty()) {
    return Annotate(status, what);
  }
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kAgentUnreachable,
      absl::StrCat("the agent of ", upload_.target().mount(),
                   " does not answer: ", what, ": ", status.message()),
      {{"mount", upload_.target().mount()}});
}

absl::Status ImageWriterImpl::Pump(Goal goal) {
  absl::Duration heard = RealClock()->Boot();
  while (true) {
    if (stream_ == nullptr) {
      RETURN_IF_ERROR(Connect());
      heard = RealClock()->Boot();
    }
    if (goal == Goal::kCommit && Reached(goal)) {
      return absl::OkStatus();
    }
    while (const auto next = NextToSend()) {
      Send(next);
    }
    // With room, the application is let on; what came is taken all the same.
    const bool let_on = Reached(goal);
    const absl::Duration silence = RealClock()->Boot() - heard;
    v1::WriteImageResponse message;
    absl::Status ended;
    switch (stream_->Wait(
        let_on ? absl::ZeroDuration() : options_.stall_timeout - silence,
        &message, &ended)) {
      case StreamEvent::kMessage:
        heard = RealClock()->Boot();
        RETURN_IF_ERROR(Handle(message));
        break;
      case StreamEvent::kEnd:
        RETURN_IF_ERROR(Recover(ended));
        break;
      case StreamEvent::kTimeout:
        if (let_on) {
          return absl::OkStatus();
        }
        stream_.reset();
        RETURN_IF_ERROR(StartAnew(Stalled()));
        break;
    }
  }
}

absl::Status ImageWriterImpl::Connect() {
  while (stream_ == nullptr && !result_.has_value()) {
    const absl::Status status = OpenOnce();
    if (!status.ok()) {
      RETURN_IF_ERROR(Recover(status));
    }
  }
  return absl::OkStatus();
}

v1::WriteHeader ImageWriterImpl::MakeHeader() const {
  v1::WriteHeader header;
  header.set_upload(upload_.name());
  header.set_image(upload_.image());
  header.set_generation(upload_.generation());
  header.set_mount_uid(upload_.target().mount_uid());
  header.set_capability(upload_.write_capability());
  header.set_segment(segment_);
  header.set_segment_boundary(segment_boundary_);
  header.set_start_offset(std::max(window_.start(), segment_boundary_));
  return header;
}

absl::Status ImageWriterImpl::OpenOnce() {
  const auto& addresses = upload_.target().addresses();
  if (addresses.empty()) {
    // Of a coordinator that started after the agent last spoke to it. No
    // failure of the mount: it is asked again.
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     absl::StrCat("the agent of ", upload_.target().mount(),
                                  " has not yet registered"));
  }
  const std::string& address = addresses.Get(
      static_cast<int>(next_address_ % static_cast<size_t>(addresses.size())));
  stream_ = stub_->OpenWrite(address);
  ready_ = false;
  commit_sent_ = false;
  auto first = std::make_shared<v1::WriteImageRequest>();
  *first->mutable_header() = MakeHeader();
  stream_->Write(first);
  v1::WriteImageResponse message;
  absl::Status ended;
  switch (stream_->Wait(options_.stall_timeout, &message, &ended)) {
    case StreamEvent::kMessage:
      return Handle(message);
    case StreamEvent::kEnd:
      ++next_address_;
      stream_.reset();
      return ended.ok() ? absl::UnavailableError("the stream ended at once")
                        : Annotate(ended, address);
    case StreamEvent::kTimeout:
      break;
  }
  ++next_address_;
  stream_.reset();
  return Stalled();
}

absl::Status ImageWriterImpl::Handle(const v1::WriteImageResponse& message) {
  recovering_ = false;
  switch (message.payload_case()) {
    case v1::WriteImageResponse::kProgress:
      if (message.progress().verifying()) {
        return absl::OkStatus();  // alive; its offsets say nothing yet
      }
      if (commit_sent_ && message.progress().waiting_for_commit()) {
        SayWaiting();
      }
      if (!ready_) {
        RETURN_IF_ERROR(ResumeAt(message.progress().next_offset()));
      } else {
        damaged_in_a_row_ = 0;
        refused_capabilities_ = 0;
      }
      if (message.progress().safe_offset() > 0) {
        anything_safe_ = true;
        window_.DropBelow(message.progress().safe_offset());
      }
      return absl::OkStatus();
    case v1::WriteImageResponse::kRedirect:
      return FollowRedirect(message.redirect());
    case v1::WriteImageResponse::kResult:
      result_ = message.result();
      return absl::OkStatus();
    case v1::WriteImageResponse::PAYLOAD_NOT_SET:
      break;
  }
  return absl::OkStatus();  // something newer than this library
}

void ImageWriterImpl::SayWaiting() const {
  if (options_.on_waiting != nullptr) {
    options_.on_waiting(
        MakeError(
            absl::StatusCode::kUnavailable, reason::kIndexUnavailable,
            absl::StrCat("the image is whole on ", upload_.target().mount(),
                         "; its agent waits for the coordinator to take "
                         "the commit")),
        RealClock()->Boot() - commit_sent_at_);
  }
}

absl::Status ImageWriterImpl::ResumeAt(int64_t offset) {
  if (offset < window_.start()) {
    return MakeError(
        absl::StatusCode::kAborted, reason::kUploadBytesLost,
        absl::StrCat("the mount lost bytes it had called safe: it wants byte ",
                     offset, ", the bytes below ", window_.start(),
                     " are no longer kept"),
        {{"mount", upload_.target().mount()}});
  }
  ready_ = true;
  sent_offset_ = offset;
  return absl::OkStatus();
}

absl::Status ImageWriterImpl::FollowRedirect(const v1::Redirect& redirect) {
  stream_.reset();
  if (redirect.offset() < window_.start()) {
    return ResumeAt(redirect.offset());  // the same loss, the same sentence
  }
  *upload_.mutable_target() = redirect.target();
  upload_.set_write_capability(redirect.capability());
  segment_ = v1::WRITE_SEGMENT_TAIL;
  segment_boundary_ = redirect.offset();
  next_address_ = 0;
  return absl::OkStatus();
}

absl::Status ImageWriterImpl::Recover(const absl::Status& broken) {
  stream_.reset();
  if (result_.has_value()) {
    return absl::OkStatus();
  }
  if (!recovering_) {
    // The time the application took is not held against the agent.
    recovering_ = true;
    budget_.Refill();
  }
  const absl::Status status =
      broken.ok() ? absl::UnavailableError("the stream ended without a result")
                  : broken;
  if (HasReason(status, reason::kCapabilityInvalid) &&
      refused_capabilities_ < kMostRefusedCapabilities) {
    // Expired, or the cluster's key is another: a new one at once, and later
    // ones with time between.
    if (refused_capabilities_++ > 0 && !budget_.Wait(status)) {
      return status;
    }
    ASSIGN_OR_RETURN(upload_, StartUploadWithRetry(stub_.get(), options_,
                                                   request_, UploadId::kGiven));
    return AskOutcome();
  }
  // One call that hangs may return, and the bytes lie there.
  const bool may_go_on =
      HasReason(status, reason::kMountStalled) && !MayStartAnew();
  if (IsTargetFailure(status) && !may_go_on) {
    return StartAnew(status);
  }
  if (HasReason(status, reason::kUploadAborted)) {
    // The coordinator knows why; the agent was only told to remove it.
    RETURN_IF_ERROR(AskOutcome());
    return result_.has_value() ? absl::OkStatus() : status;
  }
  if ((!IsResumable(status) && !may_go_on) ||
      (!IsUnanswered(status) && HasReason(status, reason::kChecksumMismatch) &&
       ++damaged_in_a_row_ > kMostDamagedInARow)) {
    return status;
  }
  RETURN_IF_ERROR(AskOutcome());
  if (result_.has_value()) {
    return absl::OkStatus();
  }
  if (!budget_.Wait(status)) {
    return StartAnew(GaveUp(status));
  }
  if (HasReason(status, reason::kUploadNotFound)) {
    // The agent no longer lists it, the coordinator still does: the same
    // start again has it prepared anew.
    absl::StatusOr<v1::Upload> again = stub_->StartUpload(request_);
    if (again.ok() && again->state() == v1::UPLOAD_STATE_OPEN &&
        again->target().mount_uid() == upload_.target().mount_uid()) {
      upload_ = *std::move(again);
    }
  }
  return absl::OkStatus();
}

absl::Status ImageWriterImpl::AskOutcome() {
  v1::GetUploadRequest request;
  request.set_name(upload_.name());
  const absl::StatusOr<v1::Upload> now = stub_->GetUpload(request);
  if (!now.ok()) {
    // Away, or not yet sure: the agent decides.
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(OutcomeOf(*now));
  if (now->state() == v1::UPLOAD_STATE_COMMITTED) {
    v1::WriteResult& result = result_.emplace();
    result.set_image(now->image());
    result.set_generation(now->generation());
  } else if (now->target().mount_uid() == upload_.target().mount_uid() &&
             !now->target().addresses().empty()) {
    // It may listen elsewhere now.
    *upload_.mutable_target() = now->target();
  }
  return absl::OkStatus();
}

bool ImageWriterImpl::MayStartAnew() const {
  return may_start_anew_ && !anything_safe_ && window_.start() == 0;
}

absl::Status ImageWriterImpl::StartAnew(const absl::Status& failed) {
  stream_.reset();
  if (!MayStartAnew()) {
    return failed;
  }
  may_start_anew_ = false;
  absl::StatusOr<std::string> id = DrawUploadId(writer_);
  if (!id.ok()) {
    return failed;
  }
  v1::AbortUploadRequest abort;
  abort.set_name(upload_.name());
  // The new one supersedes it, if this does not come through.
  stub_->AbortUpload(abort).status().IgnoreError();
  request_.set_upload_id(*std::move(id));
  auto upload =
      StartUploadWithRetry(stub_.get(), options_, request_, UploadId::kDrawn);
  if (!upload.ok()) {
    return failed;
  }
  upload_ = *std::move(upload);
  segment_ = v1::WRITE_SEGMENT_WHOLE;
  segment_boundary_ = 0;
  next_address_ = 0;
  budget_.Refill();
  return absl::OkStatus();
}

}  // namespace predella::client_internal
