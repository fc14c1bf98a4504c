#include "server/lifecycle/tombstones.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::server {
namespace {

bool Contains(const google::protobuf::RepeatedPtrField<std::string>& uids,
              const std::string& uid) {
  return std::find(uids.begin(), uids.end(), uid) != uids.end();
}

bool RemoveFrom(google::protobuf::RepeatedPtrField<std::string>* uids,
                const std::string& uid) {
  const auto it = std::find(uids->begin(), uids->end(), uid);
  if (it == uids->end()) {
    return false;
  }
  uids->erase(it);
  return true;
}

}  // namespace

storage::v1::Tombstone ToCopy(const storage::v1::TombstoneRow& row) {
  storage::v1::Tombstone copy;
  copy.set_image_id(row.image_id());
  *copy.mutable_generation() = row.generation();
  copy.set_create_time_us(row.create_time_us());
  return copy;
}

Tombstones::Tombstones(const LifecycleDeps& deps, AgentCommands* commands,
                       UploadTable* uploads, Notifier* changed)
    : deps_(deps), commands_(commands), uploads_(uploads), changed_(changed) {}

Tombstones::Key Tombstones::KeyOf(const storage::v1::TombstoneRow& row) {
  return {row.image_id(), Generation::FromProto(row.generation()).ToString()};
}

absl::Status Tombstones::Load() {
  std::map<Key, TombstoneEntry> loaded;
  RETURN_IF_ERROR(deps_.index->ScanTombstones(
      [&loaded](const storage::v1::TombstoneRow& row) {
        loaded[KeyOf(row)].row = row;
      }));
  MutexLock lock(&mu_);
  entries_ = std::move(loaded);
  pending_on_.clear();
  for (const auto& [key, entry] : entries_) {
    List(key, entry.row);
  }
  return absl::OkStatus();
}

storage::v1::TombstoneRow Tombstones::Make(
    const Uuid& image_id, const storage::v1::Generation& generation,
    const std::vector<Uuid>& pending) const {
  storage::v1::TombstoneRow row;
  row.set_image_id(image_id.bytes());
  *row.mutable_generation() = generation;
  row.set_create_time_us(deps_.clock->NowMicros());
  for (const Uuid& uid : pending) {
    row.add_pending_mount_uids(uid.bytes());
  }
  return row;
}

void Tombstones::Committed(const storage::v1::TombstoneRow& row,
                           const Generation& pair, bool written_here) {
  MutexLock lock(&mu_);
  const Key key = KeyOf(row);
  TombstoneEntry& entry = entries_[key];
  entry.written_here = entry.written_here || written_here;
  if (entry.pair_n <= pair.n) {
    Unlist(key, entry.row);
    entry.row = row;
    entry.pair_n = pair.n;
    List(key, entry.row);
  }
}

void Tombstones::List(const Key& key, const storage::v1::TombstoneRow& row) {
  for (const std::string& uid : row.pending_mount_uids()) {
    pending_on_[uid].insert(key);
  }
}

void Tombstones::Unlist(const Key& key, const storage::v1::TombstoneRow& row) {
  for (const std::string& uid : row.pending_mount_uids()) {
    const auto it = pending_on_.find(uid);
    if (it != pending_on_.end()) {
      it->second.erase(key);
    }
  }
}

std::vector<TombstoneEntry> Tombstones::PendingOn(const Uuid& mount_uid) const {
  std::vector<TombstoneEntry> out;
  MutexLock lock(&mu_);
  const auto it = pending_on_.find(mount_uid.bytes());
  if (it != pending_on_.end()) {
    for (const Key& key : it->second) {
      out.push_back(entries_.at(key));
    }
  }
  return out;
}

std::vector<TombstoneEntry> Tombstones::OfImage(const Uuid& image_id) const {
  const std::string id = image_id.bytes();
  std::vector<TombstoneEntry> out;
  MutexLock lock(&mu_);
  for (auto it = entries_.lower_bound(Key(id, ""));
       it != entries_.end() && it->first.first == id; ++it) {
    out.push_back(it->second);
  }
  return out;
}

bool Tombstones::Covers(const Uuid& image_id,
                        const Generation& generation) const {
  for (const TombstoneEntry& entry : OfImage(image_id)) {
    if (!generation.After(Generation::FromProto(entry.row.generation()))) {
      return true;
    }
  }
  return false;
}

std::vector<TombstoneEntry> Tombstones::Select(
    const std::function<bool(const TombstoneEntry&)>& want) const {
  std::vector<TombstoneEntry> out;
  MutexLock lock(&mu_);
  for (const auto& [key, entry] : entries_) {
    if (want(entry)) {
      out.push_back(entry);
    }
  }
  return out;
}

std::vector<Uuid> Tombstones::Leftovers(const Uuid& image_id) const {
  std::vector<Uuid> out;
  for (const TombstoneEntry& entry : OfImage(image_id)) {
    for (const std::string& uid : entry.row.pending_mount_uids()) {
      out.push_back(Uuid::FromBytesOrNone(uid));
    }
  }
  return out;
}

int64_t Tombstones::count() const {
  MutexLock lock(&mu_);
  return static_cast<int64_t>(entries_.size());
}

