// An image, or a range of one, being read.
#ifndef PREDELLA_CLIENT_INCLUDE_PREDELLA_IMAGE_READER_H_
#define PREDELLA_CLIENT_INCLUDE_PREDELLA_IMAGE_READER_H_

#include <cstdint>
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

  // As the coordinator described it when the reading began.
  virtual const v1::Image& image() const = 0;
};

}  // namespace predella

#endif  // PREDELLA_CLIENT_INCLUDE_PREDELLA_IMAGE_READER_H_
