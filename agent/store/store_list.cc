// The full listing of a mount: inflight bytes, names, records. That is the
// order in which an upload becomes an image: what is published in between is
// told at least once, as what it was or as what it became.
#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "agent/fs/errno_status.h"
#include "agent/store/image_store.h"
#include "agent/store/image_store_impl.h"
#include "agent/store/layout.h"
#include "agent/store/record_codec.h"
#include "agent/store/registry.h"
#include "agent/store/store_core.h"
#include "common/errors.h"
#include "common/ids.h"
#include "common/status_macros.h"

namespace predella::agent {
namespace {

absl::Status IdsIn(FileSystem* fs, absl::string_view path,
                   std::vector<Uuid>* ids) {
  return fs->List(path, [&](absl::string_view name) {
    // Everything else in the directory (.nfs…, .fuse_hidden…) is nobody's.
    if (const auto id = layout::IdOfName(name)) {
      ids->push_back(*id);
    }
  });
}

// Looks at one id while nothing is published or removed under it.
absl::StatusOr<NameState> LookLocked(StoreCore* core, const Uuid& id) {
  const IdLock lock(&core->locks, id);
  RETURN_IF_ERROR(lock.status());
  return Look(core, id);
}

// With the errno's name in front, where there is one.
std::string Why(const absl::Status& status) {
  const std::string error = ErrorName(status);
  return absl::StrCat(error, error.empty() ? "" : ": ",
                      absl::string_view(status.message()));
}

// Whether the listing ends with it: a call that is stuck, after which more can
// be told, a mount that is gone, a lack of descriptors or memory.
bool EndsIt(const absl::Status& status) {
  return HasReason(status, reason::kMountStalled) || MeansGone(status) ||
         HasReason(status, reason::kAgentOverloaded);
}

void TellInflight(StoreCore* core, const Uuid& id,
                  const std::function<void(const ListEntry&)>& entry) {
  const auto inflight = core->registry.FindInflight(id);
  ListEntry out;
  out.kind = ListEntry::Kind::kInflight;
  out.upload_id = id;
  if (inflight.has_value()) {
    out.image_id = inflight->image_id;
    out.size_bytes = inflight->bytes;
  }
  entry(out);
}

class ListingImpl final : public MountListing {
 public:
  explicit ListingImpl(StoreCore* core) : core_(core) {}

  absl::StatusOr<bool> Next(
      int most, const std::function<void(const ListEntry&)>& entry) override {
    if (next_ == ids_.size()) {
      return NextDirectory(entry);
    }
    for (int i = 0; i < most && next_ < ids_.size(); ++i, ++next_) {
      RETURN_IF_ERROR(Tell(ids_[next_], entry));
    }
    return true;
  }

 private:
  // 0: inflight, 1: names, from 2 on the shards of the records. Last, where
  // one of those could not be listed, the names once more: of what was
  // published there meanwhile.
  static constexpr int kNamesAgain = 2 + layout::kShards;

  // Those whose modes were mended since the mount was opened.
  void ReopenShut() {
    for (const std::string& path : core_->registry.ShutDirectories()) {
      if (core_->fs->SyncDir(path).ok()) {
        core_->registry.Reopen(path);
      }
    }
  }

  absl::StatusOr<bool> NextDirectory(
      const std::function<void(const ListEntry&)>& entry) {
    if (directory_ > kNamesAgain ||
        (directory_ == kNamesAgain && shut_.empty())) {
      return false;
    }
    ids_.clear();
    next_ = 0;
    if (directory_ == 0) {
      ReopenShut();
    }
    const std::string path = directory_ == 0 ? std::string(layout::kInflightDir)
                             : directory_ == 1 || directory_ == kNamesAgain
                                 ? std::string(layout::kRoot)
                                 : layout::ShardPath(directory_ - 2);
    const absl::Status listed = IdsIn(core_->fs, path, &ids_);
    if (directory_ >= 2 && directory_ < kNamesAgain &&
        IsOfOneDirectory(listed)) {
      LogIfError(listed, "what lies there is told by its names");
      ListEntry out;
      out.kind = ListEntry::Kind::kDirectory;
      out.directory = path;
      out.disk_error =
          HasReason(listed, reason::kMountFailed) ? listed : absl::OkStatus();
      ids_.clear();  // some of them
      shut_.insert(path);
      entry(out);
    } else {
      RETURN_IF_ERROR(listed);
    }
    if (directory_ == kNamesAgain) {
      ids_.erase(
          std::remove_if(ids_.begin(), ids_.end(),
                         [this](const Uuid& id) {
                           return told_.contains(id) || foreign_.contains(id) ||
                                  !shut_.contains(layout::ShardPathOf(id));
                         }),
          ids_.end());
    }
    ++directory_;
    return true;
  }

