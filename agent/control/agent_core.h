// An agent: one mount, its store, and its session with the coordinator.
#ifndef PREDELLA_AGENT_CONTROL_AGENT_CORE_H_
#define PREDELLA_AGENT_CONTROL_AGENT_CORE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "agent/control/coordinator_link.h"
#include "agent/control/session_state.h"
#include "agent/control/space_ledger.h"
#include "agent/control/upload_stream.h"
#include "agent/control/upload_table.h"
#include "agent/fs/disk_calls.h"
#include "agent/health/mount_prober.h"
#include "agent/health/mount_state_machine.h"
#include "agent/health/mount_watcher.h"
#include "agent/scrub/scrubber.h"
#include "agent/store/image_store.h"
#include "common/capability.h"
#include "common/clock.h"
#include "common/executor.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/v1/chunk_service.pb.h"

namespace predella::agent {

// What the agent says of itself in Hello.
struct AgentIdentity {
  std::string version;
  std::string mount_name;
  std::string path;
  std::string host;
  std::string boot_id;
  int64_t pid = 0;
  int32_t priority = 100;
  std::vector<std::string> addresses;
  std::string space_group;
  std::string failure_domain;
};

// Opens the directory; called on a disk thread, again whenever it was lost,
// and then with what is remembered of it.
// The store takes everything it needs along: it is let go on a disk thread.
using StoreFactory = std::function<absl::StatusOr<std::shared_ptr<ImageStore>>(
    const MountMemory& memory)>;

// All must outlive the core and every task it posted.
struct AgentSeams {
  Clock* clock = nullptr;
  IdGenerator* ids = nullptr;
  Executor* disk = nullptr;
  Executor* probe = nullptr;
  PeerWriter* peer = nullptr;
  // Where the calls of the stores are watched; null: they are not.
  DiskCalls* calls = nullptr;
  // Adds as many threads to `disk`, in all; may be empty.
  std::function<void(int stuck)> replace_threads;
  // How many of these the system did not give; they are asked for again. May be
  // empty.
  std::function<int()> missing_threads;
  StoreFactory open_store;
  // Gives the calling thread's I/O the lowest priority, or takes that back.
  std::function<void(bool idle)> idle_io = [](bool) {};
  ScrubOptions scrub;
  HealthLimits health;
  // As MountWatcher::LookAgain; may be empty. Called with the core's lock held.
  std::function<uint64_t()> look_again;
  // Called once when going on makes no sense (another agent has the
  // directory); the process shall print the sentence and exit.
  std::function<void(const absl::Status&)> fatal;
};

// Permission to read one image, checked.
struct ReadGrant {
  std::shared_ptr<ImageStore> store;  // shared; let go on a disk thread
  Uuid image_id;
  Generation generation;
};

// Why calls are refused in that state.
absl::Status NotServing(const MountView& view);
control::v1::MountHealth HealthProto(const MountView& view);

// A read that is open.
class ReadStream {
 public:
  virtual ~ReadStream() = default;
  // The mount hangs or went away: the client shall hear it now. Called with the
  // core's lock held; returns at once.
  virtual void Stalled(const absl::Status& why) = 0;
};

// Registers before the disk has answered, reports the mount when it has, and
// keeps what the coordinator named. Opening is tried again every 2 s; nothing
// restarts to heal.
//
// Thread-safe. Every call returns at once: what needs the disk is posted.
class AgentCore {
 public:
  AgentCore(AgentIdentity identity, std::optional<int64_t> reserve_bytes,
            AgentSeams seams);

  // Where clients reach this agent, in order of preference; for the next
  // registration.
  void SetAddresses(std::vector<std::string> addresses);

  // Drives everything that depends on time; the first call begins to open the
  // directory. Four times a second.
  void Tick();

  // The watcher's: another mount than the one that was opened is ABSENT at
  // once, also while every disk thread hangs.
  void OnMountSeen(const MountSighting& seen);

  // ---- the session's adapter. `link` is shared with it.
  uint64_t OnConnected(std::shared_ptr<CoordinatorLink> link);
  void OnMessage(uint64_t session,
                 const control::v1::CoordinatorMessage& message);
  void OnDisconnected(uint64_t session);

  // ---- streams. PERMISSION_DENIED, CAPABILITY_INVALID; FAILED_PRECONDITION,
  // MOUNT_IDENTITY_MISMATCH for another mount's; UNAVAILABLE while the mount
  // does not serve; else as UploadTable::Attach.
  absl::StatusOr<std::shared_ptr<UploadHandle>> OpenWrite(
      const v1::WriteHeader& header, std::shared_ptr<UploadStream> stream);
  UploadTable* uploads() { return &table_; }
  // `stream` is told when the mount hangs while it lives.
  absl::StatusOr<ReadGrant> OpenRead(const v1::ReadImageRequest& request,
                                     std::weak_ptr<ReadStream> stream);
  // What a read of an image at `offset` came to. Damage makes the mount SUSPECT
  // once for each copy, and is told to the coordinator; so is a block that can
  // not be read, when it fails again and the mount does not. A read that hung
  // until another store was open counts for nothing.
  void ReadDone(const ReadGrant& grant, int64_t offset,
                const absl::Status& status);
  Executor* disk() { return seams_.disk; }
  DiskCalls* calls() { return seams_.calls; }

