// One ReadImage stream at the gRPC edge.
#ifndef PREDELLA_AGENT_SERVICE_READ_CALL_H_
#define PREDELLA_AGENT_SERVICE_READ_CALL_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"

#include "agent/control/agent_core.h"
#include "agent/fs/disk_calls.h"
#include "agent/store/image_store.h"
#include "common/executor.h"
#include "common/mutex.h"
#include "predella/v1/chunk_service.grpc.pb.h"

namespace predella::agent {

// At most this much is read ahead of what the client took.
inline constexpr int64_t kReadAheadBytes = int64_t{8} << 20;

// Reads block by block on the disk threads and sends what was verified.
// Reactions never block. Lives until OnDone, and as long as a disk task of it.
//
// The bytes are copied twice in this process: from the page cache to the
// buffer that becomes a slice of gRPC's, and from there to the socket.
class ReadCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                       public ReadStream,
                       public std::enable_shared_from_this<ReadCall> {
 public:
  // `core` must outlive it.
  static ReadCall* Start(AgentCore* core, const grpc::ByteBuffer& request);

  // ReadStream. What a stuck read brings later is dropped.
  void Stalled(const absl::Status& why) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  using Reactor = grpc::ServerWriteReactor<grpc::ByteBuffer>;
  struct Block {
    int64_t offset;
    uint32_t crc32c;
    std::string bytes;
  };
  // Becomes a ByteBuffer when it is sent: disk threads call nothing of gRPC.
  using Outgoing = std::variant<v1::ReadHeader, Block>;

  explicit ReadCall(AgentCore* core) : core_(core), strand_(core->disk()) {}

  void End(const absl::Status& status);
  void PumpOnNetwork() ABSL_LOCKS_EXCLUDED(mu_);
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // On the strand.
  // Of a read that gets stuck the client hears.
  DiskCalls::Work Watched();
  void Open(const ReadGrant& grant);
  void ReadAhead();
  bool WantsMore();

  AgentCore* const core_;
  Strand strand_;

  // On the strand only: they hold descriptors.
  ReadGrant grant_;  // let go on a disk thread
  std::unique_ptr<ImageReader> reader_;
  int64_t offset_ = 0;
  int64_t end_ = 0;

  Mutex mu_;
  std::shared_ptr<ReadCall> self_ ABSL_GUARDED_BY(mu_);
  std::deque<Outgoing> out_ ABSL_GUARDED_BY(mu_);
  // Of the write that is under way, and how many of `ahead_` it has.
  grpc::ByteBuffer sending_ ABSL_GUARDED_BY(mu_);
  int64_t sending_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t ahead_ ABSL_GUARDED_BY(mu_) = 0;
  bool reading_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> finish_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_READ_CALL_H_
