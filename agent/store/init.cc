// `predella mount init`: the label comes last, so that a directory is either
// labelled and complete, or not ours.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/label.h"
#include "agent/store/layout.h"
#include "agent/store/slot_file.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {
namespace {

constexpr uint32_t kPrivate = 0700;

absl::Status NotEmpty(FileSystem* fs, int64_t count, absl::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   reason::kMountNotEmpty,
                   absl::StrCat(fs->root(), " is not empty: ", count, " ", what,
                                "; nothing was changed. Give an empty "
                                "directory, or move what is in it away"),
                   {{"entries", absl::StrCat(count)}});
}

absl::StatusOr<int64_t> CountIn(FileSystem* fs, absl::string_view path) {
  int64_t count = 0;
  const absl::Status listed =
      fs->List(path, [&](absl::string_view) { ++count; });
  if (!listed.ok() && !absl::IsNotFound(listed)) {
    return listed;
  }
  return count;
}

absl::StatusOr<bool> HoldsContent(FileSystem* fs, absl::string_view path,
                                  int slots, int64_t slot_bytes) {
  const auto bytes = ReadFile(fs, path, slots * slot_bytes);
  if (absl::IsNotFound(bytes.status())) {
    return false;
  }
  RETURN_IF_ERROR(bytes.status());
  for (int i = 0; i < slots; ++i) {
    const size_t at = static_cast<size_t>(i * slot_bytes);
    if (at < bytes->size() &&
        DecodeSlot(absl::string_view(*bytes).substr(
                       at, static_cast<size_t>(slot_bytes)))
            .has_value()) {
      return true;
    }
  }
  return false;
}

// A .predella without a label: an init that stopped, or a mount in use that
// lost its label? Only the former has nothing in it.
absl::Status CheckHalfMade(FileSystem* fs) {
  ASSIGN_OR_RETURN(int64_t count, CountIn(fs, layout::kInflightDir));
  for (int shard = 0; shard < layout::kShards; ++shard) {
    ASSIGN_OR_RETURN(const int64_t records,
                     CountIn(fs, layout::ShardPath(shard)));
    count += records;
  }
  ASSIGN_OR_RETURN(const int64_t kept, CountIn(fs, layout::kQuarantineDir));
  count += kept;
  ASSIGN_OR_RETURN(const bool fence,
                   HoldsContent(fs, layout::kFence, layout::kFenceSlots,
                                layout::kFenceSlotBytes));
  ASSIGN_OR_RETURN(
      const bool tombstones,
      HoldsContent(fs, layout::kTombstones, layout::kTombstoneSlots,
                   layout::kTombstoneSlotBytes));
  count += (fence ? 1 : 0) + (tombstones ? 1 : 0);
  if (count > 0) {
    return NotEmpty(fs, count,
                    "things under .predella, which has lost its label");
  }
  return absl::OkStatus();
}

absl::Status CheckEmpty(FileSystem* fs, InitInto into) {
  int64_t count = 0;
  int64_t images = 0;
  bool half_made = false;
  RETURN_IF_ERROR(fs->List(layout::kRoot, [&](absl::string_view name) {
    if (name == layout::kDotDir) {
      half_made = true;
    } else if (name != "lost+found") {
      ++count;
      images += layout::IdOfName(name).has_value() ? 1 : 0;
    }
  }));
  if (count > 0 && into == InitInto::kEmpty) {
    return NotEmpty(fs, count,
                    images == 0
                        ? "entries"
                        : absl::StrCat("entries, ", images,
                                       " of them under names of images: "
                                       "--with-images keeps what is there"));
  }
  if (count > 0 && images == 0) {
    return NotEmpty(fs, count, "entries, none under the name of an image");
  }
  return half_made ? CheckHalfMade(fs) : absl::OkStatus();
}

absl::Status MakeDirectory(FileSystem* fs, absl::string_view path) {
  const absl::Status made = fs->Mkdir(path, kPrivate);
  return absl::IsAlreadyExists(made) ? absl::OkStatus() : made;
}

// Written, not only allocated: later overwriting must never need space.
absl::Status WriteZeros(FileSystem* fs, absl::string_view path, int64_t size) {
  const std::string zeros(static_cast<size_t>(size), '\0');
  return Annotate(WriteNewFile(fs, path, zeros, Durability::kPower),
                  "the space that deletes need could not be laid out");
}

absl::Status MakeLayout(FileSystem* fs) {
  RETURN_IF_ERROR(MakeDirectory(fs, layout::kDotDir));
  for (const absl::string_view path :
       {layout::kInflightDir, layout::kRecordsDir, layout::kQuarantineDir}) {
    RETURN_IF_ERROR(MakeDirectory(fs, path));
  }
  for (int shard = 0; shard < layout::kShards; ++shard) {
    RETURN_IF_ERROR(MakeDirectory(fs, layout::ShardPath(shard)));
  }
  RETURN_IF_ERROR(WriteZeros(fs, layout::kFence,
                             layout::kFenceSlots * layout::kFenceSlotBytes));
  RETURN_IF_ERROR(WriteZeros(fs, layout::kProbe, layout::kProbeBytes));
  RETURN_IF_ERROR(
      WriteZeros(fs, layout::kTombstones,
                 layout::kTombstoneSlots * layout::kTombstoneSlotBytes));
  RETURN_IF_ERROR(WriteNewFile(fs, layout::kLock, "", Durability::kPower));
  for (int shard = 0; shard < layout::kShards; ++shard) {
    RETURN_IF_ERROR(fs->SyncDir(layout::ShardPath(shard)));
  }
  for (const absl::string_view path :
       {layout::kRecordsDir, layout::kInflightDir, layout::kQuarantineDir,
        layout::kDotDir, layout::kRoot}) {
    RETURN_IF_ERROR(fs->SyncDir(path));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<storage::v1::MountLabel> InitMount(FileSystem* fs, Clock* clock,
                                                  IdGenerator* ids,
                                                  absl::string_view mount_name,
                                                  InitInto into) {
  RETURN_IF_ERROR(ValidateMountName(mount_name));
  auto there = ReadLabel(fs);
  if (there.ok()) {
    if (there->mount_name() != mount_name) {
      return MakeError(absl::StatusCode::kFailedPrecondition,
                       reason::kMountIdentityMismatch,
                       absl::StrCat(fs->root(), " is labelled already, as ",
                                    there->mount_name(), ", not ", mount_name),
                       {{"mount", there->mount_name()}});
    }
    return there;
  }
  if (!absl::IsNotFound(there.status())) {
    return there.status();
  }
  RETURN_IF_ERROR(CheckEmpty(fs, into));
  RETURN_IF_ERROR(MakeLayout(fs));
  storage::v1::MountLabel label;
  label.set_format_version(layout::kFormatVersion);
  label.set_mount_uid(ids->NextUuid().bytes());
  label.set_mount_name(std::string(mount_name));
  label.set_create_time_us(clock->NowMicros());
  RETURN_IF_ERROR(WriteLabel(fs, label));
  return ReadLabel(fs);
}

}  // namespace predella::agent
