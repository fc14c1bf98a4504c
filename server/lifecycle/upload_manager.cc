#include "server/lifecycle/upload_manager.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/capability.h"
#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "server/lifecycle/api_convert.h"
#include "server/lifecycle/page_token.h"
#include "server/placement/placement_policy.h"

namespace predella::server {
namespace {

// A sign of life is written down when the row's is this old.
constexpr absl::Duration kWriteLifeAfter = absl::Hours(1);

}  // namespace

absl::Status OutcomeStatus(const storage::v1::UploadRow& row) {
  const std::string upload = UploadName(Uuid::FromBytesOrNone(row.upload_id()));
  const absl::StatusCode code =
      row.outcome() == storage::v1::UPLOAD_OUTCOME_EXPIRED
          ? absl::StatusCode::kFailedPrecondition
          : OutcomeCode(row.outcome_reason());
  const std::string why = row.outcome_reason().empty()
                              ? std::string(reason::kUploadAborted)
                              : row.outcome_reason();
  return MakeError(
      code, why,
      absl::StrCat(
          upload, " has ended: ",
          row.outcome_detail().empty() ? "it is over" : row.outcome_detail()),
      {{"upload", upload}});
}

UploadManager::UploadManager(const LifecycleDeps& deps, AgentCommands* commands,
                             UploadTable* uploads, Tombstones* tombstones,
                             TrustKeeper* trust, Notifier* changed,
                             MountGate* gate)
    : deps_(deps),
      commands_(commands),
      uploads_(uploads),
      tombstones_(tombstones),
      trust_(trust),
      changed_(changed),
      gate_(gate) {}

absl::Status UploadManager::Load() {
  const absl::Duration now = deps_.clock->Boot();
  return deps_.index->ScanUploads(
      [this, now](const storage::v1::UploadRow& row) {
        uploads_->Load(row, now);
      });
}

absl::Status UploadManager::Change(
    const Uuid& upload_id,
    const std::function<bool(storage::v1::UploadRow*)>& change) {
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(const std::optional<storage::v1::UploadRow> old,
                     deps_.index->GetUpload(upload_id));
    if (!old.has_value()) {
      return absl::OkStatus();
    }
    storage::v1::UploadRow row = *old;
    if (!change(&row)) {
      return absl::OkStatus();
    }
    IndexTxn txn = deps_.index->Begin();
    const Generation pair = txn.pair();
    txn.RequireUpload(*old);
    txn.PutUpload(row);
    const absl::Status status = deps_.index->Commit(std::move(txn));
    if (status.ok()) {
      uploads_->Put(row, pair, deps_.clock->Boot());
      return absl::OkStatus();
    }
    if (!absl::IsAborted(status)) {
      return status;
    }
  }
  return TooManyConflicts(UploadName(upload_id));
}

absl::Status UploadManager::End(const Uuid& upload_id,
                                storage::v1::UploadOutcome outcome,
                                absl::string_view reason,
                                absl::string_view detail) {
  bool ended = false;
  const absl::Status status =
      Change(upload_id, [&](storage::v1::UploadRow* row) {
        ended = row->outcome() == storage::v1::UPLOAD_OUTCOME_UNSPECIFIED;
        row->set_outcome(outcome);
        row->set_outcome_time_us(deps_.clock->NowMicros());
        row->set_outcome_reason(std::string(reason));
        row->set_outcome_detail(std::string(detail));
        return ended;
      });
  if (status.ok() && ended) {
    LogInfo("upload_ended", {{"upload", upload_id.ToString()},
                             {"reason", reason},
                             {"detail", detail}});
    changed_->Notify();
  }
  return status;
}

absl::Status UploadManager::ConfirmClean(const Uuid& upload_id,
                                         const Uuid& mount_uid) {
  const absl::Status status =
      Change(upload_id, [&](storage::v1::UploadRow* row) {
        bool changed = false;
        for (storage::v1::UploadTargetRow& target : *row->mutable_targets()) {
          if (target.mount_uid() == mount_uid.bytes() && !target.clean()) {
            target.set_clean(true);
            changed = true;
          }
        }
        return changed;
      });
  changed_->Notify();
  return status;
}

