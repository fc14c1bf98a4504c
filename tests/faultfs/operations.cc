#include "tests/faultfs/operations.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

namespace predella::faultfs {
namespace {

struct Handle {
  int fd = -1;
  std::string path;  // at the open: a removed file has no other
};

PassThrough* Self() {
  return static_cast<PassThrough*>(fuse_get_context()->private_data);
}

// FUSE says "/a/b"; below the root it is "a/b".
const char* Below(const char* path) { return path[1] == '\0' ? "." : path + 1; }

Handle* HandleOf(const fuse_file_info* info) {
  return reinterpret_cast<Handle*>(info->fh);
}

std::string NameOf(const char* path, const fuse_file_info* info) {
  if (path != nullptr) {
    return Below(path);
  }
  return info != nullptr && info->fh != 0 ? HandleOf(info)->path : "";
}

Verdict Ask(const char* operation, const char* path,
            const fuse_file_info* info = nullptr, const char* other = nullptr) {
  return Self()->rules->Ask(operation, NameOf(path, info),
                            other == nullptr ? "" : Below(other));
}

// What FUSE wants to hear of a call that says -1 and errno.
int Answer(int result) { return result < 0 ? -errno : 0; }

// An error of the rules, or the call's own.
template <typename Call>
int Do(const char* operation, const char* path, Call call) {
  const Verdict verdict = Ask(operation, path);
  return verdict.error != 0 ? -verdict.error : Answer(call());
}

int GetAttr(const char* path, struct stat* out, fuse_file_info* info) {
  const Verdict verdict = Ask("getattr", path, info);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  return Answer(info != nullptr ? ::fstat(HandleOf(info)->fd, out)
                                : ::fstatat(Self()->root, Below(path), out,
                                            AT_SYMLINK_NOFOLLOW));
}

int ReadLink(const char* path, char* out, size_t size) {
  return Do("readlink", path, [&] {
    const ssize_t n = ::readlinkat(Self()->root, Below(path), out, size - 1);
    if (n >= 0) {
      out[n] = '\0';
    }
    return n < 0 ? -1 : 0;
  });
}

int MakeDirectory(const char* path, mode_t mode) {
  return Do("mkdir", path,
            [&] { return ::mkdirat(Self()->root, Below(path), mode); });
}

int Unlink(const char* path) {
  return Do("unlink", path,
            [&] { return ::unlinkat(Self()->root, Below(path), 0); });
}

int RemoveDirectory(const char* path) {
  return Do("rmdir", path, [&] {
    return ::unlinkat(Self()->root, Below(path), AT_REMOVEDIR);
  });
}

int SymLink(const char* target, const char* path) {
  return Do("symlink", path,
            [&] { return ::symlinkat(target, Self()->root, Below(path)); });
}

int Rename(const char* from, const char* to, unsigned flags) {
  const Verdict verdict = Ask("rename", from, nullptr, to);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  const int root = Self()->root;
  return Answer(::renameat2(root, Below(from), root, Below(to), flags));
}

int Link(const char* from, const char* to) {
  const Verdict verdict = Ask("link", from, nullptr, to);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  const int root = Self()->root;
  return Answer(::linkat(root, Below(from), root, Below(to), 0));
}

int ChangeMode(const char* path, mode_t mode, fuse_file_info* info) {
  return Do("chmod", path, [&] {
    return info != nullptr ? ::fchmod(HandleOf(info)->fd, mode)
                           : ::fchmodat(Self()->root, Below(path), mode, 0);
  });
}

int ChangeOwner(const char* path, uid_t uid, gid_t gid, fuse_file_info* info) {
  return Do("chown", path, [&] {
    return info != nullptr ? ::fchown(HandleOf(info)->fd, uid, gid)
                           : ::fchownat(Self()->root, Below(path), uid, gid,
                                        AT_SYMLINK_NOFOLLOW);
  });
}

int SetTimes(const char* path, const struct timespec times[2],
             fuse_file_info* info) {
  return Do("utimens", path, [&] {
    return info != nullptr ? ::futimens(HandleOf(info)->fd, times)
                           : ::utimensat(Self()->root, Below(path), times,
                                         AT_SYMLINK_NOFOLLOW);
  });
}

int Truncate(const char* path, off_t size, fuse_file_info* info) {
  const Verdict verdict = Ask("truncate", path, info);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  if (info != nullptr) {
    return Answer(::ftruncate(HandleOf(info)->fd, size));
  }
  const int fd =
      ::openat(Self()->root, Below(path), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    return -errno;
  }
  const int answer = Answer(::ftruncate(fd, size));
  ::close(fd);
  return answer;
}

// Common to open, create and opendir.
int OpenHandle(const char* operation, const char* path, int flags, mode_t mode,
               fuse_file_info* info) {
  const Verdict verdict = Ask(operation, path);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  const int fd = ::openat(Self()->root, Below(path),
                          (flags & ~O_DIRECT) | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) {
    return -errno;
  }
  auto handle = std::make_unique<Handle>();
  handle->fd = fd;
  handle->path = Below(path);
  info->fh = reinterpret_cast<uint64_t>(handle.release());
  info->direct_io = Self()->direct ? 1 : 0;
  return 0;
}

int Open(const char* path, fuse_file_info* info) {
  return OpenHandle("open", path, info->flags & ~(O_CREAT | O_EXCL), 0, info);
}

int Create(const char* path, mode_t mode, fuse_file_info* info) {
  return OpenHandle("create", path, info->flags | O_CREAT, mode, info);
}

int OpenDirectory(const char* path, fuse_file_info* info) {
  return OpenHandle("opendir", path, O_RDONLY | O_DIRECTORY, 0, info);
}

int Release(const char*, fuse_file_info* info) {
  const std::unique_ptr<Handle> handle(HandleOf(info));
  return Answer(::close(handle->fd));
}

int Read(const char* path, char* out, size_t size, off_t offset,
         fuse_file_info* info) {
  const Verdict verdict = Ask("read", path, info);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  const ssize_t n = ::pread(HandleOf(info)->fd, out,
                            verdict.half ? (size + 1) / 2 : size, offset);
  if (n > 0 && verdict.corrupt) {
    out[n / 2] = static_cast<char>(out[n / 2] ^ 1);
  }
  return n < 0 ? -errno : static_cast<int>(n);
}

int Write(const char* path, const char* data, size_t size, off_t offset,
          fuse_file_info* info) {
  const Verdict verdict = Ask("write", path, info);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  if (verdict.lie) {
    return static_cast<int>(size);
  }
  std::vector<char> changed;
  if (verdict.corrupt && size > 0) {
    changed.assign(data, data + size);
    changed[size / 2] = static_cast<char>(changed[size / 2] ^ 1);
    data = changed.data();
  }
  const ssize_t n = ::pwrite(HandleOf(info)->fd, data,
                             verdict.half ? (size + 1) / 2 : size, offset);
  return n < 0 ? -errno : static_cast<int>(n);
}

int Flush(const char* path, fuse_file_info* info) {
  return -Ask("flush", path, info).error;
}

int Sync(const char* operation, const char* path, int data_only,
         const fuse_file_info* info) {
  const Verdict verdict = Ask(operation, path, info);
  if (verdict.error != 0 || verdict.lie) {
    return -verdict.error;
  }
  const int fd = HandleOf(info)->fd;
  return Answer(data_only != 0 ? ::fdatasync(fd) : ::fsync(fd));
}

int SyncFile(const char* path, int data_only, fuse_file_info* info) {
  return Sync(data_only != 0 ? "fdatasync" : "fsync", path, data_only, info);
}

int SyncDirectory(const char* path, int data_only, fuse_file_info* info) {
  return Sync("fsyncdir", path, data_only, info);
}

int ReadDirectory(const char* path, void* buffer, fuse_fill_dir_t fill, off_t,
                  fuse_file_info* info, fuse_readdir_flags) {
  const Verdict verdict = Ask("readdir", path, info);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  // A stream of its own: the handle's position is shared.
  const int fd =
      ::openat(HandleOf(info)->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const directory = fd < 0 ? nullptr : ::fdopendir(fd);
  if (directory == nullptr) {
    return -errno;
  }
  while (true) {
    errno = 0;
    const dirent* const entry = ::readdir(directory);
    if (entry == nullptr) {
      break;
    }
    struct stat st {};
    st.st_ino = entry->d_ino;
    st.st_mode = static_cast<mode_t>(entry->d_type) << 12;
    // All at once: libfuse keeps the list and cuts it into replies.
    fill(buffer, entry->d_name, &st, 0, static_cast<fuse_fill_dir_flags>(0));
  }
  const int error = errno;
  ::closedir(directory);
  return -error;
}

int StatFs(const char* path, struct statvfs* out) {
  return Do("statfs", path, [&] { return ::fstatvfs(Self()->root, out); });
}

int Allocate(const char* path, int mode, off_t offset, off_t length,
             fuse_file_info* info) {
  const Verdict verdict = Ask("fallocate", path, info);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  return Answer(::fallocate(HandleOf(info)->fd, mode, offset, length));
}

int Lock(const char* path, fuse_file_info* info, int operation) {
  const Verdict verdict = Ask("flock", path, info);
  if (verdict.error != 0) {
    return -verdict.error;
  }
  return Answer(::flock(HandleOf(info)->fd, operation));
}

void* Init(fuse_conn_info* connection, fuse_config* config) {
  config->use_ino = 1;
  config->hard_remove = 1;
  config->nullpath_ok = 1;
  config->attr_timeout = 0;
  config->entry_timeout = 0;
  config->negative_timeout = 0;
  // Lookups of everything that is listed would be counted as getattr.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_READDIRPLUS);
  connection->max_background = 256;
  connection->congestion_threshold = 192;
  return fuse_get_context()->private_data;
}

}  // namespace

fuse_operations Operations() {
  fuse_operations out{};
  out.init = Init;
  out.getattr = GetAttr;
  out.readlink = ReadLink;
  out.mkdir = MakeDirectory;
  out.unlink = Unlink;
  out.rmdir = RemoveDirectory;
  out.symlink = SymLink;
  out.rename = Rename;
  out.link = Link;
  out.chmod = ChangeMode;
  out.chown = ChangeOwner;
  out.utimens = SetTimes;
  out.truncate = Truncate;
  out.open = Open;
  out.create = Create;
  out.read = Read;
  out.write = Write;
  out.flush = Flush;
  out.release = Release;
  out.fsync = SyncFile;
  out.opendir = OpenDirectory;
  out.readdir = ReadDirectory;
  out.releasedir = Release;
  out.fsyncdir = SyncDirectory;
  out.statfs = StatFs;
  out.fallocate = Allocate;
  out.flock = Lock;
  return out;
}

}  // namespace predella::faultfs
