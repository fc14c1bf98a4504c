// ReadImageResponse without a copy of its bytes: a chunk is one MiB, and the
// generated classes would copy it once on either side.
//
// On the wire there is nothing but the message of chunk_service.proto.
#ifndef PREDELLA_COMMON_RPC_READ_CODEC_H_
#define PREDELLA_COMMON_RPC_READ_CODEC_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "predella/v1/chunk_service.pb.h"

namespace predella {

// `message` without the bytes of its chunk, which are in `data`: in order,
// none of the slices empty. They keep what gRPC received alive.
struct ReadMessage {
  v1::ReadImageResponse message;
  std::vector<grpc::Slice> data;
};

// A chunk as the generated class would write it. Takes the bytes over: they
// are freed once the socket has them. At most 2 GiB.
grpc::ByteBuffer EncodeReadChunk(int64_t offset, uint32_t crc32c,
                                 std::string data);

// Any message, with the generated class.
grpc::ByteBuffer EncodeReadResponse(const v1::ReadImageResponse& message);

// Takes whatever the generated parser takes, and refuses what it refuses:
// DATA_LOSS, CHECKSUM_MISMATCH. The bytes are copied only when the message is
// not laid out as EncodeReadChunk does it.
absl::StatusOr<ReadMessage> DecodeReadResponse(const grpc::ByteBuffer& wire);

}  // namespace predella

#endif  // PREDELLA_COMMON_RPC_READ_CODEC_H_
