#include "agent/fs/watched_file_system.h"

#include <utility>

#include "absl/time/time.h"

namespace predella::agent {
namespace {

using Kind = DiskCalls::Kind;

// What file systems without extents need to give room to a large file.
constexpr absl::Duration kSyncPerGib = absl::Seconds(1);

class WatchedFile final : public File {
 public:
  WatchedFile(DiskCalls* calls, std::string path, std::unique_ptr<File> base)
      : calls_(calls), path_(std::move(path)), base_(std::move(base)) {}
  // Closing may write, on NFS.
  ~WatchedFile() override {
    const DiskCalls::Call call(calls_, Kind::kSync, "close", path_);
    base_.reset();
  }
  absl::StatusOr<size_t> Pread(int64_t offset, size_t size,
                               char* out) override {
    const DiskCalls::Call call(calls_, Kind::kData, "pread", path_);
    return base_->Pread(offset, size, out);
  }
  absl::Status Pwrite(int64_t offset, absl::string_view data) override {
    const DiskCalls::Call call(calls_, Kind::kData, "pwrite", path_);
    return base_->Pwrite(offset, data);
  }
  absl::Status Datasync() override {
    const DiskCalls::Call call(calls_, Kind::kSync, "fdatasync", path_);
    return base_->Datasync();
  }
  absl::Status Truncate(int64_t size) override {
    const DiskCalls::Call call(calls_, Kind::kSync, "ftruncate", path_);
    return base_->Truncate(size);
  }
  absl::Status Allocate(int64_t offset, int64_t length) override {
    const DiskCalls::Call call(calls_, Kind::kSync, "fallocate", path_,
                               kSyncPerGib * (length >> 30));
    return base_->Allocate(offset, length);
  }
  absl::Status StartWriteback(int64_t offset, int64_t length) override {
    const DiskCalls::Call call(calls_, Kind::kSync, "sync_file_range", path_);
    return base_->StartWriteback(offset, length);
  }
  absl::Status WaitWriteback(int64_t offset, int64_t length) override {
    const DiskCalls::Call call(calls_, Kind::kSync, "sync_file_range", path_);
    return base_->WaitWriteback(offset, length);
  }
  absl::Status DropCache(int64_t offset, int64_t length) override {
    const DiskCalls::Call call(calls_, Kind::kData, "posix_fadvise", path_);
    return base_->DropCache(offset, length);
  }
  absl::StatusOr<FileInfo> Stat() override {
    const DiskCalls::Call call(calls_, Kind::kMetadata, "fstat", path_);
    return base_->Stat();
  }
  std::optional<int> ReadDescriptor() override {
    return base_->ReadDescriptor();  // asks only the kernel's table
  }
  absl::Status SetOwnership(uint32_t mode,
                            std::optional<uint32_t> gid) override {
    const DiskCalls::Call call(calls_, Kind::kMetadata, "fchown", path_);
    return base_->SetOwnership(mode, gid);
  }

 private:
  DiskCalls* const calls_;
  const std::string path_;
  std::unique_ptr<File> base_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WatchedFileSystem>> WatchedFileSystem::Open(
    DiskCalls* calls, absl::string_view path,
    const std::function<absl::StatusOr<std::unique_ptr<FileSystem>>()>& open) {
  const DiskCalls::Call call(calls, Kind::kMetadata, "open", path);
  absl::StatusOr<std::unique_ptr<FileSystem>> base = open();
  if (!base.ok()) {
    return base.status();
  }
  auto watched = std::make_unique<WatchedFileSystem>(base->get(), calls);
  watched->owned_ = *std::move(base);
  return watched;
}

absl::StatusOr<std::unique_ptr<File>> WatchedFileSystem::Open(
    absl::string_view path, OpenMode mode) {
  const DiskCalls::Call call(calls_, Kind::kMetadata, "open", path);
  absl::StatusOr<std::unique_ptr<File>> file = base_->Open(path, mode);
  if (!file.ok()) {
    return file.status();
  }
  return std::unique_ptr<File>(std::make_unique<WatchedFile>(
      calls_, std::string(path), *std::move(file)));
}

absl::StatusOr<FileInfo> WatchedFileSystem::Stat(absl::string_view path) {
  const DiskCalls::Call call(calls_, Kind::kMetadata, "stat", path);
  return base_->Stat(path);
}

absl::Status WatchedFileSystem::Mkdir(absl::string_view path, uint32_t mode) {
  const DiskCalls::Call call(calls_, Kind::kMetadata, "mkdir", path);
  return base_->Mkdir(path, mode);
}

absl::Status WatchedFileSystem::Unlink(absl::string_view path) {
  // Frees the blocks of a large file before it returns.
  const DiskCalls::Call call(calls_, Kind::kSync, "unlink", path);
  return base_->Unlink(path);
}

absl::Status WatchedFileSystem::Rename(absl::string_view from,
                                       absl::string_view to) {
  const DiskCalls::Call call(calls_, Kind::kMetadata, "rename", from);
  return base_->Rename(from, to);
}

absl::Status WatchedFileSystem::RenameNoReplace(absl::string_view from,
                                                absl::string_view to) {
  const DiskCalls::Call call(calls_, Kind::kMetadata, "rename", from);
  return base_->RenameNoReplace(from, to);
}

absl::Status WatchedFileSystem::SyncDir(absl::string_view path) {
  const DiskCalls::Call call(calls_, Kind::kSync, "fsync", path);
  return base_->SyncDir(path);
}

absl::Status WatchedFileSystem::List(
    absl::string_view path,
    const std::function<void(absl::string_view name)>& entry) {
  std::optional<DiskCalls::Call> call;
  call.emplace(calls_, Kind::kSync, "readdir", path);
  return base_->List(path, [&](absl::string_view name) {
    call.reset();
    entry(name);
    call.emplace(calls_, Kind::kSync, "readdir", path);
  });
}

absl::StatusOr<std::unique_ptr<FileLock>> WatchedFileSystem::Lock(
    absl::string_view path, absl::string_view holder) {
  // Who holds it is written and synced, too.
  const DiskCalls::Call call(calls_, Kind::kSync, "flock", path);
  return base_->Lock(path, holder);
}

absl::StatusOr<SpaceInfo> WatchedFileSystem::Space() {
  const DiskCalls::Call call(calls_, Kind::kMetadata, "statfs", "");
  return base_->Space();
}

absl::Status WatchedFileSystem::CheckRoot() {
  const DiskCalls::Call call(calls_, Kind::kMetadata, "stat", "");
  return base_->CheckRoot();
}

}  // namespace predella::agent
