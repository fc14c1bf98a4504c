// What a mount says of itself, for the day its index is lost.
#ifndef PREDELLA_AGENT_STORE_DESCRIBE_H_
#define PREDELLA_AGENT_STORE_DESCRIBE_H_

#include "absl/status/statusor.h"

#include "agent/fs/file_system.h"
#include "common/mount_description.h"

namespace predella::agent {

// Reads label, fence, tombstones, roster and the headers of all records; never
// writes, and takes no lock: an agent may be serving the directory. What is
// damaged is a warning, but for the label: NOT_FOUND without one,
// FAILED_PRECONDITION when it is damaged. Costs a read of 4 KiB an image.
absl::StatusOr<MountDescription> DescribeMount(FileSystem* fs);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_DESCRIBE_H_
