// How a store is opened: whose it is, then what is durable, then what is
// there. In this order, because what the page cache shows after a kill may
// not survive a power cut.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "agent/fs/errno_status.h"
#include "agent/fs/file_system.h"
#include "agent/store/fence_file.h"
#include "agent/store/file_place.h"
#include "agent/store/files.h"
#include "agent/store/image_store.h"
#include "agent/store/image_store_impl.h"
#include "agent/store/layout.h"
#include "agent/store/state_codec.h"
#include "agent/store/store_core.h"
#include "agent/store/tombstone_file.h"
#include "common/errors.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/mutex.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

// More lines than this about one mount's start help nobody.
constexpr int kMaxWarnings = 10;

absl::StatusOr<std::vector<std::string>> NamesIn(FileSystem* fs,
                                                 absl::string_view path) {
  std::vector<std::string> names;
  RETURN_IF_ERROR(fs->List(
      path, [&](absl::string_view name) { names.emplace_back(name); }));
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageStore>> ImageStore::Open(
    FileSystem* fs, Clock* clock, IdGenerator* ids,
    const StoreOptions& options) {
  auto store = std::make_unique<ImageStoreImpl>(fs, clock, ids, options);
  RETURN_IF_ERROR(store->Start());
  return std::unique_ptr<ImageStore>(std::move(store));
}

absl::Status ImageStoreImpl::Start() {
  FileSystem* const fs = core_.fs;
  auto label = LookAtLabel();
  if (absl::IsNotFound(label.status())) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     reason::kMountIdentityMismatch, label.status().message());
  }
  RETURN_IF_ERROR(label.status());
  const std::string& wanted = core_.options.mount_name;
  if (!wanted.empty() && label->mount_name() != wanted) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
        absl::StrCat(fs->root(), " bears the label of the mount '",
                     label->mount_name(), "', not of '", wanted, "'"));
  }
  RETURN_IF_ERROR(CheckFiles());
  RETURN_IF_ERROR(CheckMemory(*label));
  RETURN_IF_ERROR(CheckLayout());
  mount_id_ = fs->MountId();
  ASSIGN_OR_RETURN(lock_, fs->Lock(layout::kLock, core_.options.holder));
  ASSIGN_OR_RETURN(const FileInfo locked, fs->Stat(layout::kLock));
  const auto lock_place =
      std::make_shared<FilePlace>(fs, std::string(layout::kLock));
  lock_place->Opened(locked);
  places_ = {lock_place};
  if (lock_->exclusive()) {
    guard_.AllowWrites();
  } else {
    LogWarning("mount_opened_for_reading",
               {{"path", fs->root()},
                {"meaning",
                 "it takes no writes; others may read it, too, and none "
                 "writes to it meanwhile"}});
  }
  {
    const MutexLock lock(&label_mu_);
    label_ = *std::move(label);
  }
  ASSIGN_OR_RETURN(const FileInfo root, fs->Stat(layout::kRoot));
  core_.group = core_.options.file_group.value_or(root.gid);
  RETURN_IF_ERROR(SyncDirectories());
  {
    const MutexLock lock(&fence_mu_);
    ASSIGN_OR_RETURN(fence_, FenceFile::Open(fs));
    core_.registry.Know(fence_->table());
    places_.push_back(fence_->place());
  }
  {
    const MutexLock lock(&tombstone_mu_);
    ASSIGN_OR_RETURN(tombstones_, TombstoneFile::Open(fs));
    places_.push_back(tombstones_->place());
    const MutexLock told(&told_mu_);
    told_ = tombstones_->content();
  }
  RETURN_IF_ERROR(ClearLeftovers());
  RETURN_IF_ERROR(ReadInflight());
  return ReadRecords();
}

