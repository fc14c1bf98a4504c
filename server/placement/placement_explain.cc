// Decisions as sentences.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"

#include "common/resource_name.h"
#include "common/units.h"
#include "predella/storage/v1/storage.pb.h"
#include "predella/v1/image_service.pb.h"
#include "server/placement/placement_policy.h"
#include "server/placement/ranking.h"

namespace predella::server {
namespace {

std::string AcceptedSentence(const MountView& view, int64_t needed) {
  return absl::StrFormat(
      "has %s available, %s are needed; priority %d, %.1f %% of %s in use%s",
      FormatSize(view.available_bytes), FormatSize(needed), view.priority,
      UsedPercent(view), FormatSize(view.size_bytes),
      view.health == v1::HEALTH_SLOW ? "; SLOW" : "");
}

// What a view shows of a refusal.
std::string RefusedSentence(const MountView& view, const std::string& reason,
                            int64_t needed, const PlacementOptions& options) {
  if (reason == "admin_state") {
    return absl::StrCat(
        "is ",
        absl::StripPrefix(storage::v1::AdminState_Name(view.admin_state),
                          "ADMIN_STATE_"),
        ": an operator keeps new images away from it");
  }
  if (reason == "health") {
    return absl::StrCat("is ", HealthName(view.health),
                        "; only ONLINE mounts take new images");
  }
  if (reason == "not_ready") {
    return "is not ready: its agent has no session with this coordinator, or "
           "has not yet said how much space it has, or the mount was away when "
           "the index was rebuilt and waits for predella mount confirm";
  }
  if (reason == "full") {
    return absl::StrFormat(
        "is full: %.1f %% of %s are in use or promised; no image is begun from "
        "%.0f %% on until less than %.0f %% are",
        UsedPercent(view), FormatSize(view.size_bytes), options.full_percent,
        options.full_percent - options.hysteresis_percent);
  }
  if (reason == "space") {
    return absl::StrCat(
        "has ", FormatSize(std::max<int64_t>(view.available_bytes, 0)),
        " available, ", FormatSize(needed), " are needed (",
        FormatSize(view.reserve_bytes), " are kept in reserve, ",
        FormatSize(view.promised_bytes), " are promised)");
  }
  if (reason == "inodes") {
    return absl::StrCat("has ", std::max<int64_t>(view.available_inodes, 0),
                        " inodes left, an image needs ", options.needed_inodes);
  }
  if (reason == "failure_domain") {
    return absl::StrCat("is in the failure domain \"", view.failure_domain,
                        "\", which holds a copy already");
  }
  return "";
}

// What needs no view: all that a stored verdict has.
std::string PlainSentence(const std::string& reason, int64_t available,
                          int64_t needed) {
  if (reason == "chosen" || reason == "ranked") {
    return absl::StrCat("had ", FormatSize(available), " available, ",
                        FormatSize(needed), " were needed");
  }
  if (reason == "admin_state") {
    return "an operator kept new images away from it";
  }
  if (reason == "health") {
    return "was not ONLINE";
  }
  if (reason == "not_ready") {
    return "was not ready: no session, or no word of its space yet";
  }
  if (reason == "space" || reason == "full") {
    return absl::StrCat(reason == "full" ? "was past its full threshold: "
                                         : "had too little space: ",
                        FormatSize(available), " available, ",
                        FormatSize(needed), " were needed");
  }
  if (reason == "inodes") {
    return "had too few inodes left";
  }
  if (reason == "holds_copy") {
    return "holds a copy already";
  }
  if (reason == "leftover") {
    return "still holds a file of an earlier upload of this image, which is "
           "being removed";
  }
  if (reason == "filled_up") {
    return "had no room for this very upload when it was asked";
  }
  if (reason == "refused") {
    return "did not take this very upload";
  }
  if (reason == "failure_domain") {
    return "was in a failure domain that holds a copy already";
  }
  return reason;
}

v1::MountVerdict MakeVerdict(const MountView& view, const std::string& reason,
                             int64_t needed, const PlacementOptions& options) {
  v1::MountVerdict verdict;
  verdict.set_mount(MountName(view.name));
  verdict.set_verdict(reason);
  verdict.set_priority(view.priority);
  verdict.set_available_bytes(view.available_bytes);
  verdict.set_needed_bytes(needed);
  if (reason == "chosen" || reason == "ranked") {
    verdict.set_detail(AcceptedSentence(view, needed));
    return verdict;
  }
  std::string detail = RefusedSentence(view, reason, needed, options);
  if (detail.empty()) {
    detail = PlainSentence(reason, view.available_bytes, needed);
  }
  verdict.set_detail(std::move(detail));
  return verdict;
}

}  // namespace

v1::PlacementDecision ExplainPlacement(const PlacementRequest& request,
                                       absl::Span<const MountView> mounts,
                                       const PlacementOptions& options) {
  const auto view = [&](int index) -> const MountView& {
    return mounts[static_cast<size_t>(index)];
  };
  std::vector<Candidate> accepted;
  std::vector<std::pair<int, const char*>> refused;
  for (size_t i = 0; i < mounts.size(); ++i) {
    const int index = static_cast<int>(i);
    const char* const reason = Refusal(request, mounts[i], options);
    if (reason == nullptr) {
      accepted.push_back(MakeCandidate(mounts[i], index, options));
    } else {
      refused.emplace_back(index, reason);
    }
  }
  std::sort(accepted.begin(), accepted.end(),
            [&](const Candidate& a, const Candidate& b) {
              return Before(a, view(a.index), b, view(b.index));
            });
  std::sort(refused.begin(), refused.end(), [&](const auto& a, const auto& b) {
    return view(a.first).name < view(b.first).name;
  });

  v1::PlacementDecision decision;
  decision.set_considered(static_cast<int32_t>(mounts.size()));
  const int64_t needed = NeededBytes(request, options);
  for (size_t i = 0; i < accepted.size(); ++i) {
    *decision.add_verdicts() = MakeVerdict(
        view(accepted[i].index), i == 0 ? "chosen" : "ranked", needed, options);
  }
  for (const auto& [index, reason] : refused) {
    *decision.add_verdicts() =
        MakeVerdict(view(index), reason, needed, options);
    ++(*decision.mutable_refused_by_reason())[reason];
  }
  if (accepted.empty()) {
    return decision;
  }
  const MountView& winner = view(accepted[0].index);
  decision.set_winner(MountName(winner.name));
  if (accepted.size() == 1) {
    decision.set_rule(OnlyOneRule(winner));
    return decision;
  }
  decision.set_runner_up(MountName(view(accepted[1].index).name));
  if (options.spread == PlacementOptions::Spread::kWeighted) {
    decision.set_rule(
        "one of the mounts of the best priority is drawn at random, weighted "
        "by available space; the likeliest is shown first");
    return decision;
  }
  decision.set_rule(RuleBetween(accepted[0], winner, accepted[1],
                                view(accepted[1].index), options));
  return decision;
}

v1::PlacementDecision ToApi(const storage::v1::Decision& decision) {
  v1::PlacementDecision api;
  if (!decision.winner().empty()) {
    api.set_winner(MountName(decision.winner()));
  }
  if (!decision.runner_up().empty()) {
    api.set_runner_up(MountName(decision.runner_up()));
  }
  api.set_rule(decision.rule());
  for (const storage::v1::Verdict& verdict : decision.verdicts()) {
    v1::MountVerdict* const out = api.add_verdicts();
    out->set_mount(MountName(verdict.mount_name()));
    out->set_verdict(verdict.reason());
    out->set_detail(PlainSentence(verdict.reason(), verdict.available_bytes(),
                                  verdict.needed_bytes()));
    out->set_priority(verdict.priority());
    out->set_available_bytes(verdict.available_bytes());
    out->set_needed_bytes(verdict.needed_bytes());
  }
  *api.mutable_refused_by_reason() = decision.refused_by_reason();
  api.set_considered(decision.considered());
  if (decision.decide_time_us() != 0) {
    api.mutable_decide_time()->set_seconds(decision.decide_time_us() /
                                           1'000'000);
    api.mutable_decide_time()->set_nanos(
        static_cast<int32_t>(decision.decide_time_us() % 1'000'000 * 1000));
  }
  return api;
}

}  // namespace predella::server
