// The mounts as one decision goes through them: a cache line each, with all
// that needs no request worked out before. Inside of placement.
#ifndef PREDELLA_SERVER_PLACEMENT_PLACEMENT_TABLE_H_
#define PREDELLA_SERVER_PLACEMENT_PLACEMENT_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"

#include "common/ids.h"
#include "server/placement/placement_policy.h"
#include "server/placement/ranking.h"

namespace predella::server {

// Verdicts that are kept with an image.
inline constexpr int kMaxVerdicts = 8;

// What changes with the mount alone.
struct PlacementRow {
  // Name of the constraint that refuses whatever is asked for; null: none.
  const char* refusal = nullptr;
  int space = 0;     // into the spaces
  int priority = 0;  // negated where the highest is preferred
  // What 100 times the used bytes must stay below; infinite where the size is
  // not known.
  double near_full_limit = 0;
  double full_limit = 0;
  int64_t size_bytes = 0;
  int64_t image_bytes = 0;
  bool slow = false;
};

// What changes with every promise: once for all mounts that share it.
struct PlacementSpace {
  int64_t available_bytes = 0;
  int64_t available_inodes = 0;
  // Of the whole size, not used: available and reserve together.
  int64_t unused_bytes = 0;
};

// Of a view all but its space.
PlacementRow MakeRow(const MountView& view, int space,
                     const PlacementOptions& options);

// How often each constraint refused, without a map for each decision: names
// are literals, few, and mostly the same again.
class ReasonCounts {
 public:
  void Add(const char* reason);
  bool Has(const char* reason) const;
  void Fill(storage::v1::Decision* decision) const;

 private:
  struct Entry {
    const char* reason = nullptr;
    int count = 0;
  };
  // At most as many names of constraints as placement_policy.h lists.
  static constexpr int kMaxReasons = 12;
  std::array<Entry, kMaxReasons> entries_{};
  int used_ = 0;
};

// A decision before it is put into words.
struct Choice {
  absl::InlinedVector<Candidate, kMaxVerdicts + 1> best;  // in order
  // The first few that were refused, and by what.
  absl::InlinedVector<std::pair<int, const char*>, kMaxVerdicts> refused;
  ReasonCounts counts;
  // Whether some mount was refused only for "leftover".
  bool only_leftovers = false;
};

// The best `most` of the mounts. Of `views` it reads nothing but identities:
// uid, name and failure domain. Row i belongs to view i.
Choice Choose(const PlacementRequest& request,
              absl::Span<const MountView> views,
              absl::Span<const PlacementRow> rows,
              absl::Span<const PlacementSpace> spaces,
              const PlacementOptions& options, IdGenerator* random,
              size_t most);

// The choice in words; reads the views of `best` and `refused` alone, whose
// numbers must be up to date.
PlacementResult Describe(const PlacementRequest& request, const Choice& choice,
                         absl::Span<const MountView> views,
                         const PlacementOptions& options, int want);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_PLACEMENT_PLACEMENT_TABLE_H_
