// Permission to write or read one image at one mount.
//
// A capability is a message and its HMAC-SHA-256 under the mount's key, which
// is HKDF-SHA-256 (RFC 5869) of the cluster's key and the mount's uid: an
// agent can check and make capabilities for its own mount and no other.
#ifndef PREDELLA_COMMON_CAPABILITY_H_
#define PREDELLA_COMMON_CAPABILITY_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/generation.h"
#include "common/ids.h"

namespace predella {

struct Capability {
  enum class Operation : uint8_t { kWrite = 1, kRead = 2 };
  Operation operation = Operation::kRead;
  Uuid image_id;
  Generation generation;
  Uuid upload_id;  // none for a read
  Uuid mount_uid;
  // In coordinator time.
  int64_t expire_time_us = 0;
};

// 32 bytes.
std::string DeriveMountKey(absl::string_view cluster_key,
                           const Uuid& mount_uid);

std::string SignCapability(const Capability& capability,
                           absl::string_view mount_key);

// Checks `token` against everything in `want` but the expiry, and the expiry
// against `now_us`. PERMISSION_DENIED, CAPABILITY_INVALID says which part is
// wrong; a wrong signature says no more than that.
absl::Status CheckCapability(absl::string_view token, const Capability& want,
                             absl::string_view mount_key, int64_t now_us);

}  // namespace predella

#endif  // PREDELLA_COMMON_CAPABILITY_H_
