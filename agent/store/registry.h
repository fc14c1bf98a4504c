// What the store keeps in memory about its mount, and the locks by image.
#ifndef PREDELLA_AGENT_STORE_REGISTRY_H_
#define PREDELLA_AGENT_STORE_REGISTRY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "agent/fs/disk_locks.h"
#include "agent/store/fence_file.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

// Exclusion by id: publish, removal, listing of one image take turns. Held if
// status() is OK.
class IdLock final : public DiskLock {
 public:
  // `id` none: of an upload whose image nobody knows.
  IdLock(DiskLocks* locks, const Uuid& id)
      : DiskLock(locks, absl::StrCat("image ", id.ToString())) {}
};

// Thread-safe.
class Registry {
 public:
  struct Inflight {
    Uuid image_id;  // none: its state was lost
    Generation generation;
    int64_t bytes = 0;
    int64_t allocated = 0;  // when the mount was opened
    uint64_t serial = 0;
  };

  void Know(const Generation& pair);
  void Know(const PairTable& table);
  std::vector<storage::v1::FenceEntry> Known();

  // An upload's bytes are here. Returns the serial of this opening: an
  // earlier one owns the file no more.
  uint64_t SetInflight(const Uuid& upload_id, Inflight inflight);
  std::optional<Inflight> FindInflight(const Uuid& upload_id);
  bool Owns(const Uuid& upload_id, uint64_t serial);
  void SetInflightBytes(const Uuid& upload_id, uint64_t serial, int64_t bytes);
  void DropInflight(const Uuid& upload_id);

  // A failed sync condemned the upload's file; kept until it is discarded.
  void Condemn(const Uuid& upload_id, storage::v1::InflightState state);
  std::optional<storage::v1::InflightState> Condemned(const Uuid& upload_id);

  // Images whose last sync failed and could not be undone: what the disk
  // holds of them is unknown.
  void SetUnsure(const Uuid& image_id, bool unsure);
  bool Unsure(const Uuid& image_id);

  // Directories of records that could not be synced when the mount was opened,
  // for their modes: what the cache shows of them may not be on the disk, so no
  // record there is told until one that asks again has synced it.
  void Shut(const std::string& directory, absl::Status why);
  void Reopen(const std::string& directory);
  std::vector<std::string> ShutDirectories();
  // OK: it is not shut.
  absl::Status WhyShut(const std::string& directory);

  void AddImages(int64_t delta);
  int64_t images();

 private:
  Mutex mu_;
  PairTable known_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, Inflight> inflight_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Uuid, storage::v1::InflightState> condemned_
      ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<Uuid> unsure_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string, absl::Status> shut_ ABSL_GUARDED_BY(mu_);
  uint64_t last_serial_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t images_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_REGISTRY_H_
