#include "agent/control/descriptor_pipe.h"

#include <cstring>
#include <utility>

#include "absl/strings/string_view.h"

#include "common/errors.h"
#include "common/status_macros.h"

namespace predella::agent {

absl::StatusOr<std::unique_ptr<DescriptorPipe>> DescriptorPipe::Make() {
  ASSIGN_OR_RETURN(auto ends, DescriptorPair());
  return std::unique_ptr<DescriptorPipe>(
      new DescriptorPipe(std::move(ends.first), std::move(ends.second)));
}

void DescriptorPipe::KeepDiskEnd() {
  // The number of the other end, in this table.
  const OwnedDescriptor other(network_end_.get());
}

void DescriptorPipe::KeepNetworkEnd() {
  const OwnedDescriptor other(disk_end_);
}

absl::Status DescriptorPipe::Send(uint64_t number, int descriptor) {
  char bytes[sizeof(number)];
  std::memcpy(bytes, &number, sizeof(number));
  ASSIGN_OR_RETURN(
      const size_t sent,
      SendOnce(disk_end_, absl::string_view(bytes, sizeof(bytes)), descriptor));
  return sent == sizeof(bytes)
             ? absl::OkStatus()
             : MakeError(absl::StatusCode::kResourceExhausted,
                         reason::kAgentOverloaded,
                         "too many open files are on their way to clients");
}

absl::StatusOr<DescriptorPipe::Passed> DescriptorPipe::Receive() {
  char bytes[sizeof(uint64_t)] = {};
  ASSIGN_OR_RETURN(ReceivedBytes received,
                   ReceiveOnce(network_end_.get(), bytes, sizeof(bytes)));
  if (received.size != sizeof(bytes)) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                     "no open file came from the disk threads");
  }
  Passed passed;
  std::memcpy(&passed.number, bytes, sizeof(bytes));
  passed.descriptor = std::move(received.descriptor);
  return passed;
}

}  // namespace predella::agent
