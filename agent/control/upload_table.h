// Open uploads of a mount: who may write, how far they are, and what becomes
// of them.
#ifndef PREDELLA_AGENT_CONTROL_UPLOAD_TABLE_H_
#define PREDELLA_AGENT_CONTROL_UPLOAD_TABLE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "agent/control/session_state.h"
#include "agent/control/space_ledger.h"
#include "agent/control/upload_stream.h"
#include "agent/fs/disk_calls.h"
#include "agent/health/mount_state_machine.h"
#include "agent/store/image_store.h"
#include "common/clock.h"
#include "common/executor.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"
#include "predella/v1/chunk_service.pb.h"

namespace predella::agent {

// Progress is sent at least so often, by bytes and by time.
inline constexpr int64_t kProgressBytes = int64_t{4} << 20;
inline constexpr absl::Duration kProgressEvery = absl::Seconds(5);
// Published, UploadFull and UploadLost that were not answered are sent again.
inline constexpr absl::Duration kTellAgain = absl::Seconds(2);
// A disk that did not say by then whether a name is free is not waited for.
inline constexpr absl::Duration kNameCheckWait = absl::Milliseconds(500);

// Whether garbage of so many uploads, on a mount of so many images, is held
// and not discarded.
bool LooksLikeAMistake(int64_t uploads, int64_t images);

struct UploadEntry;
struct UploadStrand;

// One stream's place at an upload. Opaque to its holder.
struct UploadHandle {
  std::shared_ptr<UploadEntry> entry;    // shared with the table and its tasks
  std::shared_ptr<UploadStream> stream;  // shared with the adapter
  bool prefix = false;
  int64_t start_offset = 0;
  int64_t boundary = 0;        // between PREFIX and TAIL, as the header says
  bool closed = false;         // guarded by the table's lock
  int64_t progress_sent = -1;  // guarded by the table's lock
  absl::Duration progress_at;  // guarded; when it was sent, or attached
};

// Only uploads that the coordinator named are here: by Attach, or PrepareUpload
// since. All disk work of one upload runs in order on one strand of the disk
// threads; publish, removal and CloseIfIdle of it therefore exclude each
// other. Without a session bytes are taken, and nothing is published.
//
// Phase of an upload; Transition() of upload_table.cc is the only writer:
//   RECEIVING  -> PUBLISHING (commit here, all bytes here, session fresh)
//              -> FULL       (no room; UploadFull is sent until answered)
//   PUBLISHING -> PUBLISHED  | RECEIVING (may be tried again) | FULL
//   FULL       -> MOVED      (redirected; the prefix is being copied)
//   RECEIVING, FULL, MOVED -> LOST (bytes are gone that nobody else has;
//                             UploadLost is sent until answered)
//   any        -> ENDED      (answered, removed, or no longer listed)
//
// Thread-safe. Calls return at once; what needs the disk is posted to it.
class UploadTable {
 public:
  // All must outlive this, and every task posted. `space_changed` is called
  // without locks after a publish and returns at once. `calls` may be null.
  UploadTable(Executor* disk, Clock* clock, SessionState* session,
              SpaceLedger* ledger, MountStateMachine* health, PeerWriter* peer,
              DiskCalls* calls, std::function<void()> space_changed);

  // The opened store: shared with the tasks that use it. Null when it was
  // lost; then every stream ends with `why` and the list is empty.
  void SetStore(std::shared_ptr<ImageStore> store);
  void DropStore(const absl::Status& why);

  // ---- the session's side

  // Takes an upload on the list and promises its bytes, before it returns.
  // RESOURCE_EXHAUSTED, MOUNT_FULL where it does not fit. `done` comes once,
  // when the disk said whether the image's name is free: ALREADY_EXISTS,
  // NAME_TAKEN as ImageStore::Find and Publish have it takes the upload off
  // again. After kNameCheckWait it is OK: then the publication tells.
  using PrepareDone = std::function<void(const absl::Status&)>;
  void Prepare(const control::v1::OpenUpload& open, PrepareDone done);

