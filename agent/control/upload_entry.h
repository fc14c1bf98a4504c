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

struct UploadEntry {
  UploadEntry(UploadSpec s, std::shared_ptr<Strand> on,
              std::shared_ptr<ImageStore> in)
      : spec(std::move(s)), strand(std::move(on)), store(std::move(in)) {}

  // Constant but for tail_start: written on the strand under the table's lock,
  // before anything is staged.
  UploadSpec spec;
  const std::shared_ptr<Strand> strand;

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
  std::string lost;      // why it can only end; kLost
  absl::Status stalled;  // not OK while a call of it is stuck
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
