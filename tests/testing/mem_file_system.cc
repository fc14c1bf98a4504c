#include "tests/testing/mem_file_system.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

class MemLock final : public FileLock {
 public:
  MemLock(MemFileSystem* fs, std::string path, uint64_t era)
      : fs_(fs), path_(std::move(path)), era_(era) {}
  ~MemLock() override {
    const MutexLock lock(&fs_->mu_);
    if (fs_->era_ == era_) {
      fs_->locks_.erase(path_);
    }
  }

 private:
  MemFileSystem* const fs_;
  const std::string path_;
  const uint64_t era_;
};

class MemFile final : public File {
 public:
  MemFile(MemFileSystem* fs, std::string path, MemFileSystem::InodePtr inode,
          bool writable, uint64_t era)
      : fs_(fs),
        path_(std::move(path)),
        inode_(std::move(inode)),
        writable_(writable),
        era_(era) {}
  ~MemFile() override {
    const MutexLock lock(&fs_->mu_);
    fs_->Forget(std::move(inode_));
  }

  absl::StatusOr<size_t> Pread(int64_t offset, size_t size,
                               char* out) override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(false));
    const std::string& data = inode_->data;
    if (offset >= static_cast<int64_t>(data.size())) {
      return size_t{0};
    }
    return data.copy(out, size, static_cast<size_t>(offset));
  }
  absl::Status Pwrite(int64_t offset, absl::string_view data) override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(true));
    return fs_->WriteLocked(inode_.get(), offset, data);
  }
  absl::Status Datasync() override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(false));
    return fs_->SyncLocked(path_, inode_.get());
  }
  absl::Status Truncate(int64_t size) override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(true));
    fs_->ResizeLocked(inode_.get(), size);
    return absl::OkStatus();
  }
  absl::Status Allocate(int64_t offset, int64_t length) override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(true));
    if (!fs_->allocate_) {
      return absl::UnimplementedError("no fallocate here");
    }
    return fs_->Allocate(inode_.get(), offset, offset + length)
               ? absl::OkStatus()
               : fs_->Fault(absl::StatusCode::kResourceExhausted,
                            reason::kMountFull, "allocate");
  }
  absl::Status StartWriteback(int64_t, int64_t) override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(true));
    return fs_->range_sync_ ? absl::OkStatus()
                            : absl::UnimplementedError("no range sync here");
  }
  absl::Status WaitWriteback(int64_t offset, int64_t length) override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(true));
    for (int64_t page = offset / MemFileSystem::kPage;
         page * MemFileSystem::kPage < offset + length; ++page) {
      if (inode_->dirty.count(page) > 0) {
        inode_->written_back.insert(page);
      }
    }
    return absl::OkStatus();
  }
  absl::Status DropCache(int64_t, int64_t) override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(false));
    // The clean pages that never reached the disk show themselves.
    for (const auto& [page, old] : inode_->lost) {
      MemFileSystem::PutPage(inode_.get(), page, old);
    }
    inode_->lost.clear();
    return absl::OkStatus();
  }
  absl::StatusOr<FileInfo> Stat() override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(false));
    return fs_->InfoOf(inode_);
  }
  absl::Status SetOwnership(uint32_t mode,
                            std::optional<uint32_t> gid) override {
    const MutexLock lock(&fs_->mu_);
    RETURN_IF_ERROR(Check(true));
    inode_->mode = mode;
    inode_->gid = gid.value_or(inode_->gid);
    return absl::OkStatus();
  }

 private:
  absl::Status Check(bool write) ABSL_EXCLUSIVE_LOCKS_REQUIRED(fs_->mu_) {
    if (era_ != fs_->era_) {
      return fs_->Fault(absl::StatusCode::kUnavailable, reason::kMountFailed,
                        absl::StrCat(path_, " of before the power cut"));
    }
    if (write && !writable_) {
      return fs_->Fault(absl::StatusCode::kPermissionDenied,
                        reason::kMountPermission,
                        absl::StrCat(path_, ", opened to read"));
    }
    return absl::OkStatus();
  }

  MemFileSystem* const fs_;
  const std::string path_;
  MemFileSystem::InodePtr inode_;
  const bool writable_;
  const uint64_t era_;
};

MemFileSystem::MemFileSystem() {
  const MutexLock lock(&mu_);
  dirs_[""];
}

absl::Status MemFileSystem::Fault(absl::StatusCode code, absl::string_view why,
                                  absl::string_view what) const {
  return MakeError(code, why, absl::StrCat("could not use ", what));
}

