// faultfs BACKING MOUNTPOINT CONTROL-SOCKET [--direct]
// faultfs tell CONTROL-SOCKET COMMAND...
//
// Shows the directory BACKING at MOUNTPOINT and fails as it is told on the
// socket (control.h, rules.h). Needs root or fusermount3. Says READY when the
// mount is there, ends when it is unmounted, and ends with the thread that
// started it: a test that dies leaves a dead mount, not a live one. With
// --direct the kernel caches no pages of it. `tell` sends one command and
// prints the answer.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "tests/faultfs/control.h"
#include "tests/faultfs/operations.h"
#include "tests/faultfs/rules.h"

namespace predella::faultfs {
namespace {

// Hung operations hold a thread each.
constexpr unsigned kMostThreads = 512;

int Fail(const char* what) {
  std::fprintf(stderr, "faultfs: %s\n", what);
  return 1;
}

int Run(const std::string& backing, const std::string& mountpoint,
        const std::string& socket, bool direct) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::umask(0);  // the kernel has applied the caller's
  RuleTable rules;
  PassThrough self;
  self.direct = direct;
  self.rules = &rules;
  self.root = ::open(backing.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (self.root < 0) {
    return Fail((backing + ": " + std::strerror(errno)).c_str());
  }
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&args, "faultfs");
  fuse_opt_add_arg(&args, "-odefault_permissions,fsname=faultfs");
  const fuse_operations operations = Operations();
  struct fuse* const fuse =
      fuse_new(&args, &operations, sizeof(operations), &self);
  fuse_opt_free_args(&args);
  if (fuse == nullptr || fuse_mount(fuse, mountpoint.c_str()) != 0) {
    return Fail("could not mount");
  }
  const absl::Status control = StartControl(socket, &rules);
  if (!control.ok()) {
    fuse_unmount(fuse);
    return Fail(std::string(control.message()).c_str());
  }
  std::puts("READY");
  std::fflush(stdout);
  fuse_loop_config* const loop = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(loop, kMostThreads);
  const int result = fuse_loop_mt(fuse, loop);
  // Not fuse_destroy: the control thread still uses the rules.
  std::_Exit(result == 0 ? 0 : 1);
}

int Tell(const std::string& socket, int words, char** word) {
  std::string command;
  for (int i = 0; i < words; ++i) {
    command += (i == 0 ? "" : " ") + std::string(word[i]);
  }
  const absl::StatusOr<std::string> answer = TellControl(socket, command);
  if (!answer.ok()) {
    return Fail(std::string(answer.status().message()).c_str());
  }
  std::fputs(answer->c_str(), stdout);
  return answer->find("error ") == std::string::npos ? 0 : 1;
}

}  // namespace
}  // namespace predella::faultfs

int main(int argc, char** argv) {
  if (argc >= 4 && std::strcmp(argv[1], "tell") == 0) {
    return predella::faultfs::Tell(argv[2], argc - 3, argv + 3);
  }
  const bool direct = argc == 5 && std::strcmp(argv[4], "--direct") == 0;
  if (argc != 4 && !direct) {
    std::fprintf(stderr,
                 "usage: faultfs BACKING MOUNTPOINT CONTROL-SOCKET "
                 "[--direct]\n       faultfs tell CONTROL-SOCKET "
                 "COMMAND...\n");
    return 2;
  }
  return predella::faultfs::Run(argv[1], argv[2], argv[3], direct);
}
