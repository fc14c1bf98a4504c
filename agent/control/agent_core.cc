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

constexpr absl::Duration kOpenRetry = absl::Seconds(2);
constexpr absl::Duration kSpaceEvery = absl::Seconds(2);
// Publishes and removals within this share one heartbeat.
constexpr absl::Duration kSoonest = absl::Milliseconds(200);
// Well within the second that the fence may be behind.
constexpr absl::Duration kFenceDelay = absl::Milliseconds(500);

absl::Status NotServing(const MountView& view) {
  if (view.health == v1::HEALTH_READ_ONLY) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kMountReadOnly, view.detail);
  }
  if (view.health == v1::HEALTH_HUNG) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kMountStalled,
                     view.detail);
  }
  if (view.health == v1::HEALTH_ABSENT || view.health == v1::HEALTH_FAILED) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed,
                     view.detail);
  }
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kNotReady,
      view.detail.empty() ? "the mount is not ready" : view.detail);
}

}  // namespace

AgentCore::AgentCore(AgentIdentity identity,
                     std::optional<int64_t> reserve_bytes, AgentSeams seams)
    : identity_(std::move(identity)),
      seams_(std::move(seams)),
      incarnation_(seams_.ids->RandomBytes(16)),
      session_(seams_.clock),
      ledger_(reserve_bytes),
      machine_(seams_.clock),
      prober_(seams_.probe, seams_.clock, &machine_),
      table_(seams_.disk, seams_.clock, &session_, &ledger_, &machine_,
             seams_.peer, [this] { SpaceChanged(); }),
      session_strand_(seams_.disk),
      addresses_(identity_.addresses) {}

void AgentCore::SetAddresses(std::vector<std::string> addresses) {
  MutexLock lock(&mu_);
  addresses_ = std::move(addresses);
}

void AgentCore::Tick() {
  prober_.Tick();
  {
    MutexLock lock(&mu_);
    if (stopped_) {
      return;
    }
    if (store_ != nullptr && machine_.View().health == v1::HEALTH_ABSENT) {
      LoseStoreLocked();
    }
    TryOpenLocked();
    RefreshSpaceLocked();
    FreshenLocked();
    SyncFenceLocked();
    ExpireQuarantineLocked();
    HeartbeatLocked();
  }
  table_.Tick();
}

void AgentCore::TryOpenLocked() {
  const absl::Duration now = seams_.clock->Boot();
  if (store_ != nullptr || opening_ || now < next_open_) {
    return;
  }
  opening_ = true;
  machine_.OpenStarted();
  seams_.disk->Post([this] { RunOpen(); });
}

void AgentCore::RunOpen() {
  absl::StatusOr<std::shared_ptr<ImageStore>> opened = seams_.open_store();
  storage::v1::MountLabel label;
  std::vector<storage::v1::FenceEntry> known;
  absl::Status status = opened.status();
  if (opened.ok()) {
    label = (*opened)->label();
    known = (*opened)->Known();
    status = ReadSpace(opened->get()).status();
  }
  machine_.OpenDone(status);
  bool fatal = false;
  {
    MutexLock lock(&mu_);
    opening_ = false;
    next_open_ = seams_.clock->Boot() + kOpenRetry;
    if (stopped_) {
      return;
    }
    if (status.ok()) {
      store_ = *opened;
      label_ = label;
      for (const storage::v1::FenceEntry& entry : known) {
        KnowEpochLocked(entry.epoch(), entry.nonce());
      }
      garbage_collected_ = false;
      table_.SetStore(store_);
      prober_.SetStore(store_);
      LogInfo("mount_opened",
              {{"mount", identity_.mount_name},
               {"path", identity_.path},
               {"uid", Uuid::FromBytesOrNone(label.mount_uid()).ToString()},
               {"images", store_->image_count()}});
      if (phase_ == Phase::kWelcomed) {
        ReportLocked(session_.current());
      } else if (phase_ == Phase::kReporting || phase_ == Phase::kReported) {
        session_.Disconnect(session_.current(),
                            "the mount came back and registers again");
      }
      opened_once_ = true;
      open_error_.clear();
    } else {
      fatal = !opened_once_ && HasReason(status, reason::kMountInUse);
      if (status.message() != open_error_) {
        LogWarning("mount_not_opened", {{"mount", identity_.mount_name},
                                        {"error", status.ToString()}});
        open_error_ = std::string(status.message());
      }
    }
  }
  if (fatal) {
    seams_.fatal(status);
  }
}

void AgentCore::LoseStoreLocked() {
  const MountView view = machine_.View();
  LogError("mount_lost", {{"mount", identity_.mount_name},
                          {"path", identity_.path},
                          {"detail", view.detail}});
  prober_.SetStore(nullptr);
  table_.DropStore(NotServing(view));
  seams_.disk->Post([store = std::move(store_)] {});
  store_ = nullptr;
  next_open_ = seams_.clock->Boot() + kOpenRetry;
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
  if (space.ok()) {
    ledger_.SetSpace(*space, reading);
  }
  return space;
}

void AgentCore::ReadSpaceLocked(bool tell) {
  next_space_ = seams_.clock->Boot() + kSpaceEvery;
  space_running_ = true;
  seams_.disk->Post([this, tell, store = store_] {
    machine_.StatDone(ReadSpace(store.get()).status());
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
    const absl::Status status = store->SyncFence();
    machine_.CallDone(status);
    LogIfError(status, "the fence is synced again with the next pair");
    MutexLock lock(&mu_);
    fence_syncing_ = false;
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
  last_heard_ = heard;
  session_strand_.Post([this, heard, store = store_] {
    const absl::Status status = store->Hear(heard);
    machine_.CallDone(status);
    LogIfError(status, "the fence is written again with the next pair");
  });
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
  }
  const MountView view = machine_.View();
  beat->mutable_health()->set_health(view.health);
  beat->mutable_health()->set_detail(view.detail);
  for (const Uuid& id : table_.TakeLive()) {
    beat->add_live_upload_ids(id.bytes());
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
    const v1::ReadImageRequest& request) {
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
  return ReadGrant{store_, want.image_id, want.generation};
}

void AgentCore::ReadDone(const absl::Status& status) {
  machine_.CallDone(status);
  if (absl::IsDataLoss(status)) {
    machine_.DamageSeen(status.message());
  }
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
  table_.Shutdown(MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                            "the agent is stopping"));
  session_strand_.Post([store = std::move(store), done = std::move(done)] {
    if (store != nullptr) {
      LogIfError(store->SyncFence(), "what was not synced is heard again");
    }
    done();
  });
}

}  // namespace predella::agent
