// Names of everything at a mount, relative to its root. Printed from parsed
// ids only: no name from outside reaches a path.
#ifndef PREDELLA_AGENT_STORE_LAYOUT_H_
#define PREDELLA_AGENT_STORE_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

#include "common/ids.h"

namespace predella::agent::layout {

inline constexpr int32_t kFormatVersion = 1;

inline constexpr absl::string_view kRoot = "";
inline constexpr absl::string_view kDotDir = ".predella";
inline constexpr absl::string_view kLabel = ".predella/mount.id";
inline constexpr absl::string_view kLock = ".predella/lock";
inline constexpr absl::string_view kFence = ".predella/fence";
inline constexpr absl::string_view kProbe = ".predella/probe";
inline constexpr absl::string_view kTombstones = ".predella/tombstones";
inline constexpr absl::string_view kInflightDir = ".predella/inflight";
inline constexpr absl::string_view kRecordsDir = ".predella/records";
inline constexpr absl::string_view kQuarantineDir = ".predella/quarantine";

inline constexpr absl::string_view kTempSuffix = ".tmp";
inline constexpr absl::string_view kStateSuffix = ".state";

// The zeros written at init: 4 MiB in all.
inline constexpr int64_t kFenceSlotBytes = int64_t{32} << 10;
inline constexpr int kFenceSlots = 3;
inline constexpr int64_t kProbeBytes = int64_t{4} << 10;
inline constexpr int64_t kTombstoneSlotBytes = int64_t{1998} << 10;
inline constexpr int kTombstoneSlots = 2;
inline constexpr int kShards = 256;

std::string ImagePath(const Uuid& image_id);
std::string ShardPath(int shard);
// The shard an image's record lies in: the first two hex digits of its id.
std::string ShardPathOf(const Uuid& image_id);
std::string RecordPath(const Uuid& image_id);
std::string InflightPath(const Uuid& upload_id);
std::string StatePath(const Uuid& upload_id);
std::string TempPath(absl::string_view path);

// The id a name stands for; absent when it is not one in canonical form.
std::optional<Uuid> IdOfName(absl::string_view name);

}  // namespace predella::agent::layout

#endif  // PREDELLA_AGENT_STORE_LAYOUT_H_
