#include "server/placement/placement_policy.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/strip.h"

#include "server/placement/placement_table.h"

namespace predella::server {
namespace {

bool IsPast(const MountView& view, double percent) {
  return view.size_bytes > 0 &&
         100.0 * static_cast<double>(view.used_bytes) >=
             percent * static_cast<double>(view.size_bytes);
}

}  // namespace

double UsedPercent(const MountView& view) {
  return view.size_bytes <= 0
             ? 0
             : std::clamp(100.0 * static_cast<double>(view.used_bytes) /
                              static_cast<double>(view.size_bytes),
                          0.0, 100.0);
}

bool IsNearFull(const MountView& view, const PlacementOptions& options) {
  return IsPast(view,
                options.near_full_percent -
                    (view.was_near_full ? options.hysteresis_percent : 0));
}

bool IsFull(const MountView& view, const PlacementOptions& options) {
  return IsPast(view, options.full_percent -
                          (view.was_full ? options.hysteresis_percent : 0));
}

int64_t NeededBytes(const PlacementRequest& request,
                    const PlacementOptions& options) {
  return request.size_bytes.value_or(options.unknown_size_bytes);
}

const char* RefusalByState(const MountView& view) {
  if (view.admin_state != storage::v1::ADMIN_STATE_ACTIVE) {
    return "admin_state";
  }
  if (view.health != v1::HEALTH_ONLINE && view.health != v1::HEALTH_SLOW) {
    return "health";
  }
  if (!view.ready) {
    return "not_ready";
  }
  return nullptr;
}

const char* ExclusionOf(const PlacementRequest& request,
                        const MountView& view) {
  const char* reason = nullptr;
  for (const PlacementRequest::Excluded& excluded : request.excluded) {
    if (excluded.mount_uid == view.uid) {
      reason = excluded.reason;
      break;
    }
  }
  const bool leftover =
      reason != nullptr && std::strcmp(reason, "leftover") == 0;
  if (reason != nullptr && !leftover) {
    return reason;
  }
  if (!request.used_failure_domains.empty() &&
      std::find(request.used_failure_domains.begin(),
                request.used_failure_domains.end(),
                view.failure_domain) != request.used_failure_domains.end()) {
    return "failure_domain";
  }
  return reason;
}

const char* Refusal(const PlacementRequest& request, const MountView& view,
                    const PlacementOptions& options) {
  if (const char* const reason = RefusalByState(view); reason != nullptr) {
    return reason;
  }
  const char* const excluded = ExclusionOf(request, view);
  const bool leftover =
      excluded != nullptr && std::strcmp(excluded, "leftover") == 0;
  if (excluded != nullptr && !leftover) {
    return excluded;
  }
  if (IsFull(view, options)) {
    return "full";
  }
  if (view.available_bytes < NeededBytes(request, options)) {
    return "space";
  }
  if (view.available_inodes < options.needed_inodes) {
    return "inodes";
  }
  // Last: a leftover is soon gone, so it must be known when nothing else is in
  // the way.
  return leftover ? excluded : nullptr;
}

PlacementResult Place(const PlacementRequest& request,
                      absl::Span<const MountView> mounts,
                      const PlacementOptions& options, IdGenerator* random,
                      int want) {
  std::vector<PlacementRow> rows;
  std::vector<PlacementSpace> spaces;
  rows.reserve(mounts.size());
  spaces.reserve(mounts.size());
  for (const MountView& view : mounts) {
    rows.push_back(MakeRow(view, static_cast<int>(spaces.size()), options));
    spaces.push_back({view.available_bytes, view.available_inodes,
                      view.size_bytes - view.used_bytes});
  }
  const Choice choice =
      Choose(request, mounts, rows, spaces, options, random,
             static_cast<size_t>(std::max(want, kMaxVerdicts)));
  return Describe(request, choice, mounts, options, want);
}

std::string HealthName(v1::Health health) {
  return std::string(absl::StripPrefix(v1::Health_Name(health), "HEALTH_"));
}

}  // namespace predella::server
