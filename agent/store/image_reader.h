// ImageReader over a published file and its record.
#ifndef PREDELLA_AGENT_STORE_IMAGE_READER_H_
#define PREDELLA_AGENT_STORE_IMAGE_READER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/store/image_store.h"

namespace predella::agent {

class ImageReaderImpl final : public ImageReader {
 public:
  ImageReaderImpl(PublishedImage image, std::vector<uint32_t> table,
                  std::unique_ptr<File> file)
      : image_(std::move(image)),
        table_(std::move(table)),
        file_(std::move(file)) {}

  const PublishedImage& image() const override { return image_; }
  absl::StatusOr<VerifiedBytes> Read(int64_t offset, int64_t length) override;
  absl::Span<const uint32_t> block_crc32c() const override { return table_; }
  std::optional<int> ReadDescriptor() override {
    return file_->ReadDescriptor();
  }

 private:
  const PublishedImage image_;
  const std::vector<uint32_t> table_;
  const std::unique_ptr<File> file_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_IMAGE_READER_H_
