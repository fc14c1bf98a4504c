#ifndef PREDELLA_CLIENT_CLI_IMAGE_JSON_H_
#define PREDELLA_CLIENT_CLI_IMAGE_JSON_H_

#include <ostream>

#include "absl/status/status.h"

#include "predella/v1/image_service.pb.h"

namespace predella::cli {

// What PrintJson would print of a list of images, in parts: a list of a
// million is never whole in memory. One that ends early is no JSON, as its
// exit code says.
class ImageJson {
 public:
  explicit ImageJson(std::ostream* out) : out_(out) {}
  // The next images.
  absl::Status Print(const v1::ListImagesResponse& part);
  // Once, at the end; `rest` has all but images.
  absl::Status Finish(const v1::ListImagesResponse& rest);

 private:
  std::ostream* const out_;
  bool began_ = false;
};

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_IMAGE_JSON_H_
