#include "server/placement/ranking.h"

#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/units.h"

namespace predella::server {
namespace {

constexpr int kSlowClass = 2;
constexpr int kNearFullClass = 1;

}  // namespace

int RankClass(bool slow, bool near_full) {
  return (slow ? kSlowClass : 0) + (near_full ? kNearFullClass : 0);
}

Candidate MakeCandidate(const MountView& view, int index,
                        const PlacementOptions& options) {
  Candidate candidate;
  candidate.index = index;
  candidate.rank_class =
      RankClass(view.health == v1::HEALTH_SLOW, IsNearFull(view, options));
  candidate.priority =
      options.highest_priority_first ? -view.priority : view.priority;
  candidate.score = static_cast<double>(view.available_bytes);
  candidate.image_bytes = view.image_bytes;
  return candidate;
}

bool Before(const Candidate& a, const MountView& view_a, const Candidate& b,
            const MountView& view_b) {
  if (a.rank_class != b.rank_class) {
    return a.rank_class < b.rank_class;
  }
  if (a.priority != b.priority) {
    return a.priority < b.priority;
  }
  if (a.score != b.score) {
    return a.score > b.score;
  }
  if (a.image_bytes != b.image_bytes) {
    return a.image_bytes < b.image_bytes;
  }
  return std::tie(view_a.name, view_a.uid) < std::tie(view_b.name, view_b.uid);
}

std::string RuleBetween(const Candidate& winner, const MountView& winner_view,
                        const Candidate& runner_up,
                        const MountView& runner_up_view,
                        const PlacementOptions& options) {
  if (winner.rank_class / kSlowClass != runner_up.rank_class / kSlowClass) {
    return absl::StrCat(runner_up_view.name,
                        " is SLOW, which is taken only when nothing else is "
                        "left");
  }
  if (winner.rank_class != runner_up.rank_class) {
    return absl::StrFormat(
        "%s is %.1f %% full, past the near-full threshold of %.0f %%, and "
        "comes after all others",
        runner_up_view.name, UsedPercent(runner_up_view),
        options.near_full_percent);
  }
  if (winner.priority != runner_up.priority) {
    return absl::StrCat(
        options.highest_priority_first ? "the higher" : "the lower",
        " priority number is preferred: ", winner_view.priority, " before ",
        runner_up_view.priority);
  }
  if (options.spread == PlacementOptions::Spread::kWeighted) {
    return absl::StrCat(
        "same priority; drawn at random, weighted by available space (",
        FormatSize(winner_view.available_bytes), " against ",
        FormatSize(runner_up_view.available_bytes), " of the next)");
  }
  if (winner.score != runner_up.score) {
    return absl::StrCat("same priority; more space is available: ",
                        FormatSize(winner_view.available_bytes), " against ",
                        FormatSize(runner_up_view.available_bytes));
  }
  if (winner.image_bytes != runner_up.image_bytes) {
    return absl::StrCat(
        "same priority and available space; fewer bytes of images are on it: ",
        FormatSize(winner.image_bytes), " against ",
        FormatSize(runner_up.image_bytes));
  }
  return "equal in priority, available space and bytes of images; the name "
         "decides";
}

std::string OnlyOneRule(const MountView& winner) {
  return absl::StrCat(winner.name, " is the only mount that can take it");
}

}  // namespace predella::server
