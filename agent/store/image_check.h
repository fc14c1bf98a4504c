// Reads one image cold and checks it against everything that is known of it:
// the checksums of its blocks, their table's own, size and whole CRC32C, and
// the hashes that its client gave.
#ifndef PREDELLA_AGENT_STORE_IMAGE_CHECK_H_
#define PREDELLA_AGENT_STORE_IMAGE_CHECK_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "agent/fs/file_system.h"
#include "agent/store/image_store.h"
#include "agent/store/store_core.h"
#include "common/digest.h"
#include "common/ids.h"

namespace predella::agent {

class ImageCheckImpl final : public ImageCheck {
 public:
  // As ImageStore::OpenCheck.
  static absl::StatusOr<std::unique_ptr<ImageCheck>> Open(StoreCore* core,
                                                          const Uuid& image_id);
  ~ImageCheckImpl() override;

  const Generation& generation() const override { return image_.generation; }
  int64_t record_bytes() const override;
  absl::StatusOr<int64_t> Next() override;

 private:
  ImageCheckImpl(StoreCore* core, PublishedImage image,
                 std::vector<uint32_t> table, std::unique_ptr<File> file)
      : core_(core),
        image_(std::move(image)),
        table_(std::move(table)),
        file_(std::move(file)) {}

  void StartDigests();
  absl::Status CheckSize();
  absl::StatusOr<int64_t> ReadBlock();
  absl::Status CheckWhole();
  // What was found, unless the image was removed or replaced meanwhile.
  absl::Status IfStillHere(const absl::Status& found);
  absl::Status Damaged(absl::string_view why) const;

  struct Given {
    std::unique_ptr<Digest> digest;
    const storage::v1::Hash* hash;  // in image_
  };

  StoreCore* const core_;  // must outlive this
  const PublishedImage image_;
  const std::vector<uint32_t> table_;
  const std::unique_ptr<File> file_;
  std::vector<Given> digests_;
  int64_t offset_ = 0;
  uint32_t crc32c_ = 0;
  std::string block_;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_IMAGE_CHECK_H_