absl::Status UploadManager::MarkLeftover(const Uuid& upload_id,
                                         const Uuid& mount_uid) {
  return Change(upload_id, [&](storage::v1::UploadRow* row) {
    bool changed = false;
    for (storage::v1::UploadTargetRow& target : *row->mutable_targets()) {
      if (target.mount_uid() == mount_uid.bytes() && target.clean()) {
        target.set_clean(false);
        changed = true;
      }
    }
    return changed;
  });
}

absl::StatusOr<v1::Upload> UploadManager::Get(const Uuid& upload_id) {
  ASSIGN_OR_RETURN(const std::optional<storage::v1::UploadRow> row,
                   deps_.index->GetUpload(upload_id));
  if (!row.has_value()) {
    return MakeError(
        absl::StatusCode::kNotFound, reason::kUploadNotFound,
        absl::StrCat(UploadName(upload_id),
                     " is not known: it never began, or ended more than ",
                     absl::FormatDuration(deps_.options.outcome_ttl), " ago"),
        {{"upload", UploadName(upload_id)}});
  }
  return ToApi(*row, /*with_capability=*/false);
}

absl::StatusOr<v1::Upload> UploadManager::Abort(const Uuid& upload_id) {
  ASSIGN_OR_RETURN(const v1::Upload present, Get(upload_id));
  const auto committed = [&upload_id] {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kImageExists,
                     absl::StrCat(UploadName(upload_id),
                                  " is committed: delete the image instead"),
                     {{"upload", UploadName(upload_id)}});
  };
  if (present.state() == v1::UPLOAD_STATE_COMMITTED) {
    return committed();
  }
  if (present.state() != v1::UPLOAD_STATE_OPEN) {
    return present;
  }
  RETURN_IF_ERROR(CheckWritable(*deps_.index));
  ASSIGN_OR_RETURN(const std::optional<storage::v1::UploadRow> row,
                   deps_.index->GetUpload(upload_id));
  if (row.has_value()) {
    const auto closed = CloseIfIdle(*row, /*force=*/true);
    if (closed.ok() && *closed == Closed::kPublished) {
      return committed();
    }
    LogIfError(closed.status(),
               "what it may still publish is refused by its outcome");
  }
  RETURN_IF_ERROR(End(upload_id, storage::v1::UPLOAD_OUTCOME_ABORTED,
                      reason::kUploadAborted, "it was aborted by the client"));
  return Get(upload_id);
}

absl::StatusOr<UploadManager::Closed> UploadManager::CloseIfIdle(
    const storage::v1::UploadRow& row, bool force) {
  UploadEntry entry;
  entry.row = row;
  const Uuid mount_uid = entry.target();
  if (commands_->AttachedSession(mount_uid) == 0) {
    return Closed::kClosed;
  }
  control::v1::Command command;
  command.mutable_close_if_idle()->set_upload_id(row.upload_id());
  *command.mutable_close_if_idle()->mutable_generation() = row.generation();
  command.mutable_close_if_idle()->set_force(force);
  const auto result = commands_->Call(mount_uid, std::move(command),
                                      deps_.options.command_timeout, {});
  if (!result.ok()) {
    // Its session ended: whatever was open is closed. Or it has never heard of
    // the upload.
    if (commands_->AttachedSession(mount_uid) == 0 ||
        absl::IsNotFound(result.status())) {
      return Closed::kClosed;
    }
    return result.status();
  }
  if (result->close_if_idle().has_published()) {
    const control::v1::PublishedAck ack =
        OnPublished(mount_uid, result->close_if_idle().published());
    return ack.outcome() == storage::v1::UPLOAD_OUTCOME_COMMITTED
               ? Closed::kPublished
               : Closed::kClosed;
  }
  return result->close_if_idle().closed() ? Closed::kClosed : Closed::kOpen;
}

