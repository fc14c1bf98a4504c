// Names of resources: images/{uuid}, uploads/{uuid}, mounts/{name}.
#ifndef PREDELLA_COMMON_RESOURCE_NAME_H_
#define PREDELLA_COMMON_RESOURCE_NAME_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/ids.h"

namespace predella {

inline std::string ImageName(const Uuid& id) {
  return "images/" + id.ToString();
}
inline std::string UploadName(const Uuid& id) {
  return "uploads/" + id.ToString();
}
inline std::string MountName(absl::string_view name) {
  return "mounts/" + std::string(name);
}

// INVALID_ARGUMENT, INVALID_ARGUMENT says what a name looks like. A bare UUID
// is accepted for images and uploads, a bare name for mounts: people type
// them at grpcurl.
absl::StatusOr<Uuid> ParseImageName(absl::string_view name);
absl::StatusOr<Uuid> ParseUploadName(absl::string_view name);
absl::StatusOr<std::string> ParseMountName(absl::string_view name);

// [A-Za-z0-9][A-Za-z0-9._-]{0,62}
absl::Status ValidateMountName(absl::string_view name);

}  // namespace predella

#endif  // PREDELLA_COMMON_RESOURCE_NAME_H_
