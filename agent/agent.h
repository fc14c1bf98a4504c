// The object graph of an agent, and the order of its start and end.
#ifndef PREDELLA_AGENT_AGENT_H_
#define PREDELLA_AGENT_AGENT_H_

#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "agent/control/agent_core.h"
#include "agent/control/disk_executor.h"
#include "agent/fs/disk_calls.h"
#include "agent/health/mount_watcher.h"
#include "agent/options.h"
#include "agent/service/chunk_service.h"
#include "agent/service/descriptor_server.h"
#include "agent/service/grpc_coordinator_session.h"
#include "agent/service/grpc_peer_writer.h"
#include "common/mutex.h"
#include "common/rpc/server_runner.h"

namespace predella::agent {

class Agent {
 public:
  // Serves from here on. `disk` was started before any socket existed.
  // UNAVAILABLE names an address that could not be taken.
  static absl::StatusOr<std::unique_ptr<Agent>> Start(
      const AgentOptions& options, std::unique_ptr<DiskThreads> disk);
  ~Agent();

  // One line for people: which mount, and whether it is served now.
  std::string StatusLine();

  // Refuses new streams, gives open ones `drain`, syncs the fence
  // and ends the session. True: every disk thread came back. False: one
  // hangs in the kernel, and only _exit ends this process.
  bool Stop(absl::Duration drain);

 private:
  Agent(const AgentOptions& options, std::unique_ptr<DiskThreads> disk);
  void StartWatcher();
  void StartDescriptors();
  void RunTicks();

  const AgentOptions options_;
  // Destroyed last to first, after the disk threads were joined.
  DiskCalls calls_;  // outlives the threads that are in them
  std::unique_ptr<DiskThreads> disk_;
  GrpcPeerWriter peer_;
  std::unique_ptr<AgentCore> core_;
  // Shared with its thread. Set before the first tick, constant afterwards.
  std::shared_ptr<MountWatcher> watcher_;
  std::unique_ptr<ChunkServiceImpl> chunks_;
  std::unique_ptr<ServerRunner> server_;
  std::unique_ptr<DescriptorServer> descriptors_;  // null: it could not listen
  std::unique_ptr<GrpcCoordinatorSession> session_;

  Mutex mu_;
  CondVar cv_;
  bool stop_ticks_ ABSL_GUARDED_BY(mu_) = false;
  std::thread ticks_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_AGENT_H_
