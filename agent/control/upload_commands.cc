// What the coordinator commands of uploads: a part of UploadTable.
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "agent/control/upload_entry.h"
#include "agent/control/upload_table.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"

namespace predella::agent {

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
  entry->strand->Post([this, entry, force, done = std::move(done)] {
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
  std::shared_ptr<Strand> strand;
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
  }
  if (store == nullptr) {
    done(MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                   "the mount's directory is not open"));
    return;
  }
  if (strand == nullptr) {
    strand = std::make_shared<Strand>(disk_);
  }
  strand->Post([this, command, store, strand, begin = std::move(begin),
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
  health_->CallDone(outcome.status());
  done(std::move(outcome));
}

void UploadTable::CollectGarbage(ImageStore* store) {
  std::vector<Uuid> found;
  const absl::Status listed = store->List([&found](const ListEntry& entry) {
    if (entry.kind == ListEntry::Kind::kInflight && !entry.upload_id.none()) {
      found.push_back(entry.upload_id);
    }
  });
  LogIfError(listed, "garbage is collected again after the next start");
  for (const Uuid& id : found) {
    {
      MutexLock lock(&mu_);
      if (entries_.contains(id) || strands_.contains(id)) {
        continue;
      }
      discarding_.insert(id);
    }
    const absl::Status status = store->Discard(id);
    health_->CallDone(status);
    if (status.ok()) {
      LogInfo("inflight_discarded", {{"upload", id.ToString()}});
    } else {
      LogIfError(status, "garbage is collected again after the next start");
    }
    MutexLock lock(&mu_);
    discarding_.erase(id);
  }
}

}  // namespace predella::agent
