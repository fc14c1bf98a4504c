#include "common/listing_digest.h"

#include <cstddef>
#include <string>

namespace predella {
namespace {

// Little-endian, whatever the machine.
template <typename T>
void AppendFixed(T value, std::string* out) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    out->push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i)));
  }
}

// Its length first: no two entries are written the same.
void AppendBytes(absl::string_view bytes, std::string* out) {
  AppendFixed(static_cast<uint32_t>(bytes.size()), out);
  out->append(bytes.data(), bytes.size());
}

std::string Written(const control::v1::InventoryEntry& entry) {
  std::string out;
  AppendBytes(entry.image_id(), &out);
  AppendFixed(entry.size_bytes(), &out);
  if (entry.has_record()) {
    const storage::v1::ReplicaRecord& record = entry.record();
    AppendBytes(record.image_id(), &out);
    AppendFixed(record.generation().epoch(), &out);
    AppendFixed(record.generation().n(), &out);
    AppendFixed(record.generation().nonce(), &out);
    AppendFixed(record.size_bytes(), &out);
    AppendFixed(record.crc32c(), &out);
  }
  return out;
}

}  // namespace

void ListingSum::Add(const control::v1::InventoryEntry& entry) {
  if (!entry.named()) {
    return;
  }
  sum_.Add(Written(entry));
}

control::v1::ListingDigest ListingSum::ToProto() const {
  control::v1::ListingDigest out;
  out.set_images(sum_.count());
  out.set_digest(sum_.bytes());
  return out;
}

bool ListingSum::Matches(const control::v1::ListingDigest& digest) const {
  const control::v1::ListingDigest mine = ToProto();
  return mine.digest().size() == size_t{HashSum::kBytes} &&
         mine.digest() == digest.digest() && mine.images() == digest.images();
}

}  // namespace predella
