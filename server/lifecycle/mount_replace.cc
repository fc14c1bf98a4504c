// MountAdmin: a new disk under the name of a broken one. The old identity stays
// in the index, retired, under a name of its own, so that a name belongs to one
// mount at any time (docs/adr/0011-rename-a-replaced-mount.md).
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/index/replaced_name.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/mount_admin.h"

namespace predella::server {
namespace {

absl::Status Precondition(absl::string_view reason, const std::string& mount,
                          const std::string& message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message,
                   {{"mount", mount}});
}

absl::Status InUse(const std::string& name, const MountInfo& info) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountInUse,
      absl::StrCat(name, " is served by the agent on ", info.hello->host(),
                   " with pid ", info.hello->pid(), ", path ",
                   info.hello->path(),
                   ": stop that agent first, or start it anew on the new "
                   "directory"),
      {{"mount", name},
       {"host", info.hello->host()},
       {"pid", absl::StrCat(info.hello->pid())}});
}

// A mount that was replaced into `name` by a history that the index lost: it is
// in the index because others remember it so.
bool AwaitsName(const MountInfo& info, const std::string& name) {
  return !IsRetired(info) &&
         info.row.mount_name() ==
             ReplacedName(name, Uuid::FromBytesOrNone(info.row.mount_uid()));
}

}  // namespace

absl::StatusOr<Uuid> MountAdmin::NewIdentity(
    const v1::ReplaceMountRequest& request, const MountInfo& info) const {
  const std::string name = MountName(info.row.mount_name());
  Uuid uid;
  if (!request.new_uid().empty()) {
    const auto parsed = Uuid::Parse(request.new_uid());
    if (!parsed.ok()) {
      return MakeError(absl::StatusCode::kInvalidArgument,
                       reason::kInvalidArgument,
                       absl::StrCat("new_uid: ", parsed.status().message()));
    }
    uid = *parsed;
  } else {
    for (const AgentWatch::Agent& agent : watch_->List(deps_.clock->Boot())) {
      if (agent.hello.mount_name() == info.row.mount_name() &&
          HasReason(agent.refusal, reason::kMountIdentityMismatch)) {
        const auto said = Uuid::Parse(MetadataOf(agent.refusal)["uid"]);
        uid = said.ok() ? *said : Uuid();
      }
    }
  }
  if (uid.none()) {
    return Precondition(
        reason::kMountIdentityMismatch, name,
        absl::StrCat("no agent was refused as ", name,
                     " for its directory in the last minute, so nobody knows "
                     "which one shall have the name: start its agent on the "
                     "new directory and give it some seconds, or say new_uid "
                     "(predella mount init prints it)"));
  }
  const std::optional<MountInfo> known = deps_.registry->Find(uid);
  if (known.has_value() && AwaitsName(*known, info.row.mount_name())) {
    return known->attached ? absl::StatusOr<Uuid>(InUse(
                                 MountName(known->row.mount_name()), *known))
                           : uid;
  }
  if (known.has_value()) {
    return Precondition(
        reason::kMountIdentityMismatch, name,
        absl::StrCat("the mount ", uid.ToString(), " is known as ",
                     MountName(known->row.mount_name()),
                     IsRetired(*known)
                         ? ", which was retired: that cannot be taken back; "
                           "empty the directory (.predella too) and make it a "
                           "mount anew"
                         : ": a mount has one name"));
  }
  return uid;
}

absl::Status MountAdmin::CommitReplace(const v1::ReplaceMountRequest& request,
                                       const storage::v1::MountRow& old,
                                       const Uuid& new_uid) {
  const Uuid old_uid = Uuid::FromBytesOrNone(old.mount_uid());
  storage::v1::MountRow retired = old;
  retired.set_mount_name(ReplacedName(old.mount_name(), old_uid));
  retired.set_admin_state(storage::v1::ADMIN_STATE_RETIRED);
  retired.clear_maintenance_until_us();
  retired.set_admin_reason(request.reason());
  retired.set_update_time_us(deps_.clock->NowMicros());
  const std::optional<MountInfo> known = deps_.registry->Find(new_uid);
  storage::v1::MountRow row;
  if (known.has_value()) {
    row = known->row;  // UNCONFIRMED or not: it has not been listed by this
  } else {
    row.set_mount_uid(new_uid.bytes());
    row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
    row.set_create_time_us(retired.update_time_us());
  }
  row.set_mount_name(old.mount_name());
  row.set_update_time_us(retired.update_time_us());
  storage::v1::EventRow event;
  event.set_time_us(retired.update_time_us());
  event.set_kind("mount_replaced");
  event.set_mount_name(old.mount_name());
  event.set_affected_images(deps_.index->mount_totals(old_uid).count);
  event.set_detail(absl::StrCat(
      "the mount ", new_uid.ToString(), " has the name of ", old_uid.ToString(),
      ", which was given up and is now ", MountName(retired.mount_name()),
      request.reason().empty() ? "" : ": ", request.reason()));
  IndexTxn txn = deps_.index->Begin();
  txn.RequireMount(old);
  if (known.has_value()) {
    txn.RequireMount(known->row);
  } else {
    txn.RequireNoMount(new_uid);
  }
  txn.PutMount(retired);
  txn.PutMount(row);
  txn.PutEvent(event);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  // The old one first: a name belongs to one mount.
  deps_.registry->SetRow(retired);
  deps_.registry->SetRow(row);
  LogInfo("mount_replaced", {{"mount", old.mount_name()},
                             {"old_uid", old_uid.ToString()},
                             {"uid", new_uid.ToString()},
                             {"reason", request.reason()}});
  return absl::OkStatus();
}

absl::StatusOr<v1::Mount> MountAdmin::ReplaceCounted(
    const v1::ReplaceMountRequest& request) {
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(MountInfo info, Find(request.name()));
    const std::string name = MountName(info.row.mount_name());
    ASSIGN_OR_RETURN(const Uuid new_uid, NewIdentity(request, info));
    if (info.attached) {
      return InUse(name, info);
    }
    if (!IsRetired(info)) {
      RETURN_IF_ERROR(CheckLossAccepted(info.row,
                                        request.accept_lost_image_count(),
                                        request.accept_lost_digest(),
                                        /*accept_unlisted=*/false));
    }
    RETURN_IF_ERROR(CheckReason(request.reason()));
    if (request.validate_only()) {
      info.row.set_mount_uid(new_uid.bytes());
      info.row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
      info.view.admin_state = info.row.admin_state();
      return ToApi(info);  // as it would be
    }
    RETURN_IF_ERROR(CheckWritable(*deps_.index));
    const absl::Status status = CommitReplace(request, info.row, new_uid);
    if (status.ok()) {
      changed_->Notify();
      ASSIGN_OR_RETURN(const MountInfo now, Find(request.name()));
      return ToApi(now);
    }
    if (!absl::IsAborted(status)) {
      return status;
    }
  }
  return TooManyConflicts(request.name());
}

absl::StatusOr<v1::Mount> MountAdmin::Replace(
    const v1::ReplaceMountRequest& request) {
  auto mount = [&]() -> absl::StatusOr<v1::Mount> {
    ASSIGN_OR_RETURN(const MountInfo info, Find(request.name()));
    std::optional<MountGate::Counting> counting;  // as in Retire
    if (!request.validate_only()) {
      counting.emplace(gate_, Uuid::FromBytesOrNone(info.row.mount_uid()));
    }
    return ReplaceCounted(request);
  }();
  if (mount.ok() && !request.validate_only()) {
    reaper_->Tick();
  }
  return mount;
}

}  // namespace predella::server
