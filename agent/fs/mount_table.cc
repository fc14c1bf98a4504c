#include "agent/fs/mount_table.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/posix_file.h"

namespace predella::agent {
namespace {

// Where hundreds of mounts come and go in a second, as on a node of
// Kubernetes, they are read together.
constexpr absl::Duration kGather = absl::Milliseconds(10);

// "\040" and its like: a space, tab, newline or backslash in a name.
std::string Unescape(absl::string_view text) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) &&
        octal(text[i + 2]) && octal(text[i + 3])) {
      out.push_back(static_cast<char>((text[i + 1] - '0') * 64 +
                                      (text[i + 2] - '0') * 8 +
                                      (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// 36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw
std::optional<MountEntry> ParseLine(absl::string_view line) {
  const std::vector<absl::string_view> fields =
      absl::StrSplit(line, ' ', absl::SkipEmpty());
  size_t dash = 6;
  while (dash < fields.size() && fields[dash] != "-") {
    ++dash;
  }
  MountEntry out;
  if (dash + 2 >= fields.size() || !absl::SimpleAtoi(fields[0], &out.id) ||
      !absl::SimpleAtoi(fields[1], &out.parent)) {
    return std::nullopt;
  }
  out.point = Unescape(fields[4]);
  out.type = std::string(fields[dash + 1]);
  out.source = Unescape(fields[dash + 2]);
  return out;
}

const MountEntry* ChildAt(const std::vector<MountEntry>& table, int64_t parent,
                          absl::string_view point) {
  for (const MountEntry& entry : table) {
    if (entry.parent == parent && entry.id != parent && entry.point == point) {
      return &entry;
    }
  }
  return nullptr;
}

class PosixMountTable final : public MountTable {
 public:
  PosixMountTable(int table, int wake) : table_(table), wake_(wake) {}
  ~PosixMountTable() override {
    CloseDescriptor(table_, "the mount table");
    CloseDescriptor(wake_, "the wake-up of the mount table");
  }

  absl::StatusOr<std::string> Read() override {
    std::string out;
    char buffer[1 << 16];
    if (::lseek(table_, 0, SEEK_SET) != 0) {
      return ErrnoStatus(errno, "go to the start of the mount table");
    }
    for (;;) {
      const ssize_t n = ::read(table_, buffer, sizeof(buffer));
      if (n < 0 && errno == EINTR) {
        continue;
      }
      if (n < 0) {
        return ErrnoStatus(errno, "read the mount table");
      }
      if (n == 0) {
        return out;
      }
      out.append(buffer, static_cast<size_t>(n));
    }
  }

  void Wait(absl::Duration timeout) override {
    const timespec gather = absl::ToTimespec(kGather);
    (void)::nanosleep(&gather, nullptr);
    pollfd fds[2] = {{table_, POLLPRI | POLLERR, 0}, {wake_, POLLIN, 0}};
    (void)::poll(fds, 2, static_cast<int>(absl::ToInt64Milliseconds(timeout)));
    uint64_t count = 0;
    (void)!::read(wake_, &count, sizeof(count));  // non-blocking: resets it
  }

  void Wake() override {
    const uint64_t one = 1;
    (void)!::write(wake_, &one, sizeof(one));  // fails only when it is set
  }

  absl::StatusOr<std::string> Canonical(const std::string& path) override {
    std::string given = path;
    while (given.size() > 1 && given.back() == '/') {
      given.pop_back();
    }
    // readlink of each component and nothing else.
    const std::unique_ptr<char, void (*)(void*)> found(
        ::realpath(given.c_str(), nullptr), &::free);
    if (found == nullptr) {
      return ErrnoStatus(errno, absl::StrCat("resolve ", given));
    }
    return std::string(found.get());
  }

 private:
  const int table_;
  const int wake_;
};

}  // namespace

std::vector<MountEntry> ParseMountTable(absl::string_view text) {
  std::vector<MountEntry> out;
  for (const absl::string_view line :
       absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (std::optional<MountEntry> entry = ParseLine(line)) {
      out.push_back(*std::move(entry));
    }
  }
  return out;
}

std::optional<MountEntry> MountAt(const std::vector<MountEntry>& table,
                                  absl::string_view path) {
  const MountEntry* at = nullptr;
  for (const MountEntry& entry : table) {
    if (entry.point != "/") {
      continue;
    }
    bool listed = false;
    for (const MountEntry& other : table) {
      listed = listed || (other.id == entry.parent && other.id != entry.id);
    }
    at = listed ? at : &entry;
  }
  if (at == nullptr) {
    return std::nullopt;
  }
  // Every directory on the way, the root first.
  for (size_t end = 0; end != absl::string_view::npos;) {
    const absl::string_view point = end == 0 ? "/" : path.substr(0, end);
    while (const MountEntry* over = ChildAt(table, at->id, point)) {
      at = over;
    }
    if (end >= path.size() || path == "/") {
      break;
    }
    end = path.find('/', end + 1);
    if (end == absl::string_view::npos) {
      end = path.size();
    }
  }
  return *at;
}

absl::StatusOr<std::unique_ptr<MountTable>> OpenMountTable() {
  const int table = ::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
  if (table < 0) {
    return ErrnoStatus(errno, "open /proc/self/mountinfo");
  }
  const int wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake < 0) {
    const int error = errno;
    CloseDescriptor(table, "the mount table");
    return ErrnoStatus(error, "make an eventfd");
  }
  return std::unique_ptr<MountTable>(new PosixMountTable(table, wake));
}

}  // namespace predella::agent
