#include "client/cli/reach.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "common/rpc/server_runner.h"

namespace predella::cli {
namespace {

constexpr std::chrono::seconds kReachTimeout(3);

}  // namespace

absl::Status ReachByChannel(const std::string& address) {
  const auto channel = DialChannel(address);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() +
                                 kReachTimeout)) {
    return absl::UnavailableError("no connection within 3 s");
  }
  return absl::OkStatus();
}

}  // namespace predella::cli