absl::Status Tombstones::Update(
    const Uuid& image_id, const storage::v1::Generation& generation,
    const std::function<bool(storage::v1::TombstoneRow*)>& change) {
  const Generation wanted = Generation::FromProto(generation);
  for (int i = 0; i < kMaxCommitTries; ++i) {
    ASSIGN_OR_RETURN(const std::vector<storage::v1::TombstoneRow> rows,
                     deps_.index->TombstonesOf(image_id));
    const auto found = std::find_if(
        rows.begin(), rows.end(), [&](const storage::v1::TombstoneRow& row) {
          return Generation::FromProto(row.generation()) == wanted;
        });
    if (found == rows.end()) {
      return absl::OkStatus();  // settled and forgotten meanwhile
    }
    storage::v1::TombstoneRow row = *found;
    if (!change(&row)) {
      return absl::OkStatus();
    }
    IndexTxn txn = deps_.index->Begin();
    const Generation pair = txn.pair();
    txn.RequireTombstone(*found);
    txn.PutTombstone(row);
    const absl::Status status = deps_.index->Commit(std::move(txn));
    if (status.ok()) {
      Committed(row, pair, /*written_here=*/false);
      return absl::OkStatus();
    }
    if (!absl::IsAborted(status)) {
      return status;
    }
  }
  return TooManyConflicts(
      absl::StrCat("the tombstone of ", ImageName(image_id)));
}

absl::Status Tombstones::ConfirmRemoved(
    const Uuid& image_id, const storage::v1::Generation& generation,
    const Uuid& mount_uid) {
  const absl::Status status =
      Update(image_id, generation, [&](storage::v1::TombstoneRow* row) {
        return RemoveFrom(row->mutable_pending_mount_uids(), mount_uid.bytes());
      });
  changed_->Notify();
  return status;
}

absl::Status Tombstones::RecordCopy(const storage::v1::Tombstone& tombstone,
                                    const Uuid& mount_uid) {
  return Update(Uuid::FromBytesOrNone(tombstone.image_id()),
                tombstone.generation(), [&](storage::v1::TombstoneRow* row) {
                  if (Contains(row->copy_mount_uids(), mount_uid.bytes())) {
                    return false;
                  }
                  row->add_copy_mount_uids(mount_uid.bytes());
                  return true;
                });
}

// Those that hold the file come first: their copy also survives with it.
std::vector<Uuid> Tombstones::CopyTargets(
    const storage::v1::TombstoneRow& row) const {
  std::vector<std::pair<int, Uuid>> ranked;
  for (const MountInfo& info : deps_.registry->List()) {
    const Uuid uid = Uuid::FromBytesOrNone(info.row.mount_uid());
    if (commands_->AttachedSession(uid) == 0 ||
        Contains(row.copy_mount_uids(), uid.bytes())) {
      continue;
    }
    const bool writes =
        info.health == v1::HEALTH_ONLINE || info.health == v1::HEALTH_SLOW;
    const bool holds = Contains(row.pending_mount_uids(), uid.bytes());
    ranked.emplace_back((writes ? 0 : 2) + (holds ? 0 : 1), uid);
  }
  std::stable_sort(
      ranked.begin(), ranked.end(),
      [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Uuid> out;
  out.reserve(ranked.size());
  for (const auto& [rank, uid] : ranked) {
    out.push_back(uid);
  }
  return out;
}

absl::Status Tombstones::EnsureCopy(const storage::v1::TombstoneRow& row,
                                    absl::Duration wait) {
  // The machine's time: what is waited for are messages, not a Clock.
  const auto end =
      std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(wait);
  const auto time_left = [&end] {
    return absl::FromChrono(end - std::chrono::steady_clock::now());
  };
  control::v1::Command command;
  *command.mutable_store_tombstone()->mutable_tombstone() = ToCopy(row);
  std::string last = "no agent is attached";
  while (true) {
    const int64_t seen = changed_->version();
    for (const Uuid& uid : CopyTargets(row)) {
      const absl::Duration left =
          std::min(deps_.options.command_timeout, time_left());
      if (left <= absl::ZeroDuration()) {
        break;
      }
      *command.mutable_store_tombstone()->mutable_heard() =
          deps_.index->synced_pair().ToProto();
      const auto result = commands_->Call(uid, command, left, {});
      if (result.ok()) {
        return RecordCopy(ToCopy(row), uid);
      }
      last = std::string(result.status().message());
    }
    const absl::Duration left = time_left();
    if (left <= absl::ZeroDuration() || !changed_->WaitPast(seen, left)) {
      break;
    }
  }
  const std::string image = ImageName(Uuid::FromBytesOrNone(row.image_id()));
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kNoTombstoneCopy,
      absl::StrCat("the delete of ", image,
                   " is written in the index but on no mount within ",
                   absl::FormatDuration(wait), " (", last,
                   "); repeat it when a mount's agent is there, NOT_FOUND "
                   "then says that it is done"),
      {{"image", image}});
}

// Whether an upload of the image that lost still has something somewhere: it
// could be taken for the image once its tombstone is gone.
bool Tombstones::LoserWaits(const Uuid& image_id) const {
  for (const UploadEntry& entry : uploads_->OfImage(image_id)) {
    if (entry.open()) {
      continue;
    }
    for (const storage::v1::UploadTargetRow& target : entry.row.targets()) {
      if (entry.LeftoverOn(Uuid::FromBytesOrNone(target.mount_uid()))) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace predella::server
