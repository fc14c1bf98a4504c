// The raw path of ReadImage against the generated classes.
#include "common/rpc/read_codec.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/stubs/logging.h"
#include "gtest/gtest.h"

#include "common/crc32c.h"
#include "common/errors.h"
#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::StatusIs;

std::string Flat(const std::vector<grpc::Slice>& slices) {
  std::string out;
  for (const grpc::Slice& slice : slices) {
    out.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return out;
}

std::string Flat(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  return Flat(slices);
}

class ReadCodecTest : public ::testing::Test {
 protected:
  size_t Random(size_t below) { return random_() % below; }

  std::string Bytes(size_t size) {
    std::string out(size, '\0');
    for (char& byte : out) {
      byte = static_cast<char>(random_());
    }
    return out;
  }
  // Cut anywhere, also within the first few bytes.
  grpc::ByteBuffer Cut(const std::string& wire) {
    std::vector<grpc::Slice> slices;
    for (size_t at = 0; at < wire.size();) {
      const size_t most = Random(2) == 0 ? 4 : wire.size();
      const size_t part = std::min(wire.size() - at, Random(most) + 1);
      slices.emplace_back(wire.substr(at, part));
      at += part;
    }
    if (slices.empty()) {
      slices.emplace_back();
    }
    return grpc::ByteBuffer(slices.data(), slices.size());
  }
  v1::ReadImageResponse Message() {
    v1::ReadImageResponse message;
    if (Random(8) == 0) {
      message.mutable_header()->set_size_bytes(
          static_cast<int64_t>(Random(1 << 30)));
      message.mutable_header()->set_generation("generation");
      return message;
    }
    v1::Chunk* const chunk = message.mutable_chunk();
    if (Random(4) != 0) {
      const int64_t offset = static_cast<int64_t>(random_() >> Random(64));
      chunk->set_offset(Random(8) == 0 ? -offset : offset);
    }
    if (Random(4) != 0) {
      chunk->set_crc32c(static_cast<uint32_t>(random_()));
    }
    chunk->set_data(Bytes(Random(300)));
    return message;
  }
  // As it is, or with what a parser has to understand or to refuse.
  std::string Wire() {
    std::string wire = Message().SerializeAsString();
    switch (Random(8)) {
      case 0:
        return wire + Message().SerializeAsString();  // merged
      case 1:
        return wire + std::string("\x78\x07", 2);  // an unknown field
      case 2:
        return wire.substr(0, Random(wire.size() + 1));
      case 3:
      case 4:
        if (!wire.empty()) {
          wire[Random(std::min<size_t>(wire.size(), 30))] =
              static_cast<char>(random_());
        }
        return wire;
      case 5: {  // other order, some fields twice
        const std::string fields =
            std::string("\x1a\x02xy\x08\x05\x15\x01\x02\x03\x04\x1a\x01z", 14);
        return std::string("\x12") + static_cast<char>(fields.size()) + fields;
      }
      case 6:
        return Bytes(Random(40));
      default:
        return wire;
    }
  }

  std::mt19937_64 random_{42};
};

TEST_F(ReadCodecTest, DecodesWhatTheGeneratedParserDecodes) {
  const google::protobuf::LogSilencer quiet;  // of strings that are not UTF-8
  int taken = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string wire = Wire();
    v1::ReadImageResponse want;
    const bool valid = want.ParseFromString(wire);
    absl::StatusOr<ReadMessage> got = DecodeReadResponse(Cut(wire));
    ASSERT_EQ(got.ok(), valid) << "message " << i;
    if (!valid) {
      continue;
    }
    ++taken;
    ASSERT_EQ(got->message.payload_case(), want.payload_case());
    for (const grpc::Slice& slice : got->data) {
      ASSERT_GT(slice.size(), 0u);
    }
    if (want.has_chunk()) {
      ASSERT_TRUE(got->message.chunk().data().empty());
      got->message.mutable_chunk()->set_data(Flat(got->data));
    } else {
      ASSERT_TRUE(got->data.empty());
    }
    ASSERT_EQ(got->message.SerializeAsString(), want.SerializeAsString())
        << "message " << i;
  }
  EXPECT_GT(taken, 8'000);
}

TEST_F(ReadCodecTest, EncodesWhatTheGeneratedClassEncodes) {
  for (int i = 0; i < 500; ++i) {
    const std::string data = Bytes(Random(3) == 0 ? 0 : Random(20'000));
    const auto offset = static_cast<int64_t>((random_() >> 1) >> Random(64));
    v1::ReadImageResponse want;
    want.mutable_chunk()->set_offset(offset);
    want.mutable_chunk()->set_crc32c(Crc32c(data));
    want.mutable_chunk()->set_data(data);
    ASSERT_EQ(Flat(EncodeReadChunk(offset, Crc32c(data), data)),
              want.SerializeAsString());
    ASSERT_EQ(Flat(EncodeReadResponse(want)), want.SerializeAsString());
  }
}

TEST_F(ReadCodecTest, TheBytesOfAChunkStayWhereTheyAre) {
  std::string data = Bytes(1 << 20);
  const auto* const place = reinterpret_cast<const uint8_t*>(data.data());
  const grpc::ByteBuffer wire = EncodeReadChunk(1 << 20, 7, std::move(data));
  const absl::StatusOr<ReadMessage> got = DecodeReadResponse(wire);
  ASSERT_TRUE(got.ok());
  ASSERT_EQ(got->data.size(), 1u);
  EXPECT_EQ(got->data[0].begin(), place);
}

TEST_F(ReadCodecTest, NonsenseIsDamage) {
  const grpc::Slice slice(std::string("\x12\x7f\x08", 3));
  const grpc::ByteBuffer wire(&slice, 1);
  const absl::Status status = DecodeReadResponse(wire).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(status, HasReason(reason::kChecksumMismatch));
}

}  // namespace
}  // namespace predella
