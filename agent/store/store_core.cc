#include "agent/store/store_core.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/file_system.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "agent/store/record_codec.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

absl::Status LookAtName(StoreCore* core, const Uuid& image_id,
                        NameState* state) {
  auto info = core->fs->Stat(layout::ImagePath(image_id));
  if (absl::IsNotFound(info.status())) {
    return absl::OkStatus();
  }
  if (absl::IsPermissionDenied(info.status())) {
    state->name = true;  // a link, or another mount's root: not ours
    state->name_refused = info.status();
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(info.status());
  state->name = true;
  state->info = *info;
  // What no reader could open, told without opening every file.
  if (info->regular && !info->readable) {
    state->name_refused = DeniedStatus(absl::StrCat(
        "open ", layout::ImagePath(image_id), " in ", core->fs->root()));
  } else if (info->regular && info->links > 1) {
    state->name_refused = SeveralNamesStatus(
        absl::StrCat(layout::ImagePath(image_id), " in ", core->fs->root()),
        info->links);
  }
  return absl::OkStatus();
}

absl::Status LookAtRecord(StoreCore* core, const Uuid& image_id,
                          NameState* state) {
  if (absl::Status shut = core->registry.WhyShut(layout::ShardPathOf(image_id));
      !shut.ok()) {
    state->record = state->damaged = true;
    state->record_refused = std::move(shut);
    return absl::OkStatus();
  }
  auto bytes =
      ReadFile(core->fs, layout::RecordPath(image_id), kRecordHeaderBytes);
  if (absl::IsNotFound(bytes.status())) {
    return absl::OkStatus();
  }
  state->record = true;
  if (absl::IsPermissionDenied(bytes.status())) {
    state->damaged = true;
    state->record_refused = bytes.status();
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(bytes.status());
  auto header = DecodeRecordHeader(*bytes);
  if (!header.ok() || Uuid::FromBytesOrNone(header->image_id()) != image_id) {
    state->damaged = true;
    return absl::OkStatus();
  }
  state->header = *std::move(header);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NameState> Look(StoreCore* core, const Uuid& image_id) {
  NameState state;
  RETURN_IF_ERROR(LookAtName(core, image_id, &state));
  RETURN_IF_ERROR(LookAtRecord(core, image_id, &state));
  state.unsure = core->registry.Unsure(image_id);
  state.image =
      state.name && state.info.regular && state.record && !state.damaged;
  const auto open = state.image ? core->registry.FindInflight(state.upload_id())
                                : std::nullopt;
  // The same upload may have begun again under another generation, after the
  // index was lost: that says nothing about the image that is here.
  if (open.has_value() &&
      (open->generation.none() || open->generation == state.generation())) {
    // The record came and its bytes did not: the name is another's, unless
    // both names are one file.
    const auto inflight =
        core->fs->Stat(layout::InflightPath(state.upload_id()));
    if (inflight.ok() && inflight->inode != state.info.inode) {
      state.image = false;
    } else if (!inflight.ok() && !absl::IsNotFound(inflight.status())) {
      return inflight.status();
    }
  }
  return state;
}

bool IsOfOneDirectory(const absl::Status& status) {
  return (HasReason(status, reason::kMountPermission) &&
          !MeansInTheWay(status)) ||
         (HasReason(status, reason::kMountFailed) && !MeansGone(status));
}

absl::StatusOr<std::vector<uint32_t>> ReadTable(StoreCore* core,
                                                const PublishedImage& image) {
  const int64_t blocks = BlocksOf(image.size_bytes);
  ASSIGN_OR_RETURN(const std::string bytes,
                   ReadFile(core->fs, layout::RecordPath(image.image_id),
                            RecordBytes(blocks) + 1));
  const size_t header = static_cast<size_t>(kRecordHeaderBytes);
  if (bytes.size() < header) {
    return DecodeRecordTable("", blocks);
  }
  return DecodeRecordTable(absl::string_view(bytes).substr(header), blocks);
}

absl::Status RemoveRecord(StoreCore* core, const Uuid& image_id) {
  RETURN_IF_ERROR(UnlinkIfThere(core->fs, layout::RecordPath(image_id)));
  return core->fs->SyncDir(layout::ShardPathOf(image_id));
}

absl::Status NameTaken(const Uuid& image_id, const NameState& state) {
  const bool foreign = state.name && !state.image;
  ErrorMetadata metadata{{"image", image_id.ToString()}};
  std::string what;
  if (foreign) {
    metadata["foreign"] = "true";
    what = "a file without a record of ours";
  } else {
    metadata["generation"] = state.generation().ToString();
    what = absl::StrCat("generation ", state.generation().ToString());
  }
  return MakeError(absl::StatusCode::kAlreadyExists, reason::kNameTaken,
                   absl::StrCat("the name of image ", image_id.ToString(),
                                " is taken by ", what),
                   std::move(metadata));
}

absl::Status RefusedError(absl::string_view what, const absl::Status& why) {
  const std::string error = ErrorName(why);
  return MakeError(
      absl::StatusCode::kDataLoss, reason::kMountPermission,
      absl::StrCat(what, " can not be read: ", why.message(),
                   error.empty() ? "" : " (", error, error.empty() ? "" : ")"),
      MetadataOf(why));
}

absl::Status UnsureError(const Uuid& image_id) {
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kMountFailed,
      absl::StrCat("the last sync of image ", image_id.ToString(),
                   " failed, and what the disk holds of it is unknown"),
      {{"image", image_id.ToString()}});
}

}  // namespace predella::agent
