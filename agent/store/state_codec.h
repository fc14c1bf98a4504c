// The state of an upload in flight. Bytes: docs/on-disk-format.md.
#ifndef PREDELLA_AGENT_STORE_STATE_CODEC_H_
#define PREDELLA_AGENT_STORE_STATE_CODEC_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

std::string EncodeState(const storage::v1::InflightState& state);

// DATA_LOSS, CHECKSUM_MISMATCH unless every byte is as it was written and the
// numbers in it fit one another.
absl::StatusOr<storage::v1::InflightState> DecodeState(absl::string_view bytes);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_STATE_CODEC_H_
