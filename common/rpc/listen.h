// Addresses as configuration writes them: "unix:/path" or "HOST:PORT".
#ifndef PREDELLA_COMMON_RPC_LISTEN_H_
#define PREDELLA_COMMON_RPC_LISTEN_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace predella {

struct Address {
  bool unix_socket = false;
  std::string path;  // of a Unix socket, absolute
  std::string host;  // without brackets
  int port = 0;      // 0: any free one

  // "unix:/path", "HOST:PORT", "[::1]:PORT": what gRPC dials and we print.
  std::string ToString() const;
  // 127.0.0.0/8, ::1 or "localhost", or a Unix socket.
  bool loopback() const;
};

// INVALID_ARGUMENT says what an address looks like; a Unix path that is too
// long for the kernel (107 bytes; ours: below 100) is refused here.
absl::StatusOr<Address> ParseAddress(absl::string_view text);

// Plaintext on any address but loopback and Unix sockets is refused unless
// `insecure_plaintext_on_network`. FAILED_PRECONDITION names both ways out.
absl::Status CheckPlaintextAllowed(const Address& address,
                                   bool insecure_plaintext_on_network);

}  // namespace predella

#endif  // PREDELLA_COMMON_RPC_LISTEN_H_
