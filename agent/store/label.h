// The label of a mount: who it is. Bytes: docs/on-disk-format.md.
#ifndef PREDELLA_AGENT_STORE_LABEL_H_
#define PREDELLA_AGENT_STORE_LABEL_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "agent/fs/file_system.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

// Sets the checksum and serialises.
std::string EncodeLabel(storage::v1::MountLabel label);

// FAILED_PRECONDITION, MOUNT_IDENTITY_MISMATCH when the bytes are not a label
// of a version known here.
absl::StatusOr<storage::v1::MountLabel> DecodeLabel(absl::string_view bytes);

// Durable on return.
absl::Status WriteLabel(FileSystem* fs, const storage::v1::MountLabel& label);

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_LABEL_H_