// A disk of another cluster, and an old copy of this one, bear labels that
// look right. Nothing is written, and nothing but label and fence is read.
absl::Status ImageStoreImpl::CheckMemory(const storage::v1::MountLabel& label) {
  const MountMemory& memory = core_.options.memory;
  const std::string root = core_.fs->root();
  if (!memory.cluster_uid.empty() && !label.cluster_uid().empty() &&
      label.cluster_uid() != memory.cluster_uid) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
        absl::StrCat(root, " belongs to the cluster ",
                     Uuid::FromBytesOrNone(label.cluster_uid()).ToString(),
                     " now; what was mounted there belonged to ",
                     Uuid::FromBytesOrNone(memory.cluster_uid).ToString()));
  }
  if (label.mount_uid() != memory.mount_uid || memory.fence.none()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const auto fence, FenceFile::Open(core_.fs));
  for (const storage::v1::FenceEntry& entry : fence->table().Entries()) {
    if (entry.epoch() == memory.fence.epoch &&
        entry.nonce() == memory.fence.nonce &&
        entry.max_n() >= memory.fence.n) {
      return absl::OkStatus();
    }
  }
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kMountIdentityMismatch,
      absl::StrCat(root, " is an earlier copy of the mount ",
                   label.mount_name(), ": its fence does not know of ",
                   memory.fence.ToString(),
                   ", which was synced there: put the newest one back; where "
                   "this one is all there is, start its agent again, and it "
                   "can be confirmed"));
}

absl::Status ImageStoreImpl::SyncDirectories() {
  std::vector<std::string> paths = {std::string(layout::kRoot),
                                    std::string(layout::kDotDir),
                                    std::string(layout::kInflightDir)};
  for (int shard = 0; shard < layout::kShards; ++shard) {
    paths.push_back(layout::ShardPath(shard));
  }
  for (const std::string& path : paths) {
    const absl::Status synced = core_.fs->SyncDir(path);
    if (absl::IsNotFound(synced) || MeansInTheWay(synced)) {
      RETURN_IF_ERROR(CheckThere(path, Is::kDirectory));
    }
    if (absl::StartsWith(path, layout::kRecordsDir) &&
        HasReason(synced, reason::kMountPermission)) {
      LogWarning("records_shut",
                 {{"directory", path}, {"error", synced.ToString()}});
      core_.registry.Shut(path, synced);
      continue;
    }
    if (HasReason(synced, reason::kMountReadOnly)) {
      // One that was mounted read-only has nothing to sync and says OK.
      return MakeError(
          absl::StatusCode::kUnavailable, reason::kMountFailed,
          absl::StrCat(core_.fs->root(),
                       " went read-only after an error: it can not sync what "
                       "it shows, so nothing there is known to be on the disk. "
                       "See dmesg; unmount it, check it and mount it anew"),
          MetadataOf(synced));
    }
    RETURN_IF_ERROR(Annotate(synced, "the sync at the start failed"));
  }
  return absl::OkStatus();
}

