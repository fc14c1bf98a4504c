// What an operator wants of a mount: the only writer of admin states.
#ifndef PREDELLA_SERVER_LIFECYCLE_MOUNT_ADMIN_H_
#define PREDELLA_SERVER_LIFECYCLE_MOUNT_ADMIN_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/mount_service.pb.h"
#include "server/lifecycle/inventory.h"
#include "server/lifecycle/lifecycle_options.h"
#include "server/lifecycle/mount_gate.h"
#include "server/lifecycle/notifier.h"
#include "server/lifecycle/reaper.h"

namespace predella::server {

// Thread-safe. NOT_FOUND, MOUNT_NOT_FOUND for an unknown name everywhere.
// With validate_only the answer shows the mount as it would be.
class MountAdmin {
 public:
  MountAdmin(const LifecycleDeps& deps, Reaper* reaper, Inventory* inventory,
             Notifier* changed, MountGate* gate);

  absl::StatusOr<v1::Mount> Get(const v1::GetMountRequest& request);
  absl::StatusOr<v1::ListMountsResponse> List(
      const v1::ListMountsRequest& request);
  absl::StatusOr<v1::Mount> Cordon(const v1::CordonMountRequest& request);
  // FAILED_PRECONDITION, INVALID_ARGUMENT for a retired one.
  absl::StatusOr<v1::Mount> Uncordon(const v1::UncordonMountRequest& request);
  // INVALID_ARGUMENT for an end that is not in the future.
  absl::StatusOr<v1::Mount> Maintain(const v1::MaintainMountRequest& request);
  // FAILED_PRECONDITION, MOUNT_NOT_EMPTY unless the loss is accepted by its
  // exact number, that of generations which wait for a choice included; nor
  // in RECOVERING before it was listed, unless that is accepted too.
  absl::StatusOr<v1::Mount> Retire(const v1::RetireMountRequest& request);
  // Takes in a mount that was away when the index was rebuilt: RECOVERING
  // begins, every mount is listed, and what lies there is taken in by its
  // rules. FAILED_PRECONDITION, AGENT_UNREACHABLE when it is not there.
  absl::StatusOr<v1::Mount> Confirm(const v1::ConfirmMountRequest& request);

 private:
  absl::StatusOr<MountInfo> Find(const std::string& name);
  // Images, and generations that wait for a choice.
  absl::StatusOr<ImageTotals> CountLoss(const Uuid& mount_uid) const;
  // While no image is being committed on the mount.
  absl::StatusOr<v1::Mount> RetireCounted(
      const v1::RetireMountRequest& request);
  absl::StatusOr<v1::Mount> Change(
      const std::string& name, bool validate_only, absl::string_view event,
      const std::function<absl::Status(storage::v1::MountRow*)>& change);
  v1::Mount ToApi(const MountInfo& info);

  const LifecycleDeps deps_;
  Reaper* const reaper_;
  Inventory* const inventory_;
  Notifier* const changed_;
  MountGate* const gate_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_LIFECYCLE_MOUNT_ADMIN_H_
