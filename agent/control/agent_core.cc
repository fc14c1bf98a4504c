#include "agent/control/agent_core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

constexpr absl::Duration kSpaceEvery = absl::Seconds(2);
// Publishes and removals within this share one heartbeat.
constexpr absl::Duration kSoonest = absl::Milliseconds(200);
// Well within the second that the fence may be behind.
constexpr absl::Duration kFenceDelay = absl::Milliseconds(500);

}  // namespace

AgentCore::AgentCore(AgentIdentity identity,
                     std::optional<int64_t> reserve_bytes, AgentSeams seams)
    : identity_(std::move(identity)),
      seams_(std::move(seams)),
      incarnation_(seams_.ids->RandomBytes(16)),
      session_(seams_.clock),
      ledger_(reserve_bytes),
      machine_(seams_.clock, seams_.health),
      prober_(seams_.probe, seams_.disk, seams_.clock, &machine_),
      scrubber_(ScrubSeamsOf(), seams_.scrub),
      table_(seams_.disk, seams_.clock, &session_, &ledger_, &machine_,
             seams_.peer, seams_.calls, [this] { SpaceChanged(); }),
      session_strand_(seams_.disk),
      addresses_(identity_.addresses) {}

void AgentCore::SetAddresses(std::vector<std::string> addresses) {
  MutexLock lock(&mu_);
  addresses_ = std::move(addresses);
}

void AgentCore::WatchCalls() {
  if (seams_.calls == nullptr) {
    return;
  }
  seams_.calls->Tick();
  const int missing = seams_.missing_threads ? seams_.missing_threads() : 0;
  if (seams_.calls->exhausted(missing)) {
    machine_.NoThreadIsLeft(seams_.calls->WhyExhausted(missing).message());
  }
  const int replaced = seams_.calls->replaced();
  bool news = false;
  {
    MutexLock lock(&mu_);
    news = replaced != replaced_;
    if ((!news && missing == 0) || stopped_) {
      return;
    }
    replaced_ = replaced;
  }
  if (news) {
    LogInfo("disk_threads_replaced", {{"mount", identity_.mount_name},
                                      {"threads", replaced},
                                      {"missing_before", missing}});
  }
  if (seams_.replace_threads) {
    seams_.replace_threads(replaced);
  }
}

void AgentCore::Tick() {
  WatchCalls();
  prober_.Tick();
  {
    MutexLock lock(&mu_);
    if (stopped_) {
      return;
    }
    if (store_ != nullptr && machine_.View().health == v1::HEALTH_ABSENT) {
      LoseStoreLocked();
    } else if (store_ != nullptr && store_->writable_again()) {
      ReopenLocked();
    }
    NoticeHealthLocked();
    TryOpenLocked();
    RefreshSpaceLocked();
    FreshenLocked();
    SyncFenceLocked();
    ExpireQuarantineLocked();
    HeartbeatLocked();
  }
  table_.Tick();
  scrubber_.Tick();
}

control::v1::Space AgentCore::SpaceProto(const SpaceLedger::Snapshot& snapshot,
                                         int64_t command_number) const {
  control::v1::Space out;
  out.set_size_bytes(snapshot.space.size_bytes);
  out.set_free_bytes(snapshot.space.free_bytes);
  out.set_available_bytes(snapshot.space.available_bytes);
  out.set_promised_bytes(snapshot.promised_bytes);
  out.set_reserve_bytes(snapshot.reserve_bytes);
  out.set_available_inodes(snapshot.space.available_inodes);
  out.set_size_inodes(snapshot.space.size_inodes);
  out.set_command_number(command_number);
  return out;
}

control::v1::MountHealth HealthProto(const MountView& view) {
  control::v1::MountHealth out;
  out.set_health(view.health);
  out.set_detail(view.detail);
  out.set_error(view.error);
  return out;
}

void AgentCore::RefreshSpaceLocked() {
  const absl::Duration now = seams_.clock->Boot();
  if (store_ == nullptr || space_running_ || now < next_space_) {
    return;
  }
  ReadSpaceLocked(/*tell=*/false);
}

void AgentCore::SpaceChanged() {
  MutexLock lock(&mu_);
  space_changed_ = true;
  FreshenLocked();
}

void AgentCore::FreshenLocked() {
  // A reading under way may be of before.
  if (space_changed_ && !stopped_ && store_ != nullptr && !space_running_ &&
      seams_.clock->Boot() >= next_fresh_) {
    space_changed_ = false;
    next_fresh_ = seams_.clock->Boot() + kSoonest;
    ReadSpaceLocked(/*tell=*/true);
  }
}

