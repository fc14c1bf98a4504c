#include "agent/store/record_codec.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "agent/store/bytes.h"
#include "agent/store/image_store.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/generation.h"
#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {
namespace {

// Header: magic, u32 length of the message, the message, zeros, u32 crc32c of
// all that at the end of the block.
constexpr absl::string_view kMagic = "PRDLREC1";
constexpr size_t kHeader = static_cast<size_t>(kRecordHeaderBytes);
constexpr size_t kMessageAt = 12;
constexpr size_t kCrcAt = kHeader - 4;
constexpr size_t kMaxMessage = kCrcAt - kMessageAt;

absl::Status DamagedRecord(absl::string_view why) {
  return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                   absl::StrCat("the record is damaged: ", why));
}

// Drops the least important rest of the decision; false when nothing is left.
bool Shorten(storage::v1::ReplicaRecord* record) {
  if (!record->has_decision()) {
    return false;
  }
  auto* const decision = record->mutable_decision();
  if (decision->verdicts_size() > 0) {
    decision->mutable_verdicts()->RemoveLast();
  } else {
    record->clear_decision();
  }
  return true;
}

}  // namespace

absl::StatusOr<std::string> EncodeRecord(storage::v1::ReplicaRecord record,
                                         absl::Span<const uint32_t> table) {
  while (record.ByteSizeLong() > kMaxMessage) {
    if (!Shorten(&record)) {
      return MakeError(absl::StatusCode::kInvalidArgument,
                       reason::kInvalidArgument,
                       absl::StrCat("the image's hashes and key take ",
                                    record.ByteSizeLong(),
                                    " bytes; a record holds ", kMaxMessage));
    }
  }
  const std::string message = record.SerializeAsString();
  std::string out;
  out.reserve(
      static_cast<size_t>(RecordBytes(static_cast<int64_t>(table.size()))));
  out.append(kMagic.data(), kMagic.size());
  PutU32(&out, static_cast<uint32_t>(message.size()));
  out.append(message);
  out.resize(kCrcAt, '\0');
  PutU32(&out, Crc32c(out));
  PutU32(&out, static_cast<uint32_t>(table.size()));
  for (const uint32_t crc : table) {
    PutU32(&out, crc);
  }
  PutU32(&out, Crc32c(absl::string_view(out).substr(kHeader)));
  return out;
}

absl::StatusOr<storage::v1::ReplicaRecord> DecodeRecordHeader(
    absl::string_view bytes) {
  if (bytes.size() < kHeader) {
    return DamagedRecord(absl::StrCat("it has ", bytes.size(), " bytes"));
  }
  bytes = bytes.substr(0, kHeader);
  if (bytes.substr(0, kMagic.size()) != kMagic) {
    return DamagedRecord("its first bytes are not those of a record");
  }
  if (Crc32c(bytes.substr(0, kCrcAt)) != GetU32(bytes, kCrcAt)) {
    return DamagedRecord("the checksum of its header is wrong");
  }
  const size_t length = GetU32(bytes, kMagic.size());
  storage::v1::ReplicaRecord record;
  if (length > kMaxMessage ||
      !record.ParseFromArray(bytes.data() + kMessageAt,
                             static_cast<int>(length))) {
    return DamagedRecord("its header can't be parsed");
  }
  if (record.table_block_bytes() != kBlockBytes || record.size_bytes() < 0) {
    return DamagedRecord(absl::StrCat("blocks of ", record.table_block_bytes(),
                                      " bytes, image of ",
                                      record.size_bytes()));
  }
  return record;
}

absl::StatusOr<std::vector<uint32_t>> DecodeRecordTable(absl::string_view bytes,
                                                        int64_t blocks) {
  const size_t count = static_cast<size_t>(blocks);
  if (bytes.size() != count * 4 + 8 || GetU32(bytes, 0) != count) {
    return DamagedRecord(absl::StrCat("its table has ", bytes.size(),
                                      " bytes, not those of ", blocks,
                                      " blocks"));
  }
  if (Crc32c(bytes.substr(0, bytes.size() - 4)) !=
      GetU32(bytes, bytes.size() - 4)) {
    return DamagedRecord("the checksum of its table is wrong");
  }
  std::vector<uint32_t> table(count);
  for (size_t i = 0; i < count; ++i) {
    table[i] = GetU32(bytes, 4 + 4 * i);
  }
  return table;
}

int64_t RecordBytes(int64_t blocks) {
  return kRecordHeaderBytes + 8 + 4 * blocks;
}

PublishedImage ImageOf(const storage::v1::ReplicaRecord& record) {
  PublishedImage image;
  image.upload_id = Uuid::FromBytesOrNone(record.upload_id());
  image.image_id = Uuid::FromBytesOrNone(record.image_id());
  image.generation = Generation::FromProto(record.generation());
  image.size_bytes = record.size_bytes();
  image.crc32c = record.crc32c();
  image.hashes.assign(record.hashes().begin(), record.hashes().end());
  image.location_key = record.location_key();
  image.create_time_us = record.create_time_us();
  image.publish_time_us = record.publish_time_us();
  image.decision = record.decision();
  return image;
}

}  // namespace predella::agent
