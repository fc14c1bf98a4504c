// Keys of the index and how rows become bytes; docs/index-format.md is its
// description. Numbers in keys are big-endian, so that keys sort as they do.
#ifndef PREDELLA_SERVER_INDEX_INDEX_KEYS_H_
#define PREDELLA_SERVER_INDEX_INDEX_KEYS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message_lite.h"

#include "common/generation.h"
#include "common/ids.h"

namespace predella::server {

// Bumped when an older coordinator could misread the rows.
inline constexpr int32_t kIndexFormatVersion = 1;
// Slots the last n goes round in. Commits may overtake each other: a late one
// then overwrites no newer n unless it is this many behind.
inline constexpr int64_t kSequenceSlots = 256;

namespace keys {

inline constexpr absl::string_view kCluster = "meta/cluster";
inline constexpr absl::string_view kEpochs = "meta/epochs";
inline constexpr absl::string_view kClean = "meta/clean";
inline constexpr absl::string_view kRecovering = "meta/recovering";
// RecoveringRow: the index was rebuilt from the mounts; never removed.
inline constexpr absl::string_view kRebuilt = "meta/rebuilt";

inline constexpr absl::string_view kImages = "image/";
inline constexpr absl::string_view kByMount = "by-mount/";
inline constexpr absl::string_view kUploads = "upload/";
inline constexpr absl::string_view kTombstones = "tombstone/";
inline constexpr absl::string_view kConflicts = "conflict/";
inline constexpr absl::string_view kFaults = "fault/";
inline constexpr absl::string_view kUnadopted = "unadopted/";
inline constexpr absl::string_view kScrubs = "scrub/";
inline constexpr absl::string_view kMounts = "mount/";
inline constexpr absl::string_view kEvents = "event/";
inline constexpr absl::string_view kSequence = "seq/";

std::string Image(const Uuid& image_id);
// Begin of the keys of one mount.
std::string MountImages(const Uuid& mount_uid);
std::string MountImage(const Uuid& mount_uid, const Uuid& image_id);
std::string Upload(const Uuid& upload_id);
// Begin of the keys of one image.
std::string TombstonesOf(const Uuid& image_id);
std::string Tombstone(const Uuid& image_id, const Generation& generation);
// Begin of the keys of one image.
std::string ConflictsOf(const Uuid& image_id);
std::string Conflict(const Uuid& image_id, const Generation& generation);
std::string Fault(const Uuid& mount_uid, const Uuid& image_id);
std::string Unadopted(const Uuid& image_id, const Uuid& mount_uid);
std::string Scrub(const Uuid& mount_uid);
std::string Mount(const Uuid& mount_uid);
// `i` counts the events of one commit.
std::string Event(const Generation& pair, int i);
std::string Sequence(int64_t n);

// Parts of a by-mount key; "none" if it has not the shape of one.
Uuid MountOfMountImage(absl::string_view key);
Uuid ImageOfMountImage(absl::string_view key);

}  // namespace keys

// The same message gives the same bytes (maps are sorted): conditions compare
// bytes.
std::string SerializeRow(const google::protobuf::MessageLite& row);
// DATA_LOSS, INDEX_UNAVAILABLE when the bytes are not such a row: never taken
// for "not there".
absl::Status ParseRow(absl::string_view key, absl::string_view value,
                      google::protobuf::MessageLite* row);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_INDEX_INDEX_KEYS_H_
