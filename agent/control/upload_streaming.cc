// The streams' side of UploadTable: opening, bytes, progress.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/control/upload_entry.h"
#include "agent/control/upload_table.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::agent {

control::v1::Published ToPublished(const PublishedImage& image) {
  control::v1::Published out;
  out.set_upload_id(image.upload_id.bytes());
  out.set_image_id(image.image_id.bytes());
  *out.mutable_generation() = image.generation.ToProto();
  out.set_size_bytes(image.size_bytes);
  out.set_crc32c(image.crc32c);
  for (const storage::v1::Hash& hash : image.hashes) {
    *out.add_hashes() = hash;
  }
  out.set_publish_time_us(image.publish_time_us);
  return out;
}

absl::StatusOr<std::shared_ptr<UploadHandle>> UploadTable::Attach(
    const v1::WriteHeader& header, const Generation& generation,
    std::shared_ptr<UploadStream> stream) {
  absl::StatusOr<Uuid> parsed = ParseUploadName(header.upload());
  if (!parsed.ok()) {
    return parsed.status();
  }
  const bool prefix = header.segment() == v1::WRITE_SEGMENT_PREFIX;
  auto handle = std::make_shared<UploadHandle>();
  handle->stream = std::move(stream);
  handle->prefix = prefix;
  handle->start_offset = header.start_offset();
  if (header.segment() == v1::WRITE_SEGMENT_TAIL || prefix) {
    handle->boundary = header.segment_boundary();
  }
  MutexLock lock(&mu_);
  const EntryPtr entry = FindLocked(*parsed, generation);
  if (entry == nullptr) {
    if (AnswerEndedLocked(*parsed, generation, prefix, handle->stream)) {
      handle->closed = true;
      return handle;
    }
    return NotListed(*parsed);
  }
  if (!entry->strand->stalled.ok()) {
    return entry->strand->stalled;
  }
  HandlePtr& place = prefix ? entry->prefix_stream : entry->stream;
  if (place != nullptr) {
    return MakeError(
        absl::StatusCode::kAborted, reason::kUploadInProgress,
        absl::StrCat(UploadName(*parsed), " has an open stream already"),
        {{"upload", UploadName(*parsed)}});
  }
  handle->entry = entry;
  handle->progress_at = clock_->Boot();
  place = handle;
  if (!prefix) {
    entry->told_safe = std::max(entry->told_safe, handle->start_offset);
  }
  live_.insert(*parsed);
  PostOn(entry, [this, handle] { RunOpen(handle); });
  return handle;
}

bool UploadTable::AnswerEndedLocked(
    const Uuid& upload_id, const Generation& generation, bool prefix,
    const std::shared_ptr<UploadStream>& stream) {
  for (const Ended& ended : ended_) {
    if (ended.upload_id != upload_id || ended.generation != generation ||
        (prefix && ended.redirect.has_value())) {
      continue;
    }
    if (ended.redirect.has_value()) {
      v1::WriteImageResponse response;
      *response.mutable_redirect() = *ended.redirect;
      stream->Send(std::move(response));
    } else if (ended.status.ok()) {
      v1::WriteImageResponse response;
      *response.mutable_result() = ended.result;
      stream->Send(std::move(response));
    }
    stream->Finish(ended.status);
    return true;
  }
  return false;
}

absl::Status UploadTable::Resolve(const EntryPtr& entry) {
  if (entry->resolved) {
    return absl::OkStatus();
  }
  if (entry->store == nullptr) {
    return NotListed(entry->spec.upload_id);
  }
  absl::StatusOr<std::optional<PublishedImage>> found =
      entry->store->Find(entry->spec.image_id);
  NoteCall(*entry, found.status());
  // A name without record is not this upload's; publish will say so.
  if (!found.ok() && !HasReason(found.status(), reason::kNameTaken)) {
    return found.status();
  }
  std::optional<control::v1::Published> published;
  if (found.ok() && found->has_value() &&
      (*found)->upload_id == entry->spec.upload_id &&
      (*found)->generation == entry->spec.generation) {
    published = ToPublished(**found);
  }
  const std::optional<int64_t> inflight =
      entry->store->InflightBytes(entry->spec.upload_id);
  entry->resolved = true;
  MutexLock lock(&mu_);
  if (published.has_value()) {
    entry->published = published;
    entry->tail_next = published->size_bytes();
    entry->tail_safe = published->size_bytes();
    Transition(entry.get(), UploadPhase::kPublished);
  } else if (inflight.has_value()) {
    entry->on_disk = true;
    entry->tail_next = std::max(entry->tail_next, *inflight);
    ledger_->SetAllocated(
        entry->spec.upload_id,
        entry->store->InflightAllocated(entry->spec.upload_id));
  }
  return absl::OkStatus();
}

