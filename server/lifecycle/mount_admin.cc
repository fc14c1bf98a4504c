#include "server/lifecycle/mount_admin.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/api_convert.h"
#include "server/lifecycle/page_token.h"

namespace predella::server {
namespace {

absl::Status Retired(const storage::v1::MountRow& row) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kMountRetired,
                   absl::StrCat(MountName(row.mount_name()),
                                " was retired; that cannot be taken back"),
                   {{"mount", MountName(row.mount_name())}});
}

// An excuse that a command ends before its time, with what was said for it.
std::string EndedExcuse(const storage::v1::MountRow& old, int64_t now_us) {
  if (old.admin_state() != storage::v1::ADMIN_STATE_MAINTENANCE ||
      old.maintenance_until_us() <= now_us) {
    return "";
  }
  return absl::StrCat(
      "this ended its maintenance, which was to last until ",
      absl::FormatTime("%Y-%m-%dT%H:%M:%SZ",
                       absl::FromUnixMicros(old.maintenance_until_us()),
                       absl::UTCTimeZone()),
      old.admin_reason().empty() ? "" : ": ", old.admin_reason());
}

}  // namespace

MountAdmin::MountAdmin(const LifecycleDeps& deps, AgentCommands* commands,
                       TrustKeeper* trust, Reaper* reaper, Inventory* inventory,
                       ScrubKeeper* scrubs, Notifier* changed, MountGate* gate,
                       AgentWatch* watch, StaleMounts* stale,
                       Tombstones* tombstones)
    : deps_(deps),
      commands_(commands),
      trust_(trust),
      reaper_(reaper),
      inventory_(inventory),
      scrubs_(scrubs),
      changed_(changed),
      gate_(gate),
      watch_(watch),
      stale_(stale),
      tombstones_(tombstones) {}

absl::StatusOr<MountInfo> MountAdmin::Find(const std::string& name) {
  ASSIGN_OR_RETURN(const std::string bare, ParseMountName(name));
  std::optional<MountInfo> info = deps_.registry->FindByName(bare);
  if (!info.has_value()) {
    return MakeError(absl::StatusCode::kNotFound, reason::kMountNotFound,
                     absl::StrCat("there is no ", MountName(bare),
                                  ": no agent has registered it"),
                     {{"mount", MountName(bare)}});
  }
  return *std::move(info);
}

v1::Mount MountAdmin::ToApi(const MountInfo& info) {
  const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
  v1::Mount mount =
      ToApiMount(info, deps_.index->mount_totals(uid), reaper_->PendingOn(uid));
  mount.set_fault_count(deps_.index->fault_count(uid));
  mount.set_orphan_count(inventory_->OrphanCount(uid));
  mount.set_stale(stale_->Refused(uid) || stale_->Accepted(uid));
  if (auto scrub = scrubs_->View(info); scrub.has_value()) {
    *mount.mutable_scrub() = *std::move(scrub);
  }
  return mount;
}

absl::StatusOr<v1::Mount> MountAdmin::Get(const v1::GetMountRequest& request) {
  ASSIGN_OR_RETURN(const MountInfo info, Find(request.name()));
  return ToApi(info);
}

absl::StatusOr<v1::ListMountsResponse> MountAdmin::List(
    const v1::ListMountsRequest& request) {
  ASSIGN_OR_RETURN(const int64_t page_size, CheckPageSize(request.page_size()));
  ASSIGN_OR_RETURN(const std::string last,
                   DecodePageToken("mounts", request.page_token()));
  v1::ListMountsResponse response;
  for (const MountInfo& info : deps_.registry->List()) {
    if (!info.attached &&
        info.row.admin_state() != storage::v1::ADMIN_STATE_RETIRED) {
      response.add_unreachable(MountName(info.row.mount_name()));
    }
    if (!last.empty() && info.row.mount_name() <= last) {
      continue;
    }
    if (response.mounts_size() < page_size) {
      *response.add_mounts() = ToApi(info);
    } else if (response.next_page_token().empty()) {
      const std::string& name =
          response.mounts(response.mounts_size() - 1).name();
      ASSIGN_OR_RETURN(const std::string bare, ParseMountName(name));
      response.set_next_page_token(EncodePageToken("mounts", bare));
    }
  }
  return response;
}

absl::Status MountAdmin::CheckReason(const std::string& reason) {
  constexpr size_t kMostReason = 1024;
  return reason.size() <= kMostReason
             ? absl::OkStatus()
             : MakeError(absl::StatusCode::kInvalidArgument,
                         reason::kInvalidArgument,
                         absl::StrCat("the reason has ", reason.size(),
                                      " bytes; ", kMostReason, " are kept"));
}

