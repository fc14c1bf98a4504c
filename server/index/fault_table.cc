#include "server/index/fault_table.h"

namespace predella::server {

void FaultTable::Apply(const Change& change) {
  MutexLock lock(&mu_);
  ByImage& faults = mounts_[change.mount_uid];
  if (change.row.has_value()) {
    const auto [it, added] =
        faults.insert_or_assign(change.image_id, *change.row);
    count_ += added ? 1 : 0;
  } else {
    count_ -= static_cast<int64_t>(faults.erase(change.image_id));
  }
  if (faults.empty()) {
    mounts_.erase(change.mount_uid);
  }
}

std::optional<storage::v1::FaultRow> FaultTable::Find(
    const Uuid& mount_uid, const Uuid& image_id) const {
  if (empty()) {
    return std::nullopt;
  }
  MutexLock lock(&mu_);
  const auto mount = mounts_.find(mount_uid);
  if (mount == mounts_.end()) {
    return std::nullopt;
  }
  const auto it = mount->second.find(image_id);
  return it == mount->second.end() ? std::nullopt : std::optional(it->second);
}

std::vector<storage::v1::FaultRow> FaultTable::List(const Uuid& mount_uid,
                                                    const Uuid& after,
                                                    int64_t limit) const {
  std::vector<storage::v1::FaultRow> rows;
  MutexLock lock(&mu_);
  const auto mount = mounts_.find(mount_uid);
  if (mount == mounts_.end()) {
    return rows;
  }
  auto it =
      after.none() ? mount->second.begin() : mount->second.upper_bound(after);
  for (; it != mount->second.end() && static_cast<int64_t>(rows.size()) < limit;
       ++it) {
    rows.push_back(it->second);
  }
  return rows;
}

int64_t FaultTable::Count(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  const auto mount = mounts_.find(mount_uid);
  return mount == mounts_.end() ? 0
                                : static_cast<int64_t>(mount->second.size());
}

}  // namespace predella::server
