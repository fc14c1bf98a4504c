#include "server/lifecycle/session_manager.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/rpc_status.h"
#include "common/wait.h"
#include "server/lifecycle/inventory.h"
#include "server/lifecycle/scrub_keeper.h"
#include "server/lifecycle/session_state.h"

namespace predella::server {
namespace {

absl::Status Unreachable(const MountRegistry& registry, const Uuid& mount_uid,
                         absl::string_view what) {
  const std::optional<MountInfo> info = registry.Find(mount_uid);
  const std::string name = MountName(info.has_value() ? info->row.mount_name()
                                                      : mount_uid.ToString());
  return MakeError(absl::StatusCode::kUnavailable, reason::kAgentUnreachable,
                   absl::StrCat("the agent of ", name, " ", what),
                   {{"mount", name}});
}

}  // namespace

SessionManager::SessionManager(const LifecycleDeps& deps, TrustKeeper* trust,
                               StaleMounts* stale, AgentWatch* watch,
                               Notifier* changed)
    : deps_(deps),
      trust_(trust),
      stale_(stale),
      watch_(watch),
      changed_(changed) {}

SessionManager::~SessionManager() = default;

void SessionManager::Bind(UploadManager* uploads, Tombstones* tombstones,
                          Inventory* inventory) {
  uploads_ = uploads;
  tombstones_ = tombstones;
  inventory_ = inventory;
}

void SessionManager::OnTrusted(std::function<void(const Uuid&)> trusted) {
  trusted_ = std::move(trusted);
}

int64_t SessionManager::NextSessionNumber() {
  MutexLock lock(&mu_);
  return next_session_++;
}

void SessionManager::Opened(std::shared_ptr<AgentSession> session) {
  const int64_t number = session->number();
  auto state = std::make_shared<Session>(std::move(session), deps_.pool);
  MutexLock lock(&mu_);
  sessions_[number] = std::move(state);
}

SessionManager::SessionPtr SessionManager::Find(int64_t number) {
  MutexLock lock(&mu_);
  const auto it = sessions_.find(number);
  return it == sessions_.end() ? nullptr : it->second;
}

void SessionManager::Send(Session* session,
                          control::v1::CoordinatorMessage message) {
  session->session->Send(std::move(message));
}

void SessionManager::Refuse(Session* session, const absl::Status& status) {
  LogWarning("session_refused",
             {{"session", session->number()}, {"error", status.ToString()}});
  control::v1::Hello hello;
  {
    MutexLock lock(&session->mu);
    hello = session->hello;
  }
  watch_->Refused(hello, status, deps_.clock->Boot());
  session->session->Close(status);
}

void SessionManager::Deliver(int64_t number,
                             const control::v1::AgentMessage& message) {
  const SessionPtr session = Find(number);
  if (session == nullptr) {
    return;
  }
  switch (message.payload_case()) {
    case control::v1::AgentMessage::kHello:
      session->control.Post([this, session, hello = message.hello()] {
        HandleHello(session, hello);
      });
      return;
    case control::v1::AgentMessage::kMountReport:
      session->control.Post([this, session, report = message.mount_report()] {
        HandleReport(session, report);
      });
      return;
    case control::v1::AgentMessage::kAttachDone:
      session->control.Post([this, session, done = message.attach_done()] {
        HandleAttachDone(session, done);
      });
      return;
    case control::v1::AgentMessage::kHeartbeat:
      HandleHeartbeat(session, message.heartbeat());
      return;
    case control::v1::AgentMessage::kCommandResult:
      HandleResult(session, message.command_result());
      return;
    case control::v1::AgentMessage::kPublished:
      session->StrandOf(message.published().upload_id())
          ->Post([this, session, published = message.published()] {
            HandlePublished(session, published);
          });
      return;
    case control::v1::AgentMessage::kUploadFull:
      session->StrandOf(message.upload_full().upload_id())
          ->Post([this, session, full = message.upload_full()] {
            HandleFull(session, full);
          });
      return;
    case control::v1::AgentMessage::kUploadLost:
      session->StrandOf(message.upload_lost().upload_id())
          ->Post([this, session, lost = message.upload_lost()] {
            HandleLost(session, lost);
          });
      return;
    case control::v1::AgentMessage::kCopyFaults:
      PostFindings(session, message.copy_faults());
      return;
    case control::v1::AgentMessage::PAYLOAD_NOT_SET:
      // A newer agent's message: it was told our version and goes without.
      return;
  }
}

void SessionManager::Closed(int64_t number) { End(number, absl::OkStatus()); }

void SessionManager::End(int64_t number, const absl::Status& why) {
  const SessionPtr session = Find(number);
  if (session == nullptr) {
    return;
  }
  std::map<int64_t, Done> pending;
  Uuid mount_uid;
  std::string name;
  {
    MutexLock lock(&session->mu);
    session->state = State::kClosed;
    pending.swap(session->pending);
    mount_uid = session->mount_uid;
    name = session->hello.mount_name();
  }
  {
    MutexLock lock(&mu_);
    sessions_.erase(number);
    const auto named = by_name_.find(name);
    if (named != by_name_.end() && named->second == session) {
      by_name_.erase(named);
    }
    const auto held = attached_.find(mount_uid);
    if (held != attached_.end() && held->second == session) {
      attached_.erase(held);
    }
  }
  if (!mount_uid.none()) {
    deps_.registry->SessionClosed(mount_uid, number);
    LogInfo("session_closed", {{"mount", name}, {"session", number}});
  } else {
    watch_->Left(name);
  }
  for (auto& [command, done] : pending) {
    done(why.ok() ? Unreachable(*deps_.registry, mount_uid,
                                "lost its session before it answered")
                  : why);
  }
  changed_->Notify();
}

absl::Status SessionManager::TakeInventory(
    const control::v1::InventoryPart& part) {
  return inventory_->Take(part);
}

void SessionManager::HandleHeartbeat(const SessionPtr& session,
                                     const control::v1::Heartbeat& heartbeat) {
  Uuid mount_uid;
  State state;
  control::v1::Hello hello;
  {
    MutexLock lock(&session->mu);
    mount_uid = session->mount_uid;
    state = session->state;
    if (mount_uid.none()) {
      hello = session->hello;
    }
  }
  if (!mount_uid.none()) {
    deps_.registry->Heard(mount_uid, session->number(), heartbeat);
    PostProgress(session, mount_uid, heartbeat);
  } else {
    watch_->WithoutMount(hello, heartbeat.health(), deps_.clock->Boot());
  }
  if (state == State::kAttached && heartbeat.has_fence()) {
    stale_->Synced(mount_uid, Generation::FromProto(heartbeat.fence()));
  }
  for (const std::string& id : heartbeat.live_upload_ids()) {
    uploads_->OnLive(Uuid::FromBytesOrNone(id));
  }
  control::v1::CoordinatorMessage message;
  control::v1::HeartbeatAck* ack = message.mutable_heartbeat_ack();
  ack->set_sequence(heartbeat.sequence());
  ack->set_coordinator_time_us(deps_.clock->NowMicros());
  // A pair is told only to mounts that were compared with the index first.
  if (state == State::kAttaching || state == State::kAttached) {
    *ack->mutable_heard() = deps_.index->synced_pair().ToProto();
  }
  Send(session.get(), std::move(message));
}

void SessionManager::PostFindings(const SessionPtr& session,
                                  const control::v1::CopyFaults& faults) {
  Uuid mount_uid;
  {
    MutexLock lock(&session->mu);
    mount_uid = session->mount_uid;
  }
  session->findings.Post([this, session, mount_uid, faults] {
    scrubs_->OnFindings(mount_uid, session->number(), faults);
  });
}

void SessionManager::PostProgress(const SessionPtr& session,
                                  const Uuid& mount_uid,
                                  const control::v1::Heartbeat& heartbeat) {
  if (!heartbeat.has_scrub()) {
    scrubs_->OnNoProgress(mount_uid, session->number());
    return;
  }
  session->findings.Post(
      [this, session, mount_uid, progress = heartbeat.scrub()] {
        scrubs_->OnProgress(mount_uid, session->number(), progress);
      });
}

void SessionManager::HandleResult(const SessionPtr& session,
                                  const control::v1::CommandResult& result) {
  Done done;
  Uuid mount_uid;
  {
    MutexLock lock(&session->mu);
    mount_uid = session->mount_uid;
    const auto it = session->pending.find(result.number());
    if (it != session->pending.end()) {
      done = std::move(it->second);
      session->pending.erase(it);
    }
  }
  if (result.has_space()) {
    deps_.registry->SpaceSeen(mount_uid, session->number(), result.space());
  }
  if (!done) {
    return;
  }
  if (result.has_error()) {
    absl::Status error = FromRpcStatus(result.error());
    if (!error.ok()) {
      done(std::move(error));
      return;
    }
  }
  done(result);
}

void SessionManager::HandlePublished(const SessionPtr& session,
                                     const control::v1::Published& published) {
  Uuid mount_uid;
  {
    MutexLock lock(&session->mu);
    mount_uid = session->mount_uid;
  }
  SendEnd(session, uploads_->OnPublished(mount_uid, published));
}

void SessionManager::HandleLost(const SessionPtr& session,
                                const control::v1::UploadLost& lost) {
  Uuid mount_uid;
  {
    MutexLock lock(&session->mu);
    mount_uid = session->mount_uid;
  }
  SendEnd(session, uploads_->OnUploadLost(mount_uid, lost));
}

void SessionManager::SendEnd(const SessionPtr& session,
                             control::v1::PublishedAck ack) {
  if (ack.outcome() == storage::v1::UPLOAD_OUTCOME_UNSPECIFIED) {
    // Not decided, as after a write error of the index: the agent waits, and
    // says it again when it registers.
    return;
  }
  *ack.mutable_heard() = deps_.index->synced_pair().ToProto();
  control::v1::CoordinatorMessage message;
  *message.mutable_published_ack() = std::move(ack);
  Send(session.get(), std::move(message));
}

void SessionManager::HandleFull(const SessionPtr& session,
                                const control::v1::UploadFull& full) {
  Uuid mount_uid;
  {
    MutexLock lock(&session->mu);
    mount_uid = session->mount_uid;
  }
  std::optional<control::v1::UploadFullAck> ack =
      uploads_->OnUploadFull(mount_uid, full);
  const absl::Status error = ack.has_value() && ack->has_error()
                                 ? FromRpcStatus(ack->error())
                                 : absl::OkStatus();
  if (!ack.has_value() || HasReason(error, reason::kIndexReadOnly) ||
      HasReason(error, reason::kIndexUnavailable)) {
    return;  // not decided: as above
  }
  control::v1::CoordinatorMessage message;
  *message.mutable_upload_full_ack() = *std::move(ack);
  Send(session.get(), std::move(message));
}

void SessionManager::LetGo(const Uuid& mount_uid, const absl::Status& status) {
  SessionPtr session;
  {
    MutexLock lock(&mu_);
    const auto it = attached_.find(mount_uid);
    session = it == attached_.end() ? nullptr : it->second;
  }
  if (session != nullptr) {
    Refuse(session.get(), status);
    End(session->number(), status);
  }
}

int64_t SessionManager::AttachedSession(const Uuid& mount_uid) {
  MutexLock lock(&mu_);
  const auto it = attached_.find(mount_uid);
  return it == attached_.end() ? 0 : it->second->number();
}

absl::StatusOr<control::v1::CommandResult> SessionManager::Call(
    const Uuid& mount_uid, control::v1::Command command, absl::Duration timeout,
    const Sent& sent) {
  const auto answer =
      std::make_shared<Answer<absl::StatusOr<control::v1::CommandResult>>>();
  SessionPtr session;
  {
    MutexLock lock(&mu_);
    const auto it = attached_.find(mount_uid);
    session = it == attached_.end() ? nullptr : it->second;
  }
  if (session == nullptr) {
    return Unreachable(*deps_.registry, mount_uid, "has no session");
  }
  SendCommand(session, mount_uid, std::move(command), sent,
              [answer](absl::StatusOr<control::v1::CommandResult> result) {
                answer->Set(std::move(result));
              });
  auto result = answer->Await(deps_.clock, timeout);
  if (!result.has_value()) {
    return Unreachable(
        *deps_.registry, mount_uid,
        absl::StrCat("did not answer within ", absl::FormatDuration(timeout)));
  }
  return *std::move(result);
}

void SessionManager::CallAsync(const Uuid& mount_uid,
                               control::v1::Command command, Done done) {
  SessionPtr session;
  {
    MutexLock lock(&mu_);
    const auto it = attached_.find(mount_uid);
    session = it == attached_.end() ? nullptr : it->second;
  }
  if (session == nullptr) {
    done(Unreachable(*deps_.registry, mount_uid, "has no session"));
    return;
  }
  SendCommand(session, mount_uid, std::move(command), {}, std::move(done));
}

void SessionManager::SendCommand(const SessionPtr& session,
                                 const Uuid& mount_uid,
                                 control::v1::Command command, const Sent& sent,
                                 Done done) {
  bool open = false;
  {
    MutexLock sending(&session->send_mu);
    const int64_t number = session->next_command++;
    command.set_number(number);
    {
      MutexLock lock(&session->mu);
      open = session->state == State::kAttached;
      if (open) {
        session->pending.emplace(number, std::exchange(done, nullptr));
      }
    }
    if (open) {
      if (sent) {
        sent(number);
      }
      control::v1::CoordinatorMessage message;
      *message.mutable_command() = std::move(command);
      Send(session.get(), std::move(message));
    }
  }
  if (done != nullptr) {  // nobody else will
    done(Unreachable(*deps_.registry, mount_uid, "lost its session"));
  }
}

void SessionManager::TellSyncedPair() {
  std::vector<SessionPtr> sessions;
  {
    MutexLock lock(&mu_);
    for (const auto& [uid, session] : attached_) {
      sessions.push_back(session);
    }
  }
  control::v1::CoordinatorMessage message;
  message.mutable_heartbeat_ack()->set_coordinator_time_us(
      deps_.clock->NowMicros());
  *message.mutable_heartbeat_ack()->mutable_heard() =
      deps_.index->synced_pair().ToProto();
  for (const SessionPtr& session : sessions) {
    Send(session.get(), message);
  }
}

void SessionManager::CloseAll(const absl::Status& status) {
  std::vector<SessionPtr> sessions;
  {
    MutexLock lock(&mu_);
    for (const auto& [number, session] : sessions_) {
      sessions.push_back(session);
    }
  }
  for (const SessionPtr& session : sessions) {
    session->session->Close(status);
  }
}

bool SessionManager::any_attached() {
  MutexLock lock(&mu_);
  return !attached_.empty();
}

}  // namespace predella::server
