// Streams of bytes, as the logic sees them.
#ifndef PREDELLA_AGENT_CONTROL_UPLOAD_STREAM_H_
#define PREDELLA_AGENT_CONTROL_UPLOAD_STREAM_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "predella/v1/chunk_service.pb.h"

namespace predella::agent {

// The answering side of one WriteImage stream. Thread-safe; called with locks
// held: never blocks and never calls back into the logic from within a call.
class UploadStream {
 public:
  virtual ~UploadStream() = default;
  // A Progress with `verifying` says only that the agent is alive.
  virtual void Send(v1::WriteImageResponse response) = 0;
  // A chunk of that many bytes is no longer held: more may be read.
  virtual void ChunkDone(int64_t bytes) = 0;
  // Ends the stream, after what was sent before. Later calls do nothing.
  virtual void Finish(const absl::Status& status) = 0;
};

// A copy of an upload's prefix to the mount it moved to.
struct PeerCopy {
  std::vector<std::string> addresses;
  v1::WriteHeader header;  // segment PREFIX
  int64_t end = 0;         // bytes below are here; the peer may end it before
  // Reads bytes that were received here; answers on a disk thread.
  using ReadDone = std::function<void(absl::StatusOr<std::string>)>;
  std::function<void(int64_t offset, int64_t length, ReadDone done)> read;
  // Exactly once: OK when the peer says that it has all it wants.
  std::function<void(const absl::Status&)> done;
};

class PeerWriter {
 public:
  virtual ~PeerWriter() = default;
  // Returns at once. `copy.done` only posts, so it may be called from within.
  virtual void Copy(PeerCopy copy) = 0;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_UPLOAD_STREAM_H_
