// Scrubs of mounts: when they run, how far they are, and what they find.
//
// A pass over a mount goes through these states; the row in the index follows:
//
//   (none) --Start, required, due--> RUNNING --all images--> DONE
//   RUNNING --Pause--> PAUSED --Start--> RUNNING; DONE --Start--> RUNNING, anew
//
// The agent's part ends with its session; the next one goes on at the cursor,
// which is never ahead of the findings that were written down.
#ifndef PREDELLA_SERVER_LIFECYCLE_SCRUB_KEEPER_H_
#define PREDELLA_SERVER_LIFECYCLE_SCRUB_KEEPER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/mount_service.pb.h"
#include "server/lifecycle/agent_session.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/notifier.h"
#include "server/lifecycle/single_run.h"
#include "server/placement/mount_registry.h"

namespace predella::server {

// Thread-safe.
class ScrubKeeper {
 public:
  // All must outlive it. `changed` is told when a mount may take images again.
  ScrubKeeper(const LifecycleDeps& deps, AgentCommands* commands,
              Notifier* changed);

  // Reads the passes of before from the index.
  absl::Status Load();

  // Begins a pass, or goes on with one that is paused; with `restart` always a
  // new one. OK where it runs already. `bytes_per_second` 0: as before.
  // `why` is for the event.
  absl::Status Start(const Uuid& mount_uid, int64_t bytes_per_second,
                     bool restart, absl::string_view why);
  // FAILED_PRECONDITION when none runs; OK when it is paused.
  absl::Status Pause(const Uuid& mount_uid);
  // Absent: the mount was never scrubbed, and needs not be.
  std::optional<v1::Scrub> View(const MountInfo& info) const;

  // What an agent sent in a session, in its order; both block on the index.
  void OnFindings(const Uuid& mount_uid, int64_t session,
                  const control::v1::CopyFaults& faults);
  void OnProgress(const Uuid& mount_uid, int64_t session,
                  const control::v1::ScrubProgress& progress);
  // When all was read, `list` asks for a listing of the mount, and the pass
  // ends once `listed` says that one that began after that number was compared;
  // an error is why the last of those was not. Without them the pass ends at
  // once. Before any other call.
  using Listed = std::function<absl::StatusOr<bool>(const Uuid&, int64_t)>;
  void OnPassRead(std::function<int64_t(const Uuid&)> list, Listed listed);
  // Ends the passes whose listings have come; blocks on the index.
  void EndPasses();
  // A heartbeat spoke of no scrub: the agent has none.
  void OnNoProgress(const Uuid& mount_uid, int64_t session);

  // Once a second: marks mounts that showed errors, starts what is required or
  // due, asks agents that came back. Posts its work; a second call while one
  // runs does nothing.
  void Tick();

 private:
  // What a mount that is reported SUSPECT or FAILED shows.
  enum class Errors {
    kNone,
    kFound,  // no more than the pass itself found: the pass covers it
    kOther,
  };
  struct Pass {
    storage::v1::ScrubRow row;  // newer than what is stored, by a minute
    // Found behind the cursor; counted in the row when it has passed them.
    std::set<Uuid> ahead;
    std::set<Uuid> found;  // by this pass, since the coordinator started
    // The agent's part that runs; empty: it is to be asked.
    std::string run_id;
    int64_t session = 0;
    bool answered = false;
    // All is read: it ends with a listing that began after this one.
    std::optional<int64_t> listed_after;
    int64_t base_images = 0;  // of earlier parts
    int64_t base_bytes = 0;
    absl::Duration next_ask;
    absl::Duration written_at;
    absl::Duration done_at;
    // What the last look at the mount's health found.
    Errors errors = Errors::kNone;
    // Faults of before the pass that it did not see are looked at one by one.
    bool recheck = false;
    bool checking = false;
    Uuid rechecked;
    // Events about findings.
    absl::Duration events_since;
    int events = 0;
  };

  void RunTick();
  void TickMount(const MountInfo& info, bool host_is_busy);
  void Ask(const MountInfo& info);
  void Answered(const Uuid& mount_uid, const std::string& run_id,
                const absl::Status& status);
  void Recheck(const MountInfo& info);
  void EndPass(const Uuid& mount_uid);
  // Whether all was read, and a listing says what is missing.
  bool MayEnd(const Uuid& mount_uid);
  // Copies that rows name and that are not there, beside what the pass found.
  int64_t CountMissing(const Uuid& mount_uid) const;

  // scrub_required of the mount's row.
  bool NoteHealth(const MountInfo& info);
  Errors ErrorsOf(const MountInfo& info, const Pass& pass) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Require(const MountInfo& info, Errors errors);
  // Whether there was something to settle, done or not.
  bool SettleRequired(const Uuid& mount_uid);
  absl::Status ChangeMount(const Uuid& mount_uid,
                           const storage::v1::MountRow& row,
                           const storage::v1::EventRow& event);
  // Why a pass has to begin now; empty: it has not.
  std::string DueReason(const MountInfo& info, bool host_is_busy) const;

  absl::Status Apply(const Uuid& mount_uid,
                     const control::v1::CopyFinding& finding);
  absl::Status TryApply(const Uuid& mount_uid,
                        const storage::v1::ImageRow& image,
                        const control::v1::CopyFinding& finding);
  // Of a generation that waits for a choice.
  bool IsOfConflict(const Uuid& mount_uid,
                    const control::v1::CopyFinding& finding) const;
  absl::Status NoteConflict(const Uuid& mount_uid,
                            const control::v1::CopyFinding& finding);
  void CountFound(const Uuid& mount_uid, const Uuid& image_id);
  void PutFindingEvent(const Uuid& mount_uid,
                       const control::v1::CopyFinding& finding, IndexTxn* txn);
  // Commits the row with an event, where `kind` is not empty.
  absl::Status WriteLocked(const storage::v1::ScrubRow& row,
                           absl::string_view kind, const std::string& detail)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_);
  storage::v1::EventRow EventOf(const Uuid& mount_uid, absl::string_view kind,
                                const std::string& detail) const;

  const LifecycleDeps deps_;
  AgentCommands* const commands_;
  Notifier* const changed_;
  // Constant after OnPassRead.
  std::function<int64_t(const Uuid&)> list_;
  Listed listed_;

  // Held over commits of scrub rows, so that they are stored in their order;
  // before mu_.
  Mutex write_mu_;
  SingleRun ticks_;
  mutable Mutex mu_;
  absl::flat_hash_map<Uuid, Pass> passes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_SCRUB_KEEPER_H_
