// One open upload inside UploadTable; for its own sources only.
#ifndef PREDELLA_AGENT_CONTROL_UPLOAD_ENTRY_H_
#define PREDELLA_AGENT_CONTROL_UPLOAD_ENTRY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "agent/control/upload_table.h"

namespace predella::agent {

enum class UploadPhase {
  kReceiving,
  kPublishing,
  kPublished,
  kFull,
  kMoved,
  kLost,
  kEnded,
};

// The move of an upload to another mount.
struct UploadMove {
  int64_t received = 0;  // when the mount was full
  bool full = false;     // or a failed write or sync condemned the file
  std::string detail;
  // Its segment_boundary is where the tail goes on, as the coordinator wrote
  // it down: this process may have been started since, and hold less.
  control::v1::RedirectTarget target;
  int64_t have = 0;  // bytes below are here; known once a copy has begun
  bool copying = false;
  absl::Duration retry_at;
  // Where a block was read that is not what came, and how often in a row.
  int64_t bad_at = -1;
  int bad_reads = 0;
};

// Where the disk work of one upload runs in order. An upload that was taken
// off and named again has the strand that it had.
struct UploadStrand {
  explicit UploadStrand(Executor* executor) : tasks(executor) {}

  Strand tasks;
  absl::Status stalled;  // guarded; not OK while a call is stuck
};

struct UploadEntry {
  UploadEntry(UploadSpec s, std::shared_ptr<UploadStrand> on,
              std::shared_ptr<ImageStore> in)
      : spec(std::move(s)), strand(std::move(on)), store(std::move(in)) {}

  // Constant but for tail_start: written on the strand under the table's lock,
  // before anything is staged.
  UploadSpec spec;
  const std::shared_ptr<UploadStrand> strand;  // shared with its tasks

  // On the strand only. Let go there as well: both hold descriptors.
  std::shared_ptr<ImageStore> store;
  std::unique_ptr<StagedImage> staged;
  bool resolved = false;  // what lies on the disk of it was looked up

  // Guarded by the table's lock.
  UploadPhase phase = UploadPhase::kReceiving;
  std::shared_ptr<UploadHandle> stream;  // WHOLE or TAIL
  std::shared_ptr<UploadHandle> prefix_stream;
  int64_t tail_next = 0;
  int64_t tail_safe = 0;
  int64_t prefix_next = 0;
  // The client can send from here on, for it never heard of more.
  int64_t told_safe = 0;
  bool on_disk = false;
  std::optional<CommitRequest> commit;
  bool committed = false;  // the commit came after every byte before it
  absl::Duration publish_retry_at;
  std::optional<absl::Duration> name_taken_since;
  std::optional<control::v1::Published> published;
  // When Published, UploadFull or UploadLost was last sent; it is sent again
  // until it is answered.
  absl::Duration told_at;
  UploadMove move;
  std::string lost;  // why it can only end; kLost
  std::string lost_reason;
  // The session was answered without its status, for a call was stuck.
  bool owes_status = false;
  bool looked_up = false;  // since the session named it
  bool looking = false;
  absl::Duration look_again_at;
};

// The one place where an upload changes its phase; the table's lock is held.
void Transition(UploadEntry* entry, UploadPhase to);

// What the coordinator knows of the upload no more, or not yet.
absl::Status NotListed(const Uuid& upload_id);

control::v1::Published ToPublished(const PublishedImage& image);

// The multiple of a block at or below.
inline int64_t BlockFloor(int64_t bytes) {
  return bytes / kBlockBytes * kBlockBytes;
}

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_CONTROL_UPLOAD_ENTRY_H_
