// The part of an upload that the agent might still lose.
#ifndef PREDELLA_CLIENT_INTERNAL_UPLOAD_WINDOW_H_
#define PREDELLA_CLIENT_INTERNAL_UPLOAD_WINDOW_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "absl/strings/string_view.h"

#include "predella/v1/chunk_service.pb.h"

namespace predella::client_internal {

// Bytes in blocks that end on MiB boundaries. A block is sent once sealed:
// when it is full, or at the end of the image. Not safe for concurrent use.
class UploadWindow {
 public:
  explicit UploadWindow(int64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // Whether another block would pass the limit. One that was begun always has
  // room.
  bool full() const;
  // Takes bytes up to the next MiB boundary and says how many. Not when full.
  size_t Append(absl::string_view data);
  // Seals the last block, however long it is.
  void Seal();
  // Whether the last block is sealed, or there is none.
  bool at_boundary() const;

  // The chunk that begins at `offset`; none unless a sealed block holds it.
  std::shared_ptr<const v1::WriteImageRequest> ChunkAt(int64_t offset) const;
  // Forgets sealed blocks that end at or below `safe_offset`.
  void DropBelow(int64_t safe_offset);

  // First byte still kept, and the end of the sealed ones.
  int64_t start() const { return start_; }
  int64_t sealed_end() const;
  int64_t end() const { return end_; }
  uint32_t crc32c() const { return crc32c_; }  // of all bytes ever appended

 private:
  struct Block {
    // Shared with a stream that is sending it.
    std::shared_ptr<v1::WriteImageRequest> request;
    bool sealed = false;
  };
  const int64_t limit_bytes_;
  std::deque<Block> blocks_;
  int64_t start_ = 0;
  int64_t end_ = 0;
  uint32_t crc32c_ = 0;
};

}  // namespace predella::client_internal

#endif  // PREDELLA_CLIENT_INTERNAL_UPLOAD_WINDOW_H_
