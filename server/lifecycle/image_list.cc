// ImageCatalog: lists.
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/api_convert.h"
#include "server/lifecycle/image_catalog.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/image_scan.h"
#include "server/lifecycle/page_token.h"

namespace predella::server {
namespace {

// Images looked at for one page: a filter that leaves few of many gives short
// pages instead of slow ones.
constexpr int64_t kMostImagesLooked = 20'000;

// Every image of that health, on `only` (none: anywhere), is among those that
// the scan gives.
void AddSources(v1::ImageHealth health, const Uuid& only,
                const PlacementIndex& index, const KnownMounts& mounts,
                ImageScan* scan) {
  if (health != v1::IMAGE_HEALTH_DEGRADED && health != v1::IMAGE_HEALTH_LOST) {
    if (only.none()) {
      scan->AddAll();
    } else {
      scan->AddMount(only);
    }
    return;
  }
  const bool extra_copies = HasExtraCopies(index, mounts);
  for (const auto& [uid, info] : mounts.all()) {
    if (!only.none() && uid != only && !extra_copies) {
      continue;
    }
    if (IsRetired(info)) {
      // All its images are LOST, but for those with a copy elsewhere.
      if (health == v1::IMAGE_HEALTH_LOST || extra_copies) {
        scan->AddMount(uid);
      }
    } else if (health == v1::IMAGE_HEALTH_DEGRADED) {
      if (CountsAsDegraded(info.health)) {
        scan->AddMount(uid);
      } else {
        scan->AddFaults(uid);
      }
    }
  }
}

}  // namespace

absl::StatusOr<Uuid> ImageCatalog::FindMount(const std::string& name) const {
  ASSIGN_OR_RETURN(const std::string bare, ParseMountName(name));
  const std::optional<MountInfo> info = deps_.registry->FindByName(bare);
  if (!info.has_value()) {
    return MakeError(absl::StatusCode::kNotFound, reason::kMountNotFound,
                     absl::StrCat("there is no ", MountName(bare)),
                     {{"mount", MountName(bare)}});
  }
  return Uuid::FromBytesOrNone(info->row.mount_uid());
}

absl::StatusOr<v1::ListImagesResponse> ImageCatalog::List(
    const v1::ListImagesRequest& request) {
  ASSIGN_OR_RETURN(const int64_t page_size, CheckPageSize(request.page_size()));
  if (!v1::ImageHealth_IsValid(request.health())) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat("health is ", static_cast<int>(request.health()),
                     ": 1 is HEALTHY, 2 DEGRADED, 3 LOST"));
  }
  const std::string arguments = absl::StrCat(
      "images\n", request.mount(), "\n", static_cast<int>(request.health()));
  ASSIGN_OR_RETURN(const std::string last,
                   DecodePageToken(arguments, request.page_token()));
  Uuid mount;
  if (!request.mount().empty()) {
    ASSIGN_OR_RETURN(mount, FindMount(request.mount()));
  }
  const KnownMounts mounts(*deps_.registry);
  ImageScan scan(deps_.index, Uuid::FromBytesOrNone(last), page_size + 1);
  AddSources(request.health(), mount, *deps_.index, mounts, &scan);
  v1::ListImagesResponse response;
  Uuid looked_at;
  int64_t looked = 0;
  RETURN_IF_ERROR(scan.Run([&](const storage::v1::ImageRow& row) {
    if (response.images_size() == page_size || looked == kMostImagesLooked) {
      response.set_next_page_token(
          EncodePageToken(arguments, looked_at.bytes()));
      return false;
    }
    ++looked;
    looked_at = Uuid::FromBytesOrNone(row.image_id());
    if (!mount.none() && !HoldsCopy(row, mount)) {
      return true;
    }
    ImageState state = DeriveImage(row, *deps_.index, mounts);
    if (request.health() == v1::IMAGE_HEALTH_UNSPECIFIED ||
        state.health == request.health()) {
      ToApiImage(row, std::move(state), deps_, mounts, /*brief=*/true,
                 response.add_images());
    }
    return true;
  }));
  for (const MountInfo& info : deps_.registry->List()) {
    if (!info.attached && !IsRetired(info)) {
      response.add_unreachable(MountName(info.row.mount_name()));
    }
  }
  return response;
}

}  // namespace predella::server
