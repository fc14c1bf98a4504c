// MountAdmin: what the loss of mounts means, before or after it.
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/image_scan.h"
#include "server/lifecycle/mount_admin.h"
#include "server/lifecycle/page_token.h"

namespace predella::server {
namespace {

// As for a list of images: a page may be short.
constexpr int64_t kMostImpactLooked = 20'000;

struct Holders {
  std::vector<const MountInfo*> asked;  // of the mounts asked for
  int elsewhere = 0;                    // on mounts that were not given up
  int readable = 0;                     // of those
};

Holders HoldersOf(const storage::v1::ImageRow& row, const std::set<Uuid>& asked,
                  const PlacementIndex& index, const KnownMounts& mounts) {
  Holders holders;
  for (const storage::v1::CopyRow& copy : row.copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    const MountInfo* const info = mounts.Find(uid);
    if (asked.count(uid) != 0) {
      holders.asked.push_back(info);
    } else if (info == nullptr || !IsRetired(*info)) {
      ++holders.elsewhere;
      holders.readable += info != nullptr && Readable(*info) &&
                                  !index.FaultOf(row, uid).has_value()
                              ? 1
                              : 0;
    }
  }
  return holders;
}

// Where no image has a second copy the totals say it all.
absl::Status Count(const std::set<Uuid>& asked, const PlacementIndex& index,
                   const KnownMounts& mounts,
                   v1::ExplainImpactResponse* response) {
  ImageTotals all;
  ImageTotals only;
  if (!HasExtraCopies(index, mounts)) {
    for (const Uuid& uid : asked) {
      const ImageTotals totals = index.mount_totals(uid);
      all.count += totals.count;
      all.bytes += totals.bytes;
    }
    only = all;
  } else {
    ImageScan scan(&index, Uuid(), /*want=*/1000);
    for (const Uuid& uid : asked) {
      scan.AddMount(uid);
    }
    RETURN_IF_ERROR(scan.Run([&](const storage::v1::ImageRow& row) {
      const Holders holders = HoldersOf(row, asked, index, mounts);
      if (!holders.asked.empty()) {
        ++all.count;
        all.bytes += row.size_bytes();
      }
      if (!holders.asked.empty() && holders.elsewhere == 0) {
        ++only.count;
        only.bytes += row.size_bytes();
      }
      return true;
    }));
  }
  response->set_image_count(all.count);
  response->set_image_bytes(all.bytes);
  response->set_only_copy_count(only.count);
  response->set_only_copy_bytes(only.bytes);
  return absl::OkStatus();
}

// Generations that wait for a choice are no rows of images, and each has its
// own file: what is lost with the mounts is lost for good.
absl::Status AddKept(const std::set<Uuid>& asked, const PlacementIndex& index,
                     const KnownMounts& mounts, bool named,
                     v1::ExplainImpactResponse* response) {
  ImageTotals kept;
  RETURN_IF_ERROR(
      index.ScanConflicts([&](const storage::v1::ConflictRow& conflict) {
        const Holders holders =
            HoldersOf(conflict.image(), asked, index, mounts);
        if (holders.asked.empty()) {
          return;
        }
        ++kept.count;
        kept.bytes += conflict.image().size_bytes();
        if (!named) {
          return;
        }
        v1::ImpactedImage* const image = response->add_images();
        image->set_name(
            ImageName(Uuid::FromBytesOrNone(conflict.image().image_id())));
        image->set_size_bytes(conflict.image().size_bytes());
        for (const MountInfo* const info : holders.asked) {
          image->add_mounts(MountName(info->row.mount_name()));
        }
      }));
  response->set_image_count(response->image_count() + kept.count);
  response->set_image_bytes(response->image_bytes() + kept.bytes);
  response->set_only_copy_count(response->only_copy_count() + kept.count);
  response->set_only_copy_bytes(response->only_copy_bytes() + kept.bytes);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::ExplainImpactResponse> MountAdmin::ExplainImpact(
    const v1::ExplainImpactRequest& request) {
  ASSIGN_OR_RETURN(const int64_t page_size, CheckPageSize(request.page_size()));
  if (request.names().empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument,
                     reason::kInvalidArgument,
                     "names is empty: say which mounts would be lost together");
  }
  std::set<Uuid> asked;
  std::string arguments = "impact";
  for (const std::string& name : request.names()) {
    ASSIGN_OR_RETURN(const MountInfo info, Find(name));
    asked.insert(Uuid::FromBytesOrNone(info.row.mount_uid()));
    absl::StrAppend(&arguments, "\n", name);
  }
  ASSIGN_OR_RETURN(const std::string last,
                   DecodePageToken(arguments, request.page_token()));
  const KnownMounts mounts(*deps_.registry);
  v1::ExplainImpactResponse response;
  RETURN_IF_ERROR(Count(asked, *deps_.index, mounts, &response));
  response.set_only_delete_copy_count(tombstones_->CountOnlyOn(asked));
  // On the first page, and few: beside the images of the page.
  RETURN_IF_ERROR(AddKept(asked, *deps_.index, mounts,
                          request.page_token().empty(), &response));
  const int kept = response.images_size();
  ImageScan scan(deps_.index, Uuid::FromBytesOrNone(last), page_size + 1);
  for (const Uuid& uid : asked) {
    scan.AddMount(uid);
  }
  Uuid looked_at;
  int64_t looked = 0;
  RETURN_IF_ERROR(scan.Run([&](const storage::v1::ImageRow& row) {
    if (response.images_size() - kept == page_size ||
        looked == kMostImpactLooked) {
      response.set_next_page_token(
          EncodePageToken(arguments, looked_at.bytes()));
      return false;
    }
    ++looked;
    looked_at = Uuid::FromBytesOrNone(row.image_id());
    const Holders holders = HoldersOf(row, asked, *deps_.index, mounts);
    if (holders.asked.empty()) {
      return true;
    }
    v1::ImpactedImage* const image = response.add_images();
    image->set_name(ImageName(looked_at));
    image->set_size_bytes(row.size_bytes());
    image->set_other_readable_copies(holders.readable);
    for (const MountInfo* const info : holders.asked) {
      image->add_mounts(MountName(info->row.mount_name()));
    }
    return true;
  }));
  return response;
}

}  // namespace predella::server
