// A mount that fills up in the middle of an upload: a part of UploadTable.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "agent/control/upload_entry.h"
#include "agent/control/upload_table.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/rpc_status.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

constexpr absl::Duration kCopyRetry = absl::Seconds(1);
// A block that is read wrong once may have been so on its way from the disk.
constexpr int kMostBadReads = 2;

v1::Redirect ToRedirect(const control::v1::RedirectTarget& target) {
  v1::Redirect redirect;
  redirect.mutable_target()->set_mount(MountName(target.mount_name()));
  redirect.mutable_target()->set_mount_uid(
      Uuid::FromBytesOrNone(target.mount_uid()).ToString());
  *redirect.mutable_target()->mutable_addresses() = target.addresses();
  redirect.set_capability(target.capability());
  redirect.set_offset(target.segment_boundary());
  return redirect;
}

}  // namespace

void UploadTable::KeepForMove(const EntryPtr& entry) {
  if (entry->staged == nullptr || entry->staged->condemned()) {
    return;
  }
  // What is on the disk need not be sent again. Synced: NFS takes bytes that it
  // has no room for, and says so later.
  LogIfError(entry->staged->Sync(),
             "the client sends again what is not written down");
  CopyNumbers(entry);
}

void UploadTable::FullLocked(const EntryPtr& entry, const absl::Status& why) {
  if (entry->phase != UploadPhase::kReceiving) {
    return;
  }
  Transition(entry.get(), UploadPhase::kFull);
  // What survives this agent: the client holds everything above, so the move
  // can still be finished when this process dies in the middle of it. Of a file
  // that is condemned as little as can be: bytes of it may have gone.
  const bool condemned = entry->staged != nullptr && entry->staged->condemned();
  entry->move.received =
      condemned ? std::max(entry->spec.tail_start,
                           std::min(entry->told_safe, entry->tail_safe))
                : entry->tail_safe;
  entry->move.full = HasReason(why, reason::kMountFull);
  entry->move.detail = std::string(why.message());
  LogWarning("upload_full", {{"upload", entry->spec.upload_id.ToString()},
                             {"received", entry->tail_next},
                             {"detail", entry->move.detail}});
  SendFullLocked(entry);
}

void UploadTable::SendFullLocked(const EntryPtr& entry) {
  entry->told_at = clock_->Boot();
  control::v1::AgentMessage message;
  control::v1::UploadFull* full = message.mutable_upload_full();
  full->set_upload_id(entry->spec.upload_id.bytes());
  *full->mutable_generation() = entry->spec.generation.ToProto();
  full->set_received_bytes(entry->move.received);
  full->set_detail(entry->move.detail);
  session_->SendAttached(std::move(message));
}

void UploadTable::OnUploadFullAck(const control::v1::UploadFullAck& ack) {
  const Uuid id = Uuid::FromBytesOrNone(ack.upload_id());
  MutexLock lock(&mu_);
  const EntryPtr entry =
      FindLocked(id, Generation::FromProto(ack.generation()));
  if (entry == nullptr || (entry->phase != UploadPhase::kFull &&
                           entry->phase != UploadPhase::kMoved)) {
    return;
  }
  PostOn(entry, [this, entry, ack] {
    if (ack.has_heard() && entry->store != nullptr) {
      const absl::Status heard =
          entry->store->Hear(Generation::FromProto(ack.heard()));
      NoteCall(*entry, heard);
      LogIfError(heard, "the fence is written again with the next pair");
    }
    MutexLock moved(&mu_);
    if (entry->phase == UploadPhase::kMoved) {
      if (ack.has_target() && !entry->move.copying &&
          ack.target().mount_uid() == entry->move.target.mount_uid()) {
        entry->move.target = ack.target();  // where it listens now
      }
      return;
    }
    if (entry->phase != UploadPhase::kFull) {
      return;
    }
    if (ack.has_target()) {
      MoveLocked(entry, ack.target());
      return;
    }
    absl::Status error = FromRpcStatus(ack.error());
    if (error.ok()) {
      error = MakeError(absl::StatusCode::kResourceExhausted,
                        reason::kNoSpaceInCluster, entry->move.detail);
    }
    EndLocked(entry, error, /*discard=*/true);
  });
}

void UploadTable::MoveLocked(const EntryPtr& entry,
                             const control::v1::RedirectTarget& target) {
  Transition(entry.get(), UploadPhase::kMoved);
  entry->commit.reset();
  entry->committed = false;
  entry->move.target = target;
  LogInfo("upload_moved", {{"upload", entry->spec.upload_id.ToString()},
                           {"to", target.mount_name()},
                           {"boundary", target.segment_boundary()}});
  SendRedirectLocked(entry);
  MaybeCopyLocked(entry);
}

void UploadTable::SendRedirectLocked(const EntryPtr& entry) {
  if (entry->stream == nullptr) {
    return;
  }
  v1::WriteImageResponse response;
  *response.mutable_redirect() = ToRedirect(entry->move.target);
  const HandlePtr handle = entry->stream;
  handle->stream->Send(std::move(response));
  FinishHandleLocked(handle, absl::OkStatus());
}

void UploadTable::MaybeCopyLocked(const EntryPtr& entry) {
  if (entry->phase == UploadPhase::kMoved && !entry->move.copying &&
      clock_->Boot() >= entry->move.retry_at) {
    entry->move.copying = true;
    PostOn(entry, [this, entry] { StartCopy(entry); });
  }
}

