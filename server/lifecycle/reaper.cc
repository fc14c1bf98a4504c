#include "server/lifecycle/reaper.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "server/lifecycle/image_health.h"

namespace predella::server {
namespace {

// A removal that failed on its mount is tried again after this.
constexpr absl::Duration kRetryAfter = absl::Seconds(30);
// Per mount and round; the next round goes on.
constexpr size_t kRemovalsPerRound = 256;

// Whether the index says that readers are sent to this very file: then no
// bookkeeping of uploads and tombstones may have it removed.
bool Serves(const PlacementIndex& index, const Uuid& mount_uid,
            const Uuid& image_id, const storage::v1::Generation& generation) {
  const auto image = index.GetImage(image_id);
  if (!image.ok()) {
    return true;
  }
  return image->has_value() &&
         Generation::FromProto((*image)->generation()) ==
             Generation::FromProto(generation) &&
         std::any_of((*image)->copies().begin(), (*image)->copies().end(),
                     [&](const storage::v1::CopyRow& copy) {
                       return copy.mount_uid() == mount_uid.bytes();
                     });
}

}  // namespace

Reaper::Reaper(const LifecycleDeps& deps, AgentCommands* commands,
               TrustKeeper* trust, UploadTable* uploads,
               UploadManager* upload_manager, Tombstones* tombstones)
    : deps_(deps),
      commands_(commands),
      trust_(trust),
      uploads_(uploads),
      upload_manager_(upload_manager),
      tombstones_(tombstones),
      confirmations_(deps.pool) {}

void Reaper::Tick() {
  ticks_.Post(deps_.pool, [this] { RunTick(); });
}

void Reaper::RunTick() {
  bool may_settle = !trust_->recovering();
  std::set<int64_t> sessions;
  for (const MountInfo& info : deps_.registry->List()) {
    may_settle = may_settle && !info.row.unconfirmed();
    sessions.insert(commands_->AttachedSession(
        Uuid::FromBytesOrNone(info.row.mount_uid())));
  }
  {
    MutexLock lock(&mu_);
    for (auto it = sent_.begin(); it != sent_.end();) {
      it = sessions.count(std::get<0>(it->first)) == 0 ? sent_.erase(it)
                                                       : std::next(it);
    }
  }
  if (!deps_.index->write_error().empty()) {
    return;
  }
  upload_manager_->Tick();
  SettleRetired();
  for (const MountInfo& info : deps_.registry->List()) {
    SendTo(Uuid::FromBytesOrNone(info.row.mount_uid()));
  }
  tombstones_->Tick(may_settle);
}

void Reaper::SendRemovals() {
  deps_.pool->Post([this] {
    for (const MountInfo& info : deps_.registry->List()) {
      SendTo(Uuid::FromBytesOrNone(info.row.mount_uid()));
    }
  });
}

std::vector<Reaper::Removal> Reaper::WaitingOn(const Uuid& mount_uid) const {
  std::vector<Removal> out;
  std::set<std::pair<std::string, std::string>> seen;
  const auto add = [&](const std::string& image_id,
                       const storage::v1::Generation& generation,
                       const Uuid& upload_id) {
    if (seen.emplace(image_id, Generation::FromProto(generation).ToString())
            .second) {
      out.push_back({Uuid::FromBytesOrNone(image_id), generation, upload_id});
    }
  };
  for (const UploadEntry& entry : uploads_->LeftoversOn(mount_uid)) {
    if (!entry.open()) {
      add(entry.row.image_id(), entry.row.generation(),
          Uuid::FromBytesOrNone(entry.row.upload_id()));
    }
  }
  for (const TombstoneEntry& entry : tombstones_->PendingOn(mount_uid)) {
    add(entry.row.image_id(), entry.row.generation(), Uuid());
  }
  return out;
}

int64_t Reaper::PendingOn(const Uuid& mount_uid) const {
  return static_cast<int64_t>(WaitingOn(mount_uid).size());
}

void Reaper::SendTo(const Uuid& mount_uid) {
  const std::optional<MountInfo> info = deps_.registry->Find(mount_uid);
  const int64_t session = commands_->AttachedSession(mount_uid);
  // Nothing is unlinked on a mount that may know more than the index.
  if (!info.has_value() || !info->trusted || trust_->recovering() ||
      session == 0) {
    return;
  }
  size_t sent = 0;
  for (const Removal& removal : WaitingOn(mount_uid)) {
    // Its images were given up as they are: a delete leaves the files.
    if (IsRetired(*info) && removal.upload_id.none()) {
      continue;
    }
    const SentKey key(session, removal.image_id.bytes(),
                      Generation::FromProto(removal.generation).ToString());
    {
      MutexLock lock(&mu_);
      const auto [it, inserted] =
          sent_.try_emplace(key, absl::InfiniteDuration());
      if (!inserted) {
        if (it->second > deps_.clock->Boot()) {
          continue;
        }
        it->second = absl::InfiniteDuration();
      }
    }
    if (Serves(*deps_.index, mount_uid, removal.image_id, removal.generation)) {
      LogError("removal_withheld", {{"image", removal.image_id.ToString()},
                                    {"mount", mount_uid.ToString()}});
      SendLater(key);
      continue;
    }
    control::v1::Command command;
    control::v1::Remove* remove = command.mutable_remove();
    remove->set_image_id(removal.image_id.bytes());
    *remove->mutable_generation() = removal.generation;
    if (!removal.upload_id.none()) {
      remove->set_upload_id(removal.upload_id.bytes());
    }
    *remove->mutable_heard() = deps_.index->synced_pair().ToProto();
    commands_->CallAsync(
        mount_uid, std::move(command),
        [this, mount_uid, removal,
         key](const absl::StatusOr<control::v1::CommandResult>& result) {
          if (!result.ok()) {
            LogIfError(result.status(), "the removal is sent again");
            SendLater(key);
            return;
          }
          confirmations_.Post([this, mount_uid, removal, key] {
            if (!Confirm(mount_uid, removal)) {
              SendLater(key);
              return;
            }
            // Somebody may put the file back while this session lasts.
            MutexLock lock(&mu_);
            sent_.erase(key);
          });
        });
    if (++sent >= kRemovalsPerRound) {
      return;
    }
  }
}

void Reaper::SendLater(const SentKey& key) {
  MutexLock lock(&mu_);
  sent_[key] = deps_.clock->Boot() + kRetryAfter;
}

bool Reaper::Confirm(const Uuid& mount_uid, const Removal& removal) {
  absl::Status written = tombstones_->ConfirmRemoved(
      removal.image_id, removal.generation, mount_uid);
  const Generation generation = Generation::FromProto(removal.generation);
  for (const UploadEntry& entry : uploads_->OfImage(removal.image_id)) {
    if (!entry.open() && entry.LeftoverOn(mount_uid) &&
        Generation::FromProto(entry.row.generation()) == generation) {
      written.Update(upload_manager_->ConfirmClean(
          Uuid::FromBytesOrNone(entry.row.upload_id()), mount_uid));
    }
  }
  LogIfError(written, "the removal is sent again");
  return written.ok();
}

void Reaper::SettleRetired() {
  for (const MountInfo& info : deps_.registry->List()) {
    if (info.row.admin_state() != storage::v1::ADMIN_STATE_RETIRED) {
      continue;
    }
    const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    // Also those of an earlier start: nobody will answer for them any more.
    for (const UploadEntry& entry :
         uploads_->SelectOpen([&](const UploadEntry& candidate) {
           return candidate.target() == uid;
         })) {
      const Uuid upload_id = Uuid::FromBytesOrNone(entry.row.upload_id());
      uploads_->Decided(upload_id, deps_.clock->Boot());
      LogIfError(
          upload_manager_->End(
              upload_id, storage::v1::UPLOAD_OUTCOME_ABORTED,
              reason::kUploadAborted,
              "its mount was retired while it was uploaded: start again"),
          "the next tick ends it");
    }
    // An agent that is still there may be writing what just ended, and would
    // publish it: it is told as ever. Nobody tells one that is gone.
    const bool told = info.trusted && commands_->AttachedSession(uid) != 0 &&
                      !trust_->recovering();
    // One that is being decided at this moment is not ended yet, and has
    // nothing to remove so far.
    const std::vector<UploadEntry> left = uploads_->LeftoversOn(uid);
    bool waits =
        told && std::any_of(left.begin(), left.end(),
                            [](const UploadEntry& e) { return e.open(); });
    for (const Removal& removal : WaitingOn(uid)) {
      if (!told || removal.upload_id.none()) {
        Confirm(uid, removal);
      } else {
        waits = true;
      }
    }
    // Then nothing is left to tell it; one whose disk is gone never answers.
    if (!waits || CountsAsDegraded(info.health)) {
      commands_->LetGo(uid, RetiredError(MountName(info.row.mount_name())));
    }
  }
}

}  // namespace predella::server
