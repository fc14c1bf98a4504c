#include "common/hash_sum.h"

#include <openssl/evp.h>

#include <array>

namespace predella {

void HashSum::Add(absl::string_view entry) {
  ++count_;
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  if (EVP_Digest(entry.data(), entry.size(), hash.data(), nullptr, EVP_sha256(),
                 nullptr) != 1) {
    failed_ = true;
    return;
  }
  absl::uint128 value = 0;
  for (int i = 0; i < kBytes; ++i) {
    value = (value << 8) | hash[static_cast<size_t>(i)];
  }
  sum_ += value;
}

std::string HashSum::bytes() const {
  std::string out;
  for (int i = kBytes - 1; i >= 0 && !failed_; --i) {
    out.push_back(static_cast<char>(absl::Uint128Low64(sum_ >> (8 * i))));
  }
  return out;
}

}  // namespace predella
