#include "agent/store/state_codec.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/store/bytes.h"
#include "agent/store/image_store.h"
#include "agent/store/record_codec.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {
namespace {

// Magic, u32 length of the message, the message, u32 crc32c of all that.
constexpr absl::string_view kStateMagic = "PRDLINF1";
constexpr size_t kStateMessageAt = 12;

absl::Status DamagedState(absl::string_view why) {
  return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                   absl::StrCat("the state of an upload is damaged: ", why));
}

bool Plausible(const storage::v1::InflightState& state) {
  if (state.prefix_bytes() < 0 || state.tail_start() < 0 ||
      state.tail_bytes() < 0 || state.tail_start() % kBlockBytes != 0 ||
      state.prefix_bytes() > state.tail_start()) {
    return false;
  }
  const int64_t blocks =
      std::max(BlocksOf(state.prefix_bytes()),
               state.tail_bytes() == 0
                   ? 0
                   : BlocksOf(state.tail_start() + state.tail_bytes()));
  return state.crc_table_size() >= blocks;
}

}  // namespace

std::string EncodeState(const storage::v1::InflightState& state) {
  const std::string message = state.SerializeAsString();
  std::string out(kStateMagic);
  PutU32(&out, static_cast<uint32_t>(message.size()));
  out.append(message);
  PutU32(&out, Crc32c(out));
  return out;
}

absl::StatusOr<storage::v1::InflightState> DecodeState(
    absl::string_view bytes) {
  if (bytes.size() < kStateMessageAt + 4 ||
      bytes.substr(0, kStateMagic.size()) != kStateMagic ||
      GetU32(bytes, kStateMagic.size()) != bytes.size() - kStateMessageAt - 4) {
    return DamagedState(
        absl::StrCat("its frame does not fit its ", bytes.size(), " bytes"));
  }
  if (Crc32c(bytes.substr(0, bytes.size() - 4)) !=
      GetU32(bytes, bytes.size() - 4)) {
    return DamagedState("its checksum is wrong");
  }
  storage::v1::InflightState state;
  if (!state.ParseFromArray(
          bytes.data() + kStateMessageAt,
          static_cast<int>(bytes.size() - kStateMessageAt - 4))) {
    return DamagedState("it can't be parsed");
  }
  if (!Plausible(state)) {
    return DamagedState("its lengths contradict one another");
  }
  return state;
}

}  // namespace predella::agent
