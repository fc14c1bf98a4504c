// How an image is, derived from where its copies are, how those mounts are,
// and what is known to be wrong with a copy. Nothing of it is stored: a failed
// disk with a million images changes one mount.
#ifndef PREDELLA_SERVER_LIFECYCLE_IMAGE_HEALTH_H_
#define PREDELLA_SERVER_LIFECYCLE_IMAGE_HEALTH_H_

#include <string>

#include "absl/container/flat_hash_map.h"

#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/image_service.pb.h"
#include "server/index/placement_index.h"
#include "server/placement/mount_registry.h"

namespace predella::server {

// Whether copies on a mount of this health count as degraded; as good, but at
// risk.
bool CountsAsDegraded(v1::Health health);
bool CountsAsAtRisk(v1::Health health);
bool HoldsCopy(const storage::v1::ImageRow& image, const Uuid& mount_uid);
// Whether a copy on the mount can be read now.
bool Readable(const MountInfo& info);
bool IsRetired(const MountInfo& info);
// Whether some copy of it can be read now and nothing is known against its
// bytes.
bool HasReadableCopy(const storage::v1::ImageRow& row,
                     const PlacementIndex& index,
                     const MountRegistry& registry);
// Smaller is read first.
int ReadRank(v1::Health health);

// The mounts as they were at one moment: all images of a list are judged
// alike, and the registry is asked once.
class KnownMounts {
 public:
  explicit KnownMounts(const MountRegistry& registry);
  // Only those that hold the image.
  KnownMounts(const MountRegistry& registry, const storage::v1::ImageRow& row);

  // Null: never registered.
  const MountInfo* Find(const Uuid& mount_uid) const;
  const absl::flat_hash_map<Uuid, MountInfo>& all() const { return mounts_; }

 private:
  absl::flat_hash_map<Uuid, MountInfo> mounts_;
};

// Whether some image has a second copy: then it may be degraded by a mount
// that another question would not look at.
bool HasExtraCopies(const PlacementIndex& index, const KnownMounts& mounts);

struct ImageState {
  v1::ImageHealth health = v1::IMAGE_HEALTH_HEALTHY;
  // HEALTHY, and every copy is on a mount that showed errors.
  bool at_risk = false;
  int readable_copies = 0;
  // Why it is not HEALTHY, or at risk.
  std::string detail;
};

// `index` tells the faults.
ImageState DeriveImage(const storage::v1::ImageRow& row,
                       const PlacementIndex& index, const KnownMounts& mounts);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_IMAGE_HEALTH_H_
