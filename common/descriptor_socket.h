// Unix sockets over which open descriptors travel, and the frames on them.
#ifndef PREDELLA_COMMON_DESCRIPTOR_SOCKET_H_
#define PREDELLA_COMMON_DESCRIPTOR_SOCKET_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"

namespace predella {

// Closed at its end, on a thread that has the same table of descriptors.
class OwnedDescriptor {
 public:
  explicit OwnedDescriptor(int fd = -1) : fd_(fd) {}
  ~OwnedDescriptor() { Close(); }
  OwnedDescriptor(OwnedDescriptor&& other) noexcept : fd_(other.Release()) {}
  OwnedDescriptor& operator=(OwnedDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Close();

 private:
  int fd_;
};

// Where the agent that serves chunks at the socket `path` hands out files.
std::string DescriptorSocketOf(absl::string_view path);

// A message on such a socket: its length, four bytes with the lowest first,
// and it.
inline constexpr size_t kFrameHeaderBytes = 4;
std::string FrameOf(const google::protobuf::MessageLite& message);
// Of the message behind these kFrameHeaderBytes.
size_t FramedBytes(absl::string_view header);

// Both ends keep what is sent whole, and wait for nothing. UNAVAILABLE.
absl::StatusOr<std::pair<OwnedDescriptor, OwnedDescriptor>> DescriptorPair();

// Waits for nothing, neither here nor where it accepts. A socket that lies at
// `path` is replaced: the caller knows that nobody serves there. UNAVAILABLE.
absl::StatusOr<OwnedDescriptor> ListenForDescriptors(const std::string& path);
// Not valid: nobody wants in at the moment. UNAVAILABLE where this process has
// no room for another.
absl::StatusOr<OwnedDescriptor> AcceptOne(int listener);
// Sending and receiving give up after `timeout`. UNAVAILABLE.
absl::StatusOr<OwnedDescriptor> ConnectForDescriptors(const std::string& path,
                                                      absl::Duration timeout);

// How many of the bytes went, with `descriptor` unless that is -1; 0: none for
// now, nor the descriptor. UNAVAILABLE when the other side is gone.
absl::StatusOr<size_t> SendOnce(int socket, absl::string_view bytes,
                                int descriptor);

struct ReceivedBytes {
  size_t size = 0;
  bool end = false;            // nothing more comes
  OwnedDescriptor descriptor;  // closed by exec; not valid: none came along
};
// What is there, at most `size` bytes to `out`; none and no end: nothing for
// now. UNAVAILABLE.
absl::StatusOr<ReceivedBytes> ReceiveOnce(int socket, char* out, size_t size);
// Whether the other side has gone; never waits, takes nothing.
bool IsGone(int socket);

// The calling thread leaves the process's table of descriptors for one of its
// own with nothing in it but /dev/null in the place of the standard ones: where
// it gets stuck in the kernel it keeps nothing else of the process. UNAVAILABLE
// where the kernel gives none.
absl::Status LeaveDescriptorTable();

}  // namespace predella

#endif  // PREDELLA_COMMON_DESCRIPTOR_SOCKET_H_
