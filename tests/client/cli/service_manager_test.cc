// systemd's notification protocol, and the watch over a parent.
#include "common/config/service_manager.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::predella::testing::StatusIs;
using ::testing::HasSubstr;

// A service manager's end of NOTIFY_SOCKET.
class Listener {
 public:
  // `name` as NOTIFY_SOCKET has it.
  explicit Listener(const std::string& name)
      : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') {
      address.sun_path[0] = '\0';
    }
    const auto length =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address), length), 0)
        << name << ": " << std::strerror(errno);
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  ~Listener() {
    unsetenv("NOTIFY_SOCKET");
    close(fd_);
  }
  // The datagram that waits; empty if there is none.
  std::string Next() const {
    std::array<char, 512> buffer{};
    const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
    return n < 0 ? "" : std::string(buffer.data(), static_cast<size_t>(n));
  }

 private:
  const int fd_;
};

void SendAll(const Listener& listener) {
  NotifyReady("serving");
  EXPECT_EQ(listener.Next(), "READY=1\nSTATUS=serving\n");
  NotifyStatus("two\nlines");
  EXPECT_EQ(listener.Next(), "STATUS=two lines\n");
  NotifyStopping("draining");
  EXPECT_EQ(listener.Next(), "STOPPING=1\nSTATUS=draining\n");
  EXPECT_EQ(listener.Next(), "");
}

TEST(NotifyTest, ByPath) {
  std::string top = "/tmp/notify.XXXXXX";
  ASSERT_NE(mkdtemp(top.data()), nullptr);
  {
    const Listener listener(top + "/s");
    SendAll(listener);
  }
  std::filesystem::remove_all(top);
}

TEST(NotifyTest, ByAbstractName) {
  const Listener listener(absl::StrCat("@predella-notify-test-", getpid()));
  SendAll(listener);
}

TEST(NotifyTest, NobodyThereIsNoHarm) {
  unsetenv("NOTIFY_SOCKET");
  NotifyReady("serving");
  for (const std::string& name :
       {std::string("/nonexistent/s"), std::string("relative"),
        "/" + std::string(200, 's')}) {
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
    NotifyReady("serving");
  }
  unsetenv("NOTIFY_SOCKET");
}

TEST(WatchParentTest, AClosedDescriptorIsAnError) {
  EXPECT_OK(WatchParent(false, -1));
  EXPECT_THAT(WatchParent(false, 987),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("descriptor 987 is not open")));
}

// The watching process is a child, which the signal ends.
TEST(WatchParentTest, TheEndOfThePipeIsTheEnd) {
  std::array<int, 2> watch{};
  std::array<int, 2> ready{};
  ASSERT_EQ(pipe(watch.data()), 0);
  ASSERT_EQ(pipe(ready.data()), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(watch[1]);
    if (!WatchParent(false, watch[0]).ok() || write(ready[1], "x", 1) != 1) {
      _exit(3);
    }
    while (true) {
      pause();
    }
  }
  ASSERT_GT(child, 0);
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  // A word from the parent is no reason to end.
  ASSERT_EQ(write(watch[1], "x", 1), 1);
  pollfd drained{watch[0], POLLIN, 0};
  while (poll(&drained, 1, 0) == 1) {
  }
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0);
  close(watch[1]);
  int state = 0;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  EXPECT_TRUE(WIFSIGNALED(state));
  EXPECT_EQ(WTERMSIG(state), kParentGoneSignal);
  close(watch[0]);
  close(ready[0]);
  close(ready[1]);
}

}  // namespace
}  // namespace predella