absl::StatusOr<SpaceInfo> AgentCore::ReadSpace(ImageStore* store) {
  const SpaceLedger::Reading reading = ledger_.StartReading();
  absl::StatusOr<SpaceInfo> space = store->Space();
  MutexLock lock(&mu_);
  // A call that hung for long may be of what was mounted here before.
  if (space.ok() && (store_ == nullptr || store_.get() == store)) {
    ledger_.SetSpace(*space, reading);
  }
  return space;
}

void AgentCore::CallDone(const ImageStore* store, const absl::Status& status) {
  MutexLock lock(&mu_);
  if (store_.get() == store) {
    machine_.CallDone(status);
  }
}

void AgentCore::StatDone(const ImageStore* store, const absl::Status& status) {
  MutexLock lock(&mu_);
  if (store_.get() == store) {
    machine_.StatDone(status);
  }
}

void AgentCore::ReadSpaceLocked(bool tell) {
  next_space_ = seams_.clock->Boot() + kSpaceEvery;
  space_running_ = true;
  seams_.disk->Post([this, tell, store = store_] {
    StatDone(store.get(), ReadSpace(store.get()).status());
    MutexLock lock(&mu_);
    space_running_ = false;
    if (tell && store_ == store) {
      next_heartbeat_ = seams_.clock->Boot();
      HeartbeatLocked();
    }
    FreshenLocked();
  });
}

void AgentCore::SyncFenceLocked() {
  const absl::Duration now = seams_.clock->Boot();
  if (store_ == nullptr || fence_syncing_ || !fence_dirty_since_.has_value() ||
      now - *fence_dirty_since_ < kFenceDelay) {
    return;
  }
  fence_dirty_since_.reset();
  fence_syncing_ = true;
  seams_.disk->Post([this, store = store_] {
    Generation written;
    {
      MutexLock lock(&mu_);
      written = store_ == store ? fence_written_ : Generation();
    }
    const absl::Status status = store->SyncFence();
    // Nothing to sync is no sign of life of the disk.
    StatDone(store.get(), status);
    LogIfError(status, "the fence is synced again with the next pair");
    MutexLock lock(&mu_);
    fence_syncing_ = false;
    if (status.ok() && store_ == store) {
      FenceSyncedLocked(written);
    }
  });
}

void AgentCore::HearLocked(const storage::v1::Generation& pair) {
  const Generation heard = Generation::FromProto(pair);
  KnowEpochLocked(heard.epoch, heard.nonce);
  if (!fence_dirty_since_.has_value()) {
    fence_dirty_since_ = seams_.clock->Boot();
  }
  if (store_ == nullptr || heard.none() || heard == last_heard_) {
    return;
  }
  if (machine_.View().health == v1::HEALTH_HUNG) {
    return;  // said again with every heartbeat; nothing is queued meanwhile
  }
  last_heard_ = heard;
  session_strand_.Post([this, heard, store = store_] {
    const absl::Status status = store->Hear(heard);
    StatDone(store.get(), status);
    LogIfError(status, "the fence is written again with the next pair");
    MutexLock lock(&mu_);
    if (status.ok() && store_ == store) {
      fence_written_ = heard;
    }
  });
}

void AgentCore::FenceSyncedLocked(const Generation& pair) {
  if (pair.After(memory_.fence)) {
    memory_.fence = pair;
    // The coordinator knows an older copy by it: told at once.
    next_heartbeat_ = seams_.clock->Boot();
  }
}

void AgentCore::HeartbeatLocked() {
  const absl::Duration now = seams_.clock->Boot();
  if (phase_ == Phase::kNone || phase_ == Phase::kHello ||
      now < next_heartbeat_) {
    return;
  }
  next_heartbeat_ = now + heartbeat_every_;
  control::v1::AgentMessage message;
  control::v1::Heartbeat* beat = message.mutable_heartbeat();
  beat->set_sequence(++heartbeat_);
  if (store_ != nullptr) {
    // What the disk said last, and the promises of this moment: an answer to
    // a command may have gone before it.
    *beat->mutable_space() = SpaceProto(ledger_.Take(), command_number_);
    if (!memory_.fence.none() && memory_.mount_uid == label_.mount_uid()) {
      *beat->mutable_fence() = memory_.fence.ToProto();
    }
  }
  const MountView view = machine_.View();
  *beat->mutable_health() = HealthProto(view);
  sent_health_ = view.health;
  if (seams_.calls != nullptr) {
    beat->set_stuck_calls(seams_.calls->overdue());
  }
  for (const Uuid& id : table_.TakeLive()) {
    beat->add_live_upload_ids(id.bytes());
  }
  if (auto scrub = scrubber_.Progress(session_.current()); scrub.has_value()) {
    *beat->mutable_scrub() = *std::move(scrub);
  }
  if (const UploadTable::Garbage held = table_.held(); held.uploads > 0) {
    beat->mutable_held_garbage()->set_uploads(held.uploads);
    beat->mutable_held_garbage()->set_bytes(held.bytes);
  }
  session_.NoteAsked(heartbeat_);
  session_.Send(session_.current(), std::move(message));
}

