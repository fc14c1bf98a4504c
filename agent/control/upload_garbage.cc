// Inflight bytes of uploads that nobody named: a part of UploadTable.
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "agent/control/upload_entry.h"
#include "agent/control/upload_table.h"
#include "common/collect_garbage.h"
#include "common/errors.h"
#include "common/logging.h"
#include "common/units.h"

namespace predella::agent {
namespace {

// What ends well leaves nothing here, and what ends otherwise is removed by
// command: many at once rather say that the index has forgotten them. As the
// coordinator judges a listing that lacks images.
constexpr int64_t kMostDiscarded = 100;
constexpr int64_t kFewDiscarded = 10;

absl::Status SweepStopped() {
  return MakeError(absl::StatusCode::kUnavailable, reason::kNotReady,
                   "the session or the mount went away before all inflight "
                   "bytes were looked at");
}

}  // namespace

bool LooksLikeAMistake(int64_t uploads, int64_t images) {
  return uploads > kMostDiscarded ||
         (uploads >= kFewDiscarded && uploads * 100 > images);
}

// Uploads whose bytes go, one after the other.
struct UploadTable::Sweep {
  std::shared_ptr<ImageStore> store;
  std::function<bool()> go_on;
  SweepDone done;
  bool accepted = false;  // they are held, and an operator gave them up
  // One task at a time has what follows.
  std::vector<Uuid> uploads;
  size_t next = 0;
  absl::Status status;  // the first that went wrong
};

void UploadTable::CollectGarbage(const std::shared_ptr<ImageStore>& store,
                                 const absl::flat_hash_set<Uuid>& open,
                                 std::function<bool()> go_on, SweepDone done) {
  std::vector<std::pair<Uuid, int64_t>> found;
  const absl::Status listed = store->ListInflight([&](const ListEntry& entry) {
    found.emplace_back(entry.upload_id,
                       store->InflightAllocated(entry.upload_id));
  });
  if (!listed.ok()) {
    done(listed);
    return;
  }
  const auto sweep = std::make_shared<Sweep>();
  sweep->store = store;
  sweep->go_on = std::move(go_on);
  sweep->done = std::move(done);
  const int64_t images = store->image_count();
  Garbage garbage;
  bool hold = false;
  {
    MutexLock lock(&mu_);
    if (store_ == store && sweep->go_on()) {
      held_.clear();
      for (const auto& [id, bytes] : found) {
        if (!entries_.contains(id) && !open.contains(id)) {
          sweep->uploads.push_back(id);
          held_[id] = bytes;
        }
      }
      garbage = HeldLocked();
      hold = LooksLikeAMistake(garbage.uploads, images);
      if (hold) {
        sweep->uploads.clear();
      } else {
        held_.clear();
      }
    }
  }
  if (hold) {
    LogWarning("garbage_held", {{"uploads", garbage.uploads},
                                {"bytes", garbage.bytes},
                                {"images", images}});
  }
  DiscardNext(sweep);
}

void UploadTable::CollectHeld(const std::shared_ptr<ImageStore>& store,
                              int64_t uploads, std::function<bool()> go_on,
                              SweepDone done) {
  const auto sweep = std::make_shared<Sweep>();
  sweep->store = store;
  sweep->go_on = std::move(go_on);
  sweep->done = std::move(done);
  sweep->accepted = true;
  Garbage garbage;
  {
    MutexLock lock(&mu_);
    garbage = HeldLocked();
    for (const auto& [id, bytes] : held_) {
      sweep->uploads.push_back(id);
    }
  }
  if (garbage.uploads != uploads) {
    sweep->done(MakeError(
        absl::StatusCode::kFailedPrecondition, reason::kGarbageChanged,
        absl::StrCat("the bytes of ", garbage.uploads, " ended uploads with ",
                     FormatSize(garbage.bytes), " are held, not of ", uploads),
        {{"upload_count", absl::StrCat(garbage.uploads)},
         {"upload_bytes", absl::StrCat(garbage.bytes)}}));
    return;
  }
  DiscardNext(sweep);
}

void UploadTable::DiscardNext(const std::shared_ptr<Sweep>& sweep) {
  {
    MutexLock lock(&mu_);
    while (true) {
      if (store_ != sweep->store || !sweep->go_on()) {
        sweep->status.Update(SweepStopped());
        break;
      }
      if (sweep->next == sweep->uploads.size()) {
        break;
      }
      const Uuid id = sweep->uploads[sweep->next++];
      if (!IsGarbageLocked(*sweep, id)) {
        continue;
      }
      // On its strand: behind what is still under way of it, and before
      // whatever comes if it is named again.
      const StrandPtr strand = StrandLocked(id);
      discarding_.insert(id);
      PostOn(strand, [this, sweep, id] {
        RunDiscard(sweep.get(), id);
        DiscardNext(sweep);
      });
      return;
    }
  }
  sweep->done(sweep->status);
}

bool UploadTable::IsGarbageLocked(const Sweep& sweep, const Uuid& id) {
  return !entries_.contains(id) && (!sweep.accepted || held_.contains(id));
}

void UploadTable::RunDiscard(Sweep* sweep, const Uuid& id) {
  bool discard = false;
  {
    MutexLock lock(&mu_);
    discard =
        store_ == sweep->store && sweep->go_on() && IsGarbageLocked(*sweep, id);
  }
  absl::Status status;
  if (discard) {
    status = sweep->store->Discard(id);
    NoteCall(sweep->store.get(), status);
    sweep->status.Update(status);
  }
  if (discard && status.ok()) {
    LogInfo("inflight_discarded", {{"upload", id.ToString()}});
  }
  MutexLock lock(&mu_);
  discarding_.erase(id);
  if (discard && status.ok()) {
    held_.erase(id);
  }
}

UploadTable::Garbage UploadTable::HeldLocked() const {
  Garbage garbage;
  for (const auto& [id, bytes] : held_) {
    ++garbage.uploads;
    garbage.bytes += bytes;
  }
  return garbage;
}

UploadTable::Garbage UploadTable::held() {
  MutexLock lock(&mu_);
  return HeldLocked();
}

}  // namespace predella::agent
