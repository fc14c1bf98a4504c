// Images whose row follows a file that lies on another mount: a part of
// Orphans.
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/generation.h"
#include "common/logging.h"
#include "common/mutex.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/wait.h"
#include "server/lifecycle/image_conflict.h"
#include "server/lifecycle/image_health.h"
#include "server/lifecycle/orphans.h"

namespace predella::server {
namespace {

constexpr int64_t kOrphanPage = 1000;

void NoteLeft(const Uuid& source, const Uuid& target,
              storage::v1::ImageRow* row) {
  std::set<std::string> left(row->left_mount_uids().begin(),
                             row->left_mount_uids().end());
  left.insert(source.bytes());
  left.erase(target.bytes());
  row->mutable_left_mount_uids()->Assign(left.begin(), left.end());
}

// Nothing is read there, as far as anybody knows for good.
bool IsAway(const std::optional<MountInfo>& info) {
  return info.has_value() &&
         (IsRetired(*info) || CountsAsDegraded(info->health));
}

}  // namespace

std::optional<Orphans::Move> Orphans::MoveOf(const Orphan& orphan,
                                             bool told) const {
  const auto row = deps_.index->GetImage(orphan.image_id);
  if (!row.ok() || !row->has_value() || !MayBe(orphan, **row)) {
    return std::nullopt;
  }
  Move move;
  move.row = **row;
  Uuid missing;
  Uuid away;
  Uuid damaged;
  bool there = false;
  for (const storage::v1::CopyRow& copy : move.row.copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    if (uid == orphan.mount_uid) {
      return std::nullopt;
    }
    const auto fault = deps_.index->FaultOf(move.row, uid);
    if (fault.has_value() &&
        fault->fault() == storage::v1::COPY_FAULT_MISSING) {
      missing = uid;
    } else if (IsAway(deps_.registry->Find(uid))) {
      away = uid;
    } else {
      there = true;
      damaged = fault.has_value() ? uid : damaged;
    }
  }
  if (!missing.none()) {
    move.source = missing;
  } else if (!away.none() && (told || !there)) {
    move.source = away;
  } else if (told) {
    move.source = damaged;
  }
  return move.source.none() ? std::nullopt : std::make_optional(move);
}

void Orphans::FollowMoves() {
  for (const MountInfo& info : deps_.registry->List()) {
    FollowMovesTo(Uuid::FromBytesOrNone(info.row.mount_uid()));
  }
}

void Orphans::Tick() {
  absl::flat_hash_set<Uuid> away;
  for (const MountInfo& info : deps_.registry->List()) {
    if (IsAway(info)) {
      away.insert(Uuid::FromBytesOrNone(info.row.mount_uid()));
    }
  }
  {
    MutexLock lock(&mu_);
    if (away == away_) {
      return;
    }
    away_ = std::move(away);
  }
  deps_.pool->Post([this] { FollowMoves(); });
}

void Orphans::FollowMovesTo(const Uuid& target) {
  const std::optional<MountInfo> info = deps_.registry->Find(target);
  if (trust_->recovering() || !deps_.index->write_error().empty() ||
      !info.has_value() || !info->trusted || !Readable(*info)) {
    return;
  }
  Uuid after;
  while (true) {
    const std::vector<Orphan> page =
        inventory_->ListOrphans(target, after, kOrphanPage);
    for (const Orphan& orphan : page) {
      if (orphan.refused) {
        continue;
      }
      const std::optional<Move> move = MoveOf(orphan, /*told=*/false);
      if (move.has_value()) {
        Follow(orphan, *move);
        return;
      }
    }
    if (static_cast<int64_t>(page.size()) < kOrphanPage) {
      return;
    }
    after = page.back().image_id;
  }
}

void Orphans::Follow(const Orphan& orphan, const Move& move) {
  const Uuid image_id = orphan.image_id;
  const Uuid target = orphan.mount_uid;
  const auto work = std::make_shared<const Work>(this, image_id);
  {
    MutexLock lock(&mu_);
    if (!work->held() || !asking_.insert(target).second) {
      return;
    }
  }
  // Somebody may have read it since it was listed; it is not read twice.
  const std::optional<Orphan> now = inventory_->FindOrphan(target, image_id);
  if (!now.has_value() || now->refused) {
    {
      MutexLock lock(&mu_);
      asking_.erase(target);
    }
    FollowMovesTo(target);  // who came meanwhile left it to this thread
    return;
  }
  AskToAdopt(
      orphan, move, [this, image_id, target, work](const absl::Status& looked) {
        // Without one of these the same file would be the next one again.
        bool settled = true;
        if (looked.ok()) {
          const absl::Status moved =
              CommitMove(image_id, target, /*told=*/false);
          LogIfError(moved, "the row follows after the next listing");
          settled = moved.ok();
        } else if (absl::IsUnavailable(looked)) {
          settled = false;
          LogIfError(
              looked,
              "the moved file is looked at again after the next listing");
        } else {
          inventory_->RefuseOrphan(
              target, image_id,
              absl::StrCat("a file under the name of an image that is missing "
                           "elsewhere, ",
                           absl::IsDataLoss(looked)
                               ? "with other bytes: "
                               : "which can not be taken in: ",
                           looked.message()));
        }
        {
          MutexLock lock(&mu_);
          asking_.erase(target);
        }
        if (settled) {
          FollowMovesTo(target);
        }
      });
}

void Orphans::AskToAdopt(const Orphan& orphan, const Move& move,
                         std::function<void(const absl::Status&)> done) {
  const Uuid target = orphan.mount_uid;
  control::v1::Command command;
  *command.mutable_adopt_file()->mutable_record() =
      orphan.record.has_value() ? *orphan.record : RecordOfRow(move.row);
  *command.mutable_adopt_file()->mutable_heard() =
      deps_.index->synced_pair().ToProto();
  // One that lies where its row says was ours already, and stays as it is.
  command.mutable_adopt_file()->set_keep_mode_and_group(move.source == target);
  control::v1::Command check;
  check.mutable_check_copy()->set_image_id(orphan.image_id.bytes());
  *check.mutable_check_copy()->mutable_generation() = move.row.generation();
  // Neither answer may block the thread that delivers it.
  const auto finish =
      [this, done = std::move(done)](
          const absl::StatusOr<control::v1::CommandResult>& result) {
        deps_.pool->Post([status = result.status(), done] { done(status); });
      };
  // One without a record is read for its record. The others are read, too: a
  // copy that was torn on its way has the record of the whole one, and what is
  // missing elsewhere may come back.
  const bool verify = orphan.record.has_value();
  commands_->CallAsync(
      target, std::move(command),
      [this, target, check, verify,
       finish](const absl::StatusOr<control::v1::CommandResult>& result) {
        if (!result.ok() || !verify) {
          finish(result);
          return;
        }
        deps_.pool->Post([this, target, check, finish] {
          commands_->CallAsync(target, check, finish);
        });
      });
}

absl::StatusOr<v1::Orphan> Orphans::AdoptMoved(const Found& found,
                                               const Move& move,
                                               bool validate_only) {
  const Uuid image_id = found.orphan.image_id;
  const Uuid target = found.orphan.mount_uid;
  RETURN_IF_ERROR(CheckNoConflict(*deps_.index, image_id));
  v1::Orphan answer = Adopted(found);
  answer.set_generation(
      Generation::FromProto(move.row.generation()).ToString());
  if (validate_only) {
    return answer;
  }
  const auto outcome = std::make_shared<Answer<absl::Status>>();
  const auto work = std::make_shared<const Work>(this, image_id);
  if (!work->held()) {
    return Work::Refused(image_id);
  }
  AskToAdopt(
      found.orphan, move,
      [this, image_id, target, work, outcome](const absl::Status& looked) {
        const absl::Status moved =
            looked.ok() ? CommitMove(image_id, target, /*told=*/true) : looked;
        LogIfError(moved, "the file stays an orphan");
        outcome->Set(moved);
      });
  RETURN_IF_ERROR(AwaitRead(outcome.get(), found.orphan,
                            "when they are whole its row follows, and predella "
                            "events says copy_moved"));
  return answer;
}

storage::v1::EventRow Orphans::MovedEvent(const Uuid& image_id,
                                          const MountInfo& to,
                                          const Uuid& source,
                                          bool missing) const {
  const std::optional<MountInfo> from = deps_.registry->Find(source);
  const std::string name =
      MountName(from.has_value() ? from->row.mount_name() : source.ToString());
  storage::v1::EventRow event;
  event.set_time_us(deps_.clock->NowMicros());
  event.set_kind("copy_moved");
  event.set_mount_name(to.row.mount_name());
  event.set_image_id(image_id.bytes());
  event.set_affected_images(1);
  event.set_detail(
      missing ? absl::StrCat("it was moved here by hand from ", name)
              : absl::StrCat("a whole file of it lies here, and is its copy "
                             "now in the place of the one on ",
                             name));
  return event;
}

absl::Status Orphans::CommitMove(const Uuid& image_id, const Uuid& target,
                                 bool told) {
  const MountGate::Adding adding(gate_, target);
  const std::optional<MountInfo> to = deps_.registry->Find(target);
  for (int i = 0; i < kMaxCommitTries; ++i) {
    const std::optional<Orphan> orphan =
        inventory_->FindOrphan(target, image_id);
    const std::optional<Move> move = orphan.has_value() && !trust_->recovering()
                                         ? MoveOf(*orphan, told)
                                         : std::nullopt;
    if (!move.has_value() || !to.has_value() || !to->trusted ||
        IsRetired(*to)) {
      return MakeError(
          absl::StatusCode::kAborted, reason::kCommitConflict,
          absl::StrCat(ImageName(image_id),
                       " was deleted, or its copy is there again, or the "
                       "mount is not as it was: the next listing says which"));
    }
    storage::v1::ImageRow moved = move->row;
    for (storage::v1::CopyRow& copy : *moved.mutable_copies()) {
      if (copy.mount_uid() == move->source.bytes()) {
        copy.set_mount_uid(target.bytes());
      }
    }
    // Its file may be there when the mount is back: a delete waits for it.
    NoteLeft(move->source, target, &moved);
    const auto fault = deps_.index->FaultOf(move->row, move->source);
    IndexTxn txn = deps_.index->Begin();
    txn.RequireImage(move->row);
    txn.PutImage(moved);
    txn.PutEvent(
        MovedEvent(image_id, *to, move->source,
                   fault.has_value() &&
                       fault->fault() == storage::v1::COPY_FAULT_MISSING));
    const absl::Status status = deps_.index->Commit(std::move(txn));
    if (absl::IsAborted(status)) {
      continue;
    }
    RETURN_IF_ERROR(status);
    inventory_->ForgetOrphan(target, image_id);
    for (const Uuid& uid : {move->source, target}) {
      deps_.registry->SetImageBytes(uid, deps_.index->mount_totals(uid).bytes);
    }
    LogInfo("copy_moved", {{"image", image_id.ToString()},
                           {"from", move->source.ToString()},
                           {"to", to->row.mount_name()}});
    changed_->Notify();
    return absl::OkStatus();
  }
  return TooManyConflicts(image_id.ToString());
}

}  // namespace predella::server