void UploadTable::StartCopy(const EntryPtr& entry) {
  const absl::StatusOr<int64_t> have = BytesForMove(entry);
  PeerCopy copy;
  {
    MutexLock lock(&mu_);
    if (entry->phase != UploadPhase::kMoved) {
      entry->move.copying = false;
      return;
    }
    if (!have.ok()) {
      CopyFailedLocked(entry, have.status());
      return;
    }
    if (entry->prefix_next < entry->spec.tail_start) {
      // A prefix that itself still comes from the mount before is waited for.
      entry->move.copying = false;
      return;
    }
    entry->move.have = *have;
    copy = ToPeerCopyLocked(entry);
  }
  if (copy.header.segment_boundary() == 0) {
    CopyDone(entry, absl::OkStatus());
    return;
  }
  peer_->Copy(std::move(copy));
}

// What is left here to be copied, from byte 0 on. What is not here may be at
// the next mount already, which is asked all the same: only it can say.
absl::StatusOr<int64_t> UploadTable::BytesForMove(const EntryPtr& entry) {
  RETURN_IF_ERROR(Resolve(entry));
  // Opening what is not there would begin it anew.
  if (entry->staged == nullptr &&
      (entry->store == nullptr ||
       entry->store->InflightBytes(entry->spec.upload_id).value_or(0) == 0)) {
    return 0;
  }
  RETURN_IF_ERROR(EnsureStaged(entry));
  return entry->staged->tail_next();
}

PeerCopy UploadTable::ToPeerCopyLocked(const EntryPtr& entry) {
  PeerCopy copy;
  const control::v1::RedirectTarget& target = entry->move.target;
  copy.addresses.assign(target.addresses().begin(), target.addresses().end());
  copy.end = std::min(entry->move.have, target.segment_boundary());
  copy.header.set_upload(UploadName(entry->spec.upload_id));
  copy.header.set_image(ImageName(entry->spec.image_id));
  copy.header.set_generation(entry->spec.generation.ToString());
  copy.header.set_mount_uid(
      Uuid::FromBytesOrNone(target.mount_uid()).ToString());
  copy.header.set_capability(target.capability());
  copy.header.set_segment(v1::WRITE_SEGMENT_PREFIX);
  copy.header.set_segment_boundary(target.segment_boundary());
  copy.read = [this, entry](int64_t offset, int64_t length,
                            PeerCopy::ReadDone done) {
    PostOn(entry, [this, entry, offset, length, done = std::move(done)] {
      done(ReadForMove(entry, offset, length));
    });
  };
  copy.done = [this, entry](const absl::Status& status) {
    PostOn(entry, [this, entry, status] { CopyDone(entry, status); });
  };
  return copy;
}

absl::StatusOr<std::string> UploadTable::ReadForMove(const EntryPtr& entry,
                                                     int64_t offset,
                                                     int64_t length) {
  RETURN_IF_ERROR(EnsureStaged(entry));
  absl::StatusOr<std::string> bytes = entry->staged->ReadBack(offset, length);
  NoteCall(*entry, bytes.status());
  if (HasReason(bytes.status(), reason::kChecksumMismatch)) {
    MutexLock lock(&mu_);
    UploadMove& move = entry->move;
    move.bad_reads = move.bad_at == offset ? move.bad_reads + 1 : 1;
    move.bad_at = offset;
  }
  return bytes;
}

void UploadTable::CopyDone(const EntryPtr& entry, const absl::Status& status) {
  MutexLock lock(&mu_);
  if (entry->phase != UploadPhase::kMoved) {
    entry->move.copying = false;
    return;
  }
  if (!status.ok()) {
    CopyFailedLocked(entry, status);
    return;
  }
  entry->move.copying = false;
  LogInfo("prefix_copied", {{"upload", entry->spec.upload_id.ToString()},
                            {"to", entry->move.target.mount_name()},
                            {"bytes", entry->move.target.segment_boundary()}});
  // A client whose stream broke before it heard of the move still comes here.
  Ended moved;
  moved.upload_id = entry->spec.upload_id;
  moved.generation = entry->spec.generation;
  moved.redirect = ToRedirect(entry->move.target);
  RememberLocked(std::move(moved));
  EndLocked(entry, NotListed(entry->spec.upload_id), /*discard=*/true);
}

void UploadTable::CopyFailedLocked(const EntryPtr& entry,
                                   const absl::Status& status) {
  UploadMove& move = entry->move;
  const std::string& to = move.target.mount_name();
  const int64_t boundary = move.target.segment_boundary();
  move.copying = false;
  move.retry_at = clock_->Boot() + kCopyRetry;
  LogWarning("prefix_copy_failed",
             {{"upload", entry->spec.upload_id.ToString()},
              {"to", to},
              {"error", status.ToString()}});
  if (move.bad_reads >= kMostBadReads) {
    LoseLocked(
        entry,
        absl::StrCat("of the ", boundary, " bytes that ", to,
                     " needs of it, those at ", move.bad_at,
                     " can not be read as they came: ", status.message()),
        entry->move.full);
  } else if (absl::IsUnavailable(status)) {
    // The coordinator named it when the target's agent had not registered, or
    // it has started again elsewhere since: asked again, it says where.
    SendFullLocked(entry);
  } else if (move.have < boundary && absl::IsAborted(status) &&
             HasReason(status, reason::kOffsetMismatch)) {
    // The next mount got all that there is, and says that it is not enough.
    LoseLocked(
        entry,
        absl::StrCat("only ", move.have, " of the ", boundary, " bytes that ",
                     to, " needs of it are left here: ", status.message()),
        entry->move.full);
  }
}

}  // namespace predella::agent
