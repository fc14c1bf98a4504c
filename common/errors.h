// Errors with a reason that programs may rely on.
//
// A status carries at most one google.rpc.ErrorInfo as its payload;
// common/rpc passes it through gRPC unchanged in both directions.
#ifndef PREDELLA_COMMON_ERRORS_H_
#define PREDELLA_COMMON_ERRORS_H_

#include <initializer_list>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace predella {

inline constexpr absl::string_view kErrorDomain = "predella.io";

// The closed list of reasons; docs/api.md says what each means.
namespace reason {
inline constexpr absl::string_view kImageNotFound = "IMAGE_NOT_FOUND";
inline constexpr absl::string_view kUploadNotFound = "UPLOAD_NOT_FOUND";
inline constexpr absl::string_view kMountNotFound = "MOUNT_NOT_FOUND";
inline constexpr absl::string_view kImageExists = "IMAGE_EXISTS";
inline constexpr absl::string_view kInvalidArgument = "INVALID_ARGUMENT";
inline constexpr absl::string_view kUploadExpired = "UPLOAD_EXPIRED";
inline constexpr absl::string_view kUploadAborted = "UPLOAD_ABORTED";
inline constexpr absl::string_view kUploadDeleted = "UPLOAD_DELETED";
inline constexpr absl::string_view kUploadInProgress = "UPLOAD_IN_PROGRESS";
inline constexpr absl::string_view kUploadSuperseded = "UPLOAD_SUPERSEDED";
inline constexpr absl::string_view kUploadBytesLost = "UPLOAD_BYTES_LOST";
inline constexpr absl::string_view kMountReadOnly = "MOUNT_READ_ONLY";
inline constexpr absl::string_view kMountIdentityMismatch =
    "MOUNT_IDENTITY_MISMATCH";
inline constexpr absl::string_view kMountPermission = "MOUNT_PERMISSION";
inline constexpr absl::string_view kMountFull = "MOUNT_FULL";
inline constexpr absl::string_view kMountFailed = "MOUNT_FAILED";
inline constexpr absl::string_view kMountStalled = "MOUNT_STALLED";
inline constexpr absl::string_view kMountsMissing = "MOUNTS_MISSING";
inline constexpr absl::string_view kMountNotEmpty = "MOUNT_NOT_EMPTY";
inline constexpr absl::string_view kMountRetired = "MOUNT_RETIRED";
inline constexpr absl::string_view kMountInUse = "MOUNT_IN_USE";
inline constexpr absl::string_view kMountStale = "MOUNT_STALE";
inline constexpr absl::string_view kClusterMismatch = "CLUSTER_MISMATCH";
inline constexpr absl::string_view kNoSpaceInCluster = "NO_SPACE_IN_CLUSTER";
inline constexpr absl::string_view kAgentOverloaded = "AGENT_OVERLOADED";
inline constexpr absl::string_view kAgentUnreachable = "AGENT_UNREACHABLE";
inline constexpr absl::string_view kEtagMismatch = "ETAG_MISMATCH";
inline constexpr absl::string_view kStaleEpoch = "STALE_EPOCH";
inline constexpr absl::string_view kGenerationMismatch = "GENERATION_MISMATCH";
inline constexpr absl::string_view kNameTaken = "NAME_TAKEN";
inline constexpr absl::string_view kLeftoverPending = "LEFTOVER_PENDING";
inline constexpr absl::string_view kImageConflict = "IMAGE_CONFLICT";
inline constexpr absl::string_view kRecovering = "RECOVERING";
inline constexpr absl::string_view kIndexUnavailable = "INDEX_UNAVAILABLE";
inline constexpr absl::string_view kIndexReadOnly = "INDEX_READ_ONLY";
inline constexpr absl::string_view kNoTombstoneCopy = "NO_TOMBSTONE_COPY";
inline constexpr absl::string_view kNotReady = "NOT_READY";
inline constexpr absl::string_view kChecksumMismatch = "CHECKSUM_MISMATCH";
inline constexpr absl::string_view kReplicaMissing = "REPLICA_MISSING";
inline constexpr absl::string_view kOffsetMismatch = "OFFSET_MISMATCH";
inline constexpr absl::string_view kSizeMismatch = "SIZE_MISMATCH";
inline constexpr absl::string_view kReadPastEnd = "READ_PAST_END";
inline constexpr absl::string_view kChunkTooLarge = "CHUNK_TOO_LARGE";
inline constexpr absl::string_view kCapabilityInvalid = "CAPABILITY_INVALID";
inline constexpr absl::string_view kCommitConflict = "COMMIT_CONFLICT";
}  // namespace reason

using ErrorMetadata = std::map<std::string, std::string>;

// `message` is a sentence for a person, numbers in it; the variable parts
// stand in `metadata` too.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason,
                       absl::string_view message, ErrorMetadata metadata = {});

// INVALID_ARGUMENT with the reason of that name.
absl::Status InvalidArgument(absl::string_view message);

// Empty when the status carries none.
std::string ReasonOf(const absl::Status& status);
// Code of an upload that ended without an image, by the reason it ended for:
// ABORTED, but where the same reason elsewhere has another that says more.
absl::StatusCode OutcomeCode(absl::string_view reason);
ErrorMetadata MetadataOf(const absl::Status& status);
bool HasReason(const absl::Status& status, absl::string_view reason);

// The same error with `context` before its message; payload kept.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

// Logs an error that is deliberately not returned; `why` says why it is safe.
void LogIfError(const absl::Status& status, absl::string_view why);

}  // namespace predella

#endif  // PREDELLA_COMMON_ERRORS_H_
