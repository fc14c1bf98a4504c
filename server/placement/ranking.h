// The order among mounts that can take an image. Inside of placement.
#ifndef PREDELLA_SERVER_PLACEMENT_RANKING_H_
#define PREDELLA_SERVER_PLACEMENT_RANKING_H_

#include <cstdint>
#include <string>

#include "server/placement/placement_policy.h"

namespace predella::server {

// A mount that no hard constraint refuses.
struct Candidate {
  int index = 0;  // into the mounts
  // ONLINE before SLOW, below near_full before past it.
  int rank_class = 0;
  int priority = 0;  // negated where the highest is preferred
  // Available bytes, or the draw of a weighted spread; more is better.
  double score = 0;
  int64_t image_bytes = 0;
};

int RankClass(bool slow, bool near_full);
Candidate MakeCandidate(const MountView& view, int index,
                        const PlacementOptions& options);
// Whether `a` is to be preferred. Never both ways; names decide in the end.
bool Before(const Candidate& a, const MountView& view_a, const Candidate& b,
            const MountView& view_b);
// The rule by which the winner came before the runner-up, as a sentence.
std::string RuleBetween(const Candidate& winner, const MountView& winner_view,
                        const Candidate& runner_up,
                        const MountView& runner_up_view,
                        const PlacementOptions& options);
std::string OnlyOneRule(const MountView& winner);

}  // namespace predella::server

#endif  // PREDELLA_SERVER_PLACEMENT_RANKING_H_
