// Registration and the messages of a session: a part of AgentCore.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "agent/control/agent_core.h"
#include "common/collect_garbage.h"
#include "common/errors.h"
#include "common/listing_digest.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

constexpr int32_t kProtocolVersion = 1;

}  // namespace

control::v1::Hello AgentCore::HelloLocked() const {
  control::v1::Hello hello;
  hello.set_protocol_version(kProtocolVersion);
  hello.set_agent_version(identity_.version);
  hello.add_capabilities(std::string(kListingDigestCapability));
  hello.set_mount_name(identity_.mount_name);
  hello.set_mount_uid(label_.mount_uid());
  hello.set_incarnation(incarnation_);
  hello.set_host(identity_.host);
  hello.set_pid(identity_.pid);
  hello.set_path(identity_.path);
  hello.set_priority(identity_.priority);
  for (const std::string& address : addresses_) {
    hello.add_addresses(address);
  }
  hello.set_space_group(identity_.space_group);
  hello.set_failure_domain(identity_.failure_domain);
  hello.add_capabilities(std::string(kCanCollectGarbage));
  return hello;
}

uint64_t AgentCore::OnConnected(std::shared_ptr<CoordinatorLink> link) {
  MutexLock lock(&mu_);
  scrubber_.End();
  const uint64_t session = session_.Begin(std::move(link));
  phase_ = Phase::kHello;
  command_number_ = 0;
  early_.clear();
  welcome_.Clear();
  session_.NoteAsked(0);
  control::v1::AgentMessage message;
  *message.mutable_hello() = HelloLocked();
  session_.Send(session, std::move(message));
  return session;
}

void AgentCore::OnDisconnected(uint64_t session) {
  MutexLock lock(&mu_);
  if (!session_.Is(session)) {
    return;
  }
  if (phase_ == Phase::kReported) {
    LogWarning("session_lost", {{"mount", identity_.mount_name}});
  }
  session_.End(session);
  scrubber_.End();
  may_collect_ = false;
  phase_ = Phase::kNone;
  early_.clear();
}

void AgentCore::OnMessage(uint64_t session,
                          const control::v1::CoordinatorMessage& message) {
  using Payload = control::v1::CoordinatorMessage;
  if (message.payload_case() == Payload::kCommand) {
    OnCommand(session, message.command());
    return;
  }
  MutexLock lock(&mu_);
  if (!session_.Is(session)) {
    return;
  }
  switch (message.payload_case()) {
    case Payload::kWelcome:
      OnWelcomeLocked(session, message.welcome());
      break;
    case Payload::kAttach:
      if (const absl::Status fit = CheckCoordinatorLocked(); !fit.ok()) {
        RefuseLocked(session, fit);
      } else if (store_ != nullptr && phase_ == Phase::kReported) {
        mount_key_ = message.attach().mount_key();
        session_strand_.Post(
            [this, session, store = store_, attach = message.attach()] {
              RunAttach(session, store, attach);
            });
      }
      break;
    case Payload::kHeartbeatAck: {
      const control::v1::HeartbeatAck& ack = message.heartbeat_ack();
      if (!CheckCoordinatorLocked().ok()) {
        break;  // nothing of it counts, its clock included
      }
      session_.NoteAnswered(ack.sequence(), ack.coordinator_time_us());
      if (session_.attached()) {
        HearLocked(ack.heard());
      }
      break;
    }
    case Payload::kPublishedAck:
      HearLocked(message.published_ack().heard());
      table_.OnPublishedAck(message.published_ack());
      break;
    case Payload::kUploadFullAck:
      HearLocked(message.upload_full_ack().heard());
      table_.OnUploadFullAck(message.upload_full_ack());
      break;
    default:
      LogWarning("message_unknown", {{"mount", identity_.mount_name}});
      break;
  }
}

void AgentCore::KnowEpochLocked(int64_t epoch, uint32_t nonce) {
  if (epoch > highest_epoch_) {
    highest_epoch_ = epoch;
    highest_nonce_ = nonce;
  }
}

// Dialling goes on; one sentence about one cause is enough.
void AgentCore::LogRefusalLocked(const absl::Status& why) {
  const std::string sentence(why.message());
  if (!why.ok() && sentence != last_refusal_) {
    last_refusal_ = sentence;
    LogError("coordinator_refused",
             {{"mount", identity_.mount_name}, {"why", sentence}});
  }
}

