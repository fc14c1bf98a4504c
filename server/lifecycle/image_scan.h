// Images in the order of their ids, from as little of the index as will do:
// what lies on some mounts, copies with a fault, or all.
#ifndef PREDELLA_SERVER_LIFECYCLE_IMAGE_SCAN_H_
#define PREDELLA_SERVER_LIFECYCLE_IMAGE_SCAN_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"
#include "server/index/placement_index.h"

namespace predella::server {

// Used by one thread. Without a source it is empty. It may give images beyond
// those asked for: the caller looks at each.
class ImageScan {
 public:
  // Ids greater than `after` ("none": from the first); about `want` of them
  // are needed.
  ImageScan(const PlacementIndex* index, const Uuid& after, int64_t want);

  void AddMount(const Uuid& mount_uid);
  void AddFaults(const Uuid& mount_uid);
  void AddAll() { all_ = true; }

  // Once: gives the images, each once, until `image` returns false. A row is
  // valid during its call.
  absl::Status Run(
      const std::function<bool(const storage::v1::ImageRow&)>& image);

 private:
  struct Source {
    Uuid mount_uid;
    bool faults = false;
    std::vector<Uuid> ids;
    size_t next = 0;
    bool last = false;  // nothing comes behind `ids`
  };

  absl::Status Fill(Source* source) const;
  absl::StatusOr<std::optional<Uuid>> NextId();

  const PlacementIndex* const index_;
  const int64_t batch_;
  Uuid after_;
  bool all_ = false;
  int64_t expected_ = 0;  // ids that the sources hold
  std::vector<Source> sources_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_IMAGE_SCAN_H_
