#include "client/internal/upload_window.h"

#include <algorithm>
#include <utility>

#include "common/crc32c.h"
#include "common/units.h"

namespace predella::client_internal {

bool UploadWindow::full() const {
  return at_boundary() && end_ - start_ + kMiB > limit_bytes_;
}

bool UploadWindow::at_boundary() const {
  return blocks_.empty() || blocks_.back().sealed;
}

size_t UploadWindow::Append(absl::string_view data) {
  if (at_boundary()) {
    Block block;
    block.request = std::make_shared<v1::WriteImageRequest>();
    block.request->mutable_chunk()->set_offset(end_);
    block.request->mutable_chunk()->mutable_data()->reserve(kMiB);
    blocks_.push_back(std::move(block));
  }
  std::string* bytes = blocks_.back().request->mutable_chunk()->mutable_data();
  const int64_t room = kMiB - end_ % kMiB;
  const size_t taken = std::min(data.size(), static_cast<size_t>(room));
  bytes->append(data.data(), taken);
  crc32c_ = ExtendCrc32c(crc32c_, data.substr(0, taken));
  end_ += static_cast<int64_t>(taken);
  if (end_ % kMiB == 0) {
    Seal();
  }
  return taken;
}

void UploadWindow::Seal() {
  if (at_boundary()) {
    return;
  }
  v1::Chunk* chunk = blocks_.back().request->mutable_chunk();
  chunk->set_crc32c(Crc32c(chunk->data()));
  blocks_.back().sealed = true;
}

int64_t UploadWindow::sealed_end() const {
  return at_boundary() ? end_ : blocks_.back().request->chunk().offset();
}

std::shared_ptr<const v1::WriteImageRequest> UploadWindow::ChunkAt(
    int64_t offset) const {
  if (offset < start_ || offset >= sealed_end()) {
    return nullptr;
  }
  const auto after = std::upper_bound(blocks_.begin(), blocks_.end(), offset,
                                      [](int64_t o, const Block& b) {
                                        return o < b.request->chunk().offset();
                                      });
  const Block& block = *std::prev(after);
  const v1::Chunk& whole = block.request->chunk();
  if (whole.offset() == offset) {
    return block.request;
  }
  auto rest = std::make_shared<v1::WriteImageRequest>();
  rest->mutable_chunk()->set_offset(offset);
  rest->mutable_chunk()->set_data(
      whole.data().substr(static_cast<size_t>(offset - whole.offset())));
  rest->mutable_chunk()->set_crc32c(Crc32c(rest->chunk().data()));
  return rest;
}

void UploadWindow::DropBelow(int64_t safe_offset) {
  while (!blocks_.empty() && blocks_.front().sealed) {
    const v1::Chunk& chunk = blocks_.front().request->chunk();
    const int64_t block_end =
        chunk.offset() + static_cast<int64_t>(chunk.data().size());
    if (block_end > safe_offset) {
      return;
    }
    blocks_.pop_front();
    start_ = block_end;
  }
}

}  // namespace predella::client_internal
