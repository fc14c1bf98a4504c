// Files that no row of the index names: an operator's quarantine, and a file
// that was moved here by hand.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "agent/fs/file_system.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/image_store_impl.h"
#include "agent/store/layout.h"
#include "agent/store/publication.h"
#include "agent/store/record_codec.h"
#include "agent/store/store_core.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

constexpr absl::string_view kRecordSuffix = ".record";

absl::Status NoFile(const Uuid& image_id) {
  return MakeError(
      absl::StatusCode::kNotFound, reason::kReplicaMissing,
      absl::StrCat("no file bears the name ", image_id.ToString()));
}

absl::Status OtherFile(const Uuid& image_id, const NameState& state) {
  return MakeError(
      absl::StatusCode::kAborted, reason::kGenerationMismatch,
      absl::StrCat("the name ", image_id.ToString(), " bears ",
                   state.image ? absl::StrCat("generation ",
                                              state.generation().ToString())
                               : "a file without a record that fits it"));
}

absl::Status NotPlain(const Uuid& image_id) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kNameTaken,
                   absl::StrCat("the name ", image_id.ToString(),
                                " is not a plain file: look at it by hand"));
}

// Whoever put an image and its record here may not have synced them.
absl::Status SyncImage(FileSystem* fs, const Uuid& image_id) {
  for (const std::string& path :
       {layout::RecordPath(image_id), layout::ImagePath(image_id)}) {
    // Enough for a sync, also of a file that nobody may write to.
    ASSIGN_OR_RETURN(const auto file, fs->Open(path, OpenMode::kRead));
    if (const absl::Status synced = file->Datasync(); !synced.ok()) {
      return FailedSync(synced, absl::StrCat("the sync of ", path, " failed"));
    }
  }
  for (const std::string& path :
       {layout::ShardPathOf(image_id), std::string(layout::kRoot)}) {
    if (const absl::Status synced = fs->SyncDir(path); !synced.ok()) {
      return FailedSync(synced, absl::StrCat("the sync of ", path, " failed"));
    }
  }
  return absl::OkStatus();
}

// When a file was put into the quarantine; absent: it was not put by us.
std::optional<int64_t> QuarantineTimeUs(absl::string_view name) {
  absl::ConsumeSuffix(&name, kRecordSuffix);
  const size_t dot = name.find('.');
  int64_t micros = 0;
  if (dot == absl::string_view::npos ||
      !layout::IdOfName(name.substr(0, dot)).has_value() ||
      !absl::SimpleAtoi(name.substr(dot + 1), &micros)) {
    return std::nullopt;
  }
  return micros;
}

// Reads all of the file from the disk and not from the cache.
absl::StatusOr<std::vector<uint32_t>> ReadCold(File* file, int64_t size,
                                               uint32_t* crc32c) {
  RETURN_IF_ERROR(file->DropCache(0, size));
  std::vector<uint32_t> table;
  std::string block(static_cast<size_t>(kBlockBytes), '\0');
  *crc32c = 0;
  for (int64_t at = 0; at < size; at += kBlockBytes) {
    const size_t want = static_cast<size_t>(std::min(kBlockBytes, size - at));
    ASSIGN_OR_RETURN(const size_t got, file->Pread(at, want, block.data()));
    if (got != want) {
      return MakeError(
          absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
          absl::StrCat("the file ends at ", at + static_cast<int64_t>(got),
                       " of ", size, " bytes"));
    }
    table.push_back(Crc32c(absl::string_view(block.data(), got)));
    *crc32c =
        at == 0 ? table.back() : CombineCrc32c(*crc32c, table.back(), got);
  }
  return table;
}

}  // namespace

absl::Status ImageStoreImpl::Quarantine(
    const Uuid& image_id, const std::optional<Generation>& generation) {
  const IdLock lock(&core_.locks, image_id);
  RETURN_IF_ERROR(lock.status());
  FileSystem* const fs = core_.fs;
  ASSIGN_OR_RETURN(const NameState state, Look(&core_, image_id));
  if (!state.name) {
    return NoFile(image_id);
  }
  if (state.image ? !generation.has_value() || state.generation() != *generation
                  : generation.has_value()) {
    return OtherFile(image_id, state);
  }
  if (!state.info.regular) {
    return NotPlain(image_id);
  }
  const std::string target =
      absl::StrCat(layout::kQuarantineDir, "/", image_id.ToString(), ".",
                   core_.clock->NowMicros());
  // The name goes first, as in a removal: a record alone is garbage.
  RETURN_IF_ERROR(fs->RenameNoReplace(layout::ImagePath(image_id), target));
  if (state.image) {
    core_.registry.AddImages(-1);
  }
  RETURN_IF_ERROR(fs->SyncDir(layout::kQuarantineDir));
  RETURN_IF_ERROR(fs->SyncDir(layout::kRoot));
  if (state.image || state.damaged) {
    RETURN_IF_ERROR(fs->RenameNoReplace(layout::RecordPath(image_id),
                                        absl::StrCat(target, kRecordSuffix)));
    RETURN_IF_ERROR(fs->SyncDir(layout::kQuarantineDir));
    RETURN_IF_ERROR(fs->SyncDir(layout::ShardPathOf(image_id)));
  }
  core_.registry.SetUnsure(image_id, false);
  LogInfo("file_quarantined", {{"image", image_id.ToString()}, {"as", target}});
  return absl::OkStatus();
}

