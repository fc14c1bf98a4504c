// The list of open uploads that a session begins with: a part of UploadTable.
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "agent/control/upload_entry.h"
#include "agent/control/upload_table.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"

namespace predella::agent {

control::v1::UploadStatus UploadTable::StatusLocked(const EntryPtr& entry) {
  control::v1::UploadStatus out;
  out.set_upload_id(entry->spec.upload_id.bytes());
  out.set_exists(entry->published.has_value() || entry->on_disk);
  out.set_received_bytes(entry->tail_next);
  if (entry->published.has_value()) {
    *out.mutable_published() = *entry->published;
  }
  out.set_stream_open(entry->stream != nullptr);
  return out;
}

UploadTable::EntryPtr UploadTable::NameLocked(
    const control::v1::OpenUpload& open) {
  const Uuid id = Uuid::FromBytesOrNone(open.upload_id());
  EntryPtr entry = FindLocked(id, Generation::FromProto(open.generation()));
  if (entry == nullptr) {
    const auto old = entries_.find(id);
    if (old != entries_.end()) {
      EndLocked(old->second, NotListed(id), /*discard=*/false);
    }
    entry = AddLocked(open);
  }
  if (open.has_moved_to() && (entry->phase == UploadPhase::kReceiving ||
                              entry->phase == UploadPhase::kFull)) {
    MoveLocked(entry, open.moved_to());
  }
  ledger_->PromiseAgain(id, entry->spec.size_bytes, entry->spec.tail_start,
                        store_ == nullptr ? 0 : store_->InflightAllocated(id));
  return entry;
}

void UploadTable::EndUnnamedLocked(const absl::flat_hash_set<Uuid>& named) {
  std::vector<EntryPtr> gone;
  for (const auto& [id, entry] : entries_) {
    if (!named.contains(id)) {
      gone.push_back(entry);
    }
  }
  for (const EntryPtr& entry : gone) {
    EndLocked(entry,
              MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                        absl::StrCat("the coordinator no longer names ",
                                     UploadName(entry->spec.upload_id),
                                     " as open; ask it for the state "
                                     "(GetUpload)")),
              /*discard=*/false);
  }
}

void UploadTable::ReplaceList(const std::shared_ptr<ImageStore>& store,
                              const control::v1::Attach& attach,
                              StatusesDone done) {
  {
    MutexLock lock(&mu_);
    if (store_ != store) {
      return;  // lost meanwhile: nobody waits for the answer any more
    }
    // What an earlier session waited for is asked for by nobody.
    Attaching& attaching = attaching_.emplace();
    attaching.done = std::move(done);
    absl::flat_hash_set<Uuid> keep;
    for (const control::v1::OpenUpload& open : attach.open_uploads()) {
      const EntryPtr entry = NameLocked(open);
      keep.insert(entry->spec.upload_id);
      entry->owes_status = false;
      entry->looked_up = false;
      attaching.named.push_back(entry);
      attaching.missing.insert(entry);
      if (!entry->strand->stalled.ok()) {
        OweStatusLocked(entry);
      }
    }
    EndUnnamedLocked(keep);
    for (const EntryPtr& entry : attaching.named) {
      LookUpLocked(entry);
    }
  }
  AnswerAttach();
}

void UploadTable::LookUpLocked(const EntryPtr& entry) {
  entry->looking = true;
  PostOn(entry, [this, entry] { LookedUp(entry, Resolve(entry)); });
}

void UploadTable::LookedUp(const EntryPtr& entry, const absl::Status& status) {
  {
    MutexLock lock(&mu_);
    entry->looking = false;
    entry->looked_up = status.ok();
    entry->look_again_at = clock_->Boot() + kTellAgain;
    if (HasReason(status, reason::kMountStalled)) {
      OweStatusLocked(entry);  // another upload of the image has a stuck call
    } else if (attaching_.has_value() && attaching_->missing.erase(entry) > 0 &&
               !status.ok()) {
      attaching_->error = status;
    } else if (entry->owes_status) {
      LogIfError(status, "it is looked up again, and told then");
    }
  }
  AnswerAttach();
}

void UploadTable::OweStatusLocked(const EntryPtr& entry) {
  if (attaching_.has_value() && attaching_->missing.erase(entry) > 0) {
    entry->owes_status = true;
  }
}

void UploadTable::AnswerAttach() {
  StatusesDone done;
  absl::StatusOr<std::vector<control::v1::UploadStatus>> answer;
  {
    MutexLock lock(&mu_);
    if (!attaching_.has_value() || !attaching_->missing.empty()) {
      return;
    }
    done = std::move(attaching_->done);
    if (!attaching_->error.ok()) {
      answer = attaching_->error;
    } else {
      answer.emplace();
      for (const EntryPtr& entry : attaching_->named) {
        if (!entry->owes_status) {
          answer->push_back(StatusLocked(entry));
        }
      }
    }
    attaching_.reset();
  }
  done(std::move(answer));
}

void UploadTable::FinishAttach(
    uint64_t session, std::vector<control::v1::UploadStatus> statuses) {
  control::v1::AgentMessage message;
  control::v1::AttachDone* attach_done = message.mutable_attach_done();
  MutexLock lock(&mu_);
  for (control::v1::UploadStatus& status : statuses) {
    const auto it = entries_.find(Uuid::FromBytesOrNone(status.upload_id()));
    *attach_done->add_uploads() =
        it != entries_.end() ? StatusLocked(it->second) : std::move(status);
  }
  if (!session_->Send(session, std::move(message))) {
    return;
  }
  session_->SetAttached(session);
  for (const auto& [id, entry] : entries_) {
    if (entry->phase == UploadPhase::kFull) {
      SendFullLocked(entry);
    } else if (entry->phase == UploadPhase::kLost) {
      SendLostLocked(entry);
    }
  }
}

void UploadTable::TellOwedLocked() {
  control::v1::AgentMessage message;
  control::v1::AttachDone* const late = message.mutable_attach_done();
  std::vector<EntryPtr> told;
  for (const auto& [id, entry] : entries_) {
    if (!entry->owes_status || !entry->strand->stalled.ok()) {
      continue;
    }
    if (entry->looked_up) {
      *late->add_uploads() = StatusLocked(entry);
      told.push_back(entry);
    } else if (!entry->looking && clock_->Boot() >= entry->look_again_at) {
      LookUpLocked(entry);
    }
  }
  // Before it is attached FinishAttach would come after this, and be late.
  if (told.empty() || !session_->SendAttached(std::move(message))) {
    return;
  }
  for (const EntryPtr& entry : told) {
    entry->owes_status = false;
  }
}

}  // namespace predella::agent
