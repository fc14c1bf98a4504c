#include "server/lifecycle/upload_table.h"

#include <algorithm>
#include <utility>

namespace predella::server {

Uuid UploadEntry::target() const {
  return row.targets_size() == 0
             ? Uuid()
             : Uuid::FromBytesOrNone(
                   row.targets(row.targets_size() - 1).mount_uid());
}

bool UploadEntry::LeftoverOn(const Uuid& mount_uid) const {
  const bool published =
      row.outcome() == storage::v1::UPLOAD_OUTCOME_COMMITTED ||
      row.outcome() == storage::v1::UPLOAD_OUTCOME_DELETED;
  const int count = row.targets_size() - (published ? 1 : 0);
  for (int i = 0; i < count; ++i) {
    if (!row.targets(i).clean() &&
        Uuid::FromBytesOrNone(row.targets(i).mount_uid()) == mount_uid) {
      return true;
    }
  }
  return false;
}

void UploadTable::Load(storage::v1::UploadRow row, absl::Duration now) {
  const Uuid id = Uuid::FromBytesOrNone(row.upload_id());
  const Uuid image = Uuid::FromBytesOrNone(row.image_id());
  UploadEntry entry;
  entry.row = std::move(row);
  entry.last_life = now;
  entry.waiting = entry.open();
  MutexLock lock(&mu_);
  by_image_[image].push_back(id);
  List(entry);
  entries_[id] = std::move(entry);
}

void UploadTable::List(const UploadEntry& entry) {
  const Uuid id = Uuid::FromBytesOrNone(entry.row.upload_id());
  if (entry.open()) {
    open_.insert(id);
  }
  for (const storage::v1::UploadTargetRow& target : entry.row.targets()) {
    const Uuid mount_uid = Uuid::FromBytesOrNone(target.mount_uid());
    if (entry.LeftoverOn(mount_uid)) {
      left_on_[mount_uid].insert(id);
    }
  }
}

void UploadTable::Unlist(const UploadEntry& entry) {
  const Uuid id = Uuid::FromBytesOrNone(entry.row.upload_id());
  open_.erase(id);
  for (const storage::v1::UploadTargetRow& target : entry.row.targets()) {
    const auto it = left_on_.find(Uuid::FromBytesOrNone(target.mount_uid()));
    if (it != left_on_.end()) {
      it->second.erase(id);
    }
  }
}

void UploadTable::Put(const storage::v1::UploadRow& row, const Generation& pair,
                      absl::Duration now) {
  const Uuid id = Uuid::FromBytesOrNone(row.upload_id());
  MutexLock lock(&mu_);
  const auto [it, inserted] = entries_.try_emplace(id);
  UploadEntry& entry = it->second;
  if (inserted) {
    by_image_[Uuid::FromBytesOrNone(row.image_id())].push_back(id);
    entry.last_life = now;
  } else if (entry.pair_n > pair.n) {
    return;
  } else {
    Unlist(entry);
  }
  entry.row = row;
  entry.pair_n = pair.n;
  entry.waiting = entry.waiting && entry.open();
  List(entry);
}

void UploadTable::Erase(const Uuid& upload_id) {
  MutexLock lock(&mu_);
  const auto it = entries_.find(upload_id);
  if (it == entries_.end()) {
    return;
  }
  Unlist(it->second);
  const Uuid image = Uuid::FromBytesOrNone(it->second.row.image_id());
  const auto of_image = by_image_.find(image);
  if (of_image != by_image_.end()) {
    auto& ids = of_image->second;
    ids.erase(std::remove(ids.begin(), ids.end(), upload_id), ids.end());
    if (ids.empty()) {
      by_image_.erase(of_image);
    }
  }
  entries_.erase(it);
}

std::optional<UploadEntry> UploadTable::Find(const Uuid& upload_id) const {
  MutexLock lock(&mu_);
  const auto it = entries_.find(upload_id);
  return it == entries_.end() ? std::nullopt
                              : std::optional<UploadEntry>(it->second);
}

std::vector<UploadEntry> UploadTable::OfImage(const Uuid& image_id) const {
  MutexLock lock(&mu_);
  std::vector<UploadEntry> out;
  const auto it = by_image_.find(image_id);
  if (it != by_image_.end()) {
    for (const Uuid& id : it->second) {
      out.push_back(entries_.at(id));
    }
  }
  return out;
}

std::vector<UploadEntry> UploadTable::LeftoversOn(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  std::vector<UploadEntry> out;
  const auto it = left_on_.find(mount_uid);
  if (it != left_on_.end()) {
    for (const Uuid& id : it->second) {
      out.push_back(entries_.at(id));
    }
  }
  return out;
}

std::vector<UploadEntry> UploadTable::SelectOpen(
    const std::function<bool(const UploadEntry&)>& want) const {
  MutexLock lock(&mu_);
  std::vector<UploadEntry> out;
  for (const Uuid& id : open_) {
    const UploadEntry& entry = entries_.at(id);
    if (want(entry)) {
      out.push_back(entry);
    }
  }
  return out;
}

std::vector<UploadEntry> UploadTable::SelectEnded(
    const std::function<bool(const UploadEntry&)>& want) const {
  MutexLock lock(&mu_);
  std::vector<UploadEntry> out;
  for (const auto& [id, entry] : entries_) {
    if (!entry.open() && want(entry)) {
      out.push_back(entry);
    }
  }
  return out;
}

int64_t UploadTable::open_count() const {
  MutexLock lock(&mu_);
  return static_cast<int64_t>(open_.size());
}

void UploadTable::Touch(const Uuid& upload_id, absl::Duration now) {
  MutexLock lock(&mu_);
  const auto it = entries_.find(upload_id);
  if (it != entries_.end()) {
    it->second.last_life = std::max(it->second.last_life, now);
  }
}

void UploadTable::Decided(const Uuid& upload_id, absl::Duration now) {
  MutexLock lock(&mu_);
  const auto it = entries_.find(upload_id);
  if (it != entries_.end() && it->second.waiting) {
    it->second.waiting = false;
    it->second.last_life = now;
  }
}

}  // namespace predella::server
