#include "server/index/index_keys.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

#include "common/errors.h"

namespace predella::server {
namespace {

constexpr size_t kUuidBytes = 16;

std::string BigEndian(uint64_t value, int bytes) {
  std::string out;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>((value >> shift) & 0xff));
  }
  return out;
}

// Sorts as the generations do.
std::string Sortable(const Generation& generation) {
  return absl::StrCat(BigEndian(static_cast<uint64_t>(generation.epoch), 8),
                      BigEndian(static_cast<uint64_t>(generation.n), 8),
                      BigEndian(generation.nonce, 4));
}

}  // namespace

namespace keys {

std::string Image(const Uuid& image_id) {
  return absl::StrCat(kImages, image_id.bytes());
}

std::string MountImages(const Uuid& mount_uid) {
  return absl::StrCat(kByMount, mount_uid.bytes(), "/");
}

std::string MountImage(const Uuid& mount_uid, const Uuid& image_id) {
  return absl::StrCat(kByMount, mount_uid.bytes(), "/", image_id.bytes());
}

std::string Upload(const Uuid& upload_id) {
  return absl::StrCat(kUploads, upload_id.bytes());
}

std::string TombstonesOf(const Uuid& image_id) {
  return absl::StrCat(kTombstones, image_id.bytes(), "/");
}

std::string Tombstone(const Uuid& image_id, const Generation& generation) {
  return absl::StrCat(TombstonesOf(image_id), Sortable(generation));
}

std::string ConflictsOf(const Uuid& image_id) {
  return absl::StrCat(kConflicts, image_id.bytes(), "/");
}

std::string Conflict(const Uuid& image_id, const Generation& generation) {
  return absl::StrCat(ConflictsOf(image_id), Sortable(generation));
}

std::string Scrub(const Uuid& mount_uid) {
  return absl::StrCat(kScrubs, mount_uid.bytes());
}

std::string Fault(const Uuid& mount_uid, const Uuid& image_id) {
  return absl::StrCat(kFaults, mount_uid.bytes(), "/", image_id.bytes());
}

std::string Unadopted(const Uuid& image_id, const Uuid& mount_uid) {
  return absl::StrCat(kUnadopted, image_id.bytes(), "/", mount_uid.bytes());
}

std::string Mount(const Uuid& mount_uid) {
  return absl::StrCat(kMounts, mount_uid.bytes());
}

std::string Event(const Generation& pair, int i) {
  return absl::StrCat(kEvents, Sortable(pair),
                      BigEndian(static_cast<uint64_t>(i), 2));
}

std::string Sequence(int64_t n) {
  return absl::StrCat(kSequence,
                      BigEndian(static_cast<uint64_t>(n % kSequenceSlots), 1));
}

Uuid MountOfMountImage(absl::string_view key) {
  return key.size() == kByMount.size() + 2 * kUuidBytes + 1
             ? Uuid::FromBytesOrNone(key.substr(kByMount.size(), kUuidBytes))
             : Uuid();
}

Uuid ImageOfMountImage(absl::string_view key) {
  return key.size() == kByMount.size() + 2 * kUuidBytes + 1
             ? Uuid::FromBytesOrNone(key.substr(key.size() - kUuidBytes))
             : Uuid();
}

}  // namespace keys

std::string SerializeRow(const google::protobuf::MessageLite& row) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    row.SerializeToCodedStream(&coded);
  }
  return out;
}

absl::Status ParseRow(absl::string_view key, absl::string_view value,
                      google::protobuf::MessageLite* row) {
  if (row->ParseFromArray(value.data(), static_cast<int>(value.size()))) {
    return absl::OkStatus();
  }
  return MakeError(
      absl::StatusCode::kDataLoss, reason::kIndexUnavailable,
      absl::StrCat("the row \"", absl::CHexEscape(key),
                   "\" of the index is not a ", row->GetTypeName(), " (",
                   value.size(), " bytes): the index is damaged"));
}

}  // namespace predella::server
