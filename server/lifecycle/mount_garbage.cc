// MountAdmin: what an agent's circuit breaker holds is given up.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "common/collect_garbage.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "server/lifecycle/mount_admin.h"

namespace predella::server {
namespace {

// Thousands of files are unlinked one after the other.
constexpr absl::Duration kCollectAnswer = absl::Seconds(45);

bool KnowsTheCommand(const MountInfo& info) {
  if (!info.hello.has_value()) {
    return false;
  }
  const auto& can = info.hello->capabilities();
  return std::find(can.begin(), can.end(), kCanCollectGarbage) != can.end();
}

}  // namespace

absl::Status MountAdmin::CheckCollectable(const MountInfo& info) const {
  const std::string name = MountName(info.row.mount_name());
  const auto refused = [&name](absl::StatusCode code, absl::string_view reason,
                               absl::string_view why) {
    return MakeError(code, reason, absl::StrCat(name, why), {{"mount", name}});
  };
  if (info.row.admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
    return refused(absl::StatusCode::kFailedPrecondition, reason::kMountRetired,
                   " was retired: nothing on it counts");
  }
  if (!info.attached) {
    return refused(absl::StatusCode::kUnavailable, reason::kAgentUnreachable,
                   " has no agent that could discard anything: start it");
  }
  if (trust_->recovering()) {
    return refused(absl::StatusCode::kFailedPrecondition, reason::kRecovering,
                   ": in RECOVERING nothing is discarded on any mount");
  }
  if (!info.trusted) {
    return refused(absl::StatusCode::kFailedPrecondition, reason::kNotReady,
                   " is not trusted: nothing on it is discarded");
  }
  if (!KnowsTheCommand(info)) {
    return refused(absl::StatusCode::kFailedPrecondition, reason::kNotReady,
                   absl::StrCat(" has an agent of version ",
                                info.hello->agent_version().empty()
                                    ? "unknown"
                                    : info.hello->agent_version(),
                                ", which is too old to hold garbage, and "
                                "discards it by itself: upgrade it"));
  }
  return CheckWritable(*deps_.index);
}

absl::StatusOr<v1::Mount> MountAdmin::CollectGarbage(
    const v1::CollectGarbageRequest& request) {
  ASSIGN_OR_RETURN(const MountInfo info, Find(request.name()));
  RETURN_IF_ERROR(CheckCollectable(info));
  if (request.validate_only()) {
    return ToApi(info);
  }
  const std::string name = MountName(info.row.mount_name());
  const control::v1::HeldGarbage held =
      info.held_garbage.value_or(control::v1::HeldGarbage());
  if (request.accept_upload_count() != held.uploads()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kGarbageChanged,
                     absl::StrCat(name, " holds the bytes of ", held.uploads(),
                                  " ended uploads, ", FormatSize(held.bytes()),
                                  "; to discard them, say accept_upload_count ",
                                  held.uploads(), " (it was ",
                                  request.accept_upload_count(), ")"),
                     {{"mount", name},
                      {"upload_count", absl::StrCat(held.uploads())},
                      {"upload_bytes", absl::StrCat(held.bytes())}});
  }
  if (held.uploads() == 0) {
    return ToApi(info);  // also when it was asked twice
  }
  control::v1::Command command;
  command.mutable_collect_garbage()->set_uploads(held.uploads());
  RETURN_IF_ERROR(
      Annotate(commands_
                   ->Call(Uuid::FromBytesOrNone(info.row.mount_uid()),
                          std::move(command), kCollectAnswer, {})
                   .status(),
               name));
  storage::v1::EventRow event;
  event.set_time_us(deps_.clock->NowMicros());
  event.set_kind("garbage_collected");
  event.set_mount_name(info.row.mount_name());
  event.set_detail(absl::StrCat("an operator had the bytes of ", held.uploads(),
                                " ended uploads discarded, ",
                                FormatSize(held.bytes())));
  IndexTxn txn = deps_.index->Begin();
  txn.PutEvent(event);
  LogIfError(deps_.index->Commit(std::move(txn)), "the log has it");
  LogInfo("garbage_collected", {{"mount", info.row.mount_name()},
                                {"uploads", held.uploads()},
                                {"bytes", held.bytes()}});
  changed_->Notify();
  ASSIGN_OR_RETURN(const MountInfo now, Find(request.name()));
  return ToApi(now);
}

}  // namespace predella::server
