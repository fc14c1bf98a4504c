// What an operator wants of a mount: the only writer of admin states.
#ifndef PREDELLA_SERVER_LIFECYCLE_MOUNT_ADMIN_H_
#define PREDELLA_SERVER_LIFECYCLE_MOUNT_ADMIN_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/generation.h"
#include "common/ids.h"
#include "common/lost_digest.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/mount_service.pb.h"
#include "server/lifecycle/agent_session.h"
#include "server/lifecycle/agent_watch.h"
#include "server/lifecycle/inventory.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/mount_gate.h"
#include "server/lifecycle/notifier.h"
#include "server/lifecycle/reaper.h"
#include "server/lifecycle/scrub_keeper.h"
#include "server/lifecycle/stale_mounts.h"
#include "server/lifecycle/tombstones.h"
#include "server/lifecycle/trust_keeper.h"

namespace predella::server {

// Thread-safe. NOT_FOUND, MOUNT_NOT_FOUND for an unknown name everywhere.
// With validate_only the answer shows the mount as it would be.
class MountAdmin {
 public:
  MountAdmin(const LifecycleDeps& deps, AgentCommands* commands,
             TrustKeeper* trust, Reaper* reaper, Inventory* inventory,
             ScrubKeeper* scrubs, Notifier* changed, MountGate* gate,
             AgentWatch* watch, StaleMounts* stale, Tombstones* tombstones);

  absl::StatusOr<v1::Mount> Get(const v1::GetMountRequest& request);
  absl::StatusOr<v1::ListMountsResponse> List(
      const v1::ListMountsRequest& request);
  absl::StatusOr<v1::Mount> Cordon(const v1::CordonMountRequest& request);
  // FAILED_PRECONDITION, INVALID_ARGUMENT for a retired one.
  absl::StatusOr<v1::Mount> Uncordon(const v1::UncordonMountRequest& request);
  // INVALID_ARGUMENT for an end that is not in the future.
  absl::StatusOr<v1::Mount> Maintain(const v1::MaintainMountRequest& request);
  // mount_loss.cc. FAILED_PRECONDITION, MOUNT_NOT_EMPTY unless the loss is
  // accepted by its exact number and digest (common/lost_digest.h), generations
  // which wait for a choice and files that only a listing showed included; the
  // status bears both (`image_count`, `lost_digest`), and `unnamed_count` of
  // the latter. RECOVERING before it was listed, unless that is accepted too.
  absl::StatusOr<v1::Mount> Retire(const v1::RetireMountRequest& request);
  // mount_replace.cc. Gives the name to another identity, and the present one
  // up as Retire does. FAILED_PRECONDITION: MOUNT_IN_USE while an agent serves
  // the present one, MOUNT_IDENTITY_MISMATCH when the other is not known or is
  // another mount, MOUNT_NOT_EMPTY as above.
  absl::StatusOr<v1::Mount> Replace(const v1::ReplaceMountRequest& request);
  // mount_impact.cc.
  absl::StatusOr<v1::ExplainImpactResponse> ExplainImpact(
      const v1::ExplainImpactRequest& request);
  // Writes down the end of a MAINTENANCE whose time is over.
  void Tick();
  // mount_scrub.cc. FAILED_PRECONDITION for a retired mount, or when there is
  // none to pause; INVALID_ARGUMENT for a rate below 0.
  absl::StatusOr<v1::Mount> Scrub(const v1::ScrubMountRequest& request);
  absl::StatusOr<v1::Mount> PauseScrub(const v1::PauseScrubRequest& request);
  // Takes in a mount that was away when the index was rebuilt: RECOVERING
  // begins, every mount is listed, and what lies there is taken in by its
  // rules. FAILED_PRECONDITION, AGENT_UNREACHABLE when it is not there. Or lets
  // in the directory that was refused as an older copy of the mount; what it
  // lacks is then missing. OK, and nothing is done, for one that is attached.
  absl::StatusOr<v1::Mount> Confirm(const v1::ConfirmMountRequest& request);
  // mount_garbage.cc. Has the agent discard what its circuit breaker holds.
  // FAILED_PRECONDITION: GARBAGE_CHANGED unless that is accepted by its exact
  // number, RECOVERING, NOT_READY on a mount that is not trusted or whose agent
  // is too old; UNAVAILABLE, AGENT_UNREACHABLE when it is not there.
  absl::StatusOr<v1::Mount> CollectGarbage(
      const v1::CollectGarbageRequest& request);

 private:
  absl::StatusOr<MountInfo> Find(const std::string& name);
  absl::Status CheckCollectable(const MountInfo& info) const;
  absl::StatusOr<v1::Mount> ConfirmCopy(const MountInfo& info,
                                        bool validate_only);
  struct Loss {
    ImageTotals totals;
    // Of these: what the index does not name, and a listing showed.
    ImageTotals unnamed;
    LostDigest digest;
    void Add(const Uuid& image_id, const Generation& generation, int64_t bytes);
  };
  // Images, generations that wait for a choice, and files under an image's name
  // that the index does not name, as the last listing showed them.
  absl::StatusOr<Loss> CountLoss(const Uuid& mount_uid) const;
  absl::Status CountUnnamed(const Uuid& mount_uid, Loss* loss) const;
  // Whether the index has that generation ("none": any) where it can be read,
  // or as a conflict, which is counted by itself. `refused`: the file on the
  // mount was read, and is not it.
  absl::StatusOr<bool> HasElsewhere(const Uuid& image_id,
                                    const Generation& generation,
                                    bool refused) const;
  // While no image is being committed on the mount.
  absl::StatusOr<v1::Mount> RetireCounted(
      const v1::RetireMountRequest& request);
  // FAILED_PRECONDITION, MOUNT_NOT_EMPTY with the numbers; RECOVERING.
  absl::Status CheckLossAccepted(const storage::v1::MountRow& row,
                                 int64_t accepted_count,
                                 const std::string& accepted_digest,
                                 bool accept_unlisted) const;
  static absl::Status CheckReason(const std::string& reason);
  absl::StatusOr<Uuid> NewIdentity(const v1::ReplaceMountRequest& request,
                                   const MountInfo& info) const;
  absl::Status CommitReplace(const v1::ReplaceMountRequest& request,
                             const storage::v1::MountRow& old,
                             const Uuid& new_uid);
  absl::StatusOr<v1::Mount> ReplaceCounted(
      const v1::ReplaceMountRequest& request);
  absl::StatusOr<v1::Mount> Change(
      const std::string& name, bool validate_only, absl::string_view event,
      const std::function<absl::Status(storage::v1::MountRow*)>& change,
      const std::function<std::string(const storage::v1::MountRow& old)>&
          detail = nullptr);
  v1::Mount ToApi(const MountInfo& info);

  const LifecycleDeps deps_;
  AgentCommands* const commands_;
  TrustKeeper* const trust_;
  Reaper* const reaper_;
  Inventory* const inventory_;
  ScrubKeeper* const scrubs_;
  Notifier* const changed_;
  MountGate* const gate_;
  AgentWatch* const watch_;
  StaleMounts* const stale_;
  Tombstones* const tombstones_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_MOUNT_ADMIN_H_