MemFileSystem::Directory* MemFileSystem::FindDir(absl::string_view path) {
  const auto it = dirs_.find(std::string(path));
  return it == dirs_.end() ? nullptr : &it->second;
}

absl::StatusOr<MemFileSystem::Directory*> MemFileSystem::Parent(
    absl::string_view path, std::string* name) {
  const size_t slash = path.rfind('/');
  const bool top = slash == absl::string_view::npos;
  *name = std::string(top ? path : path.substr(slash + 1));
  Directory* const dir = FindDir(top ? "" : path.substr(0, slash));
  if (dir == nullptr) {
    return absl::NotFoundError(absl::StrCat("no directory for ", path));
  }
  return dir;
}

MemFileSystem::InodePtr MemFileSystem::Find(absl::string_view path) {
  std::string name;
  const auto dir = Parent(path, &name);
  if (!dir.ok()) {
    return nullptr;
  }
  const auto it = (*dir)->now.find(name);
  return it == (*dir)->now.end() ? nullptr : it->second;
}

int64_t MemFileSystem::LinksOf(const InodePtr& inode) {
  int64_t links = 0;
  for (const auto& [path, dir] : dirs_) {
    for (const auto& [name, other] : dir.now) {
      links += other == inode ? 1 : 0;
    }
  }
  return links;
}

void MemFileSystem::Own(const InodePtr& inode) { inodes_.insert(inode); }

// Frees it when no name, no durable name and no open file holds it any more.
void MemFileSystem::Forget(InodePtr inode) {
  constexpr int64_t kOurs = 2;  // `inode` and inodes_
  if (inode != nullptr && inode.use_count() == kOurs) {
    used_bytes_ -= AllocatedBytes(*inode);
    inodes_.erase(inode);
  }
}

void MemFileSystem::ForgetAll() {
  for (auto it = inodes_.begin(); it != inodes_.end();) {
    if (it->use_count() == 1) {
      used_bytes_ -= AllocatedBytes(**it);
      it = inodes_.erase(it);
    } else {
      ++it;
    }
  }
}

int64_t MemFileSystem::UsedBytes() { return used_bytes_; }

int64_t MemFileSystem::UsedInodes() {
  return static_cast<int64_t>(inodes_.size());
}

FileInfo MemFileSystem::InfoOf(const InodePtr& inode) {
  FileInfo info;
  info.regular = !inode->directory;
  info.directory = inode->directory;
  info.size_bytes = static_cast<int64_t>(inode->data.size());
  info.allocated_bytes = AllocatedBytes(*inode);
  info.inode = inode->number;
  info.links = LinksOf(inode);
  info.mode = inode->mode;
  info.readable = inode->directory || inode->mode != 0;
  info.gid = inode->gid;
  info.modify_time_us = inode->modify_time_us;
  return info;
}

absl::StatusOr<std::unique_ptr<File>> MemFileSystem::Open(
    absl::string_view path, OpenMode mode) {
  const MutexLock lock(&mu_);
  std::string name;
  ASSIGN_OR_RETURN(Directory* const dir, Parent(path, &name));
  const auto it = dir->now.find(name);
  InodePtr inode;
  if (mode == OpenMode::kCreateNew) {
    if (it != dir->now.end()) {
      return absl::AlreadyExistsError(absl::StrCat(path, " exists"));
    }
    if (UsedInodes() >= capacity_inodes_) {
      return Fault(absl::StatusCode::kResourceExhausted, reason::kMountFull,
                   absl::StrCat(path, ": no inode left"));
    }
    inode = std::make_shared<Inode>();
    inode->number = next_inode_++;
    dir->now[name] = inode;
    Own(inode);
  } else {
    if (it == dir->now.end()) {
      return absl::NotFoundError(absl::StrCat(path, " is not there"));
    }
    inode = it->second;
    if (inode->directory || LinksOf(inode) != 1 || inode->mode == 0) {
      return Fault(absl::StatusCode::kPermissionDenied,
                   reason::kMountPermission, path);
    }
  }
  return std::unique_ptr<File>(
      std::make_unique<MemFile>(this, std::string(path), std::move(inode),
                                mode != OpenMode::kRead, era_));
}

absl::StatusOr<FileInfo> MemFileSystem::Stat(absl::string_view path) {
  const MutexLock lock(&mu_);
  if (path.empty()) {
    FileInfo info;
    info.directory = true;
    info.inode = 1;
    info.links = 1;
    info.mode = 0750;
    info.gid = 42;
    return info;
  }
  const InodePtr inode = Find(path);
  if (inode == nullptr) {
    return absl::NotFoundError(absl::StrCat(path, " is not there"));
  }
  return InfoOf(inode);
}

