// Images as clients ask for them: get, list, delete.
#ifndef PREDELLA_SERVER_LIFECYCLE_IMAGE_CATALOG_H_
#define PREDELLA_SERVER_LIFECYCLE_IMAGE_CATALOG_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/generation.h"
#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/image_service.pb.h"
#include "server/lifecycle/copy_verifier.h"
#include "server/lifecycle/inventory.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/trust_keeper.h"
#include "server/lifecycle/upload_manager.h"

namespace predella::server {

// Thread-safe; Delete blocks on agents.
class ImageCatalog {
 public:
  ImageCatalog(const LifecycleDeps& deps, TrustKeeper* trust,
               UploadTable* uploads, UploadManager* upload_manager,
               Tombstones* tombstones, Inventory* inventory,
               CopyVerifier* verifier);
  // Called after a delete was acknowledged, to have the files unlinked soon.
  void OnDeleted(std::function<void()> deleted);

  // NOT_FOUND, IMAGE_NOT_FOUND only when that is sure; else UNAVAILABLE with
  // MOUNTS_MISSING or RECOVERING, naming what is missing.
  absl::StatusOr<v1::Image> Get(const Uuid& image_id);
  // image_list.cc. In the order of ids. NOT_FOUND, MOUNT_NOT_FOUND for an
  // unknown mount. A page may be short without being the last.
  absl::StatusOr<v1::ListImagesResponse> List(
      const v1::ListImagesRequest& request);

  struct DeleteRequest {
    Uuid image_id;
    std::optional<Generation> generation;
    bool allow_missing = false;
  };
  // OK once the tombstone is synced in the index and on a mount. ABORTED with
  // GENERATION_MISMATCH or UPLOAD_IN_PROGRESS; UNAVAILABLE, NO_TOMBSTONE_COPY:
  // deleted in the index, repeat it; and the errors of Get.
  // FAILED_PRECONDITION, IMAGE_CONFLICT while two generations of it are kept.
  absl::Status Delete(const DeleteRequest& request);

  // image_choice.cc. Keeps one of the generations of an image and has the
  // files of the others removed. NOT_FOUND, GENERATION_MISMATCH when none is
  // this one; FAILED_PRECONDITION, RECOVERING. What is kept is read whole
  // first: DATA_LOSS when it is not, ABORTED while that goes on, and the same
  // request again says what came of it. Nothing to choose: OK.
  absl::StatusOr<v1::Image> Choose(const Uuid& image_id,
                                   const Generation& generation,
                                   bool validate_only);

 private:
  absl::Status WhyMissing(const Uuid& image_id);
  absl::StatusOr<Uuid> FindMount(const std::string& name) const;
  // FAILED_PRECONDITION when no copy of it can be read: MOUNT_RETIRED where all
  // were given up, else REPLICA_MISSING.
  absl::Status CheckChoosable(const storage::v1::ImageRow& keep) const;
  absl::Status VerifyKept(const storage::v1::ImageRow& keep);
  absl::Status CommitChoice(const std::optional<storage::v1::ImageRow>& row,
                            const std::vector<storage::v1::ConflictRow>& others,
                            const storage::v1::ImageRow& keep);
  // Whether no mount can bring a generation that the index does not have.
  bool KnowsAll() const;
  // What one delete takes: the generation that is known, or every one below
  // its own pair.
  enum class Scope { kKnown, kAllBelow };
  Scope ScopeOf(const DeleteRequest& request) const;
  std::vector<Uuid> MayHold(const storage::v1::ImageRow& row) const;
  absl::Status DeleteRow(const storage::v1::ImageRow& row, Scope scope);
  // Has the open uploads of an image closed.
  struct ClosedUploads {
    int asked = 0;
    std::vector<storage::v1::UploadRow> rows;  // those that can be ended
  };
  absl::StatusOr<ClosedUploads> CloseUploads(const DeleteRequest& request);
  absl::Status AbortWithTombstone(const storage::v1::UploadRow& row,
                                  Scope scope);
  // The index has no row of the image, by now.
  absl::Status CoverAllBelow(const Uuid& image_id);
  // Commits the tombstones of a delete with the rest of it.
  absl::Status CommitDelete(const Uuid& image_id, Scope scope,
                            std::vector<storage::v1::TombstoneRow> written,
                            IndexTxn txn);
  // Row and uploads in one round. ABORTED: changed meanwhile; look again.
  // Whether there was anything to delete.
  absl::StatusOr<bool> DeleteOnce(const DeleteRequest& request);
  absl::Status FinishCopies(const Uuid& image_id);

  const LifecycleDeps deps_;
  TrustKeeper* const trust_;
  UploadTable* const uploads_;
  UploadManager* const upload_manager_;
  Tombstones* const tombstones_;
  Inventory* const inventory_;
  CopyVerifier* const verifier_;
  std::function<void()> deleted_;  // constant after OnDeleted
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_IMAGE_CATALOG_H_
