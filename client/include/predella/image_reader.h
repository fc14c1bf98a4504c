// An image, or a range of one, being read.
#ifndef PREDELLA_CLIENT_INCLUDE_PREDELLA_IMAGE_READER_H_
#define PREDELLA_CLIENT_INCLUDE_PREDELLA_IMAGE_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "predella/v1/image_service.pb.h"

namespace predella {

struct ReadOptions {
  // UUID of the image, bare or as images/{uuid}. Required.
  std::string image;
  int64_t offset = 0;
  // 0: to the end.
  int64_t length = 0;
  // ImageReader::Offer will be called, ahead of Read: the client then puts
  // bytes into its own memory only where nobody waits for those offered.
  bool offers_memory = false;
};

// Reads from the best copy, checks every chunk, and goes on at the same
// offset on the next copy when one fails. Not safe for concurrent use.
class ImageReader {
 public:
  virtual ~ImageReader() = default;

  // The next bytes, empty at the end; valid until the next call. Errors:
  //   DATA_LOSS    CHECKSUM_MISMATCH: every copy is damaged here;
  //                REPLICA_MISSING: none is where the index says
  //   ABORTED      GENERATION_MISMATCH: the image was replaced meanwhile
  //   OUT_OF_RANGE READ_PAST_END
  //   UNAVAILABLE  no copy can be reached
  virtual absl::StatusOr<absl::string_view> Read() = 0;

  // Memory of the application's where Read may show the bytes
  // [offset, offset + size), a whole MiB of the image or its last one, without
  // another copy; with offers_memory. True: it was taken. Then it is the
  // client's until Read has shown exactly these bytes there (its view begins at
  // `out`); it may never do so, and write to it long after its own end, when a
  // disk hangs: `keep` holds the memory for so long. False: it is not touched,
  // and may be offered again.
  virtual bool Offer(int64_t offset, char* out, size_t size,
                     std::shared_ptr<void> keep) {
    static_cast<void>(offset);
    static_cast<void>(out);
    static_cast<void>(size);
    static_cast<void>(keep);
    return false;
  }

  // As the coordinator described it when the reading began.
  virtual const v1::Image& image() const = 0;
};

}  // namespace predella

#endif  // PREDELLA_CLIENT_INCLUDE_PREDELLA_IMAGE_READER_H_
