// The full listing of a mount.
#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

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

}  // namespace

absl::Status ImageStoreImpl::List(
    const std::function<void(const ListEntry&)>& entry) {
  // In the order in which an upload becomes an image: what is published in
  // between is told at least once, as what it was or as what it became.
  RETURN_IF_ERROR(ListInflight(entry));
  absl::flat_hash_set<Uuid> told;
  RETURN_IF_ERROR(ListNames(entry, &told));
  return ListRecords(entry, told);
}

absl::StatusOr<std::vector<Uuid>> ImageStoreImpl::ListIds() {
  std::vector<Uuid> ids;
  // Records first: what is published in between has its name then.
  for (int shard = 0; shard < layout::kShards; ++shard) {
    RETURN_IF_ERROR(IdsIn(core_.fs, layout::ShardPath(shard), &ids));
  }
  RETURN_IF_ERROR(IdsIn(core_.fs, layout::kRoot, &ids));
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

absl::Status ImageStoreImpl::ListNames(
    const std::function<void(const ListEntry&)>& entry,
    absl::flat_hash_set<Uuid>* told) {
  std::vector<Uuid> ids;
  RETURN_IF_ERROR(IdsIn(core_.fs, layout::kRoot, &ids));
  for (const Uuid& id : ids) {
    const auto state = LookLocked(&core_, id);
    if (HasReason(state.status(), reason::kMountStalled)) {
      return state.status();  // what it is can be told when a call is back
    }
    ListEntry out;
    out.kind = ListEntry::Kind::kForeign;
    out.image_id = id;
    if (!state.ok()) {
      // There, and not vouched for: never simply left out.
      LogIfError(state.status(), "listed as a file without a record");
    } else {
      if (!state->name) {
        continue;  // removed since
      }
      out.size_bytes = state->info.size_bytes;
      if (state->image && !state->unsure) {
        out.kind = ListEntry::Kind::kImage;
        out.image = ImageOf(state->header);
        out.upload_id = out.image->upload_id;
        told->insert(id);
      }
    }
    entry(out);
  }
  return absl::OkStatus();
}

absl::Status ImageStoreImpl::ListRecords(
    const std::function<void(const ListEntry&)>& entry,
    const absl::flat_hash_set<Uuid>& told) {
  for (int shard = 0; shard < layout::kShards; ++shard) {
    std::vector<Uuid> ids;
    RETURN_IF_ERROR(IdsIn(core_.fs, layout::ShardPath(shard), &ids));
    for (const Uuid& id : ids) {
      const auto state = LookLocked(&core_, id);
      if (HasReason(state.status(), reason::kMountStalled)) {
        return state.status();
      }
      if (!state.ok() || !state->record || state->damaged ||
          told.count(id) > 0 || (state->image && state->unsure)) {
        continue;  // told by its name, or nothing can be told
      }
      ListEntry out;
      out.kind =
          state->image ? ListEntry::Kind::kImage : ListEntry::Kind::kRecordOnly;
      out.image_id = id;
      out.image = ImageOf(state->header);
      out.upload_id = out.image->upload_id;
      out.size_bytes = out.image->size_bytes;
      entry(out);
    }
  }
  return absl::OkStatus();
}

absl::Status ImageStoreImpl::ListInflight(
    const std::function<void(const ListEntry&)>& entry) {
  std::vector<Uuid> ids;
  RETURN_IF_ERROR(IdsIn(core_.fs, layout::kInflightDir, &ids));
  for (const Uuid& id : ids) {
    const auto inflight = core_.registry.FindInflight(id);
    ListEntry out;
    out.kind = ListEntry::Kind::kInflight;
    out.upload_id = id;
    if (inflight.has_value()) {
      out.image_id = inflight->image_id;
      out.size_bytes = inflight->bytes;
    }
    entry(out);
  }
  return absl::OkStatus();
}

}  // namespace predella::agent
