#include "common/listing_digest.h"

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <string>

namespace predella {
namespace {

constexpr size_t kDigestBytes = 16;

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
  const std::string written = Written(entry);
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  if (EVP_Digest(written.data(), written.size(), hash.data(), nullptr,
                 EVP_sha256(), nullptr) != 1) {
    failed_ = true;
    return;
  }
  absl::uint128 value = 0;
  for (size_t i = 0; i < kDigestBytes; ++i) {
    value = (value << 8) | hash[i];
  }
  sum_ += value;
  ++entries_;
}

control::v1::ListingDigest ListingSum::ToProto() const {
  control::v1::ListingDigest out;
  out.set_images(entries_);
  if (failed_) {
    return out;
  }
  std::string bytes;
  for (size_t i = 0; i < kDigestBytes; ++i) {
    bytes.push_back(
        static_cast<char>(absl::Uint128Low64(sum_ >> (8 * (15 - i)))));
  }
  out.set_digest(bytes);
  return out;
}

bool ListingSum::Matches(const control::v1::ListingDigest& digest) const {
  const control::v1::ListingDigest mine = ToProto();
  return mine.digest().size() == kDigestBytes &&
         mine.digest() == digest.digest() && mine.images() == digest.images();
}

}  // namespace predella
