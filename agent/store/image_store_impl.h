// The one implementation of ImageStore.
#ifndef PREDELLA_AGENT_STORE_IMAGE_STORE_IMPL_H_
#define PREDELLA_AGENT_STORE_IMAGE_STORE_IMPL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "agent/fs/file_system.h"
#include "agent/fs/guarded_file_system.h"
#include "agent/store/fence_file.h"
#include "agent/store/file_place.h"
#include "agent/store/image_check.h"
#include "agent/store/image_store.h"
#include "agent/store/store_core.h"
#include "agent/store/tombstone_file.h"
#include "common/clock.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "predella/storage/v1/storage.pb.h"

namespace predella::agent {

class ImageStoreImpl final : public ImageStore {
 public:
  ImageStoreImpl(FileSystem* fs, Clock* clock, IdGenerator* ids,
                 const StoreOptions& options)
      : base_(fs), guard_(fs), core_(&guard_, clock, options), ids_(ids) {}
  // Called once, before everything else.
  absl::Status Start();

  storage::v1::MountLabel label() override;
  absl::Status ClaimLabel(absl::string_view cluster_uid) override;
  absl::Status CheckIdentity() override;
  std::vector<storage::v1::FenceEntry> Known() override;
  absl::Status Hear(const Generation& pair) override;
  absl::Status SyncFence() override;
  std::vector<storage::v1::Tombstone> Tombstones() override;
  absl::Status StoreTombstone(const storage::v1::Tombstone& tombstone) override;
  absl::Status DropTombstones(
      absl::Span<const storage::v1::Tombstone> tombstones) override;
  std::vector<storage::v1::RosterEntry> Roster() override;
  absl::Status StoreRoster(
      absl::Span<const storage::v1::RosterEntry> roster) override;
  absl::StatusOr<std::unique_ptr<StagedImage>> OpenStaged(
      const UploadSpec& spec) override;
  std::optional<int64_t> InflightBytes(const Uuid& upload_id) override;
  int64_t InflightAllocated(const Uuid& upload_id) override;
  absl::Status Discard(const Uuid& upload_id) override;
  absl::StatusOr<std::optional<PublishedImage>> Find(
      const Uuid& image_id) override;
  absl::StatusOr<std::unique_ptr<ImageReader>> OpenImage(
      const Uuid& image_id, const Generation& generation) override;
  absl::StatusOr<std::unique_ptr<ImageCheck>> OpenCheck(
      const Uuid& image_id) override {
    return ImageCheckImpl::Open(&core_, image_id);
  }
  absl::StatusOr<std::vector<Uuid>> ListIds() override;
  absl::StatusOr<RemoveOutcome> Remove(const Uuid& image_id,
                                       const Generation& generation,
                                       const Uuid& upload_id) override;
  absl::Status Quarantine(const Uuid& image_id,
                          const std::optional<Generation>& generation) override;
  absl::StatusOr<int> ExpireQuarantine(absl::Duration keep, int most) override;
  absl::Status AdoptFile(const storage::v1::ReplicaRecord& record,
                         AdoptedMode mode) override;
  absl::Status List(
      const std::function<void(const ListEntry&)>& entry) override;
  absl::Status ListInflight(
      const std::function<void(const ListEntry&)>& entry) override;
  std::unique_ptr<MountListing> BeginListing() override;
  int64_t image_count() override { return core_.registry.images(); }
  absl::StatusOr<SpaceInfo> Space() override { return core_.fs->Space(); }
  std::optional<int64_t> mount_id() const override { return mount_id_; }
  bool passes_descriptors() const override {
    return base_->PassesDescriptors();
  }
  bool writable_again() override { return writable_again_.load(); }
  ProbeOutcome Probe() override;

 private:
  // What nobody keeps open.
  absl::Status CheckLayout();
  enum class Is { kFile, kDirectory };
  // MOUNT_IDENTITY_MISMATCH where it is missing, or something else bears its
  // name.
  absl::Status CheckThere(absl::string_view path, Is kind);
  // Before they are opened: what FilePlace looks after later.
  absl::Status CheckFiles();
  absl::StatusOr<storage::v1::MountLabel> LookAtLabel();

  // Start's steps (store_start.cc).
  absl::Status CheckMemory(const storage::v1::MountLabel& label);
  absl::Status SyncDirectories();
  absl::Status ClearLeftovers();
  absl::Status ReadInflight();
  absl::Status ReadRecords();
  void ReadOneInflight(const Uuid& upload_id);
  bool HasName(const FileInfo& info, const Uuid& image_id);

  // `sent` empty: any bytes will do.
  absl::Status ReadProbe(File* file, absl::string_view sent);

  absl::Status ChangeTombstones(
      const std::function<absl::Status(TombstoneFile*)>& change);

  // The caller holds the image's lock.
  absl::Status DiscardLocked(const Uuid& upload_id);
  absl::Status RemoveImageLocked(const Uuid& image_id, const NameState& state,
                                 RemoveOutcome* outcome);

  FileSystem* const base_;  // must outlive this
  GuardedFileSystem guard_;
  StoreCore core_;          // over the guard
  IdGenerator* const ids_;  // must outlive this
  std::atomic<bool> writable_again_{false};
  std::atomic<unsigned> next_shard_{0};
  std::unique_ptr<FileLock> lock_;
  // Constant once opened.
  std::optional<int64_t> mount_id_;
  std::vector<std::shared_ptr<const FilePlace>> places_;  // kept open

  Mutex label_mu_;
  storage::v1::MountLabel label_ ABSL_GUARDED_BY(label_mu_);
  // Held over the disk: writes of one file take turns, and who takes one holds
  // its DiskLock, so that nobody waits for these.
  Mutex fence_mu_;
  std::unique_ptr<FenceFile> fence_ ABSL_GUARDED_BY(fence_mu_);
  Mutex tombstone_mu_;
  std::unique_ptr<TombstoneFile> tombstones_ ABSL_GUARDED_BY(tombstone_mu_);
  Mutex told_mu_;
  // What the tombstones' file holds; read while it is written.
  storage::v1::TombstoneSlot told_ ABSL_GUARDED_BY(told_mu_);
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_STORE_IMAGE_STORE_IMPL_H_
