#include "server/placement/placement_policy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "absl/strings/strip.h"

#include "server/placement/ranking.h"

namespace predella::server {
namespace {

// Verdicts that are kept with an image.
constexpr int kMaxVerdicts = 8;
// At most as many names of constraints as placement_policy.h lists.
constexpr int kMaxReasons = 12;

// Counts by constraint, without a map for each decision: names are literals,
// few, and mostly the same again.
class ReasonCounts {
 public:
  void Add(const char* reason) {
    for (int i = 0; i < used_; ++i) {
      if (entries_[i].reason == reason ||
          std::strcmp(entries_[i].reason, reason) == 0) {
        ++entries_[i].count;
        return;
      }
    }
    if (used_ < kMaxReasons) {
      entries_[used_++] = {reason, 1};
    }
  }
  void Fill(storage::v1::Decision* decision) const {
    for (int i = 0; i < used_; ++i) {
      (*decision->mutable_refused_by_reason())[entries_[i].reason] =
          entries_[i].count;
    }
  }

 private:
  struct Entry {
    const char* reason = nullptr;
    int count = 0;
  };
  std::array<Entry, kMaxReasons> entries_{};
  int used_ = 0;
};

// The best few, in order.
class Best {
 public:
  Best(absl::Span<const MountView> mounts, int most)
      : mounts_(mounts), most_(static_cast<size_t>(most)) {
    list_.reserve(most_ + 1);
  }
  void Offer(const Candidate& candidate) {
    if (list_.size() == most_ && !Less(candidate, list_.back())) {
      return;
    }
    const auto at = std::upper_bound(
        list_.begin(), list_.end(), candidate,
        [this](const Candidate& a, const Candidate& b) { return Less(a, b); });
    list_.insert(at, candidate);
    if (list_.size() > most_) {
      list_.pop_back();
    }
  }
  const std::vector<Candidate>& list() const { return list_; }

 private:
  bool Less(const Candidate& a, const Candidate& b) const {
    return Before(a, mounts_[static_cast<size_t>(a.index)], b,
                  mounts_[static_cast<size_t>(b.index)]);
  }
  absl::Span<const MountView> mounts_;
  const size_t most_;
  std::vector<Candidate> list_;
};

// splitmix64: one draw from the real source seeds a whole decision.
uint64_t Mix(uint64_t* state) {
  *state += 0x9e3779b97f4a7c15;
  uint64_t z = *state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Weighted sampling without replacement (Efraimidis and Spirakis): the largest
// of log(u) / weight wins with a chance in proportion to its weight.
double WeightedScore(uint64_t* state, int64_t weight) {
  const double u = (static_cast<double>(Mix(state) >> 11) + 1) * 0x1p-53;
  return std::log(u) / static_cast<double>(std::max<int64_t>(weight, 1));
}

void AddVerdict(const MountView& view, const char* reason, int64_t needed,
                storage::v1::Decision* decision) {
  storage::v1::Verdict* const verdict = decision->add_verdicts();
  verdict->set_mount_name(view.name);
  verdict->set_reason(reason);
  verdict->set_available_bytes(view.available_bytes);
  verdict->set_needed_bytes(needed);
  verdict->set_priority(view.priority);
}

// Without a division: asked twice of every mount in every decision.
bool IsPast(const MountView& view, double percent) {
  return view.size_bytes > 0 &&
         100.0 * static_cast<double>(view.used_bytes) >=
             percent * static_cast<double>(view.size_bytes);
}

const char* EarlyExclusion(const PlacementRequest& request, const Uuid& uid) {
  for (const PlacementRequest::Excluded& excluded : request.excluded) {
    if (excluded.mount_uid == uid) {
      return excluded.reason;
    }
  }
  return nullptr;
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

const char* Refusal(const PlacementRequest& request, const MountView& view,
                    const PlacementOptions& options) {
  if (view.admin_state != storage::v1::ADMIN_STATE_ACTIVE) {
    return "admin_state";
  }
  if (view.health != v1::HEALTH_ONLINE && view.health != v1::HEALTH_SLOW) {
    return "health";
  }
  if (!view.ready) {
    return "not_ready";
  }
  const char* const excluded =
      request.excluded.empty() ? nullptr : EarlyExclusion(request, view.uid);
  const bool leftover =
      excluded != nullptr && std::strcmp(excluded, "leftover") == 0;
  if (excluded != nullptr && !leftover) {
    return excluded;
  }
  if (!request.used_failure_domains.empty() &&
      std::find(request.used_failure_domains.begin(),
                request.used_failure_domains.end(),
                view.failure_domain) != request.used_failure_domains.end()) {
    return "failure_domain";
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
  PlacementResult result;
  const bool weighted = options.spread == PlacementOptions::Spread::kWeighted;
  uint64_t draw = weighted ? random->NextUint64() : 0;
  ReasonCounts counts;
  Best best(mounts, std::max(want, kMaxVerdicts));
  std::array<std::pair<int, const char*>, kMaxVerdicts> refused{};
  int refused_kept = 0;
  for (size_t i = 0; i < mounts.size(); ++i) {
    const MountView& view = mounts[i];
    const int index = static_cast<int>(i);
    if (const char* const reason = Refusal(request, view, options);
        reason != nullptr) {
      counts.Add(reason);
      result.only_leftovers =
          result.only_leftovers || std::strcmp(reason, "leftover") == 0;
      if (refused_kept < kMaxVerdicts) {
        refused[static_cast<size_t>(refused_kept++)] = {index, reason};
      }
      continue;
    }
    Candidate candidate = MakeCandidate(view, index, options);
    if (weighted) {
      candidate.score = WeightedScore(&draw, view.available_bytes);
    }
    best.Offer(candidate);
  }

  const std::vector<Candidate>& list = best.list();
  storage::v1::Decision& decision = result.decision;
  decision.set_considered(static_cast<int32_t>(mounts.size()));
  counts.Fill(&decision);
  const int64_t needed = NeededBytes(request, options);
  for (size_t i = 0; i < list.size(); ++i) {
    if (static_cast<int>(i) < want) {
      result.ranked.push_back(list[i].index);
    }
    if (static_cast<int>(i) < kMaxVerdicts) {
      AddVerdict(mounts[static_cast<size_t>(list[i].index)],
                 i == 0 ? "chosen" : "ranked", needed, &decision);
    }
  }
  for (int i = 0; i < refused_kept && decision.verdicts_size() < kMaxVerdicts;
       ++i) {
    const auto& [index, reason] = refused[static_cast<size_t>(i)];
    AddVerdict(mounts[static_cast<size_t>(index)], reason, needed, &decision);
  }
  if (list.empty()) {
    return result;
  }
  const MountView& winner = mounts[static_cast<size_t>(list[0].index)];
  decision.set_winner(winner.name);
  if (list.size() == 1) {
    decision.set_rule(OnlyOneRule(winner));
    return result;
  }
  const MountView& runner_up = mounts[static_cast<size_t>(list[1].index)];
  decision.set_runner_up(runner_up.name);
  decision.set_rule(RuleBetween(list[0], winner, list[1], runner_up, options));
  return result;
}

std::string HealthName(v1::Health health) {
  return std::string(absl::StripPrefix(v1::Health_Name(health), "HEALTH_"));
}

}  // namespace predella::server
