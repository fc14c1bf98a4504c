// Where a new upload finds no room: what is tried, waited for and said. A part
// of UploadManager.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/errors.h"
#include "common/status_macros.h"
#include "server/lifecycle/upload_manager.h"

namespace predella::server {

// An upload that cannot be placed anywhere must not end the one it would take
// over from. What that one holds may be the room it needs, so only what would
// be refused with it gone too is refused here.
absl::Status UploadManager::CheckRoom(const StartRequest& request) {
  std::vector<UploadEntry> others;
  for (UploadEntry& entry : uploads_->OfImage(request.image_id)) {
    if (entry.open() &&
        Uuid::FromBytesOrNone(entry.row.upload_id()) != request.upload_id) {
      others.push_back(std::move(entry));
    }
  }
  if (others.empty()) {
    return absl::OkStatus();
  }
  // Given back at once: it only asks.
  const auto placed = deps_.registry->Reserve(PlacementFor(
      request.image_id, request.upload_id, request.size_bytes, nullptr));
  if (!absl::IsResourceExhausted(placed.status())) {
    return absl::OkStatus();
  }
  for (const UploadEntry& entry : others) {
    const std::optional<MountInfo> info = deps_.registry->Find(entry.target());
    if (!info.has_value()) {
      continue;
    }
    // Of unknown size: anything up to the whole mount.
    const int64_t held = entry.row.has_size_bytes() ? entry.row.size_bytes()
                                                    : info->space.size_bytes();
    const int64_t room =
        std::min(info->view.available_bytes + held, info->space.size_bytes());
    if (request.size_bytes.value_or(0) <= room) {
      return absl::OkStatus();
    }
  }
  return placed.status();
}

// Nothing is removed until RECOVERING ends, and a delete of all that may come
// waits for every mount, whether it has the file or not. So each is asked
// whether the name is free there; a removal is of one generation and does not
// touch the new one.
absl::StatusOr<Reservation> UploadManager::NextMountInRecovering(
    PlacementRequest request, storage::v1::Decision* decision,
    const absl::Status& pending) {
  std::erase_if(request.excluded, [](const PlacementRequest::Excluded& mount) {
    return absl::string_view(mount.reason) == "leftover";
  });
  auto reservation = NextMount(request, decision);
  return reservation.ok() ? std::move(reservation)
                          : absl::StatusOr<Reservation>(pending);
}

bool UploadManager::HasLeftovers(const StartRequest& request) {
  const PlacementRequest placement = PlacementFor(
      request.image_id, request.upload_id, request.size_bytes, nullptr);
  return !placement.excluded.empty();
}

absl::Status UploadManager::EndWithoutRoom(const StartRequest& request,
                                           bool has_row,
                                           const absl::Status& refusal,
                                           const absl::Status& why) {
  if (HasReason(refusal, reason::kNameTaken) &&
      !HasReason(why, reason::kLeftoverPending)) {
    if (trust_->recovering() && HasLeftovers(request)) {
      return MakeError(
          absl::StatusCode::kUnavailable, reason::kLeftoverPending,
          absl::StrCat(refusal.message(),
                       "; what was deleted is removed when RECOVERING has "
                       "ended: repeat the call then"),
          MetadataOf(refusal));
    }
    // Waiting does not help: somebody has to look at that file.
    RETURN_IF_ERROR(End(request.upload_id, storage::v1::UPLOAD_OUTCOME_ABORTED,
                        reason::kNameTaken, refusal.message()));
    return refusal;
  }
  const absl::Status nowhere = NameOpenUploads(why, has_row ? 1 : 0);
  if (has_row && absl::IsResourceExhausted(nowhere)) {
    RETURN_IF_ERROR(End(request.upload_id, storage::v1::UPLOAD_OUTCOME_ABORTED,
                        ReasonOf(nowhere), nowhere.message()));
  }
  return nowhere;
}

void UploadManager::TriedMounts::Add(const Uuid& mount_uid,
                                     const absl::Status& why) {
  if (absl::IsResourceExhausted(why)) {
    full_.push_back(mount_uid);
  } else if (HasReason(why, reason::kAgentUnreachable)) {
    silent_.push_back(mount_uid);
  }
}

void UploadManager::TriedMounts::Explain(PlacementRequest* request) const {
  const auto among = [](const std::vector<Uuid>& list, const Uuid& uid) {
    return std::find(list.begin(), list.end(), uid) != list.end();
  };
  for (PlacementRequest::Excluded& excluded : request->excluded) {
    if (among(full_, excluded.mount_uid)) {
      excluded.reason = "filled_up";
    } else if (among(silent_, excluded.mount_uid)) {
      excluded.reason = "refused";
    }
  }
}

bool UploadManager::RoomMayAppear() const {
  for (const MountInfo& info : deps_.registry->List()) {
    const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    if (commands_->AttachedSession(uid) == 0) {
      continue;
    }
    const std::vector<UploadEntry> rests = uploads_->LeftoversOn(uid);
    if (!tombstones_->PendingOn(uid).empty() ||
        std::any_of(rests.begin(), rests.end(),
                    [](const UploadEntry& rest) { return !rest.open(); })) {
      return true;
    }
  }
  return false;
}

absl::Status UploadManager::NameOpenUploads(const absl::Status& nowhere,
                                            int64_t own) const {
  const int64_t open = uploads_->open_count() - own;
  if (!absl::IsResourceExhausted(nowhere) || open <= 0) {
    return nowhere;
  }
  return MakeError(
      nowhere.code(), ReasonOf(nowhere),
      absl::StrCat(nowhere.message(), "; uploads that are open: ", open,
                   ", each holds its space; one whose client is gone does so "
                   "for ",
                   absl::FormatDuration(deps_.options.upload_ttl),
                   ", or until predella upload abort ends it"),
      MetadataOf(nowhere));
}

}  // namespace predella::server
