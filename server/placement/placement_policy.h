// Which mount takes an image: a pure function of a request, what is known of
// the mounts, and a source of randomness.
#ifndef PREDELLA_SERVER_PLACEMENT_PLACEMENT_POLICY_H_
#define PREDELLA_SERVER_PLACEMENT_PLACEMENT_POLICY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "common/ids.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/image_service.pb.h"

namespace predella::server {

// One mount as placement sees it; kept by MountRegistry, cheap to look at.
struct MountView {
  Uuid uid;
  std::string name;
  storage::v1::AdminState admin_state = storage::v1::ADMIN_STATE_ACTIVE;
  v1::Health health = v1::HEALTH_UNKNOWN;
  // Its session is attached and a space snapshot has come: without one the
  // mount is not_ready, never "full".
  bool ready = false;
  int priority = 0;
  // Group of mounts that share one space; their numbers below are the group's
  // (min of available, max of reserve, sum of promises).
  int space_group = -1;
  int64_t size_bytes = 0;
  // f_bavail - reserve - promises of the agent's ledger - later promises of
  // the coordinator. May be negative.
  int64_t available_bytes = 0;
  int64_t used_bytes = 0;  // blocks - bavail + promised
  int64_t reserve_bytes = 0;
  int64_t promised_bytes = 0;
  int64_t available_inodes = 0;
  // Of ours: by the index, and promised to uploads. Decides on ties, where
  // mounts share one space.
  int64_t image_bytes = 0;
  // Thresholds it has passed: it counts as beyond them until it is
  // PlacementOptions::hysteresis_percent below.
  bool was_near_full = false;
  bool was_full = false;
  std::string failure_domain;
};

struct PlacementOptions {
  enum class Spread { kMostAvailable, kWeighted };
  Spread spread = Spread::kMostAvailable;
  bool highest_priority_first = false;
  double near_full_percent = 90;
  double full_percent = 98;
  double hysteresis_percent = 2;
  // An upload of unknown size needs this much to begin; the steps its promise
  // grows by are the agent's (min(1 GiB, 1 %), or what is left).
  int64_t unknown_size_bytes = int64_t{4} << 20;
  int64_t needed_inodes = 3;  // image, record, inflight state
};

struct PlacementRequest {
  std::optional<int64_t> size_bytes;  // absent: unknown
  // Mounts that hold a copy, a leftover of another generation, or were left
  // by this upload before; reason as shown.
  struct Excluded {
    Uuid mount_uid;
    const char* reason;  // "holds_copy", "leftover", "filled_up", "refused"
  };
  std::vector<Excluded> excluded;
  // Failure domains that already hold a copy.
  std::vector<std::string> used_failure_domains;
};

// Names of the hard constraints, as verdicts show them: "admin_state",
// "health", "not_ready", "space", "inodes", "full", "holds_copy", "leftover",
// "filled_up", "refused", "failure_domain".
struct PlacementResult {
  // Indexes into the mounts, best first; empty: nobody can take it.
  std::vector<int> ranked;
  // Counts by constraint, winner, runner-up, rule, and at most eight verdicts.
  storage::v1::Decision decision;
  // Whether some mount was refused only for "leftover".
  bool only_leftovers = false;
};

// Short decision only: at most `want` mounts are ranked.
PlacementResult Place(const PlacementRequest& request,
                      absl::Span<const MountView> mounts,
                      const PlacementOptions& options, IdGenerator* random,
                      int want = 4);

// The dry run: the verdict on every mount, with numbers in sentences.
v1::PlacementDecision ExplainPlacement(const PlacementRequest& request,
                                       absl::Span<const MountView> mounts,
                                       const PlacementOptions& options);

// Part of the mount in use, promises counted, 0 to 100.
double UsedPercent(const MountView& view);
bool IsNearFull(const MountView& view, const PlacementOptions& options);
bool IsFull(const MountView& view, const PlacementOptions& options);
// Bytes an upload needs to begin.
int64_t NeededBytes(const PlacementRequest& request,
                    const PlacementOptions& options);
// Name of the hard constraint that refuses the mount; null: none does.
const char* Refusal(const PlacementRequest& request, const MountView& view,
                    const PlacementOptions& options);
// The part of Refusal() that follows from the mount's state alone.
const char* RefusalByState(const MountView& view);
// The part that the request names: excluded mounts and failure domains. Only
// "leftover" lets the other constraints speak first.
const char* ExclusionOf(const PlacementRequest& request, const MountView& view);
// "ONLINE", "READ_ONLY", ...
std::string HealthName(v1::Health health);

// A stored decision as the API shows it.
v1::PlacementDecision ToApi(const storage::v1::Decision& decision);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_PLACEMENT_PLACEMENT_POLICY_H_
