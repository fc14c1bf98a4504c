// An upload in progress.
#ifndef PREDELLA_CLIENT_INCLUDE_PREDELLA_IMAGE_WRITER_H_
#define PREDELLA_CLIENT_INCLUDE_PREDELLA_IMAGE_WRITER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "predella/v1/image_service.pb.h"

namespace predella {

struct UploadOptions {
  // UUID of the image, bare or as images/{uuid}. Required.
  std::string image;
  // UUID of this upload; empty: a random one. The same id goes on with the
  // same upload, or returns what came of it.
  std::string upload_id;
  // Who uploads, in any words: a drawn upload id bears a mark of it, by which
  // IsUploadOf (upload_mark.h) knows the image as this writer's.
  std::string writer;
  // Where it is known: another size at Commit is then an error.
  std::optional<int64_t> size_bytes;
};

// Sends bytes to the agent of the mount that the coordinator chose. Survives
// broken streams, restarted agents and coordinators, and mounts that fill up;
// none of that is seen here. Not safe for concurrent use.
//
// After an error every later call returns the same error. Destroyed before
// Commit, it leaves the upload open: it can be gone on with under its upload
// id, or expires.
class ImageWriter {
 public:
  virtual ~ImageWriter() = default;

  // Takes the next bytes. Blocks while the agent is more than the window
  // behind. Errors:
  //   ABORTED            UPLOAD_SUPERSEDED, UPLOAD_ABORTED
  //   FAILED_PRECONDITION UPLOAD_EXPIRED, UPLOAD_DELETED
  //   RESOURCE_EXHAUSTED NO_SPACE_IN_CLUSTER: no mount has room
  //   UNAVAILABLE        no agent or coordinator answered in time
  virtual absl::Status Write(absl::string_view data) = 0;

  // Ends the image: when this returns OK it is durable and in the index.
  // Where the answer is lost, the coordinator is asked what came of it.
  virtual absl::StatusOr<v1::Image> Commit(
      const std::vector<v1::Hash>& hashes) = 0;
  absl::StatusOr<v1::Image> Commit() { return Commit({}); }

  // Gives the upload up. OK also when it had ended without commit.
  virtual absl::Status Abort() = 0;

  // UUID of the upload; another one after a silent new start.
  virtual std::string upload_id() const = 0;
  // mounts/{mount} that takes the bytes now.
  virtual std::string mount() const = 0;
  // Bytes taken by Write.
  virtual int64_t bytes_written() const = 0;
};

}  // namespace predella

#endif  // PREDELLA_CLIENT_INCLUDE_PREDELLA_IMAGE_WRITER_H_
