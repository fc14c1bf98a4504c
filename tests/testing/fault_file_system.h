// A FileSystem before another one that counts calls and fails some of them.
#ifndef PREDELLA_TESTS_TESTING_FAULT_FILE_SYSTEM_H_
#define PREDELLA_TESTS_TESTING_FAULT_FILE_SYSTEM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"
#include "common/mutex.h"

namespace predella::testing {

// Names of operations: open create stat mkdir unlink rename rename_noreplace
// sync_dir list lock space pread pwrite datasync truncate allocate
// start_writeback wait_writeback drop_cache fstat set_ownership. A file's
// operations bear the path it was opened by.
struct Fault {
  int64_t at = 1;    // the how-manieth matching call fails
  std::string op;    // empty: every operation
  std::string path;  // how the path begins; empty: every path
  absl::Status status = absl::UnavailableError("injected");
  bool perform = false;  // done first, and failed all the same
  bool forever = false;  // later matching calls fail too
  // Runs while the call is under way, without locks: what happens while it
  // hangs.
  std::function<void()> during = nullptr;
};

// Thread-safe. Files must not outlive it.
class FaultFileSystem : public agent::FileSystem {
 public:
  // `base` must outlive this.
  explicit FaultFileSystem(agent::FileSystem* base) : base_(base) {}

  // Counts from now on; replaces the fault before.
  void Inject(Fault fault) ABSL_LOCKS_EXCLUDED(mu_);
  // Call `n` from now on (1 is the next) and all later ones fail and do
  // nothing, as after a power cut.
  void CrashAt(int64_t n) ABSL_LOCKS_EXCLUDED(mu_);
  // The operation reports success and does nothing: a store that forgot it.
  void Skip(absl::string_view op) ABSL_LOCKS_EXCLUDED(mu_);
  // No faults, no crash, no skips; the count starts at 0.
  void Reset() ABSL_LOCKS_EXCLUDED(mu_);

  int64_t calls() ABSL_LOCKS_EXCLUDED(mu_);
  // Whether a fault or the crash was reached.
  bool injected() ABSL_LOCKS_EXCLUDED(mu_);
  // "17 sync_dir .predella/inflight", what was failed.
  std::vector<std::string> log() ABSL_LOCKS_EXCLUDED(mu_);
  // Every call, where Trace(true) was said before.
  void Trace(bool on) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::string> trace() ABSL_LOCKS_EXCLUDED(mu_);

  absl::StatusOr<std::unique_ptr<agent::File>> Open(
      absl::string_view path, agent::OpenMode mode) override;
  absl::StatusOr<agent::FileInfo> Stat(absl::string_view path) override;
  absl::Status Mkdir(absl::string_view path, uint32_t mode) override;
  absl::Status Unlink(absl::string_view path) override;
  absl::Status Rename(absl::string_view from, absl::string_view to) override;
  absl::Status RenameNoReplace(absl::string_view from,
                               absl::string_view to) override;
  absl::Status SyncDir(absl::string_view path) override;
  absl::Status List(
      absl::string_view path,
      const std::function<void(absl::string_view name)>& entry) override;
  absl::StatusOr<std::unique_ptr<agent::FileLock>> Lock(
      absl::string_view path, absl::string_view holder) override;
  absl::StatusOr<agent::SpaceInfo> Space() override;
  absl::Status CheckRoot() override { return base_->CheckRoot(); }
  std::optional<int64_t> MountId() override ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(&mu_);
    return mount_id_;
  }
  void SetMountId(std::optional<int64_t> id) ABSL_LOCKS_EXCLUDED(mu_) {
    MutexLock lock(&mu_);
    mount_id_ = id;
  }
  std::string root() const override { return base_->root(); }

  // How a call is to end. For FaultFile.
  struct Verdict {
    bool perform = true;
    absl::Status status;
    std::function<void()> during = nullptr;
  };
  Verdict Judge(absl::string_view op, absl::string_view path)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Runs `call` as Judge says.
  absl::Status Run(absl::string_view op, absl::string_view path,
                   const std::function<absl::Status()>& call);

 private:
  agent::FileSystem* const base_;
  Mutex mu_;
  int64_t calls_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t matching_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t crash_at_ ABSL_GUARDED_BY(mu_) = 0;  // 0: never
  std::optional<Fault> fault_ ABSL_GUARDED_BY(mu_);
  std::set<std::string> skipped_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> log_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> trace_ ABSL_GUARDED_BY(mu_);
  std::optional<int64_t> mount_id_ ABSL_GUARDED_BY(mu_);
  bool tracing_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_TESTING_FAULT_FILE_SYSTEM_H_
