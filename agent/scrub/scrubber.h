// Reads the images of a mount cold and checks them, slowly and behind
// everything else.
#ifndef PREDELLA_AGENT_SCRUB_SCRUBBER_H_
#define PREDELLA_AGENT_SCRUB_SCRUBBER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "agent/health/mount_state_machine.h"
#include "agent/store/image_store.h"
#include "common/clock.h"
#include "common/executor.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/control/v1/agent_session_service.pb.h"

namespace predella::agent {

struct ScrubOptions {
  int64_t bytes_per_second = int64_t{64} << 20;
  // An image costs at least this much of the rate: small ones are seeks.
  int64_t least_image_bytes = int64_t{256} << 10;
  // A failed read is tried again this much later, when the probes have said
  // whether it is the image or the whole mount.
  absl::Duration retry_after = absl::Seconds(5);
};

// All must outlive the scrubber and every task it posted.
struct ScrubSeams {
  Executor* disk = nullptr;
  Clock* clock = nullptr;
  MountStateMachine* machine = nullptr;
  // Sends within a session, in the order of the calls.
  std::function<void(uint64_t session, control::v1::AgentMessage)> send;
  // Gives the calling thread's I/O the lowest priority, or takes that back.
  std::function<void(bool idle)> idle_io;
};

// One image at a time, one block a task: between two blocks everything that
// waits for a disk thread goes first. Findings are sent before the progress
// that covers them. Thread-safe; no call touches the disk.
class Scrubber {
 public:
  using Done = std::function<void(const absl::Status&)>;

  Scrubber(ScrubSeams seams, const ScrubOptions& options);

  // Ends the scrub before. `store` is let go on a disk thread.
  void Start(uint64_t session, std::shared_ptr<ImageStore> store,
             const control::v1::StartScrub& request);
  // Ends it, if it is that one.
  void Stop(const std::string& scrub_id);
  // Reads one image, before the scrub goes on. `done` is called on a disk
  // thread; never once the session or the store is gone. Besides the finding it
  // says DATA_LOSS for a copy that is not whole, NOT_FOUND where there is none.
  void Check(uint64_t session, std::shared_ptr<ImageStore> store,
             const control::v1::CheckCopy& request, Done done);
  // The session or the store is gone.
  void End();

  // Posts what the rate allows. Four times a second.
  void Tick();
  // For a heartbeat; absent when no scrub was started in that session.
  std::optional<control::v1::ScrubProgress> Progress(uint64_t session);

  // What a read that ended so says of the copy. One that may not be read is
  // MISSING, as for a listing, which ends it once it may.
  static storage::v1::CopyFault FaultOf(const absl::Status& status);
  // A read by a client found `fault`: whether that is news. What is known of
  // a copy says nothing new about its mount.
  bool NoteFault(const Uuid& image_id, const Generation& generation);
  // Whether a copy of the image, of any generation, is known not to be whole.
  bool KnowsFault(const Uuid& image_id);
  // An error of a read at `offset` by a client: false for a copy that is known
  // not to be whole, of which it says nothing new. Of any other the block is
  // read again once a probe that began since has read cold, so that it is this
  // file and not the whole mount; what fails again is a finding. At most 100
  // wait for that, of a mount that fails they would be all; and none without a
  // session (0), which the finding would be lost with.
  bool NoteReadError(uint64_t session, std::shared_ptr<ImageStore> store,
                     const Uuid& image_id, const Generation& generation,
                     int64_t offset);

 private:
  // A scrub, or the check of one image. Shared with the task that works on it,
  // and let go on a disk thread: it holds open files.
  struct Job;
  using JobPtr = std::shared_ptr<Job>;

  void EndLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LetGoLocked(JobPtr job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  JobPtr CurrentLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // read_errors.cc; null: none may be read again yet.
  JobPtr DueFailedReadLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RefillLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PostLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether the mount can be read; the scrub's detail says why not.
  bool MayReadLocked(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // On a disk thread.
  void Run(const JobPtr& job, uint64_t turn);
  void Step(Job* job);
  void ReadAgain(Job* job);
  // Says nothing of the mount once the job's store was let go.
  void CallDone(const Job& job, const absl::Status& status);
  void DamageSeen(const Job& job, const absl::Status& status);
  void List(Job* job);
  void OpenNext(Job* job);
  void ReadBlock(Job* job);
  void Judge(Job* job, const absl::Status& status);
  void ReadFailed(Job* job, const absl::Status& status);
  void Found(Job* job, storage::v1::CopyFault fault, const Generation& of,
             const std::string& detail);
  // The image is done; the cursor moves behind it.
  void NextImage(Job* job);
  void Finish(Job* job, const absl::Status& status);
  void Charge(int64_t bytes);

  const ScrubSeams seams_;
  const ScrubOptions options_;

  Mutex mu_;
  JobPtr scrub_ ABSL_GUARDED_BY(mu_);
  std::deque<JobPtr> checks_ ABSL_GUARDED_BY(mu_);
  std::deque<JobPtr> failed_reads_ ABSL_GUARDED_BY(mu_);
  bool posted_ ABSL_GUARDED_BY(mu_) = false;
  // Of the tasks; one that hangs in a mount that was left is an earlier one.
  uint64_t turn_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t rate_ ABSL_GUARDED_BY(mu_) = 0;
  // What may be read now; below 0 after a block that was more.
  double tokens_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Duration tokens_at_ ABSL_GUARDED_BY(mu_);
  absl::Duration not_before_ ABSL_GUARDED_BY(mu_);
  // Copies found missing or damaged by this process.
  absl::flat_hash_map<Uuid, Generation> known_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SCRUB_SCRUBBER_H_
