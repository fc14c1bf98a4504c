#include "agent/store/describe.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/store/fence_file.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "agent/store/record_codec.h"
#include "agent/store/slot_file.h"
#include "agent/store/state_codec.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

// A state holds 4 bytes for each MiB of its image.
constexpr int64_t kMostStateBytes = int64_t{64} << 20;

// The newest slot that is whole; empty when none was ever written. An agent
// may be writing another one meanwhile. SlotFile is not used: it writes.
absl::StatusOr<std::string> NewestSlot(FileSystem* fs, absl::string_view path,
                                       int slots, int64_t slot_bytes,
                                       absl::string_view what,
                                       std::vector<std::string>* warnings) {
  auto bytes = ReadFile(fs, path, slots * slot_bytes);
  if (absl::IsNotFound(bytes.status())) {
    warnings->push_back(absl::StrCat(path, " is missing: ", what, " lost"));
    return std::string();
  }
  RETURN_IF_ERROR(bytes.status());
  const absl::string_view all = *bytes;
  uint64_t newest = 0;
  bool written = false;
  std::string content;
  for (int i = 0; i < slots; ++i) {
    const auto at = static_cast<size_t>(i * slot_bytes);
    const absl::string_view slot =
        at < all.size() ? all.substr(at, static_cast<size_t>(slot_bytes))
                        : absl::string_view();
    written = written || slot.substr(0, kSlotHeaderBytes) !=
                             std::string(kSlotHeaderBytes, '\0');
    std::optional<DecodedSlot> decoded = DecodeSlot(slot);
    if (decoded.has_value() && decoded->sequence > newest) {
      newest = decoded->sequence;
      content = std::move(decoded->content);
    }
  }
  if (written && newest == 0) {
    warnings->push_back(
        absl::StrCat("no part of ", path, " is whole: ", what, " lost"));
  }
  return content;
}

void RaiseTo(const storage::v1::Generation& generation, PairTable* known) {
  known->Raise(Generation::FromProto(generation));
}

absl::Status ReadRecords(FileSystem* fs, PairTable* known,
                         MountDescription* out) {
  int64_t damaged = 0;
  for (int shard = 0; shard < layout::kShards; ++shard) {
    std::vector<Uuid> ids;
    const absl::Status listed =
        fs->List(layout::ShardPath(shard), [&](absl::string_view name) {
          if (const auto id = layout::IdOfName(name)) {
            ids.push_back(*id);
          }
        });
    if (absl::IsNotFound(listed)) {
      out->warnings.push_back(absl::StrCat(layout::ShardPath(shard),
                                           " is missing, and its records"));
      continue;
    }
    RETURN_IF_ERROR(listed);
    for (const Uuid& id : ids) {
      auto bytes = ReadFile(fs, layout::RecordPath(id), kRecordHeaderBytes);
      if (absl::IsNotFound(bytes.status())) {
        continue;  // removed since
      }
      if (!bytes.ok()) {
        ++damaged;  // one bad sector is no reason to go without the mount
        continue;
      }
      const auto record = DecodeRecordHeader(*bytes);
      if (!record.ok()) {
        ++damaged;
        continue;
      }
      RaiseTo(record->generation(), known);
      const auto file = fs->Stat(layout::ImagePath(id));
      if (absl::IsNotFound(file.status())) {
        continue;  // a record that has no image, or not yet
      }
      if (!file.ok()) {
        ++damaged;
        continue;
      }
      ++out->image_count;
      out->image_bytes += record->size_bytes();
    }
  }
  if (damaged > 0) {
    out->warnings.push_back(absl::StrCat(
        damaged,
        " records or files can not be read or are damaged: their images are "
        "not taken in, their files stay"));
  }
  return absl::OkStatus();
}

absl::Status ReadInflight(FileSystem* fs, PairTable* known) {
  std::vector<Uuid> ids;
  const absl::Status listed =
      fs->List(layout::kInflightDir, [&](absl::string_view name) {
        if (const auto id = layout::IdOfName(name)) {
          ids.push_back(*id);
        }
      });
  if (!listed.ok() && !absl::IsNotFound(listed)) {
    return listed;
  }
  for (const Uuid& id : ids) {
    const auto bytes = ReadFile(fs, layout::StatePath(id), kMostStateBytes);
    // One without a state, or with a torn one, is no image and proves nothing.
    if (bytes.ok()) {
      const auto state = DecodeState(*bytes);
      if (state.ok()) {
        RaiseTo(state->generation(), known);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MountDescription> DescribeMount(FileSystem* fs) {
  MountDescription out;
  out.path = fs->root();
  ASSIGN_OR_RETURN(out.label, ReadLabel(fs));
  PairTable known;
  ASSIGN_OR_RETURN(const std::string fence,
                   NewestSlot(fs, layout::kFence, layout::kFenceSlots,
                              layout::kFenceSlotBytes,
                              "the epochs it heard of are", &out.warnings));
  storage::v1::Fence heard;
  if (!heard.ParseFromString(fence)) {
    out.warnings.emplace_back("the fence is of another version");
  }
  for (const storage::v1::FenceEntry& entry : heard.entries()) {
    known.Raise(Generation{entry.epoch(), entry.max_n(), entry.nonce()});
  }
  ASSIGN_OR_RETURN(
      const std::string deletes,
      NewestSlot(fs, layout::kTombstones, layout::kTombstoneSlots,
                 layout::kTombstoneSlotBytes,
                 "its copies of deletes and its list of mounts are",
                 &out.warnings));
  if (!out.deletes.ParseFromString(deletes)) {
    out.warnings.emplace_back("the tombstones are of another version");
  }
  RETURN_IF_ERROR(ReadInflight(fs, &known));
  RETURN_IF_ERROR(ReadRecords(fs, &known, &out));
  for (const storage::v1::FenceEntry& entry : known.Entries()) {
    *out.known.add_entries() = entry;
  }
  return out;
}

}  // namespace predella::agent
