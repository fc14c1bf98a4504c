// Preloaded into a daemon by power_disks.py: leaves syncs out, or cuts the
// power of its disk before its n-th call that changes something there.
//
// PREDELLA_SKIP_SYNCS   of which files no sync is made: directories, files, all
// PREDELLA_CRASH_DISK   where the disk is mounted
// PREDELLA_CRASH_COUNT  a file of two 64-bit numbers, shared with the test: how
//                       many calls are left (0: no cut), how many threads are
//                       about to make one
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// Of ext4 and XFS alike; 2: without a flush of the log.
#define SHUTDOWN _IOR('X', 125, uint32_t)

static struct {
  int64_t left;
  int64_t inside;
} * count;
static const char* skip;
static int disk = -1;
static dev_t device;

__attribute__((constructor)) static void Begin(void) {
  const char* path = getenv("PREDELLA_CRASH_COUNT");
  struct stat s;
  skip = getenv("PREDELLA_SKIP_SYNCS");
  if (path == NULL) {
    return;
  }
  disk =
      open(getenv("PREDELLA_CRASH_DISK"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (disk < 0 || fd < 0 || fstat(disk, &s) != 0) {
    perror("power_shim");
    _exit(3);
  }
  device = s.st_dev;
  void* shared =
      mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (shared == MAP_FAILED) {
    perror("power_shim");
    _exit(3);
  }
  count = shared;
}

// Where the power fails nobody hears an error of the disk any more: another
// thread, in a call at that moment, does not live to see one.
static int cut;
static void StopIfCut(void) {
  while (__atomic_load_n(&cut, __ATOMIC_SEQ_CST)) {
    pause();
  }
}

static void Point(void) {
  StopIfCut();
  __atomic_fetch_add(&count->inside, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&count->left, __ATOMIC_SEQ_CST) <= 0 ||
      __atomic_fetch_sub(&count->left, 1, __ATOMIC_SEQ_CST) != 1) {
    __atomic_fetch_sub(&count->inside, 1, __ATOMIC_SEQ_CST);
    return;
  }
  uint32_t how = 2;
  __atomic_store_n(&cut, 1, __ATOMIC_SEQ_CST);
  if (ioctl(disk, SHUTDOWN, &how) != 0) {
    perror("power_shim");
    _exit(3);
  }
  kill(getpid(), SIGKILL);
  pause();
}

static void OfFile(int fd) {
  struct stat s;
  if (count != NULL && fstat(fd, &s) == 0 && s.st_dev == device) {
    Point();
  }
}

static void OfPath(int at, const char* path) {
  char parent[4096];
  const char* slash = strrchr(path, '/');
  struct stat s;
  if (count == NULL) {
    return;
  }
  const size_t length = slash == NULL ? 0 : (size_t)(slash - path);
  if (length >= sizeof(parent)) {
    return;
  }
  memcpy(parent, path, length);
  parent[length] = 0;
  if (fstatat(at, length == 0 ? "" : parent, &s, AT_EMPTY_PATH) == 0 &&
      s.st_dev == device) {
    Point();
  }
}

static int Skipped(int fd) {
  struct stat s;
  if (skip == NULL || fstat(fd, &s) != 0) {
    return 0;
  }
  return strcmp(skip, "all") == 0 ||
         strcmp(skip, S_ISDIR(s.st_mode) ? "directories" : "files") == 0;
}

#define NEXT(NAME, TYPE) ((TYPE)dlsym(RTLD_NEXT, #NAME))
#define SYNC(NAME)                                   \
  int NAME(int fd) {                                 \
    if (Skipped(fd)) return 0;                       \
    OfFile(fd);                                      \
    const int result = NEXT(NAME, int (*)(int))(fd); \
    StopIfCut();                                     \
    return result;                                   \
  }
SYNC(fsync)
SYNC(fdatasync)

int sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags) {
  if (Skipped(fd)) return 0;
  OfFile(fd);
  return NEXT(sync_file_range, int (*)(int, off64_t, off64_t, unsigned))(
      fd, offset, bytes, flags);
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  OfFile(fd);
  const ssize_t result =
      NEXT(pwrite, ssize_t(*)(int, const void*, size_t, off_t))(fd, data, size,
                                                                offset);
  StopIfCut();
  return result;
}
ssize_t write(int fd, const void* data, size_t size) {
  OfFile(fd);
  return NEXT(write, ssize_t(*)(int, const void*, size_t))(fd, data, size);
}
int ftruncate(int fd, off_t size) {
  OfFile(fd);
  return NEXT(ftruncate, int (*)(int, off_t))(fd, size);
}
int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  OfFile(fd);
  return NEXT(fallocate, int (*)(int, int, off_t, off_t))(fd, mode, offset,
                                                          bytes);
}
int rename(const char* from, const char* to) {
  OfPath(AT_FDCWD, from);
  return NEXT(rename, int (*)(const char*, const char*))(from, to);
}
int renameat(int at, const char* from, int to_at, const char* to) {
  OfPath(at, from);
  return NEXT(renameat, int (*)(int, const char*, int, const char*))(at, from,
                                                                     to_at, to);
}
int renameat2(int at, const char* from, int to_at, const char* to,
              unsigned flags) {
  OfPath(at, from);
  return NEXT(renameat2, int (*)(int, const char*, int, const char*, unsigned))(
      at, from, to_at, to, flags);
}
int unlink(const char* path) {
  OfPath(AT_FDCWD, path);
  return NEXT(unlink, int (*)(const char*))(path);
}
int unlinkat(int at, const char* path, int flags) {
  OfPath(at, path);
  return NEXT(unlinkat, int (*)(int, const char*, int))(at, path, flags);
}
int mkdirat(int at, const char* path, mode_t mode) {
  OfPath(at, path);
  return NEXT(mkdirat, int (*)(int, const char*, mode_t))(at, path, mode);
}