absl::Status UploadTable::EnsureStaged(const EntryPtr& entry) {
  RETURN_IF_ERROR(Resolve(entry));
  if (entry->staged != nullptr) {
    return absl::OkStatus();
  }
  if (entry->store == nullptr) {
    return NotListed(entry->spec.upload_id);
  }
  absl::StatusOr<std::unique_ptr<StagedImage>> staged =
      entry->store->OpenStaged(entry->spec);
  NoteCall(*entry, staged.status());
  RETURN_IF_ERROR(staged.status());
  entry->staged = std::move(*staged);
  CopyNumbers(entry);
  return absl::OkStatus();
}

void UploadTable::CopyNumbers(const EntryPtr& entry) {
  const int64_t allocated = entry->staged->allocated_bytes();
  const int64_t holes = entry->staged->hole_bytes();
  MutexLock lock(&mu_);
  entry->on_disk = true;
  entry->tail_next = entry->staged->tail_next();
  entry->tail_safe = entry->staged->tail_safe();
  entry->prefix_next = entry->staged->prefix_next();
  ledger_->SetAllocated(entry->spec.upload_id, allocated, holes);
}

void UploadTable::TakeBoundary(const HandlePtr& handle) {
  UploadEntry& entry = *handle->entry;
  MutexLock lock(&mu_);
  if (handle->boundary > 0 && handle->boundary % kBlockBytes == 0 &&
      entry.spec.tail_start == 0 && entry.staged == nullptr && !entry.on_disk &&
      entry.tail_next == 0) {
    entry.spec.tail_start = handle->boundary;
    entry.tail_next = handle->boundary;
    entry.tail_safe = handle->boundary;
  }
}

void UploadTable::RunOpen(const HandlePtr& handle) {
  const EntryPtr& entry = handle->entry;
  TakeBoundary(handle);
  absl::Status status = Resolve(entry);
  bool staged = false;
  {
    MutexLock lock(&mu_);
    // A prefix goes through a mount that the upload has left; where it stands
    // there decides whether anything is lost.
    staged = entry->phase == UploadPhase::kReceiving ||
             (handle->prefix && entry->on_disk &&
              (entry->phase == UploadPhase::kFull ||
               entry->phase == UploadPhase::kMoved));
  }
  if (status.ok() && staged) {
    status = EnsureStaged(entry);
  }
  MutexLock lock(&mu_);
  if (handle->closed) {
    return;
  }
  if (status.ok()) {
    status = CheckOpenLocked(handle);
  }
  if (!handle->prefix && HasReason(status, reason::kMountFull) &&
      entry->phase == UploadPhase::kReceiving) {
    // Full before the first byte: the upload moves on like any other.
    FullLocked(entry, status);
    status = absl::OkStatus();
  }
  if (!status.ok()) {
    FinishHandleLocked(handle, status);
    return;
  }
  SendProgressLocked(handle);
  if (entry->phase == UploadPhase::kMoved && !handle->prefix) {
    SendRedirectLocked(entry);
  }
  if (handle->prefix) {
    // It may be complete already, and the sender not know.
    PostOn(entry, [this, handle] { FinishPrefix(handle, /*at_end=*/false); });
  }
}

void UploadTable::SendVerifyingLocked(const HandlePtr& handle) {
  v1::WriteImageResponse response;
  response.mutable_progress()->set_verifying(true);
  handle->progress_at = clock_->Boot();
  handle->stream->Send(std::move(response));
}