  absl::Status Tell(const Uuid& id,
                    const std::function<void(const ListEntry&)>& out) {
    if (directory_ == 1) {
      TellInflight(core_, id, out);
      return absl::OkStatus();
    }
    return directory_ == 2 || directory_ > kNamesAgain ? TellName(id, out)
                                                       : TellRecord(id, out);
  }

  absl::Status TellName(const Uuid& id,
                        const std::function<void(const ListEntry&)>& entry) {
    const auto state = LookLocked(core_, id);
    if (EndsIt(state.status())) {
      return state.status();
    }
    ListEntry out;
    out.kind = ListEntry::Kind::kForeign;
    out.image_id = id;
    if (!state.ok()) {
      // There, and not vouched for: never simply left out.
      LogIfError(state.status(), "listed as a file that can not be read");
      out.read_error = Why(state.status());
      if (HasReason(state.status(), reason::kMountFailed)) {
        out.disk_error = state.status();
        failed_.insert(id);
      }
      // The record may be what can not be read; the file's size is known then.
      const auto info = core_->fs->Stat(layout::ImagePath(id));
      out.size_bytes = info.ok() ? info->size_bytes : 0;
    } else {
      if (!state->name) {
        return absl::OkStatus();  // removed since
      }
      out.size_bytes = state->info.size_bytes;
      for (const absl::Status& refused :
           {state->name_refused, state->record_refused}) {
        LogIfError(refused, "listed as a file that can not be read");
        if (!refused.ok() && out.read_error.empty()) {
          out.read_error = Why(refused);
        }
      }
      // Without its record where it may not be read: a digest of the listing
      // has to show it.
      if (state->image && !state->unsure && out.read_error.empty()) {
        out.kind = ListEntry::Kind::kImage;
        out.image = ImageOf(state->header);
        out.upload_id = out.image->upload_id;
        told_.insert(id);
      }
    }
    if (out.kind == ListEntry::Kind::kForeign) {
      foreign_.insert(id);
    }
    entry(out);
    return absl::OkStatus();
  }

  absl::Status TellRecord(const Uuid& id,
                          const std::function<void(const ListEntry&)>& entry) {
    if (told_.contains(id) || failed_.contains(id)) {
      return absl::OkStatus();
    }
    const auto state = LookLocked(core_, id);
    if (EndsIt(state.status())) {
      return state.status();
    }
    if (HasReason(state.status(), reason::kMountFailed)) {
      ListEntry out;
      out.kind = ListEntry::Kind::kRecordOnly;
      out.image_id = id;
      out.disk_error = state.status();
      entry(out);
      return absl::OkStatus();
    }
    if (!state.ok() || !state->record || state->damaged ||
        (state->image && (state->unsure || !state->name_refused.ok()))) {
      // Told by its name, or nothing can be told.
      return absl::OkStatus();
    }
    ListEntry out;
    out.kind =
        state->image ? ListEntry::Kind::kImage : ListEntry::Kind::kRecordOnly;
    out.image_id = id;
    out.image = ImageOf(state->header);
    out.upload_id = out.image->upload_id;
    out.size_bytes = out.image->size_bytes;
    entry(out);
    return absl::OkStatus();
  }

  StoreCore* const core_;
  int directory_ = 0;  // the next one; ids_ are of the one before
  std::vector<Uuid> ids_;
  size_t next_ = 0;
  absl::flat_hash_set<Uuid> told_;         // images, by their names
  absl::flat_hash_set<Uuid> foreign_;      // all other names
  absl::flat_hash_set<std::string> shut_;  // directories of records
  absl::flat_hash_set<Uuid> failed_;       // names, with an error of the disk
};

}  // namespace

std::unique_ptr<MountListing> ImageStoreImpl::BeginListing() {
  return std::make_unique<ListingImpl>(&core_);
}

absl::Status ImageStoreImpl::List(
    const std::function<void(const ListEntry&)>& entry) {
  constexpr int kNamesAStep = 1000;
  ListingImpl listing(&core_);
  while (true) {
    ASSIGN_OR_RETURN(const bool more, listing.Next(kNamesAStep, entry));
    if (!more) {
      return absl::OkStatus();
    }
  }
}

absl::Status ImageStoreImpl::ListInflight(
    const std::function<void(const ListEntry&)>& entry) {
  std::vector<Uuid> ids;
  RETURN_IF_ERROR(IdsIn(core_.fs, layout::kInflightDir, &ids));
  for (const Uuid& id : ids) {
    TellInflight(&core_, id, entry);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Uuid>> ImageStoreImpl::ListIds() {
  std::vector<Uuid> ids;
  // Records first: what is published in between has its name then.
  for (int shard = 0; shard < layout::kShards; ++shard) {
    const absl::Status listed = IdsIn(core_.fs, layout::ShardPath(shard), &ids);
    if (!IsOfOneDirectory(listed)) {
      RETURN_IF_ERROR(listed);
    }
    LogIfError(listed, "what lies there is looked at by its names");
  }
  RETURN_IF_ERROR(IdsIn(core_.fs, layout::kRoot, &ids));
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace predella::agent