void AgentCore::RefuseLocked(uint64_t session, const absl::Status& why) {
  LogRefusalLocked(why);
  session_.Disconnect(session, why.message());
}

absl::Status AgentCore::CheckCoordinatorLocked() {
  if (!label_.cluster_uid().empty() &&
      label_.cluster_uid() != welcome_.cluster_uid()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kClusterMismatch,
        absl::StrCat(identity_.path, " belongs to the cluster ",
                     Uuid::FromBytesOrNone(label_.cluster_uid()).ToString(),
                     ", the coordinator is of ",
                     Uuid::FromBytesOrNone(welcome_.cluster_uid()).ToString(),
                     ": start the coordinator with the --state-dir that "
                     "belongs to it, or this agent with the --coordinator of "
                     "its own cluster"));
  }
  // One number with other random bytes is another start: from an old copy too.
  if (welcome_.epoch() < highest_epoch_ ||
      (welcome_.epoch() == highest_epoch_ &&
       welcome_.epoch_nonce() != highest_nonce_)) {
    return MakeError(
        absl::StatusCode::kAborted, reason::kStaleEpoch,
        absl::StrCat(
            "the coordinator is at epoch ", welcome_.epoch(), ", ",
            identity_.path, " has heard of epoch ", highest_epoch_,
            welcome_.epoch() == highest_epoch_ ? " of another start" : "",
            ": its state directory is an old copy"));
  }
  return absl::OkStatus();
}

void AgentCore::OnWelcomeLocked(uint64_t session,
                                const control::v1::Welcome& welcome) {
  if (phase_ != Phase::kHello) {
    return;
  }
  welcome_ = welcome;
  if (welcome_.protocol_version() != kProtocolVersion) {
    RefuseLocked(session, absl::FailedPreconditionError(
                              absl::StrCat("the coordinator speaks protocol ",
                                           welcome_.protocol_version(),
                                           ", this agent ", kProtocolVersion)));
    return;
  }
  // One of another cluster or epoch is told about the mount all the same: it
  // refuses it, and its operator sees why. Nothing is taken from it.
  const absl::Status fit = CheckCoordinatorLocked();
  LogRefusalLocked(fit);
  phase_ = Phase::kWelcomed;
  if (fit.ok()) {
    session_.NoteAnswered(0, welcome.coordinator_time_us());
  }
  if (welcome.heartbeat_interval_ms() > 0) {
    heartbeat_every_ = absl::Milliseconds(welcome.heartbeat_interval_ms());
  }
  next_heartbeat_ = seams_.clock->Boot() + heartbeat_every_;
  LogInfo("registered",
          {{"mount", identity_.mount_name}, {"epoch", welcome.epoch()}});
  if (store_ != nullptr) {
    ReportLocked(session);
  }
}

void AgentCore::ReportLocked(uint64_t session) {
  phase_ = Phase::kReporting;
  session_strand_.Post(
      [this, session, store = store_] { RunReport(session, store); });
}

void AgentCore::RunReport(uint64_t session,
                          const std::shared_ptr<ImageStore>& store) {
  control::v1::AgentMessage message;
  control::v1::MountReport* report = message.mutable_mount_report();
  *report->mutable_label() = store->label();
  for (storage::v1::FenceEntry& entry : store->Known()) {
    *report->add_known() = std::move(entry);
  }
  for (storage::v1::Tombstone& tombstone : store->Tombstones()) {
    *report->add_tombstones() = std::move(tombstone);
  }
  for (storage::v1::RosterEntry& entry : store->Roster()) {
    *report->add_roster() = std::move(entry);
  }
  report->set_image_count(store->image_count());
  report->set_boot_id(identity_.boot_id);
  const absl::StatusOr<SpaceInfo> space = ReadSpace(store.get());
  CallDone(store.get(), space.status());
  MutexLock lock(&mu_);
  if (!session_.Is(session) || store_ != store) {
    return;
  }
  label_ = report->label();
  for (const storage::v1::FenceEntry& entry : report->known()) {
    KnowEpochLocked(entry.epoch(), entry.nonce());
  }
  // Also when the directory was opened only after Welcome.
  LogRefusalLocked(CheckCoordinatorLocked());
  if (!space.ok()) {
    RefuseLocked(session, space.status());
    return;
  }
  *report->mutable_space() = SpaceProto(ledger_.Take(), command_number_);
  report->set_device(space->device);
  const MountView view = machine_.View();
  *report->mutable_health() = HealthProto(view);
  sent_health_ = view.health;
  phase_ = Phase::kReported;
  session_.Send(session, std::move(message));
}