void UploadTable::SendProgressLocked(const HandlePtr& handle) {
  const UploadEntry& entry = *handle->entry;
  v1::WriteImageResponse response;
  v1::Progress* progress = response.mutable_progress();
  if (handle->prefix) {
    progress->set_next_offset(entry.prefix_next);
    progress->set_safe_offset(entry.prefix_next);
  } else {
    progress->set_next_offset(entry.tail_next);
    // Never beyond the last whole block: should the mount fill up, the client
    // goes on elsewhere from there.
    progress->set_safe_offset(entry.published.has_value()
                                  ? entry.tail_next
                                  : BlockFloor(entry.tail_safe));
    progress->set_waiting_for_commit(entry.committed);
  }
  if (!handle->prefix) {
    UploadEntry& told = *handle->entry;
    told.told_safe = std::max(told.told_safe, progress->safe_offset());
  }
  handle->progress_sent = progress->next_offset();
  handle->progress_at = clock_->Boot();
  handle->stream->Send(std::move(response));
}

void UploadTable::FinishHandleLocked(const HandlePtr& handle,
                                     const absl::Status& status) {
  if (handle->closed) {
    return;
  }
  handle->closed = true;
  UploadEntry& entry = *handle->entry;
  HandlePtr& place = handle->prefix ? entry.prefix_stream : entry.stream;
  // NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
  const HandlePtr keep = handle;  // `handle` may be a copy of `place`
  if (place == handle) {
    place = nullptr;
  }
  keep->stream->Finish(status);
}

void UploadTable::Append(const HandlePtr& handle, v1::Chunk chunk) {
  if (handle->entry == nullptr) {
    handle->stream->ChunkDone(static_cast<int64_t>(chunk.data().size()));
    return;
  }
  // Shared with one task only: std::function wants copyable captures.
  auto held = std::make_shared<v1::Chunk>(std::move(chunk));
  PostOn(handle->entry, [this, handle, held] {
    RunAppend(handle, *held);
    handle->stream->ChunkDone(static_cast<int64_t>(held->data().size()));
  });
}

void UploadTable::RunAppend(const HandlePtr& handle, const v1::Chunk& chunk) {
  {
    MutexLock lock(&mu_);
    // A stream that was answered, or an upload that moves on: not wanted. A
    // client that went away meanwhile did send these bytes: they are kept.
    const UploadPhase phase = handle->entry->phase;
    // A prefix is also taken for an upload that moved on: it goes along.
    const bool wanted = phase == UploadPhase::kReceiving ||
                        (handle->prefix && (phase == UploadPhase::kFull ||
                                            phase == UploadPhase::kMoved));
    if (!wanted || handle->progress_sent < 0) {
      return;
    }
  }
  const absl::Status status = AppendNow(handle, chunk);
  AfterAppend(handle, status);
  if (status.ok() && handle->prefix) {
    FinishPrefix(handle, /*at_end=*/false);
  }
}

absl::Status UploadTable::AppendNow(const HandlePtr& handle,
                                    const v1::Chunk& chunk) {
  const EntryPtr& entry = handle->entry;
  RETURN_IF_ERROR(EnsureStaged(entry));
  const UploadSpec& spec = entry->spec;
  const auto length = static_cast<int64_t>(chunk.data().size());
  const int64_t limit =
      handle->prefix
          ? spec.tail_start
          : spec.size_bytes.value_or(std::numeric_limits<int64_t>::max());
  // No sum that overflows: the offset is the client's.
  if (chunk.offset() < 0 || length > limit || chunk.offset() > limit - length) {
    return MakeError(
        absl::StatusCode::kOutOfRange, reason::kSizeMismatch,
        absl::StrCat("a chunk of ", length, " bytes at ", chunk.offset(), "; ",
                     UploadName(spec.upload_id), " ends at ", limit),
        {{"offset", absl::StrCat(chunk.offset())},
         {"limit", absl::StrCat(limit)}});
  }
  // No room is promised for what the store refuses next: one wild offset must
  // not take the whole mount.
  const int64_t next = handle->prefix ? entry->staged->prefix_next()
                                      : entry->staged->tail_next();
  if (chunk.offset() == next) {
    RETURN_IF_ERROR(ledger_->Grow(spec.upload_id, next + length));
  }
  std::optional<uint32_t> crc32c;
  if (chunk.has_crc32c()) {
    crc32c = chunk.crc32c();
  }
  const absl::string_view data(chunk.data());
  absl::Status status =
      handle->prefix
          ? entry->staged->AppendPrefix(chunk.offset(), {data}, crc32c)
          : entry->staged->AppendTail(chunk.offset(), {data}, crc32c);
  NoteCall(*entry, status);
  CopyNumbers(entry);
  return status;
}

