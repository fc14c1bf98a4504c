#include "common/capability.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"

#include "common/errors.h"

namespace predella {
namespace {

constexpr size_t kMacBytes = 32;
constexpr char kVersion = 1;

std::string Mac(absl::string_view key, absl::string_view data) {
  std::string out(kMacBytes, '\0');
  unsigned int length = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(data.data()), data.size(),
       reinterpret_cast<unsigned char*>(out.data()), &length);
  return out;
}

template <typename T>
void AppendInteger(std::string* out, T value) {
  static_assert(std::endian::native == std::endian::little);
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
T TakeInteger(absl::string_view* data) {
  T value{};
  std::memcpy(&value, data->data(), sizeof(value));
  data->remove_prefix(sizeof(value));
  return value;
}

std::string Encode(const Capability& c) {
  std::string out;
  out.push_back(kVersion);
  AppendInteger(&out, static_cast<uint8_t>(c.operation));
  out += c.image_id.bytes();
  AppendInteger(&out, c.generation.epoch);
  AppendInteger(&out, c.generation.n);
  AppendInteger(&out, c.generation.nonce);
  out += c.upload_id.bytes();
  out += c.mount_uid.bytes();
  AppendInteger(&out, c.expire_time_us);
  return out;
}

constexpr size_t kMessageBytes = 1 + 1 + 16 + 8 + 8 + 4 + 16 + 16 + 8;

Capability Decode(absl::string_view data) {
  Capability c;
  data.remove_prefix(1);
  c.operation = static_cast<Capability::Operation>(TakeInteger<uint8_t>(&data));
  c.image_id = Uuid::FromBytesOrNone(data.substr(0, 16));
  data.remove_prefix(16);
  c.generation.epoch = TakeInteger<int64_t>(&data);
  c.generation.n = TakeInteger<int64_t>(&data);
  c.generation.nonce = TakeInteger<uint32_t>(&data);
  c.upload_id = Uuid::FromBytesOrNone(data.substr(0, 16));
  data.remove_prefix(16);
  c.mount_uid = Uuid::FromBytesOrNone(data.substr(0, 16));
  data.remove_prefix(16);
  c.expire_time_us = TakeInteger<int64_t>(&data);
  return c;
}

absl::Status Denied(absl::string_view what) {
  return MakeError(
      absl::StatusCode::kPermissionDenied, reason::kCapabilityInvalid,
      absl::StrCat("the capability ", what,
                   "; ask the coordinator for a new one (GetImage to read, "
                   "StartUpload with the same upload id to write)"));
}

}  // namespace

std::string DeriveMountKey(absl::string_view cluster_key,
                           const Uuid& mount_uid) {
  const std::string extracted = Mac("predella mount key v1", cluster_key);
  return Mac(extracted, absl::StrCat(mount_uid.bytes(), "\x01"));
}

std::string SignCapability(const Capability& capability,
                           absl::string_view mount_key) {
  std::string token = Encode(capability);
  token += Mac(mount_key, token);
  return token;
}

absl::Status CheckCapability(absl::string_view token, const Capability& want,
                             absl::string_view mount_key, int64_t now_us) {
  if (token.size() != kMessageBytes + kMacBytes || token[0] != kVersion) {
    return Denied("is malformed");
  }
  const absl::string_view message = token.substr(0, kMessageBytes);
  const std::string mac = Mac(mount_key, message);
  if (CRYPTO_memcmp(mac.data(), token.data() + kMessageBytes, kMacBytes) != 0) {
    return Denied("was not signed for this mount");
  }
  const Capability got = Decode(message);
  if (got.operation != want.operation) {
    return Denied("is for another operation");
  }
  if (got.image_id != want.image_id || got.generation != want.generation) {
    return Denied(absl::StrCat("is for images/", got.image_id.ToString(),
                               " generation ", got.generation.ToString()));
  }
  if (got.mount_uid != want.mount_uid) {
    return Denied(absl::StrCat("is for the mount ", got.mount_uid.ToString()));
  }
  if (want.operation == Capability::Operation::kWrite &&
      got.upload_id != want.upload_id) {
    return Denied(absl::StrCat("is for uploads/", got.upload_id.ToString()));
  }
  if (got.expire_time_us < now_us) {
    return Denied(absl::StrCat("ran out ", (now_us - got.expire_time_us) / 1000,
                               " ms ago"));
  }
  return absl::OkStatus();
}

}  // namespace predella
