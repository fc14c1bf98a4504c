#include "agent/control/disk_executor.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "agent/fs/disk_calls.h"
#include "common/errors.h"

namespace predella::agent {
namespace {

thread_local bool t_on_disk_thread = false;

void MarkDiskThread() { t_on_disk_thread = true; }

}  // namespace

bool OnDiskThread() { return t_on_disk_thread; }

absl::StatusOr<std::unique_ptr<DiskThreads>> DiskThreads::Start(int threads) {
  std::unique_ptr<DiskThreads> out(new DiskThreads());
  absl::StatusOr<std::unique_ptr<DescriptorPipe>> pipe = DescriptorPipe::Make();
  if (!pipe.ok()) {
    return pipe.status();
  }
  out->pipe_ = *std::move(pipe);
  DiskThreads* const raw = out.get();
  out->leader_ = std::thread([raw, threads] { raw->Lead(threads); });
  absl::Status status;
  {
    MutexLock lock(&out->mu_);
    while (!out->started_) {
      out->cv_.Wait(&out->mu_);
    }
    status = out->status_;
  }
  if (!status.ok()) {
    return status;
  }
  out->pipe_->KeepNetworkEnd();
  return out;
}

void DiskThreads::Lead(int threads) {
  pthread_setname_np(pthread_self(), "disk-leader");
  absl::Status status;
  if (unshare(CLONE_FILES) != 0) {
    status = MakeError(
        absl::StatusCode::kUnavailable, reason::kAgentOverloaded,
        absl::StrCat("the disk threads could not get a descriptor table of "
                     "their own: ",
                     std::strerror(errno)));
  } else {
    pipe_->KeepDiskEnd();
    data_ = std::make_unique<ThreadPool>("disk", threads, MarkDiskThread);
    probe_ = std::make_unique<ThreadPool>("probe", 1, [] {
      MarkDiskThread();
      DiskCalls::MarkUnreplaced();
    });
  }
  {
    MutexLock lock(&mu_);
    status_ = status;
    started_ = true;
    cv_.SignalAll();
  }
  // Stays: a thread made later by this one shares its table too.
  int replaced = 0;
  while ((replaced = NextReplaced()) >= 0) {
    data_->Resize(threads + replaced);
    MutexLock lock(&mu_);
    missing_ = std::max(0, threads + replaced - data_->threads());
  }
  if (data_ != nullptr) {
    data_->Shutdown();
    probe_->Shutdown();
  }
}

int DiskThreads::NextReplaced() {
  MutexLock lock(&mu_);
  while (!stopping_ && (!asked_ || data_ == nullptr)) {
    cv_.Wait(&mu_);
  }
  asked_ = false;
  return stopping_ ? -1 : replaced_;
}

void DiskThreads::Replace(int stuck) {
  MutexLock lock(&mu_);
  replaced_ = stuck;
  asked_ = true;
  cv_.SignalAll();
}

int DiskThreads::missing() {
  MutexLock lock(&mu_);
  return missing_;
}

DiskThreads::~DiskThreads() { Join(); }

void DiskThreads::Join() {
  {
    MutexLock lock(&mu_);
    stopping_ = true;
    cv_.SignalAll();
  }
  if (leader_.joinable()) {
    leader_.join();
  }
}

}  // namespace predella::agent
