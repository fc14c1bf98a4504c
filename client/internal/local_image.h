// The file of an image that an agent on this host handed out.
#ifndef PREDELLA_CLIENT_INTERNAL_LOCAL_IMAGE_H_
#define PREDELLA_CLIENT_INTERNAL_LOCAL_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "predella/v1/chunk_service.pb.h"

namespace predella::client_internal {

// Used, and destroyed, by one thread: the one that opened it.
class LocalImage {
 public:
  virtual ~LocalImage() = default;
  // Its header, and a checksum of every MiB.
  virtual const v1::OpenImageResponse& answer() const = 0;
  // Fewer bytes than asked only at the end of the file. May hang for as long as
  // the disk does. UNAVAILABLE, MOUNT_FAILED.
  virtual absl::StatusOr<size_t> Read(int64_t offset, size_t size,
                                      char* out) = 0;
  // The agent wants it closed, or is gone. Never waits.
  virtual bool Withdrawn() = 0;
};

using LocalImageOpener =
    std::function<absl::StatusOr<std::unique_ptr<LocalImage>>()>;

// Asks the agent that serves chunks at the Unix socket `path`. The thread that
// calls it is left with a table of descriptors of its own, so that the process
// keeps its sockets to itself when that thread hangs in the kernel. Errors are
// the agent's; UNAVAILABLE where it hands out nothing.
absl::StatusOr<std::unique_ptr<LocalImage>> OpenLocalImage(
    const std::string& path, const v1::ReadImageRequest& request,
    absl::Duration timeout);

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_LOCAL_IMAGE_H_
