#include "agent/store/label.h"

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/layout.h"
#include "common/crc32c.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {
namespace {

constexpr int64_t kMaxLabelBytes = 4096;

absl::Status BadLabel(absl::string_view why) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   reason::kMountIdentityMismatch,
                   absl::StrCat("the label ", layout::kLabel, " ", why));
}

}  // namespace

std::string EncodeLabel(storage::v1::MountLabel label) {
  label.clear_crc32c();
  label.set_crc32c(Crc32c(label.SerializeAsString()));
  return label.SerializeAsString();
}

absl::StatusOr<storage::v1::MountLabel> DecodeLabel(absl::string_view bytes) {
  storage::v1::MountLabel label;
  if (!label.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return BadLabel("is damaged: it can't be parsed");
  }
  // Encoding again also finds a byte that parsing would pass over.
  if (EncodeLabel(label) != bytes) {
    return BadLabel("is damaged: its checksum is wrong");
  }
  if (label.format_version() != layout::kFormatVersion) {
    return BadLabel(absl::StrCat("has format version ", label.format_version(),
                                 "; this agent knows ",
                                 layout::kFormatVersion));
  }
  if (Uuid::FromBytesOrNone(label.mount_uid()).none()) {
    return BadLabel("has no mount uid");
  }
  return label;
}

absl::Status WriteLabel(FileSystem* fs, const storage::v1::MountLabel& label) {
  RETURN_IF_ERROR(
      ReplaceFile(fs, layout::kLabel, EncodeLabel(label), Durability::kPower));
  return fs->SyncDir(layout::kDotDir);
}

absl::StatusOr<storage::v1::MountLabel> ReadLabel(FileSystem* fs) {
  auto bytes = ReadFile(fs, layout::kLabel, kMaxLabelBytes);
  if (absl::IsNotFound(bytes.status())) {
    return absl::NotFoundError(
        absl::StrCat(fs->root(), " bears no label (", layout::kLabel,
                     "): what belongs there is not mounted, or it is new; "
                     "only a new one is for `predella mount init`"));
  }
  RETURN_IF_ERROR(bytes.status());
  return DecodeLabel(*bytes);
}

}  // namespace predella::agent
