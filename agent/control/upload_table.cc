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
  entry->strand->Post([this, entry, task = std::move(task)] {
    DiskCalls::Work work(calls_, [this, entry](const absl::Status& why) {
      WorkStalled(entry, why);
    });
    task();
    if (work.Finish()) {
      MutexLock lock(&mu_);
      entry->stalled = absl::OkStatus();
    }
  });
}

void UploadTable::WorkStalled(const EntryPtr& entry, const absl::Status& why) {
  MutexLock lock(&mu_);
  entry->stalled = why;
  FinishStreamsLocked(entry, why);
}

void UploadTable::Shutdown(const absl::Status& why) { DropStore(why); }

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
  std::weak_ptr<Strand>& known = strands_[spec.upload_id];
  std::shared_ptr<Strand> strand = known.lock();
  if (strand == nullptr) {
    strand = std::make_shared<Strand>(disk_);
    known = strand;
  }
  const Uuid id = spec.upload_id;
  auto entry = std::make_shared<UploadEntry>(std::move(spec), strand, store_);
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

namespace {

// Statuses of uploads that are looked up side by side.
struct Gathering {
  Mutex mu;
  size_t missing ABSL_GUARDED_BY(mu) = 0;
  absl::Status error ABSL_GUARDED_BY(mu);
  std::vector<control::v1::UploadStatus> statuses ABSL_GUARDED_BY(mu);
};

}  // namespace

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
  std::vector<EntryPtr> named;
  {
    MutexLock lock(&mu_);
    if (store_ != store) {
      return;  // lost meanwhile: nobody waits for the answer any more
    }
    absl::flat_hash_set<Uuid> keep;
    for (const control::v1::OpenUpload& open : attach.open_uploads()) {
      named.push_back(NameLocked(open));
      keep.insert(named.back()->spec.upload_id);
    }
    EndUnnamedLocked(keep);
  }
  if (named.empty()) {
    done(std::vector<control::v1::UploadStatus>());
    return;
  }
  // Shared by the tasks; the last one answers.
  auto gathering = std::make_shared<Gathering>();
  {
    MutexLock lock(&gathering->mu);
    gathering->missing = named.size();
  }
  for (const EntryPtr& entry : named) {
    PostOn(entry, [this, entry, gathering, done] {
      const absl::Status resolved = Resolve(entry);
      control::v1::UploadStatus status;
      {
        MutexLock lock(&mu_);
        status = StatusLocked(entry);
      }
      absl::StatusOr<std::vector<control::v1::UploadStatus>> answer;
      {
        MutexLock lock(&gathering->mu);
        if (!resolved.ok()) {
          gathering->error = resolved;
        }
        gathering->statuses.push_back(std::move(status));
        if (--gathering->missing > 0) {
          return;
        }
        if (gathering->error.ok()) {
          answer = std::move(gathering->statuses);
        } else {
          answer = gathering->error;
        }
      }
      done(std::move(answer));
    });
  }
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

void UploadTable::Tick() {
  AnswerSlowChecks();
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