void UploadTable::AfterAppend(const HandlePtr& handle,
                              const absl::Status& status) {
  const EntryPtr& entry = handle->entry;
  const bool condemned = entry->staged != nullptr && entry->staged->condemned();
  if (HasReason(status, reason::kMountFull)) {
    if (!handle->prefix) {
      KeepForMove(entry);
    }
    space_changed_();  // others shall not come here for it
  }
  MutexLock lock(&mu_);
  live_.insert(entry->spec.upload_id);
  if (status.ok()) {
    const int64_t next = handle->prefix ? entry->prefix_next : entry->tail_next;
    if (!handle->closed && next - handle->progress_sent >= kProgressBytes) {
      SendProgressLocked(handle);
    }
    return;
  }
  // Full, or condemned by a failed write: what is verified here can still be
  // read, and the upload goes on at another mount.
  if (!handle->prefix && (HasReason(status, reason::kMountFull) || condemned)) {
    FullLocked(entry, status);
    return;
  }
  FinishHandleLocked(handle, status);
  if (HasReason(status, reason::kMountFull) || condemned) {
    // No second move is offered: the tail may be here already.
    LoseLocked(entry,
               absl::StrCat("the bytes before ", entry->spec.tail_start,
                            ", which came from the mount before, can not be "
                            "taken here after ",
                            entry->prefix_next, ": ", status.message()),
               HasReason(status, reason::kMountFull));
  }
}

void UploadTable::EndOfStream(const HandlePtr& handle) {
  if (handle->entry == nullptr) {
    return;
  }
  PostOn(handle->entry, [this, handle] { RunEndOfStream(handle); });
}

void UploadTable::FinishPrefix(const HandlePtr& handle, bool at_end) {
  const EntryPtr& entry = handle->entry;
  const int64_t wanted = entry->spec.tail_start;
  bool complete = false;
  {
    MutexLock lock(&mu_);
    if (handle->closed) {
      return;
    }
    complete = entry->published.has_value() ||
               (wanted > 0 && entry->prefix_next >= wanted);
    if (!complete && !at_end) {
      return;
    }
  }
  absl::Status status = absl::OkStatus();
  bool condemned = false;
  if (!complete) {
    status = MakeError(absl::StatusCode::kAborted, reason::kOffsetMismatch,
                       absl::StrCat("the prefix ended before ", wanted));
  } else if (entry->staged != nullptr) {
    // The sender drops its bytes once this stream ended well, and the client
    // did long ago.
    status = entry->staged->Sync();
    NoteCall(*entry, status);
    condemned = entry->staged->condemned();
  }
  MutexLock lock(&mu_);
  if (condemned) {
    LoseLocked(entry,
               absl::StrCat("the ", wanted,
                            " bytes that came from the mount before "
                            "can not be made durable here: ",
                            status.message()),
               HasReason(status, reason::kMountFull));
  }
  if (handle->closed) {
    return;
  }
  if (status.ok()) {
    SendProgressLocked(handle);
  }
  FinishHandleLocked(handle, status);
  MaybePublishLocked(entry);
}

void UploadTable::RunEndOfStream(const HandlePtr& handle) {
  if (handle->prefix) {
    FinishPrefix(handle, /*at_end=*/true);
    return;
  }
  const EntryPtr& entry = handle->entry;
  MutexLock lock(&mu_);
  // Half-closed after the commit is how clients wait for the answer.
  if (handle->closed || entry->commit.has_value() ||
      entry->phase == UploadPhase::kPublished ||
      entry->phase == UploadPhase::kFull ||
      entry->phase == UploadPhase::kMoved ||
      entry->phase == UploadPhase::kLost) {
    return;
  }
  FinishHandleLocked(
      handle,
      MakeError(
          absl::StatusCode::kCancelled, reason::kUploadAborted,
          absl::StrCat("the stream ended without a commit; ", entry->tail_next,
                       " bytes are kept until the upload expires")));
}

void UploadTable::Detach(const HandlePtr& handle) {
  if (handle->entry == nullptr) {
    return;
  }
  MutexLock lock(&mu_);
  handle->closed = true;
  UploadEntry& entry = *handle->entry;
  if (entry.stream == handle) {
    entry.stream = nullptr;
    live_.insert(entry.spec.upload_id);
  }
  if (entry.prefix_stream == handle) {
    entry.prefix_stream = nullptr;
  }
}

}  // namespace predella::agent
