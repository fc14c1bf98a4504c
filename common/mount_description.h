// What a mount says of itself, as text: `predella-agent describe` writes it,
// `predella-coordinator rebuild` reads it. The two never see each other's
// code, and may run on different hosts.
#ifndef PREDELLA_COMMON_MOUNT_DESCRIPTION_H_
#define PREDELLA_COMMON_MOUNT_DESCRIPTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "predella/storage/v1/storage.pb.h"

namespace predella {

struct MountDescription {
  // The directory, on the host that described it; for people.
  std::string path;
  storage::v1::MountLabel label;
  // Everything it knows of the cluster's history: fence, records, uploads in
  // flight; the highest n of each epoch.
  storage::v1::Fence known;
  // Its copies of tombstones and its roster.
  storage::v1::TombstoneSlot deletes;
  // By its records.
  int64_t image_count = 0;
  int64_t image_bytes = 0;
  // What could not be read, as sentences.
  std::vector<std::string> warnings;
};

// Lines of plain ASCII; several descriptions may stand behind one another.
std::string EncodeDescription(const MountDescription& description);

// INVALID_ARGUMENT unless every byte is as it was written: the descriptions
// are carried about by hand.
absl::StatusOr<std::vector<MountDescription>> ParseDescriptions(
    absl::string_view text);

}  // namespace predella

#endif  // PREDELLA_COMMON_MOUNT_DESCRIPTION_H_