  // Replaces the list; what is no longer on it ends, and its inflight bytes
  // are left to CollectGarbage. `done` gets one status for each that is named,
  // or the error that kept one from being looked up. Those with a call that is
  // stuck are left out, and told by Tick when it is back.
  using StatusesDone = std::function<void(
      absl::StatusOr<std::vector<control::v1::UploadStatus>>)>;
  void ReplaceList(const std::shared_ptr<ImageStore>& store,
                   const control::v1::Attach& attach, StatusesDone done);
  // Sends AttachDone with the statuses as they are by then, so that nothing
  // published meanwhile is missed; then UploadFull and UploadLost that no
  // session answered.
  void FinishAttach(uint64_t session,
                    std::vector<control::v1::UploadStatus> statuses);

  using CloseDone = std::function<void(control::v1::CloseIfIdleResult)>;
  void CloseIfIdle(const control::v1::CloseIfIdle& command, CloseDone done);
  // `begin` is asked on the disk thread before anything is removed; false
  // drops the removal (its session is gone) and `done` is not called.
  using RemoveDone = std::function<void(absl::StatusOr<RemoveOutcome>)>;
  void Remove(const control::v1::Remove& command, std::function<bool()> begin,
              RemoveDone done);
  void OnPublishedAck(const control::v1::PublishedAck& ack);
  void OnUploadFullAck(const control::v1::UploadFullAck& ack);

  // ---- garbage: inflight bytes of uploads that nobody named; `done` comes
  // once, on a disk thread. upload_garbage.cc.
  struct Garbage {
    int64_t uploads = 0;
    int64_t bytes = 0;
  };
  using SweepDone = std::function<void(const absl::Status&)>;
  // On a disk thread: looks for garbage and discards it, one upload after the
  // other, as long as `go_on` says so. Where it is so much that it looks like a
  // mistake of the index all of it is held instead, until it is less at a later
  // look, is named again, removed by command, or given up by CollectHeld. What
  // is in `open` is none, whether it is on the list or not.
  void CollectGarbage(const std::shared_ptr<ImageStore>& store,
                      const absl::flat_hash_set<Uuid>& open,
                      std::function<bool()> go_on, SweepDone done);
  // Discards what is held if it is of so many uploads: FAILED_PRECONDITION,
  // GARBAGE_CHANGED otherwise.
  void CollectHeld(const std::shared_ptr<ImageStore>& store, int64_t uploads,
                   std::function<bool()> go_on, SweepDone done);
  Garbage held();

  // Progress, publishes that waited, copies that are to be tried again. What
  // was attached and is not open yet (a restarted agent reads many GiB first)
  // is told that it is being verified.
  void Tick();
  // Uploads that showed life since the last call.
  std::vector<Uuid> TakeLive();
  // Streams that are open.
  int open_streams();
  // Ends all streams (UNAVAILABLE) and lets everything go; bytes are kept.
  void Shutdown(const absl::Status& why);

  // ---- the streams' side

  // Takes a stream whose capability was checked. NOT_FOUND, UPLOAD_NOT_FOUND
  // when the upload is not on the list; ABORTED, UPLOAD_IN_PROGRESS when it
  // has a stream; UNAVAILABLE, MOUNT_STALLED while a call of it is stuck. The
  // first Progress, or an outcome known already, goes to the stream.
  absl::StatusOr<std::shared_ptr<UploadHandle>> Attach(
      const v1::WriteHeader& header, const Generation& generation,
      std::shared_ptr<UploadStream> stream);
  // In order of the calls. Errors finish the stream.
  void Append(const std::shared_ptr<UploadHandle>& handle, v1::Chunk chunk);
  void Commit(const std::shared_ptr<UploadHandle>& handle,
              const CommitRequest& request);
  // The client half-closed.
  void EndOfStream(const std::shared_ptr<UploadHandle>& handle);
  // The stream is gone; what came is kept.
  void Detach(const std::shared_ptr<UploadHandle>& handle);

