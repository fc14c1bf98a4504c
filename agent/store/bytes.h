// Little-endian numbers in the frames on disk.
#ifndef PREDELLA_AGENT_STORE_BYTES_H_
#define PREDELLA_AGENT_STORE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace predella::agent {

inline void PutU32(std::string* out, uint32_t value) {
  for (int i = 0; i < 4; ++i) {
    out->push_back(static_cast<char>((value >> (8 * i)) & 0xff));
  }
}

inline void PutU64(std::string* out, uint64_t value) {
  PutU32(out, static_cast<uint32_t>(value));
  PutU32(out, static_cast<uint32_t>(value >> 32));
}

// The caller has made sure that the bytes are there.
inline uint32_t GetU32(absl::string_view in, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i > 0; --i) {
    value = (value << 8) | static_cast<unsigned char>(in[at + i - 1]);
  }
  return value;
}

inline uint64_t GetU64(absl::string_view in, size_t at) {
  return GetU32(in, at) | (uint64_t{GetU32(in, at + 4)} << 32);
}

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_BYTES_H_
