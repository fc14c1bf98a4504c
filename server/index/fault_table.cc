#include "server/index/fault_table.h"

namespace predella::server {

void FaultTable::Apply(const Change& change) {
  MutexLock lock(&mu_);
  Mount& mount = mounts_[change.mount_uid];
  const auto count = [&](const storage::v1::FaultRow& row, int sign) {
    mu_.AssertHeld();
    count_ += sign;
    (row.fault() == storage::v1::COPY_FAULT_MISSING ? mount.counts.missing
                                                    : mount.counts.damaged) +=
        sign;
  };
  const auto it = mount.faults.find(change.image_id);
  if (it != mount.faults.end()) {
    count(it->second, -1);
    mount.faults.erase(it);
  }
  if (change.row.has_value()) {
    mount.faults.emplace(change.image_id, *change.row);
    count(*change.row, 1);
  }
  if (mount.faults.empty()) {
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
  const auto it = mount->second.faults.find(image_id);
  return it == mount->second.faults.end() ? std::nullopt
                                          : std::optional(it->second);
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
  const auto& faults = mount->second.faults;
  auto it = after.none() ? faults.begin() : faults.upper_bound(after);
  for (; it != faults.end() && static_cast<int64_t>(rows.size()) < limit;
       ++it) {
    rows.push_back(it->second);
  }
  return rows;
}

FaultCounts FaultTable::Count(const Uuid& mount_uid) const {
  MutexLock lock(&mu_);
  const auto mount = mounts_.find(mount_uid);
  return mount == mounts_.end() ? FaultCounts() : mount->second.counts;
}

}  // namespace predella::server
