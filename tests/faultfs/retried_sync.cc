// Preloaded into a process: a sync that failed is tried once more, and what
// that says is believed. It is what no store may do (the kernel reports a lost
// page once); a test runs an agent with it to see that it is noticed.
#include <dlfcn.h>

namespace {

using Sync = int (*)(int);

int Retry(const char* name, int fd) {
  const auto next = reinterpret_cast<Sync>(::dlsym(RTLD_NEXT, name));
  return next(fd) == 0 ? 0 : next(fd);
}

}  // namespace

extern "C" int fsync(int fd) { return Retry("fsync", fd); }
extern "C" int fdatasync(int fd) { return Retry("fdatasync", fd); }
