// Uploads that can only end, since bytes of them are gone that nobody else
// has: a part of UploadTable.
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/control/upload_entry.h"
#include "agent/control/upload_table.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"

namespace predella::agent {

void UploadTable::LoseLocked(const EntryPtr& entry, absl::string_view why,
                             bool full) {
  if (entry->phase != UploadPhase::kReceiving &&
      entry->phase != UploadPhase::kFull &&
      entry->phase != UploadPhase::kMoved) {
    return;
  }
  Transition(entry.get(), UploadPhase::kLost);
  entry->commit.reset();
  entry->committed = false;
  entry->lost = full && !entry->move.detail.empty()
                    ? absl::StrCat("the mount is full (", entry->move.detail,
                                   "), and ", why)
                    : std::string(why);
  entry->lost_reason =
      std::string(full ? reason::kMountFull : reason::kUploadBytesLost);
  LogError("upload_lost", {{"upload", entry->spec.upload_id.ToString()},
                           {"detail", entry->lost}});
  SendLostLocked(entry);
}

void UploadTable::SendLostLocked(const EntryPtr& entry) {
  entry->told_at = clock_->Boot();
  control::v1::AgentMessage message;
  control::v1::UploadLost* lost = message.mutable_upload_lost();
  lost->set_upload_id(entry->spec.upload_id.bytes());
  *lost->mutable_generation() = entry->spec.generation.ToProto();
  lost->set_detail(entry->lost);
  lost->set_reason(entry->lost_reason);
  session_->SendAttached(std::move(message));
}

absl::Status UploadTable::CheckOpenLocked(const HandlePtr& handle) {
  const EntryPtr& entry = handle->entry;
  const std::string name = UploadName(entry->spec.upload_id);
  if (entry->phase == UploadPhase::kLost) {
    // What moved on may have been committed there all the same: then the
    // coordinator says so.
    return entry->move.target.mount_uid().empty() || handle->prefix
               ? MakeError(OutcomeCode(entry->lost_reason), entry->lost_reason,
                           entry->lost, {{"upload", name}})
               : absl::OkStatus();
  }
  // Of an upload that moves on the next mount wants the rest.
  if (handle->prefix || entry->tail_next >= handle->start_offset ||
      entry->phase == UploadPhase::kFull ||
      entry->phase == UploadPhase::kMoved) {
    return absl::OkStatus();
  }
  const absl::Status lost =
      MakeError(absl::StatusCode::kAborted, reason::kUploadBytesLost,
                absl::StrCat("only ", entry->tail_next, " bytes of ", name,
                             " are left, and the client can send from ",
                             handle->start_offset, " on: start again"),
                {{"upload", name},
                 {"next_offset", absl::StrCat(entry->tail_next)},
                 {"start_offset", absl::StrCat(handle->start_offset)}});
  LoseLocked(entry, lost.message(), /*full=*/false);
  return lost;
}

}  // namespace predella::agent
