#include "server/lifecycle/tombstones.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "common/status_macros.h"

namespace predella::server {
namespace {

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

void Tombstones::OnListings(std::function<Listings()> listings,
                            std::function<bool(const Uuid&)> shows) {
  listings_ = std::move(listings);
  shows_ = std::move(shows);
}

absl::Status Tombstones::Load() {
  std::map<Key, TombstoneEntry> loaded;
  RETURN_IF_ERROR(deps_.index->ScanTombstones(
      [&loaded](const storage::v1::TombstoneRow& row) {
        TombstoneEntry& entry = loaded[KeyOf(row)];
        entry.row = row;
        entry.met_after = 0;
      }));
  MutexLock lock(&mu_);
  entries_ = std::move(loaded);
  pending_on_.clear();
  copy_bytes_.clear();
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
  for (const std::string& uid : row.copy_mount_uids()) {
    copy_bytes_[uid] += CopyBytes(row);
  }
}

void Tombstones::Unlist(const Key& key, const storage::v1::TombstoneRow& row) {
  for (const std::string& uid : row.pending_mount_uids()) {
    const auto it = pending_on_.find(uid);
    if (it != pending_on_.end()) {
      it->second.erase(key);
    }
  }
  for (const std::string& uid : row.copy_mount_uids()) {
    copy_bytes_[uid] -= CopyBytes(row);
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
