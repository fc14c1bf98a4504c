// How an upload's bytes are opened: new, or left by an earlier process.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "agent/fs/file_system.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "agent/store/record_codec.h"
#include "agent/store/staged_image.h"
#include "agent/store/state_codec.h"
#include "agent/store/store_core.h"
#include "agent/store/verified_read.h"
#include "common/errors.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {
namespace {

using storage::v1::InflightState;

absl::Status CheckSpec(const UploadSpec& spec) {
  if (spec.tail_start < 0 || spec.tail_start % kBlockBytes != 0 ||
      spec.size_bytes.value_or(spec.tail_start) < spec.tail_start) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat("an upload of ", spec.size_bytes.value_or(-1),
                     " bytes can't begin here at byte ", spec.tail_start));
  }
  return absl::OkStatus();
}

absl::Status CheckSame(const UploadSpec& spec, const InflightState& state) {
  const Generation generation = Generation::FromProto(state.generation());
  if (Uuid::FromBytesOrNone(state.image_id()) != spec.image_id ||
      generation != spec.generation) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kGenerationMismatch,
        absl::StrCat("the bytes of upload ", spec.upload_id.ToString(),
                     " belong to another image or to generation ",
                     generation.ToString(), ", not ",
                     spec.generation.ToString()),
        {{"generation", generation.ToString()}});
  }
  if (state.tail_start() != spec.tail_start) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kOffsetMismatch,
        absl::StrCat("the upload's part here begins at byte ",
                     state.tail_start(), ", not ", spec.tail_start));
  }
  return absl::OkStatus();
}

void FillFromState(const InflightState& state, StagedStart* start) {
  start->create_time_us = state.create_time_us();
  start->table.assign(state.crc_table().begin(), state.crc_table().end());
  start->prefix_next = state.prefix_bytes();
  start->tail_next = state.tail_start() + state.tail_bytes();
}

std::unique_ptr<StagedImage> Finish(StoreCore* core, StagedStart start) {
  Registry::Inflight inflight;
  inflight.image_id = start.spec.image_id;
  inflight.generation = start.spec.generation;
  inflight.bytes = start.prefix_next + start.tail_next - start.spec.tail_start;
  start.serial = core->registry.SetInflight(start.spec.upload_id, inflight);
  return std::make_unique<StagedImageImpl>(core, std::move(start));
}

absl::StatusOr<std::unique_ptr<StagedImage>> OpenPublished(
    StoreCore* core, const UploadSpec& spec, const NameState& state) {
  StagedStart start;
  start.spec = spec;
  start.published = ImageOf(state.header);
  start.create_time_us = start.published->create_time_us;
  start.prefix_next = spec.tail_start;
  start.tail_next = start.published->size_bytes;
  ASSIGN_OR_RETURN(start.table, ReadTable(core, *start.published));
  ASSIGN_OR_RETURN(start.file, core->fs->Open(layout::ImagePath(spec.image_id),
                                              OpenMode::kRead));
  return std::unique_ptr<StagedImage>(
      std::make_unique<StagedImageImpl>(core, std::move(start)));
}

// Only to be read back.
absl::StatusOr<std::unique_ptr<StagedImage>> OpenCondemned(
    StoreCore* core, const UploadSpec& spec, const InflightState& state) {
  RETURN_IF_ERROR(CheckSame(spec, state));
  StagedStart start;
  start.spec = spec;
  start.condemned = true;
  FillFromState(state, &start);
  ASSIGN_OR_RETURN(
      start.file,
      core->fs->Open(layout::InflightPath(spec.upload_id), OpenMode::kRead));
  return Finish(core, std::move(start));
}

absl::StatusOr<std::unique_ptr<StagedImage>> MakeNew(StoreCore* core,
                                                     const UploadSpec& spec) {
  const std::string path = layout::InflightPath(spec.upload_id);
  StagedStart start;
  start.spec = spec;
  start.tail_next = spec.tail_start;
  start.create_time_us = core->clock->NowMicros();
  ASSIGN_OR_RETURN(start.file, core->fs->Open(path, OpenMode::kCreateNew));
  std::unique_ptr<StagedImage> staged = Finish(core, std::move(start));
  const absl::Status prepared =
      static_cast<StagedImageImpl*>(staged.get())->Prepare();
  if (!prepared.ok()) {
    LogIfError(UnlinkIfThere(core->fs, layout::StatePath(spec.upload_id)),
               "an upload that did not begin");
    LogIfError(UnlinkIfThere(core->fs, path), "an upload that did not begin");
    core->registry.DropInflight(spec.upload_id);
    return Annotate(prepared, "the upload could not be prepared");
  }
  return staged;
}

