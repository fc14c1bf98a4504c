#include "client/cli/exit_code.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "client/cli/output.h"
#include "common/collect_garbage.h"
#include "common/errors.h"

namespace predella::cli {
namespace {

struct Hint {
  absl::string_view reason;
  absl::string_view text;
};

constexpr Hint kHints[] = {
    {reason::kImageNotFound, "predella image ls lists the images there are"},
    {reason::kMountNotFound, "predella mount ls lists the mounts there are"},
    {reason::kMountsMissing,
     "predella cluster status says which mount is missing; bring it back, or "
     "excuse it with predella mount maintenance NAME --for 2h. One that is "
     "MOUNT_UNCONFIRMED is there, and is taken in by predella mount confirm "
     "NAME"},
    {reason::kRecovering,
     "the index is older than what the mounts know; predella cluster status "
     "says what to do"},
    {reason::kNoSpaceInCluster,
     "predella placement explain shows the verdict on every mount"},
    {reason::kMountFull,
     "send it again: another mount takes it; predella mount ls shows the space "
     "of each"},
    {reason::kUploadInProgress,
     "another upload of this image is running; wait for it to end, or stop it"},
    {reason::kImageExists,
     "an image is never replaced; delete it first, or use another id"},
    {reason::kIndexReadOnly,
     "free space on the disk of the coordinator's --state-dir; predella "
     "cluster status says whether it has to be restarted then"},
    {reason::kLeftoverPending,
     "a mount still holds a deleted image of this id; try again shortly"},
    {reason::kNoTombstoneCopy,
     "no mount could note the deletion; repeat the command when one is back, "
     "or has room for it (predella cluster status)"},
    {reason::kChecksumMismatch,
     "predella image stat ID shows the mounts with its copies"},
    {reason::kAgentUnreachable,
     "predella doctor checks which agents can be reached from here"},
    {reason::kReadPastEnd, "predella image stat ID shows its size"},
    {reason::kGarbageChanged,
     "predella mount collect-garbage NAME says how many are held now"},
    {reason::kMountInUse, "another agent serves this directory; stop it first"},
};

}  // namespace

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitDone;
    case absl::StatusCode::kInvalidArgument:
      return kExitUsage;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnavailable;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return kExitConflict;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitFailed;
  }
}

std::string HintFor(const absl::Status& status, const std::string& command) {
  const std::string reason = ReasonOf(status);
  for (const Hint& hint : kHints) {
    if (hint.reason == reason) {
      return std::string(hint.text);
    }
  }
  if (status.code() == absl::StatusCode::kUnavailable ||
      status.code() == absl::StatusCode::kDeadlineExceeded) {
    return "predella doctor says what can be reached from here";
  }
  if (status.code() == absl::StatusCode::kInvalidArgument) {
    return absl::StrCat(command, " --help shows what it takes");
  }
  return "";
}

void PrintError(const absl::Status& status, const std::string& command,
                std::ostream* err) {
  *err << "error: " << Shown(status.message());
  const std::string reason = ReasonOf(status);
  if (!reason.empty()) {
    *err << " (" << reason << ")";
  } else if (status.message().empty()) {
    *err << absl::StatusCodeToString(status.code());
  }
  *err << "\n";
  const std::string hint = HintFor(status, command);
  if (!hint.empty() && !absl::StrContains(status.message(), hint)) {
    *err << "hint: " << hint << "\n";
  }
}

}  // namespace predella::cli