absl::Status AgentCore::PrepareAttach(ImageStore* store,
                                      const control::v1::Attach& attach,
                                      const std::string& cluster_uid) {
  if (attach.claim_label()) {
    RETURN_IF_ERROR(store->ClaimLabel(cluster_uid));
  }
  if (attach.has_heard()) {
    RETURN_IF_ERROR(store->Hear(Generation::FromProto(attach.heard())));
  }
  RETURN_IF_ERROR(store->SyncFence());
  if (attach.roster_size() == 0) {
    return absl::OkStatus();
  }
  const std::vector<storage::v1::RosterEntry> roster(attach.roster().begin(),
                                                     attach.roster().end());
  const std::vector<storage::v1::RosterEntry> known = store->Roster();
  const bool same = std::equal(
      roster.begin(), roster.end(), known.begin(), known.end(),
      [](const storage::v1::RosterEntry& a, const storage::v1::RosterEntry& b) {
        return a.mount_uid() == b.mount_uid() &&
               a.mount_name() == b.mount_name();
      });
  return same ? absl::OkStatus() : store->StoreRoster(roster);
}

void AgentCore::RunAttach(uint64_t session,
                          const std::shared_ptr<ImageStore>& store,
                          const control::v1::Attach& attach) {
  std::string cluster_uid;
  {
    MutexLock lock(&mu_);
    if (!session_.Is(session) || store_ != store) {
      return;
    }
    cluster_uid = welcome_.cluster_uid();
  }
  const absl::Status status = PrepareAttach(store.get(), attach, cluster_uid);
  CallDone(store.get(), status);
  // Images of a mount that takes no writes are to be read. It can publish
  // nothing, so nobody hears of a pair that its fence does not know.
  const bool read_only = HasReason(status, reason::kMountReadOnly);
  if (!status.ok() && !read_only) {
    MutexLock lock(&mu_);
    RefuseLocked(session, Annotate(status, "the mount could not be attached"));
    return;
  }
  {
    MutexLock lock(&mu_);
    if (!session_.Is(session) || store_ != store) {
      return;
    }
    label_ = store->label();
    memory_.cluster_uid = label_.cluster_uid();
    if (!read_only) {
      FenceSyncedLocked(Generation::FromProto(attach.heard()));
    }
    KnowEpochLocked(attach.heard().epoch(), attach.heard().nonce());
  }
  table_.ReplaceList(
      store, attach,
      [this, session, store, may_collect = attach.may_collect()](
          absl::StatusOr<std::vector<control::v1::UploadStatus>> all) {
        AttachAnswered(session, store, may_collect, std::move(all));
      });
}

void AgentCore::AttachAnswered(
    uint64_t session, const std::shared_ptr<ImageStore>& store,
    bool may_collect,
    absl::StatusOr<std::vector<control::v1::UploadStatus>> statuses) {
  std::vector<control::v1::Command> early;
  {
    MutexLock lock(&mu_);
    if (!session_.Is(session) || store_ != store) {
      return;
    }
    if (!statuses.ok()) {
      RefuseLocked(session, Annotate(statuses.status(),
                                     "an open upload could not be looked up"));
      return;
    }
    const size_t uploads = statuses->size();
    table_.FinishAttach(session, std::move(*statuses));
    last_refusal_.clear();
    early.swap(early_);
    LogInfo("attached", {{"mount", identity_.mount_name},
                         {"epoch", welcome_.epoch()},
                         {"open_uploads", uploads},
                         {"images", store->image_count()}});
    CollectLocked(session, store, may_collect);
  }
  for (const control::v1::Command& command : early) {
    OnCommand(session, command);
  }
}

}  // namespace predella::agent
