// Commit, publish and the coordinator's answer: a part of UploadTable.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "agent/control/upload_entry.h"
#include "agent/control/upload_table.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"

namespace predella::agent {
namespace {

constexpr absl::Duration kNameTakenRetry = absl::Seconds(2);
// A name held by an older generation is being removed, mostly: worth a wait.
constexpr absl::Duration kNameTakenWait = absl::Seconds(30);
constexpr size_t kMostEnded = 1024;

v1::WriteResult ToResult(const control::v1::Published& published) {
  v1::WriteResult out;
  out.set_image(ImageName(Uuid::FromBytesOrNone(published.image_id())));
  out.set_generation(Generation::FromProto(published.generation()).ToString());
  out.set_size_bytes(published.size_bytes());
  out.set_crc32c_hex(absl::StrFormat("%08x", published.crc32c()));
  return out;
}

absl::Status OutcomeError(const UploadEntry& entry,
                          const control::v1::PublishedAck& ack) {
  absl::StatusCode code = OutcomeCode(ack.reason());
  const bool lost = entry.phase == UploadPhase::kLost;
  absl::string_view why =
      lost ? absl::string_view(entry.lost_reason) : reason::kUploadAborted;
  switch (ack.outcome()) {
    case storage::v1::UPLOAD_OUTCOME_SUPERSEDED:
      why = reason::kUploadSuperseded;
      break;
    case storage::v1::UPLOAD_OUTCOME_EXPIRED:
      code = absl::StatusCode::kFailedPrecondition;
      why = reason::kUploadExpired;
      break;
    case storage::v1::UPLOAD_OUTCOME_DELETED:
      why = reason::kUploadDeleted;
      break;
    default:
      break;
  }
  const std::string name = UploadName(entry.spec.upload_id);
  return MakeError(code, ack.reason().empty() ? why : ack.reason(),
                   !ack.detail().empty() ? ack.detail()
                   : lost                ? entry.lost
                          : absl::StrCat(name, " was not committed"),
                   {{"upload", name}});
}

absl::Status CheckSameCommit(const UploadEntry& entry,
                             const CommitRequest& request) {
  const control::v1::Published& published = *entry.published;
  if (published.size_bytes() != request.size_bytes) {
    return MakeError(
        absl::StatusCode::kOutOfRange, reason::kSizeMismatch,
        absl::StrCat("published with ", published.size_bytes(),
                     " bytes, the commit says ", request.size_bytes));
  }
  if (request.crc32c.has_value() && *request.crc32c != published.crc32c()) {
    return MakeError(
        absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
        absl::StrFormat("published with crc32c %08x, the commit says %08x",
                        published.crc32c(), *request.crc32c));
  }
  return absl::OkStatus();
}

}  // namespace

void UploadTable::Commit(const HandlePtr& handle,
                         const CommitRequest& request) {
  if (handle->entry == nullptr) {
    return;
  }
  // Behind every chunk of this stream.
  PostOn(handle->entry, [this, handle, request] {
    const EntryPtr& entry = handle->entry;
    MutexLock lock(&mu_);
    // A client that broke off right after its commit still meant it.
    if (entry->phase == UploadPhase::kEnded || handle->progress_sent < 0) {
      return;
    }
    if (entry->published.has_value()) {
      const absl::Status same = CheckSameCommit(*entry, request);
      if (!same.ok()) {
        FinishHandleLocked(handle, same);
      }
      return;
    }
    if (handle->prefix || entry->phase == UploadPhase::kFull ||
        entry->phase == UploadPhase::kMoved ||
        entry->phase == UploadPhase::kLost) {
      return;
    }
    entry->commit = request;
    entry->committed = true;
    MaybePublishLocked(entry);
    if (entry->phase == UploadPhase::kReceiving && !handle->closed) {
      SendProgressLocked(handle);  // waiting_for_commit
    }
  });
}

bool UploadTable::MayPublishLocked(const EntryPtr& entry) {
  const auto it = entries_.find(entry->spec.upload_id);
  return entry->phase == UploadPhase::kReceiving && entry->committed &&
         it != entries_.end() && it->second == entry &&
         (entry->spec.tail_start == 0 ||
          entry->prefix_next >= entry->spec.tail_start) &&
         clock_->Boot() >= entry->publish_retry_at && session_->MayPublish() &&
         health_->View().health != v1::HEALTH_ABSENT;
}

void UploadTable::MaybePublishLocked(const EntryPtr& entry) {
  if (MayPublishLocked(entry)) {
    Transition(entry.get(), UploadPhase::kPublishing);
    PostOn(entry, [this, entry] { RunPublish(entry); });
  }
}

void UploadTable::RunPublish(const EntryPtr& entry) {
  CommitRequest request;
  {
    MutexLock lock(&mu_);
    if (entry->phase != UploadPhase::kPublishing) {
      return;
    }
    // The session may have gone while this waited for a thread.
    Transition(entry.get(), UploadPhase::kReceiving);
    if (!MayPublishLocked(entry)) {
      return;
    }
    Transition(entry.get(), UploadPhase::kPublishing);
    request = *entry->commit;
  }
  absl::Status status = EnsureStaged(entry);
  std::optional<control::v1::Published> published;
  bool condemned = false;
  if (status.ok()) {
    absl::StatusOr<PublishedImage> image = entry->staged->Publish(request);
    status = image.status();
    NoteCall(*entry, status);
    condemned = entry->staged->condemned();
    if (HasReason(status, reason::kMountFull)) {
      KeepForMove(entry);
    }
    if (image.ok()) {
      published = ToPublished(*image);
      entry->staged.reset();
    }
  }
  {
    MutexLock lock(&mu_);
    if (!status.ok()) {
      PublishFailedLocked(entry, status, condemned);
    } else {
      PublishedLocked(entry, *published);
    }
  }
  if (status.ok() || HasReason(status, reason::kMountFull)) {
    space_changed_();
  }
}

void UploadTable::PublishedLocked(const EntryPtr& entry,
                                  const control::v1::Published& published) {
  entry->published = published;
  Transition(entry.get(), UploadPhase::kPublished);
  // Its bytes are in f_bavail now. An upload that was ended meanwhile has
  // given its promise back; what bears its id now is another.
  const bool ended = entry->phase == UploadPhase::kEnded;
  if (!ended) {
    ledger_->Release(entry->spec.upload_id);
  }
  LogInfo("image_published", {{"image", entry->spec.image_id.ToString()},
                              {"generation", entry->spec.generation.ToString()},
                              {"bytes", published.size_bytes()}});
  if (ended && entry->store != store_) {
    // The session is that of another mount: the image lies where nobody reads
    // it now, and is found should that come back.
    return;
  }
  entry->told_at = clock_->Boot();
  // Without an attached session the next AttachDone says it.
  control::v1::AgentMessage message;
  *message.mutable_published() = published;
  session_->SendAttached(std::move(message));
}

void UploadTable::PublishFailedLocked(const EntryPtr& entry,
                                      const absl::Status& status,
                                      bool condemned) {
  Transition(entry.get(), UploadPhase::kReceiving);
  const absl::Duration now = clock_->Boot();
  if (HasReason(status, reason::kNameTaken) &&
      MetadataOf(status)["foreign"] != "true") {
    if (!entry->name_taken_since.has_value()) {
      entry->name_taken_since = now;
    }
    if (now - *entry->name_taken_since < kNameTakenWait) {
      entry->publish_retry_at = now + kNameTakenRetry;
      return;
    }
  }
  entry->name_taken_since.reset();
  entry->commit.reset();
  entry->committed = false;
  LogWarning("publish_failed", {{"upload", entry->spec.upload_id.ToString()},
                                {"error", status.ToString()}});
  if (condemned || HasReason(status, reason::kMountFull)) {
    FullLocked(entry, status);
    return;
  }
  FinishStreamsLocked(entry, status);
}

void UploadTable::OnPublishedAck(const control::v1::PublishedAck& ack) {
  const Uuid id = Uuid::FromBytesOrNone(ack.upload_id());
  MutexLock lock(&mu_);
  const EntryPtr entry =
      FindLocked(id, Generation::FromProto(ack.generation()));
  if (entry == nullptr) {
    return;
  }
  PostOn(entry, [this, entry, ack] {
    // The client must not hear of a pair that this mount does not know.
    if (ack.has_heard() && entry->store != nullptr) {
      const absl::Status heard =
          entry->store->Hear(Generation::FromProto(ack.heard()));
      NoteCall(*entry, heard);
      LogIfError(heard, "the record of the image bears its generation");
    }
    MutexLock answer(&mu_);
    AnswerLocked(entry, ack);
  });
}

void UploadTable::RememberLocked(Ended ended) {
  std::erase_if(ended_, [&](const Ended& other) {
    return other.upload_id == ended.upload_id && other.redirect.has_value();
  });
  ended_.push_back(std::move(ended));
  if (ended_.size() > kMostEnded) {
    ended_.pop_front();
  }
}

void UploadTable::AnswerLocked(const EntryPtr& entry,
                               const control::v1::PublishedAck& ack) {
  if (entry->phase == UploadPhase::kEnded ||
      ack.outcome() == storage::v1::UPLOAD_OUTCOME_UNSPECIFIED) {
    return;
  }
  const bool committed = ack.outcome() == storage::v1::UPLOAD_OUTCOME_COMMITTED;
  if (committed && !entry->published.has_value()) {
    // It came to its end at the mount it moved to: nothing here is wanted.
    EndLocked(entry, NotListed(entry->spec.upload_id), /*discard=*/true);
    return;
  }
  Ended ended;
  ended.upload_id = entry->spec.upload_id;
  ended.generation = entry->spec.generation;
  if (committed) {
    ended.result = ToResult(*entry->published);
    if (entry->stream != nullptr) {
      v1::WriteImageResponse response;
      *response.mutable_result() = ended.result;
      entry->stream->stream->Send(std::move(response));
    }
  } else {
    ended.status = OutcomeError(*entry, ack);
  }
  const absl::Status status = ended.status;
  RememberLocked(std::move(ended));
  // What a refused upload published is removed by command only; the bytes of
  // one that can only end are nobody's.
  EndLocked(entry, status,
            ack.outcome() == storage::v1::UPLOAD_OUTCOME_ABORTED);
}

}  // namespace predella::agent