// What an earlier stream or process left; only what the disk really holds.
absl::StatusOr<std::unique_ptr<StagedImage>> Resume(
    StoreCore* core, const UploadSpec& spec, const InflightState& state,
    std::unique_ptr<File> file) {
  StagedStart start;
  start.spec = spec;
  FillFromState(state, &start);
  start.file = std::move(file);
  File* const bytes = start.file.get();
  // An earlier process may have seen a sync of these bytes fail and died; the
  // page cache would hide that from us.
  if (const absl::Status synced = bytes->Datasync(); !synced.ok()) {
    core->registry.Condemn(spec.upload_id, state);
    LogIfError(UnlinkIfThere(core->fs, layout::StatePath(spec.upload_id)),
               "a later process reads the bytes cold before it trusts them");
    return Annotate(synced, "the sync of an upload's bytes failed");
  }
  ASSIGN_OR_RETURN(const FileInfo info, bytes->Stat());
  LogIfError(bytes->DropCache(0, info.size_bytes),
             "the bytes are compared with their checksums as well");
  ASSIGN_OR_RETURN(start.prefix_next,
                   VerifiedEnd(bytes, start.table, 0, start.prefix_next));
  ASSIGN_OR_RETURN(
      const int64_t tail_next,
      VerifiedEnd(bytes, start.table, spec.tail_start, start.tail_next));
  if (tail_next < start.tail_next) {
    LogWarning("upload_bytes_lost", {{"upload", spec.upload_id.ToString()},
                                     {"recorded", start.tail_next},
                                     {"good", tail_next}});
  }
  start.tail_next = tail_next;
  const int64_t end =
      tail_next > spec.tail_start ? tail_next : start.prefix_next;
  RETURN_IF_ERROR(bytes->Truncate(end));
  start.table.resize(static_cast<size_t>(BlocksOf(end)));
  return Finish(core, std::move(start));
}

}  // namespace

absl::StatusOr<std::unique_ptr<StagedImage>> OpenStagedImage(
    StoreCore* core, const UploadSpec& spec) {
  RETURN_IF_ERROR(CheckSpec(spec));
  ASSIGN_OR_RETURN(const NameState name, Look(core, spec.image_id));
  if (name.record && !name.damaged && name.image &&
      name.upload_id() == spec.upload_id &&
      name.generation() == spec.generation) {
    if (name.unsure) {
      return UnsureError(spec.image_id);
    }
    return OpenPublished(core, spec, name);
  }
  if (const auto condemned = core->registry.Condemned(spec.upload_id)) {
    return OpenCondemned(core, spec, *condemned);
  }
  const std::string path = layout::InflightPath(spec.upload_id);
  const std::string state_path = layout::StatePath(spec.upload_id);
  auto state_bytes = ReadFile(core->fs, state_path, INT64_MAX);
  if (!state_bytes.ok() && !absl::IsNotFound(state_bytes.status())) {
    return state_bytes.status();
  }
  // No state, and one that a power cut spoilt, are the same here.
  const auto state = DecodeState(state_bytes.ok() ? *state_bytes : "");
  if (state.ok()) {
    RETURN_IF_ERROR(CheckSame(spec, *state));
    auto file = core->fs->Open(path, OpenMode::kReadWrite);
    if (file.ok()) {
      return Resume(core, spec, *state, *std::move(file));
    }
    if (!absl::IsNotFound(file.status())) {
      return file.status();
    }
  }
  // Bytes that nothing vouches for. A new file, not the old one cut to
  // nothing: a sync of that may have failed.
  RETURN_IF_ERROR(UnlinkIfThere(core->fs, state_path));
  RETURN_IF_ERROR(UnlinkIfThere(core->fs, path));
  return MakeNew(core, spec);
}

}  // namespace predella::agent