// Temporary names that a crash left. Before anything is read: one that was
// linked and not yet unlinked makes its file a file of two links.
absl::Status ImageStoreImpl::ClearLeftovers() {
  std::vector<std::string> directories = {std::string(layout::kInflightDir)};
  for (int shard = 0; shard < layout::kShards; ++shard) {
    directories.push_back(layout::ShardPath(shard));
  }
  for (const std::string& directory : directories) {
    const auto names = NamesIn(core_.fs, directory);
    if (directory != layout::kInflightDir && IsOfOneDirectory(names.status())) {
      continue;  // ReadRecords says so
    }
    RETURN_IF_ERROR(names.status());
    for (const std::string& name : *names) {
      if (absl::EndsWith(name, layout::kTempSuffix)) {
        LogIfError(UnlinkIfThere(core_.fs, absl::StrCat(directory, "/", name)),
                   "a temporary name; tried again at the next start");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ImageStoreImpl::ReadInflight() {
  ASSIGN_OR_RETURN(const auto names, NamesIn(core_.fs, layout::kInflightDir));
  for (const std::string& name : names) {
    if (const auto id = layout::IdOfName(name)) {
      ReadOneInflight(*id);
    }
  }
  // States whose bytes were published, or are gone.
  for (const std::string& name : names) {
    absl::string_view stem = name;
    if (!absl::ConsumeSuffix(&stem, layout::kStateSuffix)) {
      continue;
    }
    const auto id = layout::IdOfName(stem);
    if (id.has_value() && !core_.registry.FindInflight(*id).has_value()) {
      auto bytes = ReadFile(core_.fs, layout::StatePath(*id), INT64_MAX);
      if (bytes.ok()) {
        if (const auto state = DecodeState(*bytes); state.ok()) {
          core_.registry.Know(Generation::FromProto(state->generation()));
        }
      }
      LogIfError(UnlinkIfThere(core_.fs, layout::StatePath(*id)),
                 "a state without bytes says nothing");
    }
  }
  return absl::OkStatus();
}

void ImageStoreImpl::ReadOneInflight(const Uuid& upload_id) {
  Registry::Inflight inflight;
  const std::string path = layout::InflightPath(upload_id);
  auto bytes = ReadFile(core_.fs, layout::StatePath(upload_id), INT64_MAX);
  if (bytes.ok()) {
    if (const auto state = DecodeState(*bytes); state.ok()) {
      inflight.image_id = Uuid::FromBytesOrNone(state->image_id());
      inflight.generation = Generation::FromProto(state->generation());
      inflight.bytes = state->prefix_bytes() + state->tail_bytes();
    }
  }
  // Stopped between the link and the unlink of a publication: the image has
  // its name, and this one is to go.
  const auto info = core_.fs->Stat(path);
  if (info.ok() && info->links > 1 && HasName(*info, inflight.image_id)) {
    core_.registry.Know(inflight.generation);
    LogIfError(UnlinkIfThere(core_.fs, path),
               "the image can't be opened before the next start");
    return;
  }
  inflight.allocated = info.ok() ? info->allocated_bytes : 0;
  core_.registry.SetInflight(upload_id, inflight);
}

// Whether the file bears an image's name too; `image_id` may be unknown.
bool ImageStoreImpl::HasName(const FileInfo& info, const Uuid& image_id) {
  const auto is_it = [&](const Uuid& id) {
    const auto named = core_.fs->Stat(layout::ImagePath(id));
    return named.ok() && named->inode == info.inode;
  };
  if (!image_id.none()) {
    return is_it(image_id);
  }
  bool found = false;
  const absl::Status listed =
      core_.fs->List(layout::kRoot, [&](absl::string_view name) {
        const auto id = layout::IdOfName(name);
        found = found || (id.has_value() && is_it(*id));
      });
  LogIfError(listed, "the second name stays until the next start");
  return found;
}

absl::Status ImageStoreImpl::ReadRecords() {
  int warnings = 0;
  for (int shard = 0; shard < layout::kShards; ++shard) {
    const auto names = NamesIn(core_.fs, layout::ShardPath(shard));
    if (IsOfOneDirectory(names.status())) {
      LogIfError(names.status(),
                 "its records are told by a listing, if at all");
      continue;
    }
    RETURN_IF_ERROR(names.status());
    for (const std::string& name : *names) {
      const auto id = layout::IdOfName(name);
      if (!id.has_value()) {
        continue;
      }
      const auto state = Look(&core_, *id);
      if (!state.ok() || state->damaged) {
        // One bad sector must not take the whole mount away.
        if (++warnings <= kMaxWarnings) {
          LogWarning(
              "record_unreadable",
              {{"image", name},
               {"error", state.ok() ? "damaged" : state.status().ToString()}});
        }
        continue;
      }
      core_.registry.Know(state->generation());
      core_.registry.AddImages(state->image ? 1 : 0);
    }
  }
  return absl::OkStatus();
}

}  // namespace predella::agent
