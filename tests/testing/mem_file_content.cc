// MemFileSystem: contents of files, and what a power cut leaves of them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/errors.h"
#include "common/mutex.h"
#include "tests/testing/mem_file_system.h"

namespace predella::testing {

std::string MemFileSystem::GetPage(const Inode& inode, int64_t page) {
  const size_t at = static_cast<size_t>(page * kPage);
  return at >= inode.data.size()
             ? std::string()
             : inode.data.substr(at, static_cast<size_t>(kPage));
}

void MemFileSystem::PutPage(Inode* inode, int64_t page,
                            absl::string_view bytes) {
  const size_t at = static_cast<size_t>(page * kPage);
  if (at >= inode->data.size()) {
    return;
  }
  const size_t room =
      std::min(inode->data.size() - at, static_cast<size_t>(kPage));
  std::string whole(bytes.substr(0, room));
  whole.resize(room, '\0');
  inode->data.replace(at, room, whole);
}

// Before a page changes: remembers what the disk holds of it.
void MemFileSystem::Touch(Inode* inode, int64_t page) {
  inode->written_back.erase(page);
  if (inode->dirty.count(page) > 0) {
    return;
  }
  const auto lost = inode->lost.find(page);
  if (lost != inode->lost.end()) {
    inode->dirty[page] = std::move(lost->second);
    inode->lost.erase(lost);
  } else {
    inode->dirty[page] = GetPage(*inode, page);
  }
  const int64_t dirty = static_cast<int64_t>(inode->dirty.size()) -
                        static_cast<int64_t>(inode->written_back.size());
  most_dirty_ = std::max(most_dirty_, dirty * kPage);
}

bool MemFileSystem::Allocate(Inode* inode, int64_t from, int64_t to) {
  if (to <= from) {
    return true;
  }
  const int64_t first = from / kPage;
  const int64_t end = (to + kPage - 1) / kPage;
  const int64_t allocated = inode->allocated / kPage;
  const auto begin = inode->holes.lower_bound(first);
  const auto past = inode->holes.lower_bound(end);
  const int64_t more =
      (std::distance(begin, past) +
       std::max<int64_t>(0, end - std::max(first, allocated))) *
      kPage;
  if (UsedBytes() + more > capacity_bytes_) {
    return more == 0;
  }
  inode->holes.erase(begin, past);
  for (int64_t page = allocated; page < first; ++page) {
    inode->holes.insert(inode->holes.end(), page);
  }
  inode->allocated = std::max(inode->allocated, end * kPage);
  used_bytes_ += more;
  return true;
}

void MemFileSystem::ResizeLocked(Inode* inode, int64_t size) {
  const int64_t now = static_cast<int64_t>(inode->data.size());
  const int64_t first = std::min(size, now) / kPage;
  for (int64_t page = first; page * kPage < now; ++page) {
    Touch(inode, page);
  }
  inode->data.resize(static_cast<size_t>(size), '\0');
  const int64_t kept = (size + kPage - 1) / kPage * kPage;
  if (inode->allocated > kept) {
    used_bytes_ -= AllocatedBytes(*inode);
    inode->allocated = kept;
    inode->holes.erase(inode->holes.lower_bound(kept / kPage),
                       inode->holes.end());
    used_bytes_ += AllocatedBytes(*inode);
  }
}

absl::Status MemFileSystem::WriteLocked(Inode* inode, int64_t offset,
                                        absl::string_view data) {
  const absl::string_view wanted = data;
  // As a kernel does: what fits is written, then the call fails.
  while (!data.empty() &&
         !Allocate(inode, offset, offset + static_cast<int64_t>(data.size()))) {
    const size_t less = data.size() > static_cast<size_t>(kPage)
                            ? data.size() - static_cast<size_t>(kPage)
                            : 0;
    data = data.substr(0, less);
  }
  const int64_t end = offset + static_cast<int64_t>(data.size());
  if (!data.empty()) {
    for (int64_t page = offset / kPage; page * kPage < end; ++page) {
      Touch(inode, page);
    }
    if (end > static_cast<int64_t>(inode->data.size())) {
      inode->data.resize(static_cast<size_t>(end), '\0');
    }
    std::copy(data.begin(), data.end(), std::next(inode->data.begin(), offset));
  }
  return data.size() == wanted.size()
             ? absl::OkStatus()
             : Fault(absl::StatusCode::kResourceExhausted, reason::kMountFull,
                     absl::StrCat("space for ", wanted.size(), " bytes"));
}

absl::Status MemFileSystem::SyncLocked(absl::string_view path, Inode* inode) {
  if (!fail_sync_.empty() && path.find(fail_sync_) != absl::string_view::npos) {
    fail_sync_.clear();
    inode->lost.merge(inode->dirty);
    inode->dirty.clear();
    inode->written_back.clear();
    return Fault(absl::StatusCode::kUnavailable, reason::kMountFailed,
                 absl::StrCat(path, ": sync"));
  }
  inode->dirty.clear();
  inode->written_back.clear();
  inode->durable_size = static_cast<int64_t>(inode->data.size());
  return absl::OkStatus();
}

void MemFileSystem::CrashInode(Inode* inode,
                               const std::function<bool()>& keep) {
  const int64_t now = static_cast<int64_t>(inode->data.size());
  if (now != inode->durable_size && !keep()) {
    inode->data.resize(static_cast<size_t>(inode->durable_size), '\0');
  }
  for (const auto& [page, old] : inode->dirty) {
    if (!keep()) {
      PutPage(inode, page, old);
    }
  }
  for (const auto& [page, old] : inode->lost) {
    PutPage(inode, page, old);
  }
  inode->dirty.clear();
  inode->lost.clear();
  inode->written_back.clear();
  inode->durable_size = static_cast<int64_t>(inode->data.size());
}

void MemFileSystem::Crash(Keep how, uint64_t seed) {
  const MutexLock lock(&mu_);
  ++era_;
  locks_.clear();
  std::mt19937_64 engine(seed);
  const auto keep = [&] {
    return how == Keep::kEverything ||
           (how == Keep::kSome && engine() % 2 == 0);
  };
  for (auto& [path, dir] : dirs_) {
    Names after = dir.durable;
    Names all = dir.now;
    all.insert(dir.durable.begin(), dir.durable.end());
    for (const auto& [name, either] : all) {
      const auto now = dir.now.find(name);
      const auto durable = dir.durable.find(name);
      const bool same = now != dir.now.end() && durable != dir.durable.end() &&
                        now->second == durable->second;
      if (same || !keep()) {
        continue;
      }
      if (now == dir.now.end()) {
        after.erase(name);
      } else {
        after[name] = now->second;
      }
    }
    dir.now = after;
    dir.durable = std::move(after);
  }
  // In the order of their numbers: a set of pointers has none that repeats.
  std::map<uint64_t, Inode*> ordered;
  for (const InodePtr& inode : inodes_) {
    ordered[inode->number] = inode.get();
  }
  for (const auto& [number, inode] : ordered) {
    CrashInode(inode, keep);
  }
  // Directories whose own name is gone.
  for (auto it = dirs_.begin(); it != dirs_.end();) {
    const bool gone = !it->first.empty() && Find(it->first) == nullptr;
    it = gone ? dirs_.erase(it) : std::next(it);
  }
  ForgetAll();
}

absl::Status MemFileSystem::FlipByte(absl::string_view path, int64_t offset) {
  const MutexLock lock(&mu_);
  const InodePtr inode = Find(path);
  if (inode == nullptr || offset >= static_cast<int64_t>(inode->data.size())) {
    return absl::NotFoundError(absl::StrCat(path, " at ", offset));
  }
  char& byte = inode->data[static_cast<size_t>(offset)];
  byte = static_cast<char>(byte ^ 0x41);
  return absl::OkStatus();
}

absl::Status MemFileSystem::RotByte(absl::string_view path, int64_t offset) {
  const MutexLock lock(&mu_);
  const InodePtr inode = Find(path);
  if (inode == nullptr || offset >= static_cast<int64_t>(inode->data.size())) {
    return absl::NotFoundError(absl::StrCat(path, " at ", offset));
  }
  const int64_t page = offset / kPage;
  std::string disk = GetPage(*inode, page);
  char& byte = disk[static_cast<size_t>(offset % kPage)];
  byte = static_cast<char>(byte ^ 0x41);
  inode->lost[page] = std::move(disk);
  return absl::OkStatus();
}

absl::Status MemFileSystem::PutFile(absl::string_view path,
                                    absl::string_view content) {
  const MutexLock lock(&mu_);
  std::string name;
  const auto dir = Parent(path, &name);
  if (!dir.ok()) {
    return dir.status();
  }
  auto inode = std::make_shared<Inode>();
  inode->number = next_inode_++;
  (*dir)->now[name] = inode;
  (*dir)->durable[name] = inode;
  Own(inode);
  const absl::Status written = WriteLocked(inode.get(), 0, content);
  return written.ok() ? SyncLocked(path, inode.get()) : written;
}

absl::StatusOr<std::string> MemFileSystem::GetFile(absl::string_view path) {
  const MutexLock lock(&mu_);
  const InodePtr inode = Find(path);
  if (inode == nullptr) {
    return absl::NotFoundError(absl::StrCat(path, " is not there"));
  }
  return inode->data;
}

void MemFileSystem::SetCapacity(int64_t bytes, int64_t inodes) {
  const MutexLock lock(&mu_);
  capacity_bytes_ = bytes;
  capacity_inodes_ = inodes;
}

void MemFileSystem::SetDirectRename(bool supported) {
  const MutexLock lock(&mu_);
  direct_rename_ = supported;
}

void MemFileSystem::SetAllocate(bool supported) {
  const MutexLock lock(&mu_);
  allocate_ = supported;
}

void MemFileSystem::SetRangeSync(bool supported) {
  const MutexLock lock(&mu_);
  range_sync_ = supported;
}

void MemFileSystem::FailNextDatasync(absl::string_view part) {
  const MutexLock lock(&mu_);
  fail_sync_ = std::string(part);
}

bool MemFileSystem::Exists(absl::string_view path) {
  const MutexLock lock(&mu_);
  return Find(path) != nullptr;
}

int64_t MemFileSystem::most_dirty_bytes() {
  const MutexLock lock(&mu_);
  return most_dirty_;
}

void MemFileSystem::CloneFrom(MemFileSystem* other) {
  std::map<std::string, Directory, std::less<>> dirs;
  std::set<InodePtr> inodes;
  int64_t used = 0;
  uint64_t next = 0;
  {
    const MutexLock lock(&other->mu_);
    std::map<InodePtr, InodePtr> copies;
    const auto copy_of = [&](const Names& names) {
      Names out;
      for (const auto& [name, inode] : names) {
        InodePtr& copy = copies[inode];
        if (copy == nullptr) {
          copy = std::make_shared<Inode>(*inode);
          inodes.insert(copy);
        }
        out[name] = copy;
      }
      return out;
    };
    for (const auto& [path, dir] : other->dirs_) {
      dirs[path] = Directory{copy_of(dir.now), copy_of(dir.durable)};
    }
    used = other->used_bytes_;
    next = other->next_inode_;
  }
  const MutexLock lock(&mu_);
  ++era_;
  dirs_ = std::move(dirs);
  inodes_ = std::move(inodes);
  used_bytes_ = used;
  next_inode_ = next;
}

}  // namespace predella::testing
