// A mount that fills up in the middle of an upload: a part of UploadTable.
#include <utility>

#include "absl/strings/str_cat.h"

#include "agent/control/upload_entry.h"
#include "agent/control/upload_table.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/rpc_status.h"

namespace predella::agent {
namespace {

constexpr absl::Duration kCopyRetry = absl::Seconds(1);

}  // namespace

void UploadTable::KeepForMove(const EntryPtr& entry) {
  if (entry->staged == nullptr || entry->staged->condemned()) {
    return;
  }
  // What is written down need not be sent again, and survives this process.
  LogIfError(entry->staged->Checkpoint(),
             "the client sends again what is not written down");
  CopyNumbers(entry);
}

void UploadTable::FullLocked(const EntryPtr& entry, const absl::Status& why) {
  if (entry->phase != UploadPhase::kReceiving) {
    return;
  }
  Transition(entry.get(), UploadPhase::kFull);
  // What survives this agent: the client holds everything above, so the move
  // can still be finished when this process dies in the middle of it.
  entry->move.received = entry->tail_safe;
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
  if (entry == nullptr || entry->phase != UploadPhase::kFull) {
    return;
  }
  entry->strand->Post([this, entry, ack] {
    if (ack.has_heard() && entry->store != nullptr) {
      const absl::Status heard =
          entry->store->Hear(Generation::FromProto(ack.heard()));
      health_->CallDone(heard);
      LogIfError(heard, "the fence is written again with the next pair");
    }
    MutexLock moved(&mu_);
    if (entry->phase != UploadPhase::kFull) {
      return;
    }
    if (ack.has_target()) {
      MoveLocked(entry, ack.target(), BlockFloor(entry->move.received));
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
                             const control::v1::RedirectTarget& target,
                             int64_t boundary) {
  Transition(entry.get(), UploadPhase::kMoved);
  entry->commit.reset();
  entry->committed = false;
  entry->move.target = target;
  entry->move.boundary = boundary;
  LogInfo("upload_moved", {{"upload", entry->spec.upload_id.ToString()},
                           {"to", target.mount_name()},
                           {"boundary", boundary}});
  SendRedirectLocked(entry);
  MaybeCopyLocked(entry);
}

void UploadTable::ResumeMoveLocked(const EntryPtr& entry,
                                   const control::v1::RedirectTarget& target) {
  if (entry->phase == UploadPhase::kFull) {
    MoveLocked(entry, target, BlockFloor(entry->move.received));
    return;
  }
  Transition(entry.get(), UploadPhase::kFull);
  entry->told_at = absl::InfiniteDuration();  // nothing is asked
  entry->strand->Post([this, entry, target] {
    const absl::Status resolved = Resolve(entry);
    LogIfError(resolved, "the registration that named it fails as well");
    MutexLock lock(&mu_);
    if (resolved.ok() && entry->phase == UploadPhase::kFull) {
      entry->move.boundary_known = false;
      MoveLocked(entry, target, BlockFloor(entry->tail_next));
    }
  });
}

void UploadTable::SendRedirectLocked(const EntryPtr& entry) {
  if (entry->stream == nullptr) {
    return;
  }
  const control::v1::RedirectTarget& target = entry->move.target;
  v1::WriteImageResponse response;
  v1::Redirect* redirect = response.mutable_redirect();
  redirect->mutable_target()->set_mount(MountName(target.mount_name()));
  redirect->mutable_target()->set_mount_uid(
      Uuid::FromBytesOrNone(target.mount_uid()).ToString());
  *redirect->mutable_target()->mutable_addresses() = target.addresses();
  redirect->set_capability(target.capability());
  redirect->set_offset(entry->move.boundary);
  const HandlePtr handle = entry->stream;
  handle->stream->Send(std::move(response));
  FinishHandleLocked(handle, absl::OkStatus());
}

void UploadTable::MaybeCopyLocked(const EntryPtr& entry) {
  // A prefix that itself still comes from the mount before is waited for.
  if (entry->phase != UploadPhase::kMoved || entry->move.copying ||
      clock_->Boot() < entry->move.retry_at ||
      entry->prefix_next < entry->spec.tail_start) {
    return;
  }
  entry->move.copying = true;
  // A boundary that is not known is the next mount's to tell: it may want what
  // is lost here.
  if (entry->move.boundary == 0 && entry->move.boundary_known) {
    entry->strand->Post([this, entry] { CopyDone(entry, absl::OkStatus()); });
    return;
  }
  PeerCopy copy;
  const control::v1::RedirectTarget& target = entry->move.target;
  copy.addresses.assign(target.addresses().begin(), target.addresses().end());
  copy.end = entry->move.boundary;
  copy.header.set_upload(UploadName(entry->spec.upload_id));
  copy.header.set_image(ImageName(entry->spec.image_id));
  copy.header.set_generation(entry->spec.generation.ToString());
  copy.header.set_mount_uid(
      Uuid::FromBytesOrNone(target.mount_uid()).ToString());
  copy.header.set_capability(target.capability());
  copy.header.set_segment(v1::WRITE_SEGMENT_PREFIX);
  if (entry->move.boundary_known) {
    copy.header.set_segment_boundary(entry->move.boundary);
  }
  copy.read = [this, entry](int64_t offset, int64_t length,
                            PeerCopy::ReadDone done) {
    entry->strand->Post([this, entry, offset, length, done = std::move(done)] {
      absl::Status status = EnsureStaged(entry);
      if (!status.ok()) {
        done(status);
        return;
      }
      absl::StatusOr<std::string> bytes =
          entry->staged->ReadBack(offset, length);
      health_->CallDone(bytes.status());
      done(std::move(bytes));
    });
  };
  copy.done = [this, entry](const absl::Status& status) {
    entry->strand->Post([this, entry, status] { CopyDone(entry, status); });
  };
  peer_->Copy(std::move(copy));
}

void UploadTable::CopyDone(const EntryPtr& entry, const absl::Status& status) {
  MutexLock lock(&mu_);
  entry->move.copying = false;
  if (entry->phase != UploadPhase::kMoved) {
    return;
  }
  if (!status.ok()) {
    LogWarning("prefix_copy_failed",
               {{"upload", entry->spec.upload_id.ToString()},
                {"to", entry->move.target.mount_name()},
                {"error", status.ToString()}});
    entry->move.retry_at = clock_->Boot() + kCopyRetry;
    return;
  }
  LogInfo("prefix_copied", {{"upload", entry->spec.upload_id.ToString()},
                            {"to", entry->move.target.mount_name()},
                            {"bytes", entry->move.boundary}});
  EndLocked(entry, NotListed(entry->spec.upload_id), /*discard=*/true);
}

}  // namespace predella::agent