absl::Status MemFileSystem::Mkdir(absl::string_view path, uint32_t mode) {
  const MutexLock lock(&mu_);
  std::string name;
  ASSIGN_OR_RETURN(Directory* const dir, Parent(path, &name));
  if (dir->now.count(name) > 0) {
    return absl::AlreadyExistsError(absl::StrCat(path, " exists"));
  }
  auto inode = std::make_shared<Inode>();
  inode->number = next_inode_++;
  inode->directory = true;
  inode->mode = mode;
  dir->now[name] = inode;
  Own(inode);
  dirs_[std::string(path)];
  return absl::OkStatus();
}

absl::Status MemFileSystem::Unlink(absl::string_view path) {
  const MutexLock lock(&mu_);
  std::string name;
  ASSIGN_OR_RETURN(Directory* const dir, Parent(path, &name));
  const auto it = dir->now.find(name);
  if (it == dir->now.end()) {
    return absl::NotFoundError(absl::StrCat(path, " is not there"));
  }
  if (it->second->directory) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is a directory"));
  }
  InodePtr gone = it->second;
  dir->now.erase(it);
  Forget(std::move(gone));
  return absl::OkStatus();
}

absl::Status MemFileSystem::Rename(absl::string_view from,
                                   absl::string_view to) {
  const MutexLock lock(&mu_);
  return RenameLocked(from, to, /*replace=*/true);
}

absl::Status MemFileSystem::RenameNoReplace(absl::string_view from,
                                            absl::string_view to) {
  const MutexLock lock(&mu_);
  return RenameLocked(from, to, /*replace=*/false);
}

absl::Status MemFileSystem::RenameLocked(absl::string_view from,
                                         absl::string_view to, bool replace) {
  std::string from_name;
  std::string to_name;
  ASSIGN_OR_RETURN(Directory* const source, Parent(from, &from_name));
  ASSIGN_OR_RETURN(Directory* const target, Parent(to, &to_name));
  const auto it = source->now.find(from_name);
  if (it == source->now.end()) {
    return absl::NotFoundError(absl::StrCat(from, " is not there"));
  }
  const InodePtr inode = it->second;
  const auto there = target->now.find(to_name);
  if (!replace && there != target->now.end() &&
      (direct_rename_ || there->second != inode)) {
    return absl::AlreadyExistsError(absl::StrCat(to, " exists"));
  }
  InodePtr replaced = there == target->now.end() ? nullptr : there->second;
  target->now[to_name] = inode;
  source->now.erase(from_name);
  Forget(std::move(replaced));
  return absl::OkStatus();
}

absl::Status MemFileSystem::SyncDir(absl::string_view path) {
  const MutexLock lock(&mu_);
  Directory* const dir = FindDir(path);
  if (dir == nullptr) {
    return absl::NotFoundError(absl::StrCat(path, " is not there"));
  }
  Names old = std::exchange(dir->durable, dir->now);
  for (auto& [name, inode] : old) {
    Forget(std::move(inode));
  }
  return absl::OkStatus();
}

absl::Status MemFileSystem::List(
    absl::string_view path,
    const std::function<void(absl::string_view name)>& entry) {
  std::vector<std::string> names;
  {
    const MutexLock lock(&mu_);
    const Directory* const dir = FindDir(path);
    if (dir == nullptr) {
      return absl::NotFoundError(absl::StrCat(path, " is not there"));
    }
    for (const auto& [name, inode] : dir->now) {
      names.push_back(name);
    }
  }
  for (const std::string& name : names) {
    entry(name);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<FileLock>> MemFileSystem::Lock(
    absl::string_view path, absl::string_view holder) {
  const MutexLock lock(&mu_);
  if (Find(path) == nullptr) {
    return absl::NotFoundError(absl::StrCat(path, " is not there"));
  }
  const auto [it, taken] = locks_.emplace(path, holder);
  if (!taken) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kMountInUse,
                     absl::StrCat("in use by ", it->second));
  }
  return std::unique_ptr<FileLock>(
      std::make_unique<MemLock>(this, std::string(path), era_));
}

absl::StatusOr<SpaceInfo> MemFileSystem::Space() {
  const MutexLock lock(&mu_);
  SpaceInfo space;
  space.size_bytes = capacity_bytes_;
  space.free_bytes = space.available_bytes = capacity_bytes_ - UsedBytes();
  space.size_inodes = capacity_inodes_;
  space.available_inodes = capacity_inodes_ - UsedInodes();
  space.device = 7;
  return space;
}

}  // namespace predella::testing