absl::Status AgentCore::CheckStream(absl::string_view mount_uid,
                                    absl::string_view token, Capability want,
                                    bool write) {
  std::string key;
  {
    MutexLock lock(&mu_);
    if (draining_ || stopped_) {
      return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                       "the agent is stopping");
    }
    want.mount_uid = Uuid::FromBytesOrNone(label_.mount_uid());
    key = mount_key_;
  }
  const MountView view = machine_.View();
  if (write ? !view.serves_writes : !view.serves_reads) {
    return NotServing(view);
  }
  const std::optional<int64_t> now = session_.CoordinatorTimeUs();
  if (key.empty() || !now.has_value()) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "the mount is not registered with a coordinator yet");
  }
  absl::StatusOr<Uuid> uid = Uuid::Parse(mount_uid);
  RETURN_IF_ERROR(uid.status());
  if (*uid != want.mount_uid) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
        absl::StrCat("this is the mount ", want.mount_uid.ToString(), ", not ",
                     mount_uid),
        {{"mount_uid", want.mount_uid.ToString()}});
  }
  return CheckCapability(token, want, key, *now);
}

absl::StatusOr<std::shared_ptr<UploadHandle>> AgentCore::OpenWrite(
    const v1::WriteHeader& header, std::shared_ptr<UploadStream> stream) {
  Capability want;
  want.operation = Capability::Operation::kWrite;
  ASSIGN_OR_RETURN(want.upload_id, ParseUploadName(header.upload()));
  ASSIGN_OR_RETURN(want.image_id, ParseImageName(header.image()));
  ASSIGN_OR_RETURN(want.generation, Generation::Parse(header.generation()));
  RETURN_IF_ERROR(CheckStream(header.mount_uid(), header.capability(), want,
                              /*write=*/true));
  return table_.Attach(header, want.generation, std::move(stream));
}

absl::StatusOr<ReadGrant> AgentCore::OpenRead(
    const v1::ReadImageRequest& request, std::weak_ptr<ReadStream> stream) {
  Capability want;
  want.operation = Capability::Operation::kRead;
  ASSIGN_OR_RETURN(want.image_id, ParseImageName(request.image()));
  ASSIGN_OR_RETURN(want.generation, Generation::Parse(request.generation()));
  if (request.offset() < 0 || request.length() < 0) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     absl::StrCat("offset ", request.offset(), " and length ",
                                  request.length(), " must not be negative"));
  }
  RETURN_IF_ERROR(CheckStream(request.mount_uid(), request.capability(), want,
                              /*write=*/false));
  MutexLock lock(&mu_);
  if (store_ == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "the mount's directory is not open");
  }
  readers_.push_back(std::move(stream));
  return ReadGrant{store_, want.image_id, want.generation};
}

bool AgentCore::Serving() {
  MutexLock lock(&mu_);
  return !draining_ && !stopped_ && store_ != nullptr && !mount_key_.empty() &&
         machine_.View().serves_reads;
}

void AgentCore::Drain() {
  MutexLock lock(&mu_);
  draining_ = true;
}

void AgentCore::Stop(std::function<void()> done) {
  std::shared_ptr<ImageStore> store;
  {
    MutexLock lock(&mu_);
    draining_ = true;
    stopped_ = true;
    store = std::move(store_);
    store_ = nullptr;
  }
  prober_.SetStore(nullptr);
  scrubber_.End();
  table_.Shutdown(MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                            "the agent is stopping"));
  MutexLock lock(&mu_);
  session_strand_.Post([store = std::move(store), done = std::move(done)] {
    if (store != nullptr) {
      LogIfError(store->SyncFence(), "what was not synced is heard again");
    }
    done();
  });
}

}  // namespace predella::agent
