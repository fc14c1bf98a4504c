#include "server/lifecycle/api_convert.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

#include "common/capability.h"
#include "common/generation.h"
#include "common/ids.h"
#include "common/resource_name.h"
#include "server/placement/placement_policy.h"

namespace predella::server {
namespace {

void ToApiCopy(const Uuid& uid, const MountInfo* info, v1::Copy* copy) {
  copy->set_mount_uid(uid.ToString());
  if (info != nullptr) {
    copy->set_mount(MountName(info->row.mount_name()));
    copy->set_health(info->health);
    if (!IsRetired(*info)) {
      CopyAddresses(*info, copy->mutable_addresses());
    }
  } else {
    copy->set_health(v1::HEALTH_UNKNOWN);
  }
}

void AddFault(const storage::v1::FaultRow& row, v1::Copy* copy) {
  copy->set_fault(row.fault() == storage::v1::COPY_FAULT_MISSING
                      ? v1::COPY_FAULT_MISSING
                      : v1::COPY_FAULT_DAMAGED);
  copy->set_fault_detail(row.detail());
  *copy->mutable_fault_time() = ToTimestamp(row.found_time_us());
}

// A damaged copy is a last resort, read and verified; a missing one is named
// last.
int CopyRank(const v1::Copy& copy) {
  constexpr int kBehindAllMounts = 10;
  return ReadRank(copy.health()) +
         kBehindAllMounts * (copy.fault() == v1::COPY_FAULT_MISSING   ? 2
                             : copy.fault() == v1::COPY_FAULT_DAMAGED ? 1
                                                                      : 0);
}

}  // namespace

google::protobuf::Timestamp ToTimestamp(int64_t micros) {
  google::protobuf::Timestamp out;
  micros = std::min(micros, kLastSecond * 1'000'000);
  int64_t seconds = micros / 1'000'000;
  int64_t rest = micros % 1'000'000;
  if (rest < 0) {
    seconds -= 1;
    rest += 1'000'000;
  }
  out.set_seconds(seconds);
  out.set_nanos(static_cast<int32_t>(rest * 1000));
  return out;
}

int64_t FromTimestamp(const google::protobuf::Timestamp& timestamp) {
  return timestamp.seconds() * 1'000'000 + timestamp.nanos() / 1000;
}

v1::UploadState ToUploadState(storage::v1::UploadOutcome outcome) {
  switch (outcome) {
    case storage::v1::UPLOAD_OUTCOME_COMMITTED:
      return v1::UPLOAD_STATE_COMMITTED;
    case storage::v1::UPLOAD_OUTCOME_SUPERSEDED:
      return v1::UPLOAD_STATE_SUPERSEDED;
    case storage::v1::UPLOAD_OUTCOME_ABORTED:
      return v1::UPLOAD_STATE_ABORTED;
    case storage::v1::UPLOAD_OUTCOME_EXPIRED:
      return v1::UPLOAD_STATE_EXPIRED;
    case storage::v1::UPLOAD_OUTCOME_DELETED:
      return v1::UPLOAD_STATE_DELETED;
    default:
      return v1::UPLOAD_STATE_OPEN;
  }
}

void ToApiImage(const storage::v1::ImageRow& row, ImageState state,
                const LifecycleDeps& deps, const KnownMounts& mounts,
                bool brief, v1::Image* image) {
  const Uuid image_id = Uuid::FromBytesOrNone(row.image_id());
  const Generation generation = Generation::FromProto(row.generation());
  image->set_name(ImageName(image_id));
  image->set_generation(generation.ToString());
  image->set_size_bytes(row.size_bytes());
  image->set_crc32c_hex(absl::StrCat(absl::Hex(row.crc32c(), absl::kZeroPad8)));
  for (const storage::v1::Hash& hash : row.hashes()) {
    v1::Hash* out = image->add_hashes();
    out->set_algorithm(hash.algorithm());
    out->set_hex(ToHex(hash.value()));
  }
  for (const storage::v1::CopyRow& held : row.copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(held.mount_uid());
    const MountInfo* const info = mounts.Find(uid);
    v1::Copy* const copy = image->add_copies();
    ToApiCopy(uid, info, copy);
    if (const auto fault = deps.index->FaultOf(row, uid); fault.has_value()) {
      AddFault(*fault, copy);
    }
    if (!brief && (info == nullptr || !IsRetired(*info))) {
      Capability capability;
      capability.operation = Capability::Operation::kRead;
      capability.image_id = image_id;
      capability.generation = generation;
      capability.mount_uid = uid;
      capability.expire_time_us =
          deps.clock->NowMicros() +
          absl::ToInt64Microseconds(deps.options.read_capability_ttl);
      copy->set_read_capability(SignCapability(
          capability,
          DeriveMountKey(deps.index->cluster().cluster_key(), uid)));
    }
  }
  if (image->copies_size() > 1) {
    std::stable_sort(image->mutable_copies()->pointer_begin(),
                     image->mutable_copies()->pointer_end(),
                     [](const v1::Copy* a, const v1::Copy* b) {
                       return CopyRank(*a) < CopyRank(*b);
                     });
  }
  image->set_readable_copies(state.readable_copies);
  image->set_health(state.health);
  image->set_at_risk(state.at_risk);
  image->set_health_detail(std::move(state.detail));
  *image->mutable_create_time() = ToTimestamp(row.create_time_us());
  image->set_location_key(ToHex(row.location_key()));
  image->set_upload(UploadName(Uuid::FromBytesOrNone(row.upload_id())));
  if (!brief) {
    *image->mutable_placement() = ToApi(row.decision());
  }
}

v1::ImageConflict ToApiConflict(const storage::v1::ConflictRow& row,
                                const MountRegistry& registry) {
  v1::ImageConflict out;
  out.set_generation(
      Generation::FromProto(row.image().generation()).ToString());
  for (const storage::v1::CopyRow& copy : row.image().copies()) {
    const Uuid uid = Uuid::FromBytesOrNone(copy.mount_uid());
    const std::optional<MountInfo> info = registry.Find(uid);
    out.set_mount(
        MountName(info.has_value() ? info->row.mount_name() : uid.ToString()));
  }
  out.set_size_bytes(row.image().size_bytes());
  out.set_crc32c_hex(absl::StrFormat("%08x", row.image().crc32c()));
  *out.mutable_create_time() = ToTimestamp(row.image().create_time_us());
  return out;
}

v1::Mount ToApiMount(const MountInfo& info, const ImageTotals& totals,
                     int64_t pending_removals) {
  v1::Mount mount;
  mount.set_name(MountName(info.row.mount_name()));
  mount.set_uid(Uuid::FromBytesOrNone(info.row.mount_uid()).ToString());
  mount.set_admin_state(static_cast<v1::AdminState>(info.view.admin_state));
  mount.set_health(info.health);
  mount.set_health_detail(info.health_detail);
  if (info.health_time_us != 0) {
    *mount.mutable_health_time() = ToTimestamp(info.health_time_us);
  }
  if (info.health == info.reported_health.health()) {
    mount.set_health_error(info.reported_health.error());
  }
  mount.set_fullness(info.fullness);
  if (info.hello.has_value()) {
    mount.set_priority(info.hello->priority());
    mount.set_path(info.hello->path());
    mount.set_host(info.hello->host());
    mount.set_agent_pid(info.hello->pid());
    mount.set_agent_version(info.hello->agent_version());
    CopyAddresses(info, mount.mutable_addresses());
    mount.set_space_group(info.hello->space_group());
  }
  if (mount.space_group().empty() && info.view.space_group >= 0) {
    mount.set_space_group(absl::StrFormat("shared-%d", info.view.space_group));
  }
  if (info.has_space) {
    mount.set_size_bytes(info.space.size_bytes());
    mount.set_allocated_bytes(info.space.size_bytes() -
                              info.space.free_bytes());
    mount.set_promised_bytes(info.view.promised_bytes);
    mount.set_reserve_bytes(info.space.reserve_bytes());
    mount.set_available_bytes(std::max<int64_t>(0, info.view.available_bytes));
    mount.set_available_inodes(
        info.space.size_inodes() > 0 ? info.space.available_inodes() : -1);
    if (info.space.size_bytes() > 0) {
      mount.set_used_percent(100.0 * static_cast<double>(info.view.used_bytes) /
                             static_cast<double>(info.space.size_bytes()));
    }
  }
  mount.set_image_count(totals.count);
  mount.set_image_bytes(totals.bytes);
  *mount.mutable_create_time() = ToTimestamp(info.row.create_time_us());
  if (info.heartbeat_time_us != 0) {
    *mount.mutable_heartbeat_time() = ToTimestamp(info.heartbeat_time_us);
  }
  if (info.row.maintenance_until_us() != 0) {
    *mount.mutable_maintenance_until_time() =
        ToTimestamp(info.row.maintenance_until_us());
  }
  mount.set_pending_removal_count(pending_removals);
  mount.set_trusted(info.trusted);
  mount.set_admin_reason(info.row.admin_reason());
  mount.set_unconfirmed(info.row.unconfirmed());
  if (info.held_garbage.has_value()) {
    mount.set_held_upload_count(info.held_garbage->uploads());
    mount.set_held_upload_bytes(info.held_garbage->bytes());
  }
  mount.set_stuck_call_count(info.stuck_calls);
  return mount;
}

}  // namespace predella::server
