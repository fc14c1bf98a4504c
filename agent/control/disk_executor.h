// The threads that may touch a mount.
//
// A thread inside a system call on a hung mount can not be killed, and a
// process that exits waits for it; what such a thread must never hold is a
// socket of ours. So all disk threads share a descriptor table of their own:
// one leader leaves the process's table (unshare(CLONE_FILES)) before any
// socket exists and makes every other disk thread from within itself.
//
// Files are opened, used and closed on these threads only: elsewhere their
// descriptors mean something else. One that shall be used elsewhere goes
// through descriptors().
#ifndef PREDELLA_AGENT_CONTROL_DISK_EXECUTOR_H_
#define PREDELLA_AGENT_CONTROL_DISK_EXECUTOR_H_

#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "agent/control/descriptor_pipe.h"
#include "common/executor.h"
#include "common/mutex.h"

namespace predella::agent {

// Whether the calling thread is one of them.
bool OnDiskThread();

class DiskThreads {
 public:
  // Must run before gRPC or any socket exists. UNAVAILABLE when the kernel
  // refuses the separate table.
  static absl::StatusOr<std::unique_ptr<DiskThreads>> Start(int threads);

  // As Join.
  ~DiskThreads();
  DiskThreads(const DiskThreads&) = delete;
  DiskThreads& operator=(const DiskThreads&) = delete;

  // Finishes what was posted and joins; what is posted later is dropped.
  // Waits for as long as a call to the mount hangs. Idempotent.
  void Join();

  // Threads for data that are added while as many are stuck, in all; they
  // share the descriptor table. Returns at once.
  void Replace(int stuck);
  // How many of them the system did not give when they were last asked for.
  int missing();

  // For data and metadata. Lives as long as this.
  Executor* data() { return data_.get(); }
  // One thread for probes alone, so that a probe is never queued behind data.
  Executor* probe() { return probe_.get(); }
  // Its ends are in the two tables. Lives as long as this.
  DescriptorPipe* descriptors() { return pipe_.get(); }

 private:
  DiskThreads() = default;
  void Lead(int threads);
  // Waits for the next Replace, and gives its number; -1 at the end.
  int NextReplaced();

  Mutex mu_;
  CondVar cv_;
  bool started_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  int replaced_ ABSL_GUARDED_BY(mu_) = 0;
  bool asked_ ABSL_GUARDED_BY(mu_) = false;  // and not done yet
  int missing_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<DescriptorPipe> pipe_;  // before the leader
  // Made by the leader before started_, constant afterwards.
  std::unique_ptr<ThreadPool> data_;
  std::unique_ptr<ThreadPool> probe_;
  std::thread leader_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_DISK_EXECUTOR_H_
