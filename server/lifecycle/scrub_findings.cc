// ScrubKeeper: findings of damaged copies become rows.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/scrub_keeper.h"

namespace predella::server {
namespace {

// Of one mount and an hour; the rows of all findings are listed anyway.
constexpr int kMostEvents = 100;

absl::string_view EventKind(storage::v1::CopyFault fault) {
  switch (fault) {
    case storage::v1::COPY_FAULT_MISSING:
      return "copy_missing";
    case storage::v1::COPY_FAULT_UNSPECIFIED:
      return "copy_whole_again";
    default:
      return "copy_damaged";
  }
}

}  // namespace

void ScrubKeeper::OnFindings(const Uuid& mount_uid, int64_t session,
                             const control::v1::CopyFaults& faults) {
  for (const control::v1::CopyFinding& finding : faults.findings()) {
    const absl::Status applied = Apply(mount_uid, finding);
    if (applied.ok()) {
      continue;
    }
    LogIfError(applied, "the scrub goes back to where it was");
    MutexLock lock(&mu_);
    Pass& pass = passes_[mount_uid];
    if (pass.session == session) {
      // Its progress would be ahead of what is written down.
      pass.run_id.clear();
      pass.next_ask = deps_.clock->Boot() + absl::Seconds(10);
    }
  }
}

absl::Status ScrubKeeper::Apply(const Uuid& mount_uid,
                                const control::v1::CopyFinding& finding) {
  const Uuid image_id = Uuid::FromBytesOrNone(finding.image_id());
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(const std::optional<storage::v1::ImageRow> image,
                     deps_.index->GetImage(image_id));
    if (finding.has_generation() &&
        finding.fault() != storage::v1::COPY_FAULT_UNSPECIFIED &&
        IsOfConflict(mount_uid, finding)) {
      return NoteConflict(mount_uid, finding);
    }
    // Removed, moved or replaced meanwhile, or never ours.
    if (!image.has_value() || !HoldsCopy(*image, mount_uid) ||
        (finding.has_generation() &&
         Generation::FromProto(finding.generation()) !=
             Generation::FromProto(image->generation()))) {
      return absl::OkStatus();
    }
    const absl::Status applied = TryApply(mount_uid, *image, finding);
    if (!absl::IsAborted(applied)) {
      return applied;
    }
  }
  return TooManyConflicts(image_id.ToString());
}

bool ScrubKeeper::IsOfConflict(const Uuid& mount_uid,
                               const control::v1::CopyFinding& finding) const {
  const auto conflicts =
      deps_.index->ConflictsOf(Uuid::FromBytesOrNone(finding.image_id()));
  return conflicts.ok() &&
         std::any_of(
             conflicts->begin(), conflicts->end(),
             [&](const storage::v1::ConflictRow& conflict) {
               return HoldsCopy(conflict.image(), mount_uid) &&
                      Generation::FromProto(conflict.image().generation()) ==
                          Generation::FromProto(finding.generation());
             });
}

// Faults are of rows, and this generation is none yet: the event names it, the
// pass counts it, and whoever would choose it is refused (ImageCatalog).
absl::Status ScrubKeeper::NoteConflict(
    const Uuid& mount_uid, const control::v1::CopyFinding& finding) {
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  control::v1::CopyFinding named = finding;
  named.set_detail(absl::StrCat(
      "generation ", Generation::FromProto(finding.generation()).ToString(),
      ", which waits for a choice: ", finding.detail()));
  IndexTxn txn = deps_.index->Begin();
  PutFindingEvent(mount_uid, named, &txn);
  RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
  CountFound(mount_uid, Uuid::FromBytesOrNone(finding.image_id()));
  return absl::OkStatus();
}

void ScrubKeeper::CountFound(const Uuid& mount_uid, const Uuid& image_id) {
  MutexLock lock(&mu_);
  Pass& pass = passes_[mount_uid];
  if (pass.row.state() == storage::v1::SCRUB_STATE_RUNNING &&
      image_id > Uuid::FromBytesOrNone(pass.row.last_image_id())) {
    pass.ahead.insert(image_id);
    pass.found.insert(image_id);
  }
}

absl::Status ScrubKeeper::TryApply(const Uuid& mount_uid,
                                   const storage::v1::ImageRow& image,
                                   const control::v1::CopyFinding& finding) {
  const Uuid image_id = Uuid::FromBytesOrNone(finding.image_id());
  const bool whole = finding.fault() == storage::v1::COPY_FAULT_UNSPECIFIED;
  const std::optional<storage::v1::FaultRow> known =
      deps_.index->FaultOf(image, mount_uid);
  // A damaged file that may not be read now, or is gone, is damaged until it
  // was read whole, or a listing shows that nothing is there: were it called
  // missing, the next listing that sees a file would call it well.
  const bool stays =
      known.has_value() && (known->fault() == finding.fault() ||
                            known->fault() == storage::v1::COPY_FAULT_DAMAGED);
  const bool news = whole ? known.has_value() : !stays;
  if (news) {
    RETURN_IF_ERROR(CheckWritable(*deps_.index));
    IndexTxn txn = deps_.index->Begin();
    txn.RequireImage(image);
    if (whole) {
      txn.DeleteFault(mount_uid, image_id);
    } else {
      storage::v1::FaultRow row;
      row.set_mount_uid(mount_uid.bytes());
      row.set_image_id(finding.image_id());
      *row.mutable_generation() = image.generation();
      row.set_fault(finding.fault());
      row.set_detail(finding.detail());
      row.set_found_time_us(deps_.clock->NowMicros());
      txn.PutFault(row);
    }
    PutFindingEvent(mount_uid, finding, &txn);
    RETURN_IF_ERROR(deps_.index->Commit(std::move(txn)));
    LogWarning(EventKind(finding.fault()), {{"image", image_id.ToString()},
                                            {"mount", mount_uid.ToString()},
                                            {"detail", finding.detail()}});
  }
  if (!whole) {
    CountFound(mount_uid, image_id);
  }
  return absl::OkStatus();
}

void ScrubKeeper::PutFindingEvent(const Uuid& mount_uid,
                                  const control::v1::CopyFinding& finding,
                                  IndexTxn* txn) {
  {
    MutexLock lock(&mu_);
    Pass& pass = passes_[mount_uid];
    const absl::Duration now = deps_.clock->Boot();
    if (now - pass.events_since > absl::Hours(1)) {
      pass.events_since = now;
      pass.events = 0;
    }
    if (++pass.events > kMostEvents) {
      return;
    }
  }
  storage::v1::EventRow event =
      EventOf(mount_uid, EventKind(finding.fault()), finding.detail());
  event.set_image_id(finding.image_id());
  event.set_affected_images(1);
  txn->PutEvent(event);
}

}  // namespace predella::server
