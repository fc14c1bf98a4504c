// The loop that reads an image from whichever copy can be read.
#ifndef PREDELLA_CLIENT_INTERNAL_IMAGE_READER_IMPL_H_
#define PREDELLA_CLIENT_INTERNAL_IMAGE_READER_IMPL_H_

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "client/internal/retry.h"
#include "client/internal/stub.h"
#include "common/rpc/read_codec.h"
#include "predella/client_options.h"
#include "predella/image_reader.h"
#include "predella/v1/chunk_service.pb.h"
#include "predella/v1/image_service.pb.h"

namespace predella::client_internal {

class ImageReaderImpl final : public ImageReader {
 public:
  // OUT_OF_RANGE, READ_PAST_END when the range is not within the image.
  static absl::StatusOr<std::unique_ptr<ImageReader>> Open(
      std::shared_ptr<Stub> stub, const ClientOptions& options,
      const ReadOptions& read);

  absl::StatusOr<absl::string_view> Read() override;
  bool Offer(int64_t offset, char* out, size_t size,
             std::shared_ptr<void> keep) override;
  const v1::Image& image() const override { return image_; }

 private:
  ImageReaderImpl(std::shared_ptr<Stub> stub, const ClientOptions& options,
                  v1::Image image, int64_t offset, int64_t end, bool offers);

  // The next message of the open stream: true when message_ holds new bytes.
  absl::StatusOr<bool> Step();
  absl::Status OpenNext();
  absl::Status CheckHeader(const v1::ReadHeader& header) const;
  absl::Status TakeChunk(const v1::Chunk& chunk,
                         const std::vector<grpc::Slice>& data);
  // What a try that ended so says of its copy, with the mount's name.
  absl::Status Told(const absl::Status& broken) const;
  // OK when there is another copy or another round to try.
  absl::Status Recover(const absl::Status& broken);
  // Every copy is damaged. OK when the image has other copies by now; asks
  // only once before another byte comes.
  absl::Status AskAfterDamage(const absl::Status& damaged);
  absl::Status Refresh();

  const std::shared_ptr<Stub> stub_;  // shared with the connection
  const ClientOptions options_;
  v1::Image image_;
  // Copies as of the last refresh, and which is tried.
  v1::Image current_;
  int copy_ = 0;
  int address_ = 0;
  bool round_had_damage_only_ = true;
  // Of the present round over all copies: every one was damaged, or its disk
  // answered with an error. And how many such rounds went by without a byte.
  bool round_had_disk_errors_only_ = true;
  int disk_error_rounds_ = 0;
  // As the one above, or a call to its disk hung.
  bool round_had_disk_faults_only_ = true;
  bool silent_ = false;  // nothing came: no agent said that its disk hangs
  bool refreshed_for_capability_ = false;
  bool asked_after_damage_ = false;
  absl::Status worst_;

  const int64_t begin_;
  int64_t offset_;
  const int64_t end_;
  uint32_t crc32c_ = 0;
  std::unique_ptr<ReadStream> stream_;
  bool local_ = false;  // stream_ reads the open file
  // Until that failed at the copy that is tried.
  bool try_local_ = true;
  const bool offers_;  // as ReadOptions says
  // Its bytes are handed to the application slice by slice, without a copy.
  ReadMessage message_;
  size_t next_slice_ = 0;
  RetryBudget budget_;
  bool recovering_ = false;  // no bytes came since the last failure
  absl::Status error_;
};

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_IMAGE_READER_IMPL_H_
