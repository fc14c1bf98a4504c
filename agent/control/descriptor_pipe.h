// The one way of an open file from the disk threads' table of descriptors to
// the process's (agent/control/disk_executor.h): a pair of sockets with one end
// in each. What the disk threads hold of it is no socket that anybody else
// could be waiting at.
#ifndef PREDELLA_AGENT_CONTROL_DESCRIPTOR_PIPE_H_
#define PREDELLA_AGENT_CONTROL_DESCRIPTOR_PIPE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/descriptor_socket.h"

namespace predella::agent {

// Thread-safe once the ends are where they belong; nothing blocks.
class DescriptorPipe {
 public:
  // Before the disk threads get their table. UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<DescriptorPipe>> Make();
  // In the process's table, once the disk threads have ended.
  ~DescriptorPipe() = default;

  // In a table just left behind: the first disk thread closes the other end
  // there, and then, and only then, does the process the same in its own.
  void KeepDiskEnd();
  void KeepNetworkEnd();

  // On a disk thread. The file is open on the other side as well until that
  // closes it. RESOURCE_EXHAUSTED, AGENT_OVERLOADED when nobody takes them.
  absl::Status Send(uint64_t number, int descriptor);

  struct Passed {
    uint64_t number = 0;
    OwnedDescriptor descriptor;  // not valid: this table is full
  };
  // On any other thread: what was sent first and not taken yet. UNAVAILABLE
  // when there is nothing.
  absl::StatusOr<Passed> Receive();

 private:
  DescriptorPipe(OwnedDescriptor disk, OwnedDescriptor network)
      : disk_end_(disk.Release()), network_end_(std::move(network)) {}

  // Goes with the disk threads' table.
  const int disk_end_;
  OwnedDescriptor network_end_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_DESCRIPTOR_PIPE_H_
