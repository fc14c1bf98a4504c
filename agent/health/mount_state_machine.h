// How a mount is seen, from what its calls did.
#ifndef PREDELLA_AGENT_HEALTH_MOUNT_STATE_MACHINE_H_
#define PREDELLA_AGENT_HEALTH_MOUNT_STATE_MACHINE_H_

#include <deque>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "agent/store/image_store.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "predella/v1/image_service.pb.h"

namespace predella::agent {

struct MountView {
  v1::Health health = v1::HEALTH_UNKNOWN;
  // Why it is not ONLINE, as a sentence.
  std::string detail;
  // Name of the errno behind it ("EIO"); empty without one.
  std::string error;
  // Whether streams may be taken and images read at all.
  bool serves_reads = false;
  bool serves_writes = false;
};

struct HealthLimits {
  // One call older than this, with no data call completed since, hangs.
  absl::Duration hung_after = absl::Seconds(8);
  // SLOW when the 95th percentile of the probes of `slow_for` is above.
  absl::Duration slow_above = absl::Seconds(1);
  absl::Duration slow_for = absl::Seconds(60);
  // Clean probes in a row that bring a mount back to ONLINE.
  int clean_probes = 5;
};

// Events in, health out. What was seen stays until `clean_probes` probes in a
// row succeeded; several things may hold, the worst is shown, in the order
// ABSENT, HUNG, FAILED, SUSPECT, READ_ONLY, SLOW:
//
//   ABSENT     identity missing or foreign, or the mount behind it went away;
//              until it was opened again
//   HUNG       one call of a probe or an opening runs longer than the limit,
//              and no data call completed meanwhile; or every disk thread is
//              stuck in a call, those that took the place of stuck ones too
//   FAILED     cold reads of two of the last three probes failed
//   SUSPECT    one I/O error, a failed sync, a bad checksum on a cold read
//   READ_ONLY  a call said so, or writes of two of the last three probes
//              failed and their cold reads did not
//   SLOW       latency of probes, all of their calls together, until as many
//              in a row were fast
//
// A full mount is none of these, nor is a lack of memory or descriptors in
// this process. Thread-safe; never touches the disk.
class MountStateMachine {
 public:
  // `clock` must outlive this.
  MountStateMachine(Clock* clock, HealthLimits limits);
  explicit MountStateMachine(Clock* clock)
      : MountStateMachine(clock, HealthLimits()) {}

  // Whether what belongs here is not here: nothing of it can be read before
  // it was opened anew.
  static bool MeansAbsent(const absl::Status& status);

  // Opening the directory: health is UNKNOWN until it ends, then HUNG.
  void OpenStarted();
  // OK: ONLINE, with nothing remembered of before.
  void OpenDone(const absl::Status& status);

  void ProbeStarted();
  // One of the calls that the probe or the opening is made of came back.
  void CallReturned();
  void ProbeDone(const ProbeOutcome& outcome);
  // The call since ProbeStarted looked at the identity only.
  void CheckOnlyDone();
  void IdentityChecked(const absl::Status& status);
  // A call for data or metadata came back, well or not.
  void CallDone(const absl::Status& status);
  // A call that may succeed while the disk hangs (statfs is answered by the
  // kernel, a fence that is synced already by nobody): its error counts, its
  // success says nothing.
  void StatDone(const absl::Status& status);
  // Every thread for the mount is stuck in a call: HUNG, until this is not said
  // any more and the clean probes have come that end any hang.
  void NoThreadIsLeft(absl::string_view why);
  // A read found bytes that do not agree with their record.
  void DamageSeen(absl::string_view what);

  MountView View();
  // A data call succeeded within `within`.
  bool FreshTraffic(absl::Duration within);
  // A probe that began after `since`, of the clock that runs since boot, read
  // cold and well.
  bool ProbeReadSince(absl::Duration since);

 private:
  struct Seen {
    bool now = false;
    std::string why;
    std::string error;  // name of an errno
  };
  struct Latency {
    absl::Duration at;
    absl::Duration took;
  };
  static Seen Because(const absl::Status& status);
  void NoteErrorLocked(const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CheckHungLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteLatencyLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ClearLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Clock* const clock_;
  const HealthLimits limits_;
  Mutex mu_;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
  Seen absent_ ABSL_GUARDED_BY(mu_);
  Seen hung_ ABSL_GUARDED_BY(mu_);
  Seen failed_ ABSL_GUARDED_BY(mu_);
  Seen suspect_ ABSL_GUARDED_BY(mu_);
  Seen read_only_ ABSL_GUARDED_BY(mu_);
  Seen slow_ ABSL_GUARDED_BY(mu_);
  int clean_ ABSL_GUARDED_BY(mu_) = 0;
  int fast_ ABSL_GUARDED_BY(mu_) = 0;
  struct Halves {
    bool write;
    bool read;
  };
  std::deque<Halves> last_probes_ ABSL_GUARDED_BY(mu_);
  std::deque<Latency> latencies_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Duration> probe_started_ ABSL_GUARDED_BY(mu_);
  // The one call of a probe or an opening that is under way.
  std::optional<absl::Duration> call_started_ ABSL_GUARDED_BY(mu_);
  // When the last probe that read well began.
  std::optional<absl::Duration> read_well_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Duration> data_done_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_HEALTH_MOUNT_STATE_MACHINE_H_
