#include "tests/testing/fault_file_system.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"
#include "common/errors.h"
#include "common/mutex.h"
#include "common/status_macros.h"

namespace predella::testing {

using agent::File;
using agent::FileInfo;
using agent::FileLock;
using agent::OpenMode;
using agent::SpaceInfo;

namespace {

class FaultFile final : public File {
 public:
  FaultFile(FaultFileSystem* fs, std::string path, std::unique_ptr<File> base)
      : fs_(fs), path_(std::move(path)), base_(std::move(base)) {}

  absl::StatusOr<size_t> Pread(int64_t offset, size_t size,
                               char* out) override {
    size_t got = 0;
    RETURN_IF_ERROR(fs_->Run("pread", path_, [&]() -> absl::Status {
      ASSIGN_OR_RETURN(got, base_->Pread(offset, size, out));
      return absl::OkStatus();
    }));
    return got;
  }
  absl::Status Pwrite(int64_t offset, absl::string_view data) override {
    return fs_->Run("pwrite", path_,
                    [&] { return base_->Pwrite(offset, data); });
  }
  absl::Status Datasync() override {
    return fs_->Run("datasync", path_, [&] { return base_->Datasync(); });
  }
  absl::Status Truncate(int64_t size) override {
    return fs_->Run("truncate", path_, [&] { return base_->Truncate(size); });
  }
  absl::Status Allocate(int64_t offset, int64_t length) override {
    return fs_->Run("allocate", path_,
                    [&] { return base_->Allocate(offset, length); });
  }
  absl::Status StartWriteback(int64_t offset, int64_t length) override {
    return fs_->Run("start_writeback", path_,
                    [&] { return base_->StartWriteback(offset, length); });
  }
  absl::Status WaitWriteback(int64_t offset, int64_t length) override {
    return fs_->Run("wait_writeback", path_,
                    [&] { return base_->WaitWriteback(offset, length); });
  }
  absl::Status DropCache(int64_t offset, int64_t length) override {
    return fs_->Run("drop_cache", path_,
                    [&] { return base_->DropCache(offset, length); });
  }
  absl::StatusOr<FileInfo> Stat() override {
    FileInfo info;
    RETURN_IF_ERROR(fs_->Run("fstat", path_, [&]() -> absl::Status {
      ASSIGN_OR_RETURN(info, base_->Stat());
      return absl::OkStatus();
    }));
    return info;
  }
  absl::Status SetOwnership(uint32_t mode,
                            std::optional<uint32_t> gid) override {
    return fs_->Run("set_ownership", path_,
                    [&] { return base_->SetOwnership(mode, gid); });
  }

 private:
  FaultFileSystem* const fs_;
  const std::string path_;
  const std::unique_ptr<File> base_;
};

}  // namespace

void FaultFileSystem::Inject(Fault fault) {
  const MutexLock lock(&mu_);
  fault_ = std::move(fault);
  matching_ = 0;
}

void FaultFileSystem::CrashAt(int64_t n) {
  const MutexLock lock(&mu_);
  crash_at_ = calls_ + n;
}

void FaultFileSystem::Skip(absl::string_view op) {
  const MutexLock lock(&mu_);
  skipped_.insert(std::string(op));
}

void FaultFileSystem::Reset() {
  const MutexLock lock(&mu_);
  calls_ = matching_ = crash_at_ = 0;
  fault_.reset();
  skipped_.clear();
  log_.clear();
  trace_.clear();
}

int64_t FaultFileSystem::calls() {
  const MutexLock lock(&mu_);
  return calls_;
}

bool FaultFileSystem::injected() {
  const MutexLock lock(&mu_);
  return !log_.empty();
}

std::vector<std::string> FaultFileSystem::log() {
  const MutexLock lock(&mu_);
  return log_;
}

void FaultFileSystem::Trace(bool on) {
  const MutexLock lock(&mu_);
  tracing_ = on;
}

std::vector<std::string> FaultFileSystem::trace() {
  const MutexLock lock(&mu_);
  return trace_;
}

FaultFileSystem::Verdict FaultFileSystem::Judge(absl::string_view op,
                                                absl::string_view path) {
  const MutexLock lock(&mu_);
  ++calls_;
  const std::string what = absl::StrCat(calls_, " ", op, " ", path);
  if (tracing_) {
    trace_.push_back(what);
  }
  if (crash_at_ != 0 && calls_ >= crash_at_) {
    log_.push_back(what);
    return {false,
            MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed,
                      absl::StrCat("the power is cut: ", what)),
            nullptr};
  }
  if (fault_.has_value() && (fault_->op.empty() || fault_->op == op) &&
      absl::StartsWith(path, fault_->path)) {
    ++matching_;
    if (matching_ == fault_->at ||
        (fault_->forever && matching_ > fault_->at)) {
      log_.push_back(what);
      return {fault_->perform, fault_->status, fault_->during};
    }
  }
  if (skipped_.count(std::string(op)) > 0) {
    return {false, absl::OkStatus(), nullptr};
  }
  return {true, absl::OkStatus(), nullptr};
}

