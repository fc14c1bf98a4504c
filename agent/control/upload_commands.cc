// What the coordinator commands of uploads: a part of UploadTable.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "agent/control/upload_entry.h"
#include "agent/control/upload_table.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::agent {

absl::StatusOr<UploadTable::EntryPtr> UploadTable::Promise(
    const control::v1::OpenUpload& open, bool* listed) {
  const Uuid id = Uuid::FromBytesOrNone(open.upload_id());
  const Generation generation = Generation::FromProto(open.generation());
  MutexLock lock(&mu_);
  if (store_ == nullptr || discarding_.contains(id)) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "the mount is not ready for this upload");
  }
  EntryPtr entry = FindLocked(id, generation);
  *listed = entry != nullptr;
  if (*listed) {
    return entry;
  }
  const auto old = entries_.find(id);
  if (old != entries_.end()) {
    EndLocked(old->second, NotListed(id), /*discard=*/false);
  }
  std::optional<int64_t> size;
  if (open.has_size_bytes()) {
    size = open.size_bytes();
  }
  RETURN_IF_ERROR(ledger_->Promise(id, size, open.segment_boundary(),
                                   store_->InflightAllocated(id)));
  return AddLocked(open);
}

void UploadTable::Prepare(const control::v1::OpenUpload& open,
                          PrepareDone done) {
  bool listed = false;
  absl::StatusOr<EntryPtr> promised = Promise(open, &listed);
  if (!promised.ok()) {
    done(promised.status());
    return;
  }
  uint64_t check = 0;
  {
    MutexLock lock(&mu_);
    check = ++last_check_;
    name_checks_[check] = {std::move(done), clock_->Boot() + kNameCheckWait};
  }
  PostOn(*promised, [this, entry = *promised, check, listed] {
    NameChecked(entry, check, CheckName(entry, listed));
  });
}

absl::Status UploadTable::CheckName(const EntryPtr& entry, bool listed) {
  if (entry->store == nullptr) {
    return absl::OkStatus();  // its stream will be told why
  }
  const UploadSpec& spec = entry->spec;
  const absl::StatusOr<std::optional<PublishedImage>> found =
      entry->store->Find(spec.image_id);
  NoteCall(*entry, found.status());
  if (HasReason(found.status(), reason::kNameTaken)) {
    return found.status();
  }
  // An upload that has begun here is not given up for what may pass.
  if (listed) {
    return absl::OkStatus();
  }
  if (absl::IsDataLoss(found.status())) {
    return MakeError(absl::StatusCode::kAlreadyExists, reason::kNameTaken,
                     found.status().message(), {{"foreign", "true"}});
  }
  RETURN_IF_ERROR(found.status());
  if (!found->has_value() || (*found)->generation == spec.generation) {
    return absl::OkStatus();
  }
  const std::string other = (*found)->generation.ToString();
  return MakeError(absl::StatusCode::kAlreadyExists, reason::kNameTaken,
                   absl::StrCat("the name of ", ImageName(spec.image_id),
                                " is taken by generation ", other),
                   {{"generation", other}});
}

void UploadTable::NameChecked(const EntryPtr& entry, uint64_t check,
                              const absl::Status& status) {
  PrepareDone done;
  {
    MutexLock lock(&mu_);
    const auto it = name_checks_.find(check);
    if (it == name_checks_.end()) {
      return;  // it was not waited for
    }
    done = std::move(it->second.done);
    name_checks_.erase(it);
    if (!status.ok()) {
      EndLocked(entry, status, /*discard=*/false);
    }
  }
  done(status);
}

void UploadTable::AnswerSlowChecks() {
  std::vector<PrepareDone> slow;
  {
    MutexLock lock(&mu_);
    for (auto it = name_checks_.begin(); it != name_checks_.end();) {
      if (clock_->Boot() < it->second.until) {
        ++it;
        continue;
      }
      slow.push_back(std::move(it->second.done));
      name_checks_.erase(it++);
    }
  }
  for (const PrepareDone& done : slow) {
    done(absl::OkStatus());
  }
}

