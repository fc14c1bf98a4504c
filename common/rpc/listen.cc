#include "common/rpc/listen.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/errors.h"

namespace predella {
namespace {

// sun_path holds 108 bytes with its end; the room that is left is for the
// suffixes of temporary names.
constexpr size_t kMaxSocketPath = 99;
constexpr int kMaxPort = 65535;

absl::Status Invalid(absl::string_view text, absl::string_view why) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
      absl::StrCat("\"", text,
                   "\" is not an address such as unix:/run/predella/x.sock, "
                   "127.0.0.1:7400 or [::1]:7400: ",
                   why));
}

}  // namespace

std::string Address::ToString() const {
  if (unix_socket) {
    return absl::StrCat("unix:", path);
  }
  if (absl::StrContains(host, ':')) {
    return absl::StrCat("[", host, "]:", port);
  }
  return absl::StrCat(host, ":", port);
}

bool Address::loopback() const {
  return unix_socket || host == "localhost" || host == "::1" ||
         absl::StartsWith(host, "127.");
}

absl::StatusOr<Address> ParseAddress(absl::string_view text) {
  Address address;
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "unix:")) {
    address.unix_socket = true;
    // unix:///path is gRPC's other spelling.
    if (absl::StartsWith(rest, "///")) {
      rest.remove_prefix(2);
    }
    address.path = std::string(rest);
    if (!absl::StartsWith(rest, "/")) {
      return Invalid(text, "the path of a Unix socket is absolute");
    }
    if (rest.size() > kMaxSocketPath) {
      return Invalid(
          text, absl::StrCat("the path has ", rest.size(),
                             " bytes and the kernel takes ", kMaxSocketPath,
                             " with room for us: use a shorter directory"));
    }
    return address;
  }
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) {
    return Invalid(text, "there is no HOST:PORT in it");
  }
  absl::string_view host = text.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) {
    if (!absl::ConsumeSuffix(&host, "]")) {
      return Invalid(text, "the bracket is not closed");
    }
  } else if (absl::StrContains(host, ':')) {
    return Invalid(text, "an IPv6 address stands in brackets");
  }
  if (host.empty() || absl::StrContains(host, '/') ||
      absl::StrContains(host, ' ')) {
    return Invalid(text, "the host is not a name or an address");
  }
  address.host = std::string(host);
  if (!absl::SimpleAtoi(text.substr(colon + 1), &address.port) ||
      address.port < 0 || address.port > kMaxPort) {
    return Invalid(text, "the port is not a number from 0 to 65535");
  }
  return address;
}

absl::Status CheckPlaintextAllowed(const Address& address,
                                   bool insecure_plaintext_on_network) {
  if (address.loopback() || insecure_plaintext_on_network) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
      absl::StrCat(
          "refusing to use ", address.ToString(),
          " without encryption: everybody who reaches it could read and "
          "delete images. Take loopback or a Unix socket, or, where the "
          "network itself is trusted, give --insecure-plaintext-on-network"),
      {{"address", address.ToString()}});
}

}  // namespace predella