absl::Status FaultFileSystem::Run(absl::string_view op, absl::string_view path,
                                  const std::function<absl::Status()>& call) {
  const Verdict verdict = Judge(op, path);
  if (verdict.during) {
    verdict.during();
  }
  const absl::Status done = verdict.perform ? call() : absl::OkStatus();
  return verdict.status.ok() ? done : verdict.status;
}

absl::StatusOr<std::unique_ptr<File>> FaultFileSystem::Open(
    absl::string_view path, OpenMode mode) {
  std::unique_ptr<File> file;
  const absl::string_view op = mode == OpenMode::kCreateNew ? "create" : "open";
  RETURN_IF_ERROR(Run(op, path, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(file, base_->Open(path, mode));
    return absl::OkStatus();
  }));
  return std::unique_ptr<File>(
      std::make_unique<FaultFile>(this, std::string(path), std::move(file)));
}

absl::StatusOr<FileInfo> FaultFileSystem::Stat(absl::string_view path) {
  FileInfo info;
  RETURN_IF_ERROR(Run("stat", path, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(info, base_->Stat(path));
    return absl::OkStatus();
  }));
  return info;
}

absl::Status FaultFileSystem::Mkdir(absl::string_view path, uint32_t mode) {
  return Run("mkdir", path, [&] { return base_->Mkdir(path, mode); });
}

absl::Status FaultFileSystem::Unlink(absl::string_view path) {
  return Run("unlink", path, [&] { return base_->Unlink(path); });
}

absl::Status FaultFileSystem::Rename(absl::string_view from,
                                     absl::string_view to) {
  return Run("rename", from, [&] { return base_->Rename(from, to); });
}

absl::Status FaultFileSystem::RenameNoReplace(absl::string_view from,
                                              absl::string_view to) {
  return Run("rename_noreplace", from,
             [&] { return base_->RenameNoReplace(from, to); });
}

absl::Status FaultFileSystem::SyncDir(absl::string_view path) {
  return Run("sync_dir", path, [&] { return base_->SyncDir(path); });
}

absl::Status FaultFileSystem::List(
    absl::string_view path,
    const std::function<void(absl::string_view name)>& entry) {
  return Run("list", path, [&] { return base_->List(path, entry); });
}

absl::StatusOr<std::unique_ptr<FileLock>> FaultFileSystem::Lock(
    absl::string_view path, absl::string_view holder) {
  std::unique_ptr<FileLock> held;
  RETURN_IF_ERROR(Run("lock", path, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(held, base_->Lock(path, holder));
    return absl::OkStatus();
  }));
  return held;
}

absl::StatusOr<SpaceInfo> FaultFileSystem::Space() {
  SpaceInfo space;
  RETURN_IF_ERROR(Run("space", "", [&]() -> absl::Status {
    ASSIGN_OR_RETURN(space, base_->Space());
    return absl::OkStatus();
  }));
  return space;
}

}  // namespace predella::testing
