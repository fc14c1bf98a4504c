// A FileSystem in memory that tells what is in the page cache from what is on
// the disk, and can lose the difference.
//
// Names last only after SyncDir of their directory, contents only after
// Datasync, page by page. Nothing more is promised than that: a power cut may
// keep any part of what was not synced, so a rename may have happened in one
// of its directories only.
#ifndef PREDELLA_TESTS_TESTING_MEM_FILE_SYSTEM_H_
#define PREDELLA_TESTS_TESTING_MEM_FILE_SYSTEM_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"
#include "common/mutex.h"

namespace predella::testing {

// Thread-safe. Files must not be used once this is destroyed.
class MemFileSystem final : public agent::FileSystem {
 public:
  MemFileSystem();

  // What a power cut keeps of everything that was not synced.
  enum class Keep { kNothing, kEverything, kSome };
  // Drops the rest, as `seed` has it for kSome. Open files are dead after
  // it, locks are free.
  void Crash(Keep keep, uint64_t seed = 0) ABSL_LOCKS_EXCLUDED(mu_);

  // Holds what `other` holds, the unsynced included; open files are dead.
  void CloneFrom(MemFileSystem* other) ABSL_LOCKS_EXCLUDED(mu_);

  // Bytes and inodes there are in all; more is MOUNT_FULL.
  void SetCapacity(int64_t bytes, int64_t inodes) ABSL_LOCKS_EXCLUDED(mu_);
  // RenameNoReplace as link and unlink.
  void SetDirectRename(bool supported) ABSL_LOCKS_EXCLUDED(mu_);
  void SetAllocate(bool supported) ABSL_LOCKS_EXCLUDED(mu_);
  void SetRangeSync(bool supported) ABSL_LOCKS_EXCLUDED(mu_);
  // The next Datasync of a path that contains `part` fails as ext4 and XFS
  // do: the pages count as clean from then on, a warm read shows them, a cold
  // one does not, and the disk never has them.
  void FailNextDatasync(absl::string_view part) ABSL_LOCKS_EXCLUDED(mu_);
  // Changes a byte on the disk and in the cache.
  absl::Status FlipByte(absl::string_view path, int64_t offset)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Changes a byte on the disk alone: the cache shows it until it is dropped.
  absl::Status RotByte(absl::string_view path, int64_t offset)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Makes or replaces a file, durably.
  absl::Status PutFile(absl::string_view path, absl::string_view content)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::string> GetFile(absl::string_view path)
      ABSL_LOCKS_EXCLUDED(mu_);
  bool Exists(absl::string_view path) ABSL_LOCKS_EXCLUDED(mu_);
  // The most bytes of one file that were ever neither synced nor written
  // back.
  int64_t most_dirty_bytes() ABSL_LOCKS_EXCLUDED(mu_);

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
  std::string root() const override { return "/mem"; }

 private:
  friend class MemFile;
  friend class MemLock;

  static constexpr int64_t kPage = 4096;
  struct Inode {
    uint64_t number = 0;
    bool directory = false;
    std::string data;
    int64_t durable_size = 0;
    // What the disk holds of pages whose newer content is not synced; absent
    // pages are empty.
    std::map<int64_t, std::string> dirty;
    // As dirty, of pages whose sync failed: they count as clean.
    std::map<int64_t, std::string> lost;
    std::set<int64_t> written_back;  // of the dirty ones
    int64_t allocated = 0;    // bytes up to the last page that has a block
    std::set<int64_t> holes;  // pages below it that have none
    uint32_t mode = 0600;
    uint32_t gid = 0;
    int64_t modify_time_us = 0;
  };
  using InodePtr = std::shared_ptr<Inode>;  // names and open files share it
  using Names = std::map<std::string, InodePtr, std::less<>>;
  struct Directory {
    Names now;
    Names durable;
  };

  absl::Status Fault(absl::StatusCode code, absl::string_view reason,
                     absl::string_view what) const;
  Directory* FindDir(absl::string_view path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The directory of `path`, and its last part in `name`.
  absl::StatusOr<Directory*> Parent(absl::string_view path, std::string* name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  InodePtr Find(absl::string_view path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t LinksOf(const InodePtr& inode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t UsedBytes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  int64_t UsedInodes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Own(const InodePtr& inode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Forget(InodePtr inode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  agent::FileInfo InfoOf(const InodePtr& inode)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status RenameLocked(absl::string_view from, absl::string_view to,
                            bool replace) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // File contents.
  void Touch(Inode* inode, int64_t page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status WriteLocked(Inode* inode, int64_t offset, absl::string_view data)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ResizeLocked(Inode* inode, int64_t size)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static int64_t AllocatedBytes(const Inode& inode) {
    return inode.allocated - static_cast<int64_t>(inode.holes.size()) * kPage;
  }
  // Gives [from, to) blocks; false, and nothing, when there is no room.
  bool Allocate(Inode* inode, int64_t from, int64_t to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status SyncLocked(absl::string_view path, Inode* inode)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CrashInode(Inode* inode, const std::function<bool()>& keep)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void PutPage(Inode* inode, int64_t page, absl::string_view bytes);
  static std::string GetPage(const Inode& inode, int64_t page);

  Mutex mu_;
  std::map<std::string, Directory, std::less<>> dirs_ ABSL_GUARDED_BY(mu_);
  std::set<InodePtr> inodes_ ABSL_GUARDED_BY(mu_);  // all that count
  std::map<std::string, std::string> locks_ ABSL_GUARDED_BY(mu_);
  uint64_t next_inode_ ABSL_GUARDED_BY(mu_) = 2;
  uint64_t era_ ABSL_GUARDED_BY(mu_) = 0;  // power cuts so far
  int64_t capacity_bytes_ ABSL_GUARDED_BY(mu_) = int64_t{1} << 40;
  int64_t capacity_inodes_ ABSL_GUARDED_BY(mu_) = 1000000;
  int64_t used_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t most_dirty_ ABSL_GUARDED_BY(mu_) = 0;
  bool direct_rename_ ABSL_GUARDED_BY(mu_) = true;
  bool allocate_ ABSL_GUARDED_BY(mu_) = true;
  bool range_sync_ ABSL_GUARDED_BY(mu_) = true;
  std::string fail_sync_ ABSL_GUARDED_BY(mu_);
};

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_TESTING_MEM_FILE_SYSTEM_H_
