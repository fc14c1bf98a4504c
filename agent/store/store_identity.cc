// Whether a mount's directory still is the one that was opened, whole, and
// takes and gives bytes: what is looked at every second or two.
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/file_system.h"
#include "agent/store/image_store.h"
#include "agent/store/image_store_impl.h"
#include "agent/store/layout.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {
namespace {

// Of 256.
constexpr int kShardsPerCheck = 8;

}  // namespace

absl::Status ImageStoreImpl::CheckIdentity() {
  RETURN_IF_ERROR(core_.fs->CheckRoot());
  const auto found = LookAtLabel();
  if (!found.ok() && !absl::IsNotFound(found.status())) {
    return found.status();
  }
  const storage::v1::MountLabel mine = label();
  if (!found.ok() || found->mount_uid() != mine.mount_uid()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
        found.ok() ? absl::StrCat(core_.fs->root(), " bears the label of ",
                                  found->mount_name(), " now, not of ",
                                  mine.mount_name())
                   : absl::StrCat("the label of ", mine.mount_name(), " in ",
                                  core_.fs->root(), " is gone"));
  }
  for (const auto& place : places_) {
    RETURN_IF_ERROR(place->Check());
  }
  return CheckLayout();
}

absl::Status ImageStoreImpl::CheckLayout() {
  RETURN_IF_ERROR(CheckThere(layout::kProbe, Is::kFile));
  for (const absl::string_view path :
       {layout::kInflightDir, layout::kRecordsDir, layout::kQuarantineDir}) {
    RETURN_IF_ERROR(CheckThere(path, Is::kDirectory));
  }
  // A few at a time: all within half a minute at a check a second.
  for (int i = 0; i < kShardsPerCheck; ++i) {
    const int shard = next_shard_.fetch_add(1) % layout::kShards;
    RETURN_IF_ERROR(CheckThere(layout::ShardPath(shard), Is::kDirectory));
  }
  return absl::OkStatus();
}

absl::Status ImageStoreImpl::CheckThere(absl::string_view path, Is kind) {
  const auto there = core_.fs->Stat(path);
  std::string what;
  if (absl::IsNotFound(there.status())) {
    what = "is missing";
  } else if (MeansInTheWay(there.status()) ||
             (there.ok() &&
              !(kind == Is::kFile ? there->regular : there->directory))) {
    what = kind == Is::kFile ? "is something else than a file"
                             : "is something else than a directory";
  } else {
    return there.status();
  }
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   reason::kMountIdentityMismatch,
                   absl::StrCat(path, " ", what, " in ", core_.fs->root(),
                                ": the layout is damaged, put it back"));
}

absl::StatusOr<storage::v1::MountLabel> ImageStoreImpl::LookAtLabel() {
  auto label = ReadLabel(core_.fs);
  if (absl::IsPermissionDenied(label.status())) {
    // It may not be read, or something else lies there.
    RETURN_IF_ERROR(CheckThere(layout::kLabel, Is::kFile));
  }
  return label;
}

absl::Status ImageStoreImpl::CheckFiles() {
  for (const absl::string_view path :
       {layout::kLock, layout::kFence, layout::kTombstones}) {
    const auto there = core_.fs->Stat(path);
    if (there.ok() || MeansInTheWay(there.status())) {
      RETURN_IF_ERROR(CheckThere(path, Is::kFile));
    }
    // What is missing or refused is told by whoever opens it.
  }
  return absl::OkStatus();
}

ProbeOutcome ImageStoreImpl::Probe() {
  if (!guard_.writes() && !writable_again() &&
      base_->Open(layout::kLock, OpenMode::kReadWrite).ok()) {
    writable_again_.store(true);
  }
  ProbeOutcome out;
  std::string sent = ids_->RandomBytes(32);
  sent.resize(static_cast<size_t>(layout::kProbeBytes), sent[0]);
  auto file = core_.fs->Open(layout::kProbe, OpenMode::kReadWrite);
  out.write = file.status();
  if (file.ok()) {
    out.write = (*file)->Pwrite(0, sent);
  }
  if (out.write.ok()) {
    out.write = (*file)->Datasync();
  }
  if (!file.ok()) {
    file = core_.fs->Open(layout::kProbe, OpenMode::kRead);
  }
  out.read = file.ok() ? ReadProbe(file->get(), out.write.ok() ? sent : "")
                       : file.status();
  return out;
}

absl::Status ImageStoreImpl::ReadProbe(File* file, absl::string_view sent) {
  RETURN_IF_ERROR(file->DropCache(0, layout::kProbeBytes));
  std::string back(static_cast<size_t>(layout::kProbeBytes), '\0');
  ASSIGN_OR_RETURN(const size_t got, file->Pread(0, back.size(), back.data()));
  if (got != back.size() || (!sent.empty() && back != sent)) {
    return MakeError(absl::StatusCode::kDataLoss, reason::kChecksumMismatch,
                     absl::StrCat("the probe of ", core_.fs->root(),
                                  " read back other bytes than were synced"));
  }
  return absl::OkStatus();
}

}  // namespace predella::agent
