#include "server/placement/placement_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

namespace predella::server {
namespace {

// splitmix64: one draw from the real source seeds a whole decision.
uint64_t Mix(uint64_t* state) {
  *state += 0x9e3779b97f4a7c15;
  uint64_t z = *state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

double Limit(const MountView& view, double percent, bool was_past,
             const PlacementOptions& options) {
  return view.size_bytes <= 0
             ? std::numeric_limits<double>::infinity()
             : (percent - (was_past ? options.hysteresis_percent : 0)) *
                   static_cast<double>(view.size_bytes);
}

// One run over the table.
class Chooser {
 public:
  Chooser(const PlacementRequest& request, absl::Span<const MountView> views,
          const PlacementOptions& options, size_t most, Choice* choice)
      : request_(request),
        views_(views),
        needed_bytes_(NeededBytes(request, options)),
        needed_inodes_(options.needed_inodes),
        most_(most),
        anywhere_(request.excluded.empty() &&
                  request.used_failure_domains.empty()),
        choice_(choice) {}

  // As Refusal() of placement_policy.h, in the same order.
  const char* Refuses(size_t i, const PlacementRow& row,
                      const PlacementSpace& space, double used) const {
    if (row.refusal != nullptr) {
      return row.refusal;
    }
    const char* const excluded =
        anywhere_ ? nullptr : ExclusionOf(request_, views_[i]);
    const bool leftover =
        excluded != nullptr && std::strcmp(excluded, "leftover") == 0;
    if (excluded != nullptr && !leftover) {
      return excluded;
    }
    if (used >= row.full_limit) {
      return "full";
    }
    if (space.available_bytes < needed_bytes_) {
      return "space";
    }
    if (space.available_inodes < needed_inodes_) {
      return "inodes";
    }
    return leftover ? excluded : nullptr;
  }

  void Refuse(size_t i, const char* reason) {
    choice_->counts.Add(reason);
    if (choice_->refused.size() < static_cast<size_t>(kMaxVerdicts)) {
      choice_->refused.emplace_back(static_cast<int>(i), reason);
    }
  }

  // Whether its class and priority are behind those of all that are kept.
  bool Behind(const Candidate& candidate) const {
    if (choice_->best.size() < most_) {
      return false;
    }
    const Candidate& last = choice_->best.back();
    return candidate.rank_class != last.rank_class
               ? candidate.rank_class > last.rank_class
               : candidate.priority > last.priority;
  }

  // Weighted sampling without replacement (Efraimidis and Spirakis): the
  // largest of log(u) / weight wins with a chance in proportion to its weight.
  // Absent: it is behind all that are kept, as log(u) <= u - 1 tells without
  // a logarithm; the margin is wider than what rounding can do.
  std::optional<double> WeightedScore(double u, int64_t weight,
                                      const Candidate& candidate) const {
    const double w = static_cast<double>(std::max<int64_t>(weight, 1));
    if (choice_->best.size() == most_) {
      const Candidate& last = choice_->best.back();
      if (candidate.rank_class == last.rank_class &&
          candidate.priority == last.priority &&
          (u - 1) * (1 - 1e-9) < last.score * w) {
        return std::nullopt;
      }
    }
    return std::log(u) / w;
  }

  void Offer(const Candidate& candidate) {
    auto& best = choice_->best;
    if (best.size() == most_) {
      const Candidate& last = best.back();
      if (candidate.rank_class == last.rank_class &&
          candidate.priority == last.priority && candidate.score < last.score) {
        return;
      }
      if (!Less(candidate, last)) {
        return;
      }
      best.pop_back();
    }
    const auto at = std::upper_bound(
        best.begin(), best.end(), candidate,
        [this](const Candidate& a, const Candidate& b) { return Less(a, b); });
    best.insert(at, candidate);
  }

 private:
  bool Less(const Candidate& a, const Candidate& b) const {
    return Before(a, views_[static_cast<size_t>(a.index)], b,
                  views_[static_cast<size_t>(b.index)]);
  }

  const PlacementRequest& request_;
  const absl::Span<const MountView> views_;
  const int64_t needed_bytes_;
  const int64_t needed_inodes_;
  const size_t most_;
  const bool anywhere_;  // no mount is excluded by name or domain
  Choice* const choice_;
};

void AddVerdict(const MountView& view, const char* reason, int64_t needed,
                storage::v1::Decision* decision) {
  storage::v1::Verdict* const verdict = decision->add_verdicts();
  verdict->set_mount_name(view.name);
  verdict->set_reason(reason);
  verdict->set_available_bytes(view.available_bytes);
  verdict->set_needed_bytes(needed);
  verdict->set_priority(view.priority);
}

}  // namespace

void ReasonCounts::Add(const char* reason) {
  for (int i = 0; i < used_; ++i) {
    Entry& entry = entries_[static_cast<size_t>(i)];
    if (entry.reason == reason || std::strcmp(entry.reason, reason) == 0) {
      ++entry.count;
      return;
    }
  }
  if (used_ < kMaxReasons) {
    entries_[static_cast<size_t>(used_++)] = {reason, 1};
  }
}

bool ReasonCounts::Has(const char* reason) const {
  return std::any_of(entries_.begin(), entries_.begin() + used_,
                     [&](const Entry& entry) {
                       return std::strcmp(entry.reason, reason) == 0;
                     });
}

void ReasonCounts::Fill(storage::v1::Decision* decision) const {
  for (int i = 0; i < used_; ++i) {
    const Entry& entry = entries_[static_cast<size_t>(i)];
    (*decision->mutable_refused_by_reason())[entry.reason] = entry.count;
  }
}

PlacementRow MakeRow(const MountView& view, int space,
                     const PlacementOptions& options) {
  PlacementRow row;
  row.refusal = RefusalByState(view);
  row.space = space;
  row.priority =
      options.highest_priority_first ? -view.priority : view.priority;
  row.near_full_limit =
      Limit(view, options.near_full_percent, view.was_near_full, options);
  row.full_limit = Limit(view, options.full_percent, view.was_full, options);
  row.size_bytes = view.size_bytes;
  row.image_bytes = view.image_bytes;
  row.slow = view.health == v1::HEALTH_SLOW;
  return row;
}

Choice Choose(const PlacementRequest& request,
              absl::Span<const MountView> views,
              absl::Span<const PlacementRow> rows,
              absl::Span<const PlacementSpace> spaces,
              const PlacementOptions& options, IdGenerator* random,
              size_t most) {
  Choice choice;
  const bool weighted = options.spread == PlacementOptions::Spread::kWeighted;
  uint64_t draw = weighted ? random->NextUint64() : 0;
  Chooser chooser(request, views, options, most, &choice);
  for (size_t i = 0; i < rows.size(); ++i) {
    const PlacementRow& row = rows[i];
    const PlacementSpace& space = spaces[static_cast<size_t>(row.space)];
    const double used =
        100.0 * static_cast<double>(row.size_bytes - space.unused_bytes);
    if (const char* const reason = chooser.Refuses(i, row, space, used);
        reason != nullptr) {
      chooser.Refuse(i, reason);
      continue;
    }
    Candidate candidate;
    candidate.index = static_cast<int>(i);
    candidate.rank_class = RankClass(row.slow, used >= row.near_full_limit);
    candidate.priority = row.priority;
    candidate.image_bytes = row.image_bytes;
    // Drawn for every one: what comes after does not depend on what is behind.
    const double u =
        weighted ? (static_cast<double>(Mix(&draw) >> 11) + 1) * 0x1p-53 : 0;
    if (chooser.Behind(candidate)) {
      continue;
    }
    if (weighted) {
      const auto score =
          chooser.WeightedScore(u, space.available_bytes, candidate);
      if (!score.has_value()) {
        continue;
      }
      candidate.score = *score;
    } else {
      candidate.score = static_cast<double>(space.available_bytes);
    }
    chooser.Offer(candidate);
  }
  choice.only_leftovers = choice.counts.Has("leftover");
  return choice;
}

PlacementResult Describe(const PlacementRequest& request, const Choice& choice,
                         absl::Span<const MountView> views,
                         const PlacementOptions& options, int want) {
  PlacementResult result;
  result.only_leftovers = choice.only_leftovers;
  const auto& list = choice.best;
  storage::v1::Decision& decision = result.decision;
  decision.set_considered(static_cast<int32_t>(views.size()));
  choice.counts.Fill(&decision);
  decision.mutable_verdicts()->Reserve(kMaxVerdicts);
  const int64_t needed = NeededBytes(request, options);
  for (size_t i = 0; i < list.size(); ++i) {
    if (static_cast<int>(i) < want) {
      result.ranked.push_back(list[i].index);
    }
    if (static_cast<int>(i) < kMaxVerdicts) {
      AddVerdict(views[static_cast<size_t>(list[i].index)],
                 i == 0 ? "chosen" : "ranked", needed, &decision);
    }
  }
  for (const auto& [index, reason] : choice.refused) {
    if (decision.verdicts_size() == kMaxVerdicts) {
      break;
    }
    AddVerdict(views[static_cast<size_t>(index)], reason, needed, &decision);
  }
  if (list.empty()) {
    return result;
  }
  const MountView& winner = views[static_cast<size_t>(list[0].index)];
  decision.set_winner(winner.name);
  if (list.size() == 1) {
    decision.set_rule(OnlyOneRule(winner));
    return result;
  }
  const MountView& runner_up = views[static_cast<size_t>(list[1].index)];
  decision.set_runner_up(runner_up.name);
  decision.set_rule(RuleBetween(list[0], winner, list[1], runner_up, options));
  return result;
}

}  // namespace predella::server
