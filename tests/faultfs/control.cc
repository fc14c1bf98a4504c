#include "tests/faultfs/control.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

#include "common/status_macros.h"

namespace predella::faultfs {
namespace {

absl::Status SetAddress(const std::string& path, sockaddr_un* address) {
  address->sun_family = AF_UNIX;
  if (path.size() >= sizeof(address->sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the path of a Unix socket has at most 107 bytes: ", path));
  }
  std::copy(path.begin(), path.end(), address->sun_path);
  return absl::OkStatus();
}

void SendAll(int fd, absl::string_view data) {
  while (!data.empty()) {
    const ssize_t n = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    if (n <= 0) {
      return;  // it is gone
    }
    data.remove_prefix(static_cast<size_t>(n));
  }
}

// Answers the lines of one client until it closes.
void Serve(int fd, RuleTable* rules) {
  std::string pending;
  char buffer[4096];
  while (true) {
    const ssize_t n = ::recv(fd, buffer, sizeof(buffer), 0);
    if (n <= 0) {
      return;
    }
    pending.append(buffer, static_cast<size_t>(n));
    size_t end = 0;
    while ((end = pending.find('\n')) != std::string::npos) {
      SendAll(fd, AnswerCommand(pending.substr(0, end), rules));
      pending.erase(0, end + 1);
    }
  }
}

void Accept(int listener, RuleTable* rules) {
  while (true) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      continue;
    }
    // One at a time: a client that sends nothing may not lock out the others.
    const timeval limit{5, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    Serve(fd, rules);
    ::close(fd);
  }
}

}  // namespace

absl::Status StartControl(const std::string& path, RuleTable* rules) {
  sockaddr_un address{};
  RETURN_IF_ERROR(SetAddress(path, &address));
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 ||
      ::bind(fd, reinterpret_cast<const sockaddr*>(&address),
             sizeof(address)) != 0 ||
      ::listen(fd, 16) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("listen on ", path));
  }
  std::thread([fd, rules] { Accept(fd, rules); }).detach();
  return absl::OkStatus();
}

absl::StatusOr<std::string> TellControl(const std::string& path,
                                        const std::string& line) {
  sockaddr_un address{};
  RETURN_IF_ERROR(SetAddress(path, &address));
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address),
                          sizeof(address)) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("connect to ", path));
  }
  SendAll(fd, absl::StrCat(line, "\n"));
  ::shutdown(fd, SHUT_WR);  // one command: the answer ends with the connection
  std::string answer;
  char buffer[4096];
  ssize_t n = 0;
  while ((n = ::recv(fd, buffer, sizeof(buffer), 0)) > 0) {
    answer.append(buffer, static_cast<size_t>(n));
  }
  ::close(fd);
  return answer;
}

std::string AnswerCommand(const std::string& line, RuleTable* rules) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(line, absl::MaxSplits(' ', 1));
  if (parts.first == "add") {
    absl::StatusOr<Rule> rule = ParseRule(parts.second);
    return rule.ok()
               ? absl::StrCat("ok ", rules->Add(*std::move(rule)), "\n")
               : absl::StrCat("error ",
                              absl::string_view(rule.status().message()), "\n");
  }
  if (parts.first == "remove") {
    int number = 0;
    return absl::SimpleAtoi(parts.second, &number) && rules->Remove(number)
               ? "ok\n"
               : absl::StrCat("error no rule \"", parts.second, "\"\n");
  }
  if (line == "clear") {
    rules->Clear();
    return "ok\n";
  }
  if (line == "disarm") {
    rules->Disarm();
    return "ok\n";
  }
  if (line == "status") {
    return absl::StrCat(rules->Report(), "ok\n");
  }
  return absl::StrCat("error unknown command \"", line, "\"\n");
}

}  // namespace predella::faultfs
