#include "agent/control/upload_table.h"

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "agent/control/upload_entry.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"

namespace predella::agent {

void Transition(UploadEntry* entry, UploadPhase to) {
  // An ended upload stays ended: tasks of it may still be on their way.
  if (entry->phase != UploadPhase::kEnded) {
    entry->phase = to;
  }
}

absl::Status NotListed(const Uuid& upload_id) {
  return MakeError(
      absl::StatusCode::kNotFound, reason::kUploadNotFound,
      absl::StrCat(UploadName(upload_id),
                   " is not open at this mount; ask the coordinator for its "
                   "state (GetUpload)"),
      {{"upload", UploadName(upload_id)}});
}

UploadTable::UploadTable(Executor* disk, Clock* clock, SessionState* session,
                         SpaceLedger* ledger, MountStateMachine* health,
                         PeerWriter* peer, DiskCalls* calls,
                         std::function<void()> space_changed)
    : disk_(disk),
      clock_(clock),
      session_(session),
      ledger_(ledger),
      health_(health),
      peer_(peer),
      calls_(calls),
      space_changed_(std::move(space_changed)) {}

void UploadTable::SetStore(std::shared_ptr<ImageStore> store) {
  MutexLock lock(&mu_);
  store_ = std::move(store);
}

void UploadTable::DropStore(const absl::Status& why) {
  MutexLock lock(&mu_);
  while (!entries_.empty()) {
    EndLocked(entries_.begin()->second, why, /*discard=*/false);
  }
  attaching_.reset();
  if (store_ != nullptr) {
    disk_->Post([store = std::move(store_)] {});
    store_ = nullptr;
  }
  held_.clear();  // found again when the mount is back
  // What hangs in the old store holds up no upload of the next: it has the
  // directory's lock until it came back.
  strands_.clear();
}

void UploadTable::NoteCall(const ImageStore* store,
                           const absl::Status& status) {
  MutexLock lock(&mu_);
  if (store != nullptr && store_.get() == store) {
    health_->CallDone(status);
  }
}

void UploadTable::NoteCall(const UploadEntry& entry,
                           const absl::Status& status) {
  NoteCall(entry.store.get(), status);
}

void UploadTable::PostOn(const EntryPtr& entry, std::function<void()> task) {
  PostOn(entry->strand, [entry, task = std::move(task)] { task(); });
}

void UploadTable::PostOn(const StrandPtr& strand, std::function<void()> task) {
  strand->tasks.Post([this, strand, task = std::move(task)] {
    const auto returned = [this, strand] {
      MutexLock lock(&mu_);
      strand->stalled = absl::OkStatus();
    };
    DiskCalls::Work work(
        calls_,
        [this, strand](const absl::Status& why) { WorkStalled(strand, why); },
        returned);
    task();
    if (work.Finish()) {
      returned();
    }
  });
}

void UploadTable::WorkStalled(const StrandPtr& strand,
                              const absl::Status& why) {
  MutexLock lock(&mu_);
  strand->stalled = why;
  for (const auto& [id, entry] : entries_) {
    if (entry->strand == strand) {
      FinishStreamsLocked(entry, why);
      OweStatusLocked(entry);
      return;
    }
  }
}

void UploadTable::Shutdown(const absl::Status& why) { DropStore(why); }

UploadTable::StrandPtr UploadTable::StrandLocked(const Uuid& upload_id) {
  std::weak_ptr<UploadStrand>& known = strands_[upload_id];
  StrandPtr strand = known.lock();
  if (strand == nullptr) {
    strand = std::make_shared<UploadStrand>(disk_);
    known = strand;
  }
  return strand;
}

UploadTable::EntryPtr UploadTable::AddLocked(
    const control::v1::OpenUpload& open) {
  UploadSpec spec;
  spec.upload_id = Uuid::FromBytesOrNone(open.upload_id());
  spec.image_id = Uuid::FromBytesOrNone(open.image_id());
  spec.generation = Generation::FromProto(open.generation());
  spec.location_key = open.location_key();
  if (open.has_size_bytes()) {
    spec.size_bytes = open.size_bytes();
  }
  spec.tail_start = open.segment_boundary();
  spec.decision = open.decision();
  const Uuid id = spec.upload_id;
  auto entry =
      std::make_shared<UploadEntry>(std::move(spec), StrandLocked(id), store_);
  entry->tail_next = entry->spec.tail_start;
  entry->tail_safe = entry->spec.tail_start;
  entries_[id] = entry;
  held_.erase(id);
  return entry;
}

void UploadTable::ForgetLocked(const EntryPtr& entry) {
  Transition(entry.get(), UploadPhase::kEnded);
  const Uuid id = entry->spec.upload_id;
  const auto it = entries_.find(id);
  if (it != entries_.end() && it->second == entry) {
    entries_.erase(it);
    ledger_->Release(id);
    live_.erase(id);
  }
  PostOn(entry, [entry] {
    entry->staged.reset();
    entry->store.reset();
  });
}

void UploadTable::FinishStreamsLocked(const EntryPtr& entry,
                                      const absl::Status& why) {
  if (entry->stream != nullptr) {
    FinishHandleLocked(HandlePtr(entry->stream), why);
  }
  if (entry->prefix_stream != nullptr) {
    FinishHandleLocked(HandlePtr(entry->prefix_stream), why);
  }
}

void UploadTable::EndLocked(const EntryPtr& entry, const absl::Status& why,
                            bool discard) {
  // NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
  const EntryPtr keep = entry;  // `entry` may be the table's own reference
  FinishStreamsLocked(keep, why);
  if (discard && !keep->published.has_value()) {
    DiscardLater(keep);
  }
  ForgetLocked(keep);
}

void UploadTable::DiscardLater(const EntryPtr& entry) {
  PostOn(entry, [this, entry] {
    entry->staged.reset();
    if (entry->store == nullptr) {
      return;
    }
    const absl::Status status = entry->store->Discard(entry->spec.upload_id);
    NoteCall(*entry, status);
    LogIfError(status,
               "inflight bytes of an ended upload are looked for again at the "
               "next start");
  });
}

UploadTable::EntryPtr UploadTable::FindLocked(const Uuid& upload_id,
                                              const Generation& generation) {
  const auto it = entries_.find(upload_id);
  if (it == entries_.end() || it->second->spec.generation != generation) {
    return nullptr;
  }
  return it->second;
}

void UploadTable::Tick() {
  AnswerSlowChecks();
  AnswerAttach();
  MutexLock lock(&mu_);
  std::vector<EntryPtr> all;
  for (const auto& [id, entry] : entries_) {
    all.push_back(entry);
  }
  const MountView view = health_->View();
  if (view.health == v1::HEALTH_HUNG) {
    // Their clients hear of it now and keep their bytes; what is stuck goes on
    // when the mount answers, and so do they, on the same upload.
    const absl::Status stalled = MakeError(absl::StatusCode::kUnavailable,
                                           reason::kMountStalled, view.detail);
    for (const EntryPtr& entry : all) {
      FinishStreamsLocked(entry, stalled);
    }
    return;  // nothing more is queued behind what is stuck
  }
  TellOwedLocked();
  for (const EntryPtr& entry : all) {
    MaybePublishLocked(entry);
    MaybeCopyLocked(entry);
    TellAgainLocked(entry);
    SendProgressesLocked(entry);
    if (entry->stream != nullptr || entry->move.copying ||
        entry->commit.has_value()) {
      live_.insert(entry->spec.upload_id);
    }
  }
  for (auto it = strands_.begin(); it != strands_.end();) {
    if (it->second.expired()) {
      strands_.erase(it++);
    } else {
      ++it;
    }
  }
}

void UploadTable::SendProgressesLocked(const EntryPtr& entry) {
  const absl::Duration now = clock_->Boot();
  for (const HandlePtr& handle : {entry->stream, entry->prefix_stream}) {
    if (handle == nullptr || now - handle->progress_at < kProgressEvery) {
      continue;
    }
    if (handle->progress_sent >= 0) {
      SendProgressLocked(handle);
    } else if (!handle->prefix) {
      // Another agent waits as long as the connection stands.
      SendVerifyingLocked(handle);
    }
  }
}

void UploadTable::TellAgainLocked(const EntryPtr& entry) {
  // The coordinator does not answer what it could not decide, as while its
  // index takes no writes.
  if (clock_->Boot() - entry->told_at < kTellAgain) {
    return;
  }
  if (entry->phase == UploadPhase::kFull) {
    SendFullLocked(entry);
  } else if (entry->phase == UploadPhase::kLost) {
    SendLostLocked(entry);
  } else if (entry->phase == UploadPhase::kPublished) {
    entry->told_at = clock_->Boot();
    control::v1::AgentMessage message;
    *message.mutable_published() = *entry->published;
    session_->SendAttached(std::move(message));
  }
}

std::vector<Uuid> UploadTable::TakeLive() {
  MutexLock lock(&mu_);
  std::vector<Uuid> out(live_.begin(), live_.end());
  live_.clear();
  return out;
}

int UploadTable::open_streams() {
  MutexLock lock(&mu_);
  int open = 0;
  for (const auto& [id, entry] : entries_) {
    open += entry->stream != nullptr ? 1 : 0;
    open += entry->prefix_stream != nullptr ? 1 : 0;
  }
  return open;
}

}  // namespace predella::agent
