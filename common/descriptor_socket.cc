#include "common/descriptor_socket.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"

#include "common/errors.h"

namespace predella {
namespace {

constexpr int kBacklog = 64;

absl::Status SocketError(absl::string_view what, int error) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                   absl::StrCat(what, ": ", std::strerror(error)));
}

absl::StatusOr<sockaddr_un> SocketAddressOf(const std::string& path) {
  sockaddr_un out{};
  out.sun_family = AF_UNIX;
  if (path.size() >= sizeof(out.sun_path)) {
    return SocketError(path, ENAMETOOLONG);
  }
  std::memcpy(out.sun_path, path.c_str(), path.size() + 1);
  return out;
}

// sockaddr is what the calls take for any of its kinds.
const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

struct Control {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(int))] = {};
};

}  // namespace

void OwnedDescriptor::Close() {
  if (fd_ >= 0) {
    ::close(Release());
  }
}

std::string DescriptorSocketOf(absl::string_view path) {
  return absl::StrCat(path, ".fd");
}

std::string FrameOf(const google::protobuf::MessageLite& message) {
  const auto size = static_cast<uint32_t>(message.ByteSizeLong());
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) {
    out.push_back(static_cast<char>((size >> shift) & 0xff));
  }
  message.AppendToString(&out);
  return out;
}

size_t FramedBytes(absl::string_view header) {
  size_t size = 0;
  for (size_t i = kFrameHeaderBytes; i-- > 0;) {
    size = size << 8 | static_cast<unsigned char>(header[i]);
  }
  return size;
}

absl::StatusOr<std::pair<OwnedDescriptor, OwnedDescriptor>> DescriptorPair() {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                   ends) != 0) {
    return SocketError("a pair of sockets", errno);
  }
  return std::make_pair(OwnedDescriptor(ends[0]), OwnedDescriptor(ends[1]));
}

absl::StatusOr<OwnedDescriptor> ListenForDescriptors(const std::string& path) {
  auto address = SocketAddressOf(path);
  if (!address.ok()) {
    return address.status();
  }
  OwnedDescriptor out(
      ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!out.valid()) {
    return SocketError("a socket", errno);
  }
  struct stat st {};
  if (::lstat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) {
    ::unlink(path.c_str());
  }
  if (::bind(out.get(), Generic(*address), sizeof(*address)) != 0 ||
      ::listen(out.get(), kBacklog) != 0) {
    return SocketError(absl::StrCat("listen on ", path), errno);
  }
  return out;
}

absl::StatusOr<OwnedDescriptor> AcceptOne(int listener) {
  OwnedDescriptor out(
      ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!out.valid() && (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
                       errno == ENOBUFS)) {
    return SocketError("accept", errno);
  }
  return out;
}

absl::StatusOr<OwnedDescriptor> ConnectForDescriptors(const std::string& path,
                                                      absl::Duration timeout) {
  auto address = SocketAddressOf(path);
  if (!address.ok()) {
    return address.status();
  }
  OwnedDescriptor out(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit = absl::ToTimeval(timeout);
  if (!out.valid() ||
      ::setsockopt(out.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) !=
          0 ||
      ::setsockopt(out.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) !=
          0) {
    return SocketError("a socket", errno);
  }
  if (::connect(out.get(), Generic(*address), sizeof(*address)) != 0) {
    return SocketError(absl::StrCat("connect to ", path), errno);
  }
  return out;
}

absl::StatusOr<size_t> SendOnce(int socket, absl::string_view bytes,
                                int descriptor) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Control control;
  if (descriptor >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof(control.bytes);
    cmsghdr* const head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(head), &descriptor, sizeof(descriptor));
  }
  while (true) {
    const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
    if (sent >= 0) {
      return static_cast<size_t>(sent);
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return size_t{0};
    }
    if (errno != EINTR) {
      return SocketError("send over a Unix socket", errno);
    }
  }
}

absl::StatusOr<ReceivedBytes> ReceiveOnce(int socket, char* out, size_t size) {
  iovec part{out, size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Control control;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  ssize_t got = -1;
  while ((got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) < 0 &&
         errno == EINTR) {
  }
  ReceivedBytes received;
  if (got < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return received;
    }
    return SocketError("receive over a Unix socket", errno);
  }
  received.size = static_cast<size_t>(got);
  received.end = got == 0;
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
       head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len >= CMSG_LEN(sizeof(int))) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(head), sizeof(fd));
      received.descriptor = OwnedDescriptor(fd);
    }
  }
  return received;
}

bool IsGone(int socket) {
  char byte = 0;
  const ssize_t got = ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 ||
         (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

absl::Status LeaveDescriptorTable() {
  // glibc has it from 2.34 on; the call of the kernel is the same.
  if (::syscall(SYS_close_range, 0U, std::numeric_limits<unsigned>::max(),
                CLOSE_RANGE_UNSHARE) != 0) {
    return SocketError("a table of descriptors for a thread", errno);
  }
  for (int i = 0; i <= STDERR_FILENO; ++i) {
    if (::open("/dev/null", O_RDWR) != i) {
      return SocketError("/dev/null", errno);
    }
  }
  return absl::OkStatus();
}

}  // namespace predella