void UploadTable::CloseIfIdle(const control::v1::CloseIfIdle& command,
                              CloseDone done) {
  const Uuid id = Uuid::FromBytesOrNone(command.upload_id());
  control::v1::CloseIfIdleResult result;
  EntryPtr entry;
  {
    MutexLock lock(&mu_);
    entry = FindLocked(id, Generation::FromProto(command.generation()));
    if (entry != nullptr && entry->stream != nullptr && !command.force() &&
        entry->phase != UploadPhase::kPublished) {
      entry = nullptr;
      result.set_closed(false);
    } else if (entry == nullptr) {
      result.set_closed(true);
    } else if (entry->phase != UploadPhase::kPublished) {
      FinishStreamsLocked(
          entry, MakeError(absl::StatusCode::kAborted, reason::kUploadAborted,
                           absl::StrCat(UploadName(id),
                                        " was ended by the coordinator")));
    }
  }
  if (entry == nullptr) {
    done(result);
    return;
  }
  // On the strand: a publish under way ends first, and none begins after.
  const bool force = command.force();
  PostOn(entry, [this, entry, force, done = std::move(done)] {
    const absl::Status resolved = Resolve(entry);
    LogIfError(resolved, "what an upload left is looked for by its removal");
    control::v1::CloseIfIdleResult answer;
    {
      MutexLock lock(&mu_);
      answer.set_closed(true);
      if (entry->published.has_value()) {
        *answer.mutable_published() = *entry->published;
      } else if (entry->stream != nullptr && !force) {
        // It was attached meanwhile.
        answer.set_closed(false);
      } else {
        EndLocked(entry, NotListed(entry->spec.upload_id), /*discard=*/false);
      }
    }
    done(answer);
  });
}

void UploadTable::Remove(const control::v1::Remove& command,
                         std::function<bool()> begin, RemoveDone done) {
  const Uuid id = Uuid::FromBytesOrNone(command.upload_id());
  const Generation generation = Generation::FromProto(command.generation());
  EntryPtr entry;
  StrandPtr strand;
  std::shared_ptr<ImageStore> store;
  {
    MutexLock lock(&mu_);
    store = store_;
    for (const auto& [upload_id, candidate] : entries_) {
      if (candidate->spec.generation == generation &&
          (upload_id == id ||
           candidate->spec.image_id.bytes() == command.image_id())) {
        entry = candidate;
        break;
      }
    }
    if (entry != nullptr) {
      strand = entry->strand;
      EndLocked(entry,
                MakeError(absl::StatusCode::kAborted, reason::kUploadAborted,
                          absl::StrCat(UploadName(entry->spec.upload_id),
                                       " was ended and is being removed")),
                /*discard=*/false);
    } else if (const auto it = strands_.find(id); it != strands_.end()) {
      strand = it->second.lock();
    }
    // What it came to is history: the coordinator says what became of it.
    std::erase_if(ended_, [&](const Ended& ended) {
      return ended.generation == generation;
    });
  }
  if (store == nullptr) {
    done(MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                   "the mount's directory is not open"));
    return;
  }
  if (strand == nullptr) {
    strand = std::make_shared<UploadStrand>(disk_);
  }
  PostOn(strand, [this, command, store, begin = std::move(begin),
                  done = std::move(done)] {
    if (begin()) {
      RunRemove(command, store, done);
    }
  });
}

void UploadTable::RunRemove(const control::v1::Remove& command,
                            const std::shared_ptr<ImageStore>& store,
                            const RemoveDone& done) {
  absl::Status heard = absl::OkStatus();
  if (command.has_heard()) {
    heard = store->Hear(Generation::FromProto(command.heard()));
  }
  if (!heard.ok()) {
    done(heard);
    return;
  }
  absl::StatusOr<RemoveOutcome> outcome =
      store->Remove(Uuid::FromBytesOrNone(command.image_id()),
                    Generation::FromProto(command.generation()),
                    Uuid::FromBytesOrNone(command.upload_id()));
  NoteCall(store.get(), outcome.status());
  if (outcome.ok()) {
    MutexLock lock(&mu_);
    held_.erase(Uuid::FromBytesOrNone(command.upload_id()));
  }
  done(std::move(outcome));
}

}  // namespace predella::agent
