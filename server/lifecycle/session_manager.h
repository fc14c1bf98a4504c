// Agents' sessions: who may register, what is said at registration, commands
// and their results, and where reports go.
//
// One session goes through these states; only a message or its end moves it:
//
//   kNew --Hello--> kWelcomed --MountReport--> kAttaching --AttachDone-->
//   kAttached; from each: --closed--> gone
#ifndef PREDELLA_SERVER_LIFECYCLE_SESSION_MANAGER_H_
#define PREDELLA_SERVER_LIFECYCLE_SESSION_MANAGER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/executor.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/lifecycle/agent_session.h"
#include "server/lifecycle/agent_watch.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/notifier.h"
#include "server/lifecycle/stale_mounts.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/trust_keeper.h"
#include "server/lifecycle/upload_manager.h"
#include "server/placement/mount_registry.h"

namespace predella::server {

class Inventory;
class ScrubKeeper;

// Thread-safe. Messages of one session must be delivered one after the other;
// delivering never blocks: what writes or waits runs on the pool, in order per
// upload.
class SessionManager final : public AgentCommands {
 public:
  // All must outlive it.
  SessionManager(const LifecycleDeps& deps, TrustKeeper* trust,
                 StaleMounts* stale, AgentWatch* watch, Notifier* changed);
  ~SessionManager() override;

  // Before the first session; all must outlive this.
  void Bind(UploadManager* uploads, Tombstones* tombstones,
            Inventory* inventory);
  // Before the first session; must outlive this.
  void BindScrubs(ScrubKeeper* scrubs) { scrubs_ = scrubs; }
  // Called on the pool whenever a mount has attached and is trusted.
  void OnTrusted(std::function<void(const Uuid&)> trusted);

  int64_t NextSessionNumber();
  // `session` is kept until Closed.
  void Opened(std::shared_ptr<AgentSession> session);
  void Deliver(int64_t session, const control::v1::AgentMessage& message);
  void Closed(int64_t session);
  // A part of a listing that Inventory asked for; blocks.
  absl::Status TakeInventory(const control::v1::InventoryPart& part);

  // AgentCommands.
  absl::StatusOr<control::v1::CommandResult> Call(const Uuid& mount_uid,
                                                  control::v1::Command command,
                                                  absl::Duration timeout,
                                                  const Sent& sent) override;
  void CallAsync(const Uuid& mount_uid, control::v1::Command command,
                 Done done) override;
  int64_t AttachedSession(const Uuid& mount_uid) override;
  void LetGo(const Uuid& mount_uid, const absl::Status& status) override;

  // Tells every agent the highest synced pair now, not at its next heartbeat.
  void TellSyncedPair();
  // Once a second: the roster to each agent that was told another one, however
  // often it changed since; and that a mount is trusted by now.
  void Tick();
  // Ends every session, with what the agents are told.
  void CloseAll(const absl::Status& status);
  // Whether any mount is attached.
  bool any_attached();

 private:
  enum class State { kNew, kWelcomed, kAttaching, kAttached, kClosed };
  struct Session;
  using SessionPtr = std::shared_ptr<Session>;  // map, and tasks under way

  SessionPtr Find(int64_t number);
  // What its commands come to: `why`, or that the session is lost where OK.
  void End(int64_t number, const absl::Status& why);
  void Send(Session* session, control::v1::CoordinatorMessage message);
  void Refuse(Session* session, const absl::Status& status);
  void SendCommand(const SessionPtr& session, const Uuid& mount_uid,
                   control::v1::Command command, const Sent& sent, Done done);

  // session_registration.cc; on the session's control strand.
  void HandleHello(const SessionPtr& session, const control::v1::Hello& hello);
  absl::Status CheckHello(const SessionPtr& session,
                          const control::v1::Hello& hello);
  void ForgetIfClosed(const SessionPtr& session, const Uuid& mount_uid);
  absl::Status TakeName(const SessionPtr& session,
                        const control::v1::Hello& hello);
  void HandleReport(const SessionPtr& session,
                    const control::v1::MountReport& report);
  absl::Status CheckReport(const SessionPtr& session,
                           const control::v1::MountReport& report);
  absl::Status CheckEpoch(const control::v1::MountReport& report,
                          const std::string& name) const;
  // session_roster.cc. Adds a mount without a row. `absent`: it was away when
  // the index was rebuilt. `remembered`: only by others, so that its name may
  // be another's by now.
  absl::StatusOr<storage::v1::MountRow> EnsureMountRow(
      const Uuid& mount_uid, const std::string& wanted, bool absent,
      bool remembered);
  // In RECOVERING: adds the mounts that others remember and the index does not
  // know.
  absl::Status TakeInRosters();
  absl::Status TakeInRoster(
      const std::vector<storage::v1::RosterEntry>& roster);
  void SendAttach(const SessionPtr& session, bool claim_label);
  void HandleAttachDone(const SessionPtr& session,
                        const control::v1::AttachDone& done);

  // Every mount that a rebuild would have to wait for.
  control::v1::StoreRoster Roster();
  void SendRosters();
  // To those that attached before their mount was trusted, as in RECOVERING.
  void SendTrust();

  void HandleHeartbeat(const SessionPtr& session,
                       const control::v1::Heartbeat& heartbeat);
  // What scrubs and reads found, and scrubs' progress: in their order.
  void PostFindings(const SessionPtr& session,
                    const control::v1::CopyFaults& faults);
  void PostProgress(const SessionPtr& session, const Uuid& mount_uid,
                    const control::v1::Heartbeat& heartbeat);
  void HandleResult(const SessionPtr& session,
                    const control::v1::CommandResult& result);
  void HandlePublished(const SessionPtr& session,
                       const control::v1::Published& published);
  void HandleLost(const SessionPtr& session,
                  const control::v1::UploadLost& lost);
  void SendEnd(const SessionPtr& session, control::v1::PublishedAck ack);
  void HandleFull(const SessionPtr& session,
                  const control::v1::UploadFull& full);

  const LifecycleDeps deps_;
  TrustKeeper* const trust_;
  StaleMounts* const stale_;
  AgentWatch* const watch_;
  Notifier* const changed_;
  UploadManager* uploads_ = nullptr;          // constant after Bind
  Tombstones* tombstones_ = nullptr;          // constant after Bind
  Inventory* inventory_ = nullptr;            // constant after Bind
  ScrubKeeper* scrubs_ = nullptr;             // constant after BindScrubs
  std::function<void(const Uuid&)> trusted_;  // constant after OnTrusted

  Mutex rows_mu_;  // held over the commit that adds a mount
  Mutex mu_;
  int64_t next_session_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<int64_t, SessionPtr> sessions_ ABSL_GUARDED_BY(mu_);
  // The session that holds a mount's name, and the one a mount is attached by.
  std::map<std::string, SessionPtr> by_name_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, SessionPtr> attached_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_SESSION_MANAGER_H_