 private:
  using EntryPtr = std::shared_ptr<UploadEntry>;  // the table and its tasks
  using HandlePtr = std::shared_ptr<UploadHandle>;
  using StrandPtr = std::shared_ptr<UploadStrand>;

  // upload_table.cc
  // On the upload's strand; a call of it that is stuck ends the streams.
  void PostOn(const EntryPtr& entry, std::function<void()> task);
  void PostOn(const StrandPtr& strand, std::function<void()> task);
  StrandPtr StrandLocked(const Uuid& upload_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Nothing of the upload can be done before the call comes back.
  void WorkStalled(const StrandPtr& strand, const absl::Status& why)
      ABSL_LOCKS_EXCLUDED(mu_);
  // A call to that store came back. It says something of the mount that is
  // open now only if that is the one: what hung in a store that was let go
  // comes back late, and mostly with an error. The entry's: on its strand.
  void NoteCall(const ImageStore* store, const absl::Status& status)
      ABSL_LOCKS_EXCLUDED(mu_);
  void NoteCall(const UploadEntry& entry, const absl::Status& status)
      ABSL_LOCKS_EXCLUDED(mu_);
  EntryPtr AddLocked(const control::v1::OpenUpload& open)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetLocked(const EntryPtr& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndLocked(const EntryPtr& entry, const absl::Status& why, bool discard)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishStreamsLocked(const EntryPtr& entry, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  EntryPtr FindLocked(const Uuid& upload_id, const Generation& generation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DiscardLater(const EntryPtr& entry);
  void SendProgressesLocked(const EntryPtr& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // upload_attach.cc
  EntryPtr NameLocked(const control::v1::OpenUpload& open)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndUnnamedLocked(const absl::flat_hash_set<Uuid>& named)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  control::v1::UploadStatus StatusLocked(const EntryPtr& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Behind what is posted of the upload.
  void LookUpLocked(const EntryPtr& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LookedUp(const EntryPtr& entry, const absl::Status& status)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Nobody waits for its status any more.
  void OweStatusLocked(const EntryPtr& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Answers ReplaceList when nothing is waited for.
  void AnswerAttach() ABSL_LOCKS_EXCLUDED(mu_);
  void TellOwedLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // upload_commands.cc
  absl::StatusOr<EntryPtr> Promise(const control::v1::OpenUpload& open,
                                   bool* listed);
  // On the strand, as NameChecked.
  absl::Status CheckName(const EntryPtr& entry, bool listed);
  void NameChecked(const EntryPtr& entry, uint64_t check,
                   const absl::Status& status);
  void AnswerSlowChecks();
  void RunRemove(const control::v1::Remove& command,
                 const std::shared_ptr<ImageStore>& store,
                 const RemoveDone& done);

  // upload_garbage.cc
  struct Sweep;
  void DiscardNext(const std::shared_ptr<Sweep>& sweep);
  bool IsGarbageLocked(const Sweep& sweep, const Uuid& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // On the upload's strand.
  void RunDiscard(Sweep* sweep, const Uuid& id);
  Garbage HeldLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // upload_streaming.cc: on the strand unless Locked
  absl::Status Resolve(const EntryPtr& entry);
  absl::Status EnsureStaged(const EntryPtr& entry);
  void CopyNumbers(const EntryPtr& entry);
  // The streams know where the part of this mount begins, also where a
  // coordinator that was started again did not say.
  void TakeBoundary(const HandlePtr& handle);
  void RunOpen(const HandlePtr& handle);
  void RunAppend(const HandlePtr& handle, const v1::Chunk& chunk);
  absl::Status AppendNow(const HandlePtr& handle, const v1::Chunk& chunk);
  void AfterAppend(const HandlePtr& handle, const absl::Status& status);
  // Ends a PREFIX stream that is complete, or has no more to give.
  void FinishPrefix(const HandlePtr& handle, bool at_end);
  void RunEndOfStream(const HandlePtr& handle);
  void FinishHandleLocked(const HandlePtr& handle, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendProgressLocked(const HandlePtr& handle)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendVerifyingLocked(const HandlePtr& handle)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool AnswerEndedLocked(const Uuid& upload_id, const Generation& generation,
                         bool prefix,
                         const std::shared_ptr<UploadStream>& stream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // upload_publish.cc
  bool MayPublishLocked(const EntryPtr& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MaybePublishLocked(const EntryPtr& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RunPublish(const EntryPtr& entry);
  // On the strand.
  void PublishedLocked(const EntryPtr& entry,
                       const control::v1::Published& published)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PublishFailedLocked(const EntryPtr& entry, const absl::Status& status,
                           bool condemned) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AnswerLocked(const EntryPtr& entry, const control::v1::PublishedAck& ack)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // upload_move.cc; KeepForMove on the strand
  void KeepForMove(const EntryPtr& entry);
  void FullLocked(const EntryPtr& entry, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TellAgainLocked(const EntryPtr& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendFullLocked(const EntryPtr& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Also of a move that an earlier process, or a lost answer, left.
  void MoveLocked(const EntryPtr& entry,
                  const control::v1::RedirectTarget& target)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendRedirectLocked(const EntryPtr& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MaybeCopyLocked(const EntryPtr& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // On the strand, as the next three.
  void StartCopy(const EntryPtr& entry);
  absl::StatusOr<int64_t> BytesForMove(const EntryPtr& entry);
  absl::StatusOr<std::string> ReadForMove(const EntryPtr& entry, int64_t offset,
                                          int64_t length);
  PeerCopy ToPeerCopyLocked(const EntryPtr& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CopyDone(const EntryPtr& entry, const absl::Status& status);
  void CopyFailedLocked(const EntryPtr& entry, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // upload_lost.cc
  // `full`: the mount took bytes that it had no room for.
  void LoseLocked(const EntryPtr& entry, absl::string_view why, bool full)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SendLostLocked(const EntryPtr& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether a stream can go on with what is here.
  absl::Status CheckOpenLocked(const HandlePtr& handle)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Executor* const disk_;
  Clock* const clock_;
  SessionState* const session_;
  SpaceLedger* const ledger_;
  MountStateMachine* const health_;
  PeerWriter* const peer_;
  DiskCalls* const calls_;
  const std::function<void()> space_changed_;

  Mutex mu_;
  std::shared_ptr<ImageStore> store_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, EntryPtr> entries_ ABSL_GUARDED_BY(mu_);
  // Strands live as long as tasks of the upload do, so that an upload that
  // was taken off and named again keeps its order.
  absl::flat_hash_map<Uuid, std::weak_ptr<UploadStrand>> strands_
      ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<Uuid> discarding_ ABSL_GUARDED_BY(mu_);
  // Garbage that is kept, and its bytes; none of it is in entries_.
  absl::flat_hash_map<Uuid, int64_t> held_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<Uuid> live_ ABSL_GUARDED_BY(mu_);
  // Answers that were given lately, for streams that come again.
  struct Ended {
    Uuid upload_id;
    Generation generation;
    absl::Status status;
    v1::WriteResult result;
    // It goes on at another mount, to which all that was here was copied.
    std::optional<v1::Redirect> redirect;
  };
  void RememberLocked(Ended ended) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::deque<Ended> ended_ ABSL_GUARDED_BY(mu_);
  // Prepared uploads whose name is being looked at.
  struct NameCheck {
    PrepareDone done;
    absl::Duration until;
  };
  absl::flat_hash_map<uint64_t, NameCheck> name_checks_ ABSL_GUARDED_BY(mu_);
  uint64_t last_check_ ABSL_GUARDED_BY(mu_) = 0;
  // The list that a session waits for.
  struct Attaching {
    std::vector<EntryPtr> named;
    absl::flat_hash_set<EntryPtr> missing;
    absl::Status error;
    StatusesDone done;
  };
  std::optional<Attaching> attaching_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_UPLOAD_TABLE_H_