void UploadManager::OnLive(const Uuid& upload_id) {
  uploads_->Touch(upload_id, deps_.clock->Boot());
}

std::string UploadManager::WriteCapability(const storage::v1::UploadRow& row,
                                           const Uuid& mount_uid) {
  Capability capability;
  capability.operation = Capability::Operation::kWrite;
  capability.image_id = Uuid::FromBytesOrNone(row.image_id());
  capability.generation = Generation::FromProto(row.generation());
  capability.upload_id = Uuid::FromBytesOrNone(row.upload_id());
  capability.mount_uid = mount_uid;
  capability.expire_time_us =
      deps_.clock->NowMicros() +
      absl::ToInt64Microseconds(deps_.options.upload_ttl);
  return SignCapability(
      capability,
      DeriveMountKey(deps_.index->cluster().cluster_key(), mount_uid));
}

control::v1::OpenUpload UploadManager::ToOpenUpload(
    const storage::v1::UploadRow& row, const Uuid& mount_uid) {
  control::v1::OpenUpload open;
  open.set_upload_id(row.upload_id());
  open.set_image_id(row.image_id());
  *open.mutable_generation() = row.generation();
  open.set_location_key(row.location_key());
  if (row.has_size_bytes()) {
    open.set_size_bytes(row.size_bytes());
  }
  *open.mutable_decision() = row.decision();
  const int last = row.targets_size() - 1;
  for (int i = 0; i <= last; ++i) {
    if (Uuid::FromBytesOrNone(row.targets(i).mount_uid()) == mount_uid) {
      open.set_segment_boundary(row.targets(i).segment_boundary());
      if (i != last) {
        *open.mutable_moved_to() = RedirectTo(row, mount_uid);
      }
    }
  }
  return open;
}

absl::StatusOr<v1::ListUploadsResponse> UploadManager::List(
    const v1::ListUploadsRequest& request) {
  ASSIGN_OR_RETURN(const int64_t page_size, CheckPageSize(request.page_size()));
  ASSIGN_OR_RETURN(const std::string last,
                   DecodePageToken("uploads", request.page_token()));
  std::vector<UploadEntry> entries =
      uploads_->SelectOpen([&](const UploadEntry& entry) {
        return last.empty() || entry.row.upload_id() > last;
      });
  std::sort(entries.begin(), entries.end(),
            [](const UploadEntry& a, const UploadEntry& b) {
              return a.row.upload_id() < b.row.upload_id();
            });
  v1::ListUploadsResponse response;
  const size_t count = std::min(entries.size(), static_cast<size_t>(page_size));
  for (size_t i = 0; i < count; ++i) {
    v1::Upload* const upload = response.add_uploads();
    *upload = ToApi(entries[i].row, /*with_capability=*/false);
    upload->clear_placement();
  }
  if (entries.size() > count) {
    response.set_next_page_token(
        EncodePageToken("uploads", entries[count - 1].row.upload_id()));
  }
  return response;
}

