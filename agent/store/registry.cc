#include "agent/store/registry.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "agent/store/fence_file.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

void Registry::Know(const Generation& pair) {
  MutexLock lock(&mu_);
  known_.Raise(pair);
}

void Registry::Know(const PairTable& table) {
  MutexLock lock(&mu_);
  known_.Raise(table);
}

std::vector<storage::v1::FenceEntry> Registry::Known() {
  MutexLock lock(&mu_);
  return known_.Entries();
}

uint64_t Registry::SetInflight(const Uuid& upload_id, Inflight inflight) {
  MutexLock lock(&mu_);
  inflight.serial = ++last_serial_;
  inflight_[upload_id] = inflight;
  known_.Raise(inflight.generation);
  return last_serial_;
}

std::optional<Registry::Inflight> Registry::FindInflight(
    const Uuid& upload_id) {
  MutexLock lock(&mu_);
  const auto it = inflight_.find(upload_id);
  if (it == inflight_.end()) {
    return std::nullopt;
  }
  return it->second;
}

bool Registry::Owns(const Uuid& upload_id, uint64_t serial) {
  MutexLock lock(&mu_);
  const auto it = inflight_.find(upload_id);
  return it != inflight_.end() && it->second.serial == serial;
}

void Registry::SetInflightBytes(const Uuid& upload_id, uint64_t serial,
                                int64_t bytes) {
  MutexLock lock(&mu_);
  const auto it = inflight_.find(upload_id);
  if (it != inflight_.end() && it->second.serial == serial) {
    it->second.bytes = bytes;
  }
}

void Registry::DropInflight(const Uuid& upload_id) {
  MutexLock lock(&mu_);
  inflight_.erase(upload_id);
  condemned_.erase(upload_id);
}

void Registry::Condemn(const Uuid& upload_id,
                       storage::v1::InflightState state) {
  MutexLock lock(&mu_);
  condemned_[upload_id] = std::move(state);
}

std::optional<storage::v1::InflightState> Registry::Condemned(
    const Uuid& upload_id) {
  MutexLock lock(&mu_);
  const auto it = condemned_.find(upload_id);
  if (it == condemned_.end()) {
    return std::nullopt;
  }
  return it->second;
}

void Registry::SetUnsure(const Uuid& image_id, bool unsure) {
  MutexLock lock(&mu_);
  if (unsure) {
    unsure_.insert(image_id);
  } else {
    unsure_.erase(image_id);
  }
}

bool Registry::Unsure(const Uuid& image_id) {
  MutexLock lock(&mu_);
  return unsure_.count(image_id) > 0;
}

void Registry::Shut(const std::string& directory, absl::Status why) {
  const MutexLock lock(&mu_);
  shut_[directory] = std::move(why);
}

void Registry::Reopen(const std::string& directory) {
  const MutexLock lock(&mu_);
  shut_.erase(directory);
}

std::vector<std::string> Registry::ShutDirectories() {
  const MutexLock lock(&mu_);
  std::vector<std::string> out;
  for (const auto& [directory, why] : shut_) {
    out.push_back(directory);
  }
  return out;
}

absl::Status Registry::WhyShut(const std::string& directory) {
  const MutexLock lock(&mu_);
  const auto it = shut_.find(directory);
  return it == shut_.end() ? absl::OkStatus() : it->second;
}

void Registry::AddImages(int64_t delta) {
  MutexLock lock(&mu_);
  images_ += delta;
}

int64_t Registry::images() {
  MutexLock lock(&mu_);
  return images_;
}

}  // namespace predella::agent
