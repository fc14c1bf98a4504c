// What tests of reading through open files share.
#ifndef PREDELLA_TESTS_CLIENT_LIB_OPEN_IMAGE_H_
#define PREDELLA_TESTS_CLIENT_LIB_OPEN_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

#include "common/crc32c.h"
#include "predella/v1/chunk_service.pb.h"

namespace predella::testing {

inline constexpr int64_t kBlock = int64_t{1} << 20;
inline constexpr char kOpenGeneration[] = "1-1-00000001";

// Bytes that differ from block to block.
inline std::string OpenBytes(int64_t size) {
  std::string out(static_cast<size_t>(size), '\0');
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<char>((i * 31 + (i >> 20)) & 0xff);
  }
  return out;
}

// As an agent says it of an image with these bytes.
inline v1::OpenImageResponse AnswerFor(const std::string& bytes) {
  v1::OpenImageResponse answer;
  answer.mutable_header()->set_size_bytes(static_cast<int64_t>(bytes.size()));
  answer.mutable_header()->set_generation(kOpenGeneration);
  for (size_t at = 0; at < bytes.size(); at += kBlock) {
    answer.add_block_crc32c(
        Crc32c(absl::string_view(bytes).substr(at, kBlock)));
  }
  return answer;
}

}  // namespace predella::testing

#endif  // PREDELLA_TESTS_CLIENT_LIB_OPEN_IMAGE_H_