absl::StatusOr<int> ImageStoreImpl::ExpireQuarantine(absl::Duration keep,
                                                     int most) {
  std::vector<std::string> names;
  RETURN_IF_ERROR(core_.fs->List(
      layout::kQuarantineDir,
      [&](absl::string_view name) { names.emplace_back(name); }));
  const int64_t before =
      core_.clock->NowMicros() - absl::ToInt64Microseconds(keep);
  std::vector<std::string> old;
  for (const std::string& name : names) {
    const std::optional<int64_t> since = QuarantineTimeUs(name);
    if (since.has_value() && *since < before) {
      old.push_back(name);
    }
  }
  if (static_cast<int>(old.size()) > most) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountNotEmpty,
        absl::StrCat(old.size(), " files in ", layout::kQuarantineDir,
                     " are older than ", absl::FormatDuration(keep),
                     ", more than ", most,
                     " at once are not removed: see whether the clock of this "
                     "host is right, and remove them by hand"));
  }
  for (const std::string& name : old) {
    RETURN_IF_ERROR(UnlinkIfThere(
        core_.fs, absl::StrCat(layout::kQuarantineDir, "/", name)));
    LogInfo("quarantine_expired", {{"file", name}});
  }
  return static_cast<int>(old.size());
}

absl::Status ImageStoreImpl::AdoptFile(const storage::v1::ReplicaRecord& record,
                                       AdoptedMode mode) {
  const PublishedImage image = ImageOf(record);
  const IdLock lock(&core_.locks, image.image_id);
  RETURN_IF_ERROR(lock.status());
  FileSystem* const fs = core_.fs;
  ASSIGN_OR_RETURN(const NameState state, Look(&core_, image.image_id));
  if (!state.name) {
    return NoFile(image.image_id);
  }
  if (state.image) {
    return state.generation() == image.generation &&
                   state.info.size_bytes == image.size_bytes
               ? SyncImage(fs, image.image_id)
               : OtherFile(image.image_id, state);
  }
  if (!state.info.regular) {
    return NotPlain(image.image_id);
  }
  if (state.record && !state.damaged &&
      core_.registry.FindInflight(state.upload_id()).has_value()) {
    return NameTaken(image.image_id, state);  // an upload is in the middle
  }
  if (state.info.size_bytes != image.size_bytes) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                     absl::StrCat("the file has ", state.info.size_bytes,
                                  " bytes, the image ", image.size_bytes));
  }
  const std::string path = layout::ImagePath(image.image_id);
  // A moved file has to belong to us; of one that stays as it is reading is
  // enough.
  ASSIGN_OR_RETURN(const auto file, fs->Open(path, mode == AdoptedMode::kKept
                                                       ? OpenMode::kRead
                                                       : OpenMode::kReadWrite));
  // Whoever put it there may not have synced it.
  if (const absl::Status synced = file->Datasync(); !synced.ok()) {
    return FailedSync(synced, "the sync of the moved file failed");
  }
  uint32_t crc32c = 0;
  ASSIGN_OR_RETURN(const std::vector<uint32_t> table,
                   ReadCold(file.get(), image.size_bytes, &crc32c));
  if (crc32c != image.crc32c) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                     absl::StrCat("the file's checksum is ", absl::Hex(crc32c),
                                  ", the image's ", absl::Hex(image.crc32c)));
  }
  if (mode == AdoptedMode::kOfImages) {
    LogIfError(file->SetOwnership(core_.options.file_mode, core_.group),
               "the moved file keeps its owner and mode");
  }
  storage::v1::ReplicaRecord written = record;
  written.set_table_block_bytes(kBlockBytes);
  ASSIGN_OR_RETURN(const std::string bytes, EncodeRecord(written, table));
  const std::string record_path = layout::RecordPath(image.image_id);
  // The name is durable before the record makes it an image.
  if (const absl::Status named = fs->SyncDir(layout::kRoot); !named.ok()) {
    return FailedSync(named, "the sync of the mount's directory failed");
  }
  const std::string temp = layout::TempPath(record_path);
  RETURN_IF_ERROR(WriteNewFile(fs, temp, bytes, Durability::kPower));
  if (const absl::Status renamed = fs->Rename(temp, record_path);
      !renamed.ok()) {
    LogIfError(UnlinkIfThere(fs, temp), "a temporary name");
    return renamed;
  }
  if (const absl::Status dir = fs->SyncDir(layout::ShardPathOf(image.image_id));
      !dir.ok()) {
    LogIfError(UnlinkIfThere(fs, record_path), "the file is nobody's again");
    return FailedSync(dir, "the sync of the moved file's record failed");
  }
  core_.registry.Know(image.generation);
  core_.registry.AddImages(1);
  LogInfo("file_adopted",
          {{"image", image.image_id.ToString()}, {"bytes", image.size_bytes}});
  return absl::OkStatus();
}

}  // namespace predella::agent