v1::Upload UploadManager::ToApi(const storage::v1::UploadRow& row,
                                bool with_capability) {
  UploadEntry entry;
  entry.row = row;
  const Uuid upload_id = Uuid::FromBytesOrNone(row.upload_id());
  v1::Upload upload;
  upload.set_name(UploadName(upload_id));
  upload.set_image(ImageName(Uuid::FromBytesOrNone(row.image_id())));
  upload.set_generation(Generation::FromProto(row.generation()).ToString());
  if (row.has_size_bytes()) {
    upload.set_size_bytes(row.size_bytes());
  }
  upload.set_state(ToUploadState(row.outcome()));
  const Uuid mount_uid = entry.target();
  upload.mutable_target()->set_mount_uid(mount_uid.ToString());
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  if (info.has_value()) {
    upload.mutable_target()->set_mount(MountName(info->row.mount_name()));
    CopyAddresses(*info, upload.mutable_target()->mutable_addresses());
  }
  if (with_capability && entry.open()) {
    upload.set_write_capability(WriteCapability(row, mount_uid));
  }
  *upload.mutable_create_time() = ToTimestamp(row.create_time_us());
  if (entry.open()) {
    const std::optional<UploadEntry> known = uploads_->Find(upload_id);
    const absl::Duration left =
        deps_.options.upload_ttl - (known.has_value()
                                        ? deps_.clock->Boot() - known->last_life
                                        : absl::ZeroDuration());
    if (known.has_value()) {
      *upload.mutable_live_time() = ToTimestamp(
          deps_.clock->NowMicros() -
          absl::ToInt64Microseconds(deps_.clock->Boot() - known->last_life));
    }
    *upload.mutable_expire_time() =
        ToTimestamp(deps_.clock->NowMicros() + absl::ToInt64Microseconds(left));
  }
  upload.set_detail(row.outcome_detail());
  upload.set_reason(row.outcome_reason());
  *upload.mutable_placement() = predella::server::ToApi(row.decision());
  return upload;
}

void UploadManager::Tick() {
  TickExpiry();
  TickOutcomes();
}

void UploadManager::TickExpiry() {
  {
    MutexLock lock(&mu_);
    absl::erase_if(moves_waiting_, [this](const auto& waiting) {
      const auto entry = uploads_->Find(waiting.first);
      return !entry.has_value() || !entry->open();
    });
  }
  const absl::Duration now = deps_.clock->Boot();
  const int64_t now_us = deps_.clock->NowMicros();
  const auto seen_us = [&](const UploadEntry& entry) {
    return now_us - absl::ToInt64Microseconds(now - entry.last_life);
  };
  const auto stale = [&](const UploadEntry& entry) {
    return now - entry.last_life >= deps_.options.upload_ttl;
  };
  for (const UploadEntry& entry :
       uploads_->SelectOpen([&](const UploadEntry& candidate) {
         return !candidate.waiting &&
                (stale(candidate) ||
                 seen_us(candidate) - candidate.row.update_time_us() >=
                     absl::ToInt64Microseconds(kWriteLifeAfter));
       })) {
    const Uuid id = Uuid::FromBytesOrNone(entry.row.upload_id());
    if (stale(entry)) {
      LogIfError(
          End(id, storage::v1::UPLOAD_OUTCOME_EXPIRED, reason::kUploadExpired,
              absl::StrCat("no sign of life for ",
                           absl::FormatDuration(deps_.options.upload_ttl))),
          "the next tick expires it");
      continue;
    }
    LogIfError(Change(id,
                      [&](storage::v1::UploadRow* row) {
                        row->set_update_time_us(seen_us(entry));
                        return row->outcome() ==
                               storage::v1::UPLOAD_OUTCOME_UNSPECIFIED;
                      }),
               "the sign of life is kept in memory");
  }
}

void UploadManager::TickOutcomes() {
  const int64_t before = deps_.clock->NowMicros() -
                         absl::ToInt64Microseconds(deps_.options.outcome_ttl);
  for (const UploadEntry& entry :
       uploads_->SelectEnded([before](const UploadEntry& candidate) {
         if (candidate.row.outcome_time_us() > before) {
           return false;
         }
         for (const auto& target : candidate.row.targets()) {
           if (candidate.LeftoverOn(
                   Uuid::FromBytesOrNone(target.mount_uid()))) {
             return false;
           }
         }
         return true;
       })) {
    IndexTxn txn = deps_.index->Begin();
    txn.RequireUpload(entry.row);
    txn.DeleteUpload(entry.row);
    if (deps_.index->Commit(std::move(txn)).ok()) {
      uploads_->Erase(Uuid::FromBytesOrNone(entry.row.upload_id()));
    }
  }
}

}  // namespace predella::server