  // Whether images can be read here at this moment.
  bool Serving();
  MountView View() { return machine_.View(); }
  // New streams are refused from here on (UNAVAILABLE).
  void Drain();
  // Ends all streams, syncs the fence, lets the store go; `done` is called on
  // a disk thread afterwards. Nothing is opened again.
  void Stop(std::function<void()> done);

 private:
  enum class Phase { kNone, kHello, kWelcomed, kReporting, kReported };

  // agent_mount.cc
  void TryOpenLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RunOpen(uint64_t number, const MountMemory& memory);
  void EndReadsLocked(const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeStoreLocked(std::shared_ptr<ImageStore> store,
                       const storage::v1::MountLabel& label,
                       const std::vector<storage::v1::FenceEntry>& known)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NotOpenedLocked(const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LoseStoreLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Lets go of the store; what uses it ends with `why`.
  void LetGoLocked(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // A store that could only be read is let go, to be opened for writing.
  void ReopenLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoticeHealthLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // agent_core.cc
  void WatchCalls();
  void HeartbeatLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RefreshSpaceLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Reads the space and sends a heartbeat, at most every kSoonest.
  void SpaceChanged();
  void FreshenLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReadSpaceLocked(bool tell) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SyncFenceLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  control::v1::Space SpaceProto(const SpaceLedger::Snapshot& snapshot,
                                int64_t command_number) const;
  void HearLocked(const storage::v1::Generation& pair)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FenceSyncedLocked(const Generation& pair)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckStream(absl::string_view mount_uid, absl::string_view token,
                           Capability want, bool write);

  // A call to that store came back, as of MountStateMachine; of one that was
  // let go meanwhile it says nothing about what is open now.
  void CallDone(const ImageStore* store, const absl::Status& status)
      ABSL_LOCKS_EXCLUDED(mu_);
  void StatDone(const ImageStore* store, const absl::Status& status)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Reads the space into the ledger on this thread, one of the disk's.
  absl::StatusOr<SpaceInfo> ReadSpace(ImageStore* store);

  // agent_session.cc
  control::v1::Hello HelloLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnWelcomeLocked(uint64_t session, const control::v1::Welcome& welcome)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReportLocked(uint64_t session) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RunReport(uint64_t session, const std::shared_ptr<ImageStore>& store);
  absl::Status CheckCoordinatorLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void KnowEpochLocked(int64_t epoch, uint32_t nonce)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LogRefusalLocked(const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RefuseLocked(uint64_t session, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RunAttach(uint64_t session, const std::shared_ptr<ImageStore>& store,
                 const control::v1::Attach& attach);
  absl::Status PrepareAttach(ImageStore* store,
                             const control::v1::Attach& attach,
                             const std::string& cluster_uid);
  void AttachAnswered(
      uint64_t session, const std::shared_ptr<ImageStore>& store,
      bool may_collect,
      absl::StatusOr<std::vector<control::v1::UploadStatus>> statuses);

  // agent_commands.cc
  void OnCommand(uint64_t session, const control::v1::Command& command);
  // As ReadSpace, of the store that is open.
  void MeasureSpace();
  void Answer(uint64_t session, control::v1::CommandResult result);
  void AnswerStatus(uint64_t session, int64_t number,
                    const absl::Status& status);
  void PostStoreCommand(uint64_t session, const control::v1::Command& command);
  absl::Status RunStoreCommand(ImageStore* store,
                               const control::v1::Command& command);
  void RunPrepareCommand(uint64_t session, const control::v1::Command& command);
  void RunRemoveCommand(uint64_t session, const control::v1::Command& command);

  // agent_scrub.cc
  ScrubSeams ScrubSeamsOf();
  void RunScrubCommand(uint64_t session, const control::v1::Command& command);

  // agent_inventory.cc
  void PostListCommand(uint64_t session, const control::v1::Command& command);
  // One that is under way: shared by its steps, one after the other, and let go
  // on a disk thread.
  struct Listing;
  absl::Status BeginListing(Listing* listing);
  // A step, at idle I/O priority; the next one is posted behind what waits.
  void RunListing(const std::shared_ptr<Listing>& listing);
  // `entry` has an error of the disk; on a disk thread.
  void NoteUnreadable(Listing* listing, const ListEntry& entry)
      ABSL_LOCKS_EXCLUDED(mu_);
  // All names were looked at: whether that was a listing.
  absl::Status ErrorOf(const Listing& listing) ABSL_LOCKS_EXCLUDED(mu_);
  void EndListing(Listing* listing, absl::Status status);

  // agent_garbage.cc
  void CollectLocked(uint64_t session, const std::shared_ptr<ImageStore>& store,
                     bool may_collect) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Looks for garbage on a disk thread; `done` comes there.
  void Collect(uint64_t session, const std::shared_ptr<ImageStore>& store,
               absl::flat_hash_set<Uuid> open,
               std::function<void(const absl::Status&)> done);
  // What is held, with a heartbeat that goes now.
  void TellGarbage() ABSL_LOCKS_EXCLUDED(mu_);
  void PostGarbageCommand(uint64_t session,
                          const control::v1::Command& command);

  // agent_orphans.cc
  void PostOrphanCommand(uint64_t session, const control::v1::Command& command);
  void ExpireQuarantineLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const AgentIdentity identity_;
  const AgentSeams seams_;
  const std::string incarnation_;
  SessionState session_;
  SpaceLedger ledger_;
  MountStateMachine machine_;
  MountProber prober_;
  Scrubber scrubber_;
  UploadTable table_;

  Mutex mu_;
  // Attach and the commands that need the disk, in their order; another one for
  // every store.
  Strand session_strand_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<ImageStore> store_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> addresses_ ABSL_GUARDED_BY(mu_);
  std::vector<std::weak_ptr<ReadStream>> readers_ ABSL_GUARDED_BY(mu_);
  bool opening_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration opening_since_ ABSL_GUARDED_BY(mu_);
  std::optional<int64_t> opening_mount_ ABSL_GUARDED_BY(mu_);
  uint64_t open_number_ ABSL_GUARDED_BY(mu_) = 0;
  // Opens of what is not there any more that have not come back.
  int left_opens_ ABSL_GUARDED_BY(mu_) = 0;
  bool opened_once_ ABSL_GUARDED_BY(mu_) = false;
  // The last that was logged: it is tried every few seconds.
  std::string open_error_ ABSL_GUARDED_BY(mu_);
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  // The turn of the listing that runs; 0: none does.
  uint64_t listing_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t listing_session_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t last_listing_ ABSL_GUARDED_BY(mu_) = 0;
  // Files and directories that the last whole listing could not read for an
  // error of the disk, and when that ended, by the clock that runs since boot.
  absl::flat_hash_set<std::string> unreadable_ ABSL_GUARDED_BY(mu_);
  absl::Duration unreadable_at_ ABSL_GUARDED_BY(mu_);
  // As the last Attach said.
  bool may_collect_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration next_expiry_ ABSL_GUARDED_BY(mu_);
  absl::Duration next_open_ ABSL_GUARDED_BY(mu_);
  // What was seen before this counts for nothing: the store is newer.
  uint64_t store_ticket_ ABSL_GUARDED_BY(mu_) = 0;
  std::optional<int64_t> seen_mount_ ABSL_GUARDED_BY(mu_);
  MountMemory memory_ ABSL_GUARDED_BY(mu_);
  // The last that was logged, and the last that the coordinator heard.
  v1::Health told_health_ ABSL_GUARDED_BY(mu_) = v1::HEALTH_UNKNOWN;
  v1::Health sent_health_ ABSL_GUARDED_BY(mu_) = v1::HEALTH_UNKNOWN;
  storage::v1::MountLabel label_ ABSL_GUARDED_BY(mu_);
  int64_t highest_epoch_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t highest_nonce_ ABSL_GUARDED_BY(mu_) = 0;  // of that epoch
  Generation last_heard_ ABSL_GUARDED_BY(mu_);
  Generation fence_written_ ABSL_GUARDED_BY(mu_);  // and not synced, perhaps
  std::string mount_key_ ABSL_GUARDED_BY(mu_);

  Phase phase_ ABSL_GUARDED_BY(mu_) = Phase::kNone;
  control::v1::Welcome welcome_ ABSL_GUARDED_BY(mu_);
  std::string last_refusal_ ABSL_GUARDED_BY(mu_);
  // Commands that came before AttachDone went out.
  std::vector<control::v1::Command> early_ ABSL_GUARDED_BY(mu_);
  int64_t command_number_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t heartbeat_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Duration heartbeat_every_ ABSL_GUARDED_BY(mu_) = absl::Seconds(2);
  absl::Duration next_heartbeat_ ABSL_GUARDED_BY(mu_);
  absl::Duration next_space_ ABSL_GUARDED_BY(mu_);
  bool space_running_ ABSL_GUARDED_BY(mu_) = false;
  bool space_changed_ ABSL_GUARDED_BY(mu_) = false;  // and not told yet
  absl::Duration next_fresh_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Duration> fence_dirty_since_ ABSL_GUARDED_BY(mu_);
  bool fence_syncing_ ABSL_GUARDED_BY(mu_) = false;
  int replaced_ ABSL_GUARDED_BY(mu_) = 0;  // threads; the last that was told
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_AGENT_CORE_H_
