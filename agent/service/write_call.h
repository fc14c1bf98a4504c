// One WriteImage stream at the gRPC edge.
#ifndef PREDELLA_AGENT_SERVICE_WRITE_CALL_H_
#define PREDELLA_AGENT_SERVICE_WRITE_CALL_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"

#include "agent/control/agent_core.h"
#include "agent/control/upload_stream.h"
#include "common/mutex.h"
#include "predella/v1/chunk_service.grpc.pb.h"

namespace predella::agent {

// Bytes of chunks that wait for the disk: at most this a stream, and once all
// streams together hold `kAllStreamsBytes`, one chunk a stream.
inline constexpr int64_t kStreamBytes = int64_t{8} << 20;
inline constexpr int64_t kAllStreamsBytes = int64_t{256} << 20;
inline constexpr int64_t kMaxChunkBytes = int64_t{2} << 20;

// Translates between the stream and UploadTable. Reactions never block; a
// stream is read while few enough of its bytes wait for the disk.
//
// Keeps itself alive from its creation to OnDone; the table may hold it
// longer, and then its calls do nothing.
class WriteCall final : public grpc::ServerBidiReactor<v1::WriteImageRequest,
                                                       v1::WriteImageResponse>,
                        public UploadStream,
                        public std::enable_shared_from_this<WriteCall> {
 public:
  // `core` and `all_bytes`, the count over all streams, must outlive it.
  static WriteCall* Start(AgentCore* core, std::atomic<int64_t>* all_bytes);

  // UploadStream.
  void Send(v1::WriteImageResponse response) override;
  void ChunkDone(int64_t bytes) override;
  void Finish(const absl::Status& status) override;

  // The reactor's reactions.
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  using Reactor =
      grpc::ServerBidiReactor<v1::WriteImageRequest, v1::WriteImageResponse>;
  WriteCall(AgentCore* core, std::atomic<int64_t>* all_bytes)
      : core_(core), all_bytes_(all_bytes) {}

  // Ends a stream that broke the protocol.
  void Refuse(const absl::Status& status);
  void OnHeader(const v1::WriteHeader& header);
  void OnChunk(v1::Chunk chunk);
  void OnCommit(const v1::WriteCommit& commit);
  std::shared_ptr<UploadHandle> handle();
  void ReadOn();
  bool RoomLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PumpOnNetwork() ABSL_LOCKS_EXCLUDED(mu_);
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  AgentCore* const core_;
  std::atomic<int64_t>* const all_bytes_;
  // Owned by the read that is under way, else by the reaction to it.
  v1::WriteImageRequest request_;

  Mutex mu_;
  std::shared_ptr<WriteCall> self_ ABSL_GUARDED_BY(mu_);
  // Shared with the table; null until the header was accepted.
  std::shared_ptr<UploadHandle> handle_ ABSL_GUARDED_BY(mu_);
  int64_t queued_ ABSL_GUARDED_BY(mu_) = 0;
  bool read_paused_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<v1::WriteImageResponse> out_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> finish_ ABSL_GUARDED_BY(mu_);
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_SERVICE_WRITE_CALL_H_
