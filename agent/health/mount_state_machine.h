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

#include "common/clock.h"
#include "common/mutex.h"
#include "predella/v1/image_service.pb.h"

namespace predella::agent {

struct MountView {
  v1::Health health = v1::HEALTH_UNKNOWN;
  // Why it is not ONLINE, as a sentence.
  std::string detail;
  // Whether streams may be taken and images read at all.
  bool serves_reads = false;
  bool serves_writes = false;
};

struct HealthLimits {
  // A call older than this, with no data call completed since, hangs.
  absl::Duration hung_after = absl::Seconds(8);
  // SLOW when the 95th percentile of the last `slow_probes` is above.
  absl::Duration slow_above = absl::Seconds(1);
  int slow_probes = 30;
  // Clean probes in a row that bring a mount back to ONLINE.
  int clean_probes = 5;
};

// Events in, health out. What was seen stays until `clean_probes` probes in a
// row succeeded; several things may hold, the worst is shown, in the order
// ABSENT, HUNG, FAILED, SUSPECT, READ_ONLY, SLOW:
//
//   ABSENT     identity missing or foreign; until it is right again
//   HUNG       a probe or open call runs longer than the limit, and no data
//              call completed meanwhile
//   FAILED     two of the last three probes failed
//   SUSPECT    one I/O error, a failed sync, a bad checksum on a read
//   READ_ONLY  a write said so
//   SLOW       latency of probes
//
// A full mount is none of these. Thread-safe; never touches the disk.
class MountStateMachine {
 public:
  // `clock` must outlive this.
  MountStateMachine(Clock* clock, HealthLimits limits);
  explicit MountStateMachine(Clock* clock)
      : MountStateMachine(clock, HealthLimits()) {}

  // Opening the directory: health is UNKNOWN until it ends, then HUNG.
  void OpenStarted();
  // OK: ONLINE, with nothing remembered of before.
  void OpenDone(const absl::Status& status);

  void ProbeStarted();
  void ProbeDone(const absl::Status& status);
  // The call since ProbeStarted looked at the identity only.
  void CheckOnlyDone();
  void IdentityChecked(const absl::Status& status);
  // A call for data or metadata came back, well or not.
  void CallDone(const absl::Status& status);
  // A call that may succeed while the disk hangs (statfs is answered by the
  // kernel, a fence that is synced already by nobody): its error counts, its
  // success says nothing.
  void StatDone(const absl::Status& status);
  // A read found bytes that do not agree with their record.
  void DamageSeen(absl::string_view what);

  MountView View();
  // A data call succeeded within `within`.
  bool FreshTraffic(absl::Duration within);

 private:
  struct Seen {
    bool now = false;
    std::string why;
  };
  void NoteErrorLocked(const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CheckHungLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool SlowLocked(std::string* why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Clock* const clock_;
  const HealthLimits limits_;
  Mutex mu_;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
  Seen absent_ ABSL_GUARDED_BY(mu_);
  Seen hung_ ABSL_GUARDED_BY(mu_);
  Seen failed_ ABSL_GUARDED_BY(mu_);
  Seen suspect_ ABSL_GUARDED_BY(mu_);
  Seen read_only_ ABSL_GUARDED_BY(mu_);
  int clean_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<bool> last_probes_ ABSL_GUARDED_BY(mu_);
  std::deque<absl::Duration> latencies_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Duration> call_started_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Duration> data_done_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_HEALTH_MOUNT_STATE_MACHINE_H_
