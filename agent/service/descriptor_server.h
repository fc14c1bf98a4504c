// Hands open files of images to clients on this host: a Unix socket beside each
// at which the agent serves chunks (docs/api.md, "Reading on the agent's
// host").
#ifndef PREDELLA_AGENT_SERVICE_DESCRIPTOR_SERVER_H_
#define PREDELLA_AGENT_SERVICE_DESCRIPTOR_SERVER_H_

#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "agent/control/agent_core.h"
#include "agent/control/descriptor_pipe.h"
#include "common/rpc/listen.h"

namespace predella::agent {

// A client sends a ReadImageRequest, which is checked as a ReadImage is, and
// gets an OpenImageResponse with a descriptor that is open for reading only.
// The connection stays while the client reads. That it ends means, to the
// agent, that the client has closed the file, and to the client, that it shall:
// the mount went away or hangs, or the agent stops. Only images on a file
// system that PassesDescriptors() are handed out.
//
// One thread serves them all; it never touches the mount.
class DescriptorServer {
 public:
  // Clients beyond these are sent away; they read through ReadImage.
  static constexpr int kMostClients = 256;

  // `core` and `pipe` must outlive this and every task that was posted to the
  // core's disk. Of `listen` the Unix sockets count; they are taken already, so
  // that what lies beside one is nobody's. UNAVAILABLE names the path.
  static absl::StatusOr<std::unique_ptr<DescriptorServer>> Start(
      AgentCore* core, DescriptorPipe* pipe,
      const std::vector<Address>& listen);
  // As Shutdown without grace.
  ~DescriptorServer();

  // Takes no more clients, gives those that read `grace` to end, and ends the
  // connections that are left. Before the disk threads are joined.
  void Shutdown(absl::Duration grace);

 private:
  class Loop;
  explicit DescriptorServer(std::shared_ptr<Loop> loop);

  // Shared with clients, which outlive it where a disk task of theirs hangs.
  const std::shared_ptr<Loop> loop_;
  std::thread thread_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_DESCRIPTOR_SERVER_H_
