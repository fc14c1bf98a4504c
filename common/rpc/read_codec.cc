#include "common/rpc/read_codec.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"

#include "common/errors.h"

namespace predella {
namespace {

using ::google::protobuf::io::CodedOutputStream;

// Tags: the field's number, then the wire type in three bits.
constexpr uint8_t kChunk = (2 << 3) | 2;  // of ReadImageResponse
constexpr uint8_t kOffset = (1 << 3) | 0;
constexpr uint8_t kCrc32c = (2 << 3) | 5;
constexpr uint8_t kData = (3 << 3) | 2;

// What precedes the bytes needs at most 25; see Split.
constexpr size_t kHeadBytes = 32;
// Longer ones are left to the generated parser, which knows what of them
// counts: 4 for lengths below 256 MiB, 9 for offsets that are not negative.
constexpr int kLengthBytes = 4;
constexpr int kOffsetBytes = 9;

grpc::Slice ToSlice(std::string bytes) {
  auto owned = std::make_unique<std::string>(std::move(bytes));
  char* const data = owned->data();
  const size_t size = owned->size();
  return grpc::Slice(
      data, size, [](void* gone) { delete static_cast<std::string*>(gone); },
      owned.release());
}

// Reads the first bytes of a message. Everything is false at their end.
class Head {
 public:
  explicit Head(const std::vector<grpc::Slice>& slices) {
    for (const grpc::Slice& slice : slices) {
      const size_t part = std::min(slice.size(), kHeadBytes - size_);
      std::copy_n(slice.begin(), part, bytes_ + size_);
      size_ += part;
    }
  }
  size_t at() const { return at_; }
  bool Tag(uint8_t tag) {
    if (at_ == size_ || bytes_[at_] != tag) {
      return false;
    }
    ++at_;
    return true;
  }
  bool Varint(int limit, uint64_t* value) {
    *value = 0;
    for (int i = 0; i < limit && at_ < size_; ++i) {
      const uint8_t byte = bytes_[at_++];
      *value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
      if (byte < 0x80) {
        return true;
      }
    }
    return false;
  }
  bool Fixed32(uint32_t* value) {
    if (size_ - at_ < 4) {
      return false;
    }
    *value = 0;
    for (int i = 0; i < 4; ++i) {
      *value |= static_cast<uint32_t>(bytes_[at_++]) << (8 * i);
    }
    return true;
  }

 private:
  uint8_t bytes_[kHeadBytes] = {};
  size_t size_ = 0;
  size_t at_ = 0;
};

// Nothing unless the message is one chunk: offset, checksum, bytes, in this
// order and to its end. The first two may be absent.
std::optional<ReadMessage> Split(const std::vector<grpc::Slice>& slices,
                                 size_t total) {
  Head head(slices);
  uint64_t length = 0;
  if (!head.Tag(kChunk) || !head.Varint(kLengthBytes, &length) ||
      head.at() + length != total) {
    return std::nullopt;
  }
  ReadMessage out;
  v1::Chunk* const chunk = out.message.mutable_chunk();
  if (uint64_t offset = 0; head.Tag(kOffset)) {
    if (!head.Varint(kOffsetBytes, &offset)) {
      return std::nullopt;
    }
    chunk->set_offset(static_cast<int64_t>(offset));
  }
  if (uint32_t crc32c = 0; head.Tag(kCrc32c)) {
    if (!head.Fixed32(&crc32c)) {
      return std::nullopt;
    }
    chunk->set_crc32c(crc32c);
  }
  if (!head.Tag(kData) || !head.Varint(kLengthBytes, &length) ||
      head.at() + length != total) {
    return std::nullopt;
  }
  size_t skip = head.at();
  for (const grpc::Slice& slice : slices) {
    const size_t part = std::min(skip, slice.size());
    skip -= part;
    if (part < slice.size()) {
      out.data.push_back(part == 0 ? slice : slice.sub(part, slice.size()));
    }
  }
  return out;
}

}  // namespace

grpc::ByteBuffer EncodeReadChunk(int64_t offset, uint32_t crc32c,
                                 std::string data) {
  uint8_t fields[kHeadBytes];
  uint8_t* end = fields;
  if (offset != 0) {
    *end++ = kOffset;
    end = CodedOutputStream::WriteVarint64ToArray(static_cast<uint64_t>(offset),
                                                  end);
  }
  *end++ = kCrc32c;
  end = CodedOutputStream::WriteLittleEndian32ToArray(crc32c, end);
  if (!data.empty()) {
    *end++ = kData;
    end = CodedOutputStream::WriteVarint32ToArray(
        static_cast<uint32_t>(data.size()), end);
  }
  const auto fields_size = static_cast<size_t>(end - fields);
  uint8_t head[kHeadBytes + 8];
  uint8_t* at = head;
  *at++ = kChunk;
  at = CodedOutputStream::WriteVarint32ToArray(
      static_cast<uint32_t>(fields_size + data.size()), at);
  at = std::copy(fields, end, at);
  const bool empty = data.empty();
  const grpc::Slice slices[2] = {
      grpc::Slice(head, static_cast<size_t>(at - head)),
      empty ? grpc::Slice() : ToSlice(std::move(data))};
  return grpc::ByteBuffer(slices, empty ? 1 : 2);
}

grpc::ByteBuffer EncodeReadResponse(const v1::ReadImageResponse& message) {
  const grpc::Slice slice = ToSlice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

absl::StatusOr<ReadMessage> DecodeReadResponse(const grpc::ByteBuffer& wire) {
  std::vector<grpc::Slice> slices;
  if (wire.Valid() && wire.Dump(&slices).ok()) {
    if (std::optional<ReadMessage> fast = Split(slices, wire.Length())) {
      return *std::move(fast);
    }
  }
  grpc::ByteBuffer copy(wire);  // refers to the same bytes
  ReadMessage out;
  const grpc::Status parsed =
      grpc::SerializationTraits<v1::ReadImageResponse>::Deserialize(
          &copy, &out.message);
  if (!parsed.ok()) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                     absl::StrCat("an answer of ", wire.Length(),
                                  " bytes to ReadImage is "
                                  "none: ",
                                  parsed.error_message()));
  }
  if (out.message.has_chunk() && !out.message.chunk().data().empty()) {
    out.data.push_back(
        ToSlice(std::move(*out.message.mutable_chunk()->mutable_data())));
    out.message.mutable_chunk()->clear_data();
  }
  return out;
}

}  // namespace predella