absl::StatusOr<v1::Mount> MountAdmin::Change(
    const std::string& name, bool validate_only, absl::string_view event,
    const std::function<absl::Status(storage::v1::MountRow*)>& change,
    const std::function<std::string(const storage::v1::MountRow& old)>&
        detail) {
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(MountInfo info, Find(name));
    const storage::v1::MountRow old = info.row;
    RETURN_IF_ERROR(change(&info.row));
    RETURN_IF_ERROR(CheckReason(info.row.admin_reason()));
    if (validate_only ||
        info.row.SerializeAsString() == old.SerializeAsString()) {
      // As it would be.
      info.view.admin_state = info.row.admin_state();
      return ToApi(info);
    }
    RETURN_IF_ERROR(CheckWritable(*deps_.index));
    info.row.set_update_time_us(deps_.clock->NowMicros());
    storage::v1::EventRow row;
    row.set_time_us(info.row.update_time_us());
    row.set_kind(std::string(event));
    row.set_mount_name(info.row.mount_name());
    row.set_detail(detail == nullptr ? info.row.admin_reason() : detail(old));
    row.set_affected_images(
        deps_.index->mount_totals(Uuid::FromBytesOrNone(old.mount_uid()))
            .count);
    IndexTxn txn = deps_.index->Begin();
    txn.RequireMount(old);
    txn.PutMount(info.row);
    txn.PutEvent(row);
    const absl::Status status = deps_.index->Commit(std::move(txn));
    if (status.ok()) {
      deps_.registry->SetRow(info.row);
      LogInfo(event, {{"mount", info.row.mount_name()},
                      {"reason", info.row.admin_reason()}});
      changed_->Notify();
      ASSIGN_OR_RETURN(const MountInfo now, Find(name));
      return ToApi(now);
    }
    if (!absl::IsAborted(status)) {
      return status;
    }
  }
  return TooManyConflicts(name);
}

absl::StatusOr<v1::Mount> MountAdmin::Cordon(
    const v1::CordonMountRequest& request) {
  return Change(
      request.name(), request.validate_only(), "mount_cordoned",
      [&request](storage::v1::MountRow* row) {
        if (row->admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
          return Retired(*row);
        }
        row->set_admin_state(storage::v1::ADMIN_STATE_CORDONED);
        row->clear_maintenance_until_us();
        row->set_admin_reason(request.reason());
        return absl::OkStatus();
      },
      [this, &request](const storage::v1::MountRow& old) {
        const std::string ended = EndedExcuse(old, deps_.clock->NowMicros());
        return absl::StrCat(
            request.reason(),
            request.reason().empty() || ended.empty() ? "" : "; ", ended);
      });
}

absl::StatusOr<v1::Mount> MountAdmin::Uncordon(
    const v1::UncordonMountRequest& request) {
  return Change(
      request.name(), request.validate_only(), "mount_uncordoned",
      [](storage::v1::MountRow* row) {
        if (row->admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
          return Retired(*row);
        }
        row->set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
        row->clear_maintenance_until_us();
        row->clear_admin_reason();
        return absl::OkStatus();
      },
      [this](const storage::v1::MountRow& old) {
        return EndedExcuse(old, deps_.clock->NowMicros());
      });
}

absl::StatusOr<v1::Mount> MountAdmin::Maintain(
    const v1::MaintainMountRequest& request) {
  if (request.until_time().seconds() > kLastSecond) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat("until_time is ", request.until_time().seconds(),
                     " s after 1970, and no time is after "
                     "9999-12-31T23:59:59Z (",
                     kLastSecond, " s)"));
  }
  const int64_t until = FromTimestamp(request.until_time());
  if (!request.has_until_time() || until <= deps_.clock->NowMicros()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        "until_time has to be in the future: an excuse without an end would "
        "hide a lost mount");
  }
  return Change(request.name(), request.validate_only(), "mount_maintenance",
                [&request, until](storage::v1::MountRow* row) {
                  if (row->admin_state() == storage::v1::ADMIN_STATE_RETIRED) {
                    return Retired(*row);
                  }
                  row->set_admin_state(storage::v1::ADMIN_STATE_MAINTENANCE);
                  row->set_maintenance_until_us(until);
                  row->set_admin_reason(request.reason());
                  return absl::OkStatus();
                });
}

// Placement and lists go by the clock already; the row and an event follow.
void MountAdmin::Tick() {
  for (const MountInfo& info : deps_.registry->List()) {
    if (info.row.admin_state() != storage::v1::ADMIN_STATE_MAINTENANCE ||
        info.view.admin_state == storage::v1::ADMIN_STATE_MAINTENANCE ||
        !deps_.index->write_error().empty()) {
      continue;
    }
    const auto ended = Change(
        info.row.mount_name(), /*validate_only=*/false,
        "mount_maintenance_ended",
        [this](storage::v1::MountRow* row) {
          // Unless an operator was faster.
          if (row->admin_state() == storage::v1::ADMIN_STATE_MAINTENANCE &&
              row->maintenance_until_us() <= deps_.clock->NowMicros()) {
            row->set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
            row->clear_maintenance_until_us();
            row->clear_admin_reason();
          }
          return absl::OkStatus();
        },
        [](const storage::v1::MountRow& old) {
          return absl::StrCat("its time is over; it was excused for: ",
                              old.admin_reason().empty() ? "no reason was given"
                                                         : old.admin_reason());
        });
    LogIfError(ended.status(), "the end is written down at the next look");
  }
}

}  // namespace predella::server
