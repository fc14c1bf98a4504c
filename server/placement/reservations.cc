// MountRegistry: choosing a mount and promising its space, in one step.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

#include "common/errors.h"
#include "common/units.h"
#include "server/placement/mount_registry.h"
#include "server/placement/placement_policy.h"
#include "server/placement/placement_table.h"
#include "server/placement/ranking.h"

namespace predella::server {
namespace {

// Mounts an error names.
constexpr size_t kMaxNamed = 8;

bool Is(const char* reason, const char* name) {
  return std::strcmp(reason, name) == 0;
}

// One mount's part in "no mount has room": a few words with the numbers.
std::string WhyNot(const MountView& view, const char* reason) {
  if (Is(reason, "admin_state")) {
    return absl::StrCat(
        view.name, " is ",
        absl::StripPrefix(storage::v1::AdminState_Name(view.admin_state),
                          "ADMIN_STATE_"));
  }
  if (Is(reason, "health")) {
    return absl::StrCat(view.name, " is ", HealthName(view.health));
  }
  if (Is(reason, "not_ready")) {
    return absl::StrCat(view.name, " is not ready");
  }
  if (Is(reason, "inodes")) {
    return absl::StrCat(view.name, " has ",
                        std::max<int64_t>(view.available_inodes, 0),
                        " inodes left");
  }
  if (Is(reason, "holds_copy") || Is(reason, "failure_domain")) {
    return absl::StrCat(view.name, " or its failure domain holds a copy");
  }
  if (Is(reason, "leftover")) {
    return absl::StrCat(view.name, " still holds an earlier file of it");
  }
  if (Is(reason, "refused")) {
    return absl::StrCat(view.name, " did not take it");
  }
  return absl::StrCat(
      view.name,
      Is(reason, "filled_up") ? " had no room for it when it was asked:" : "",
      " has ", FormatSize(std::max<int64_t>(view.available_bytes, 0)),
      " available of ", FormatSize(view.size_bytes), " (",
      FormatSize(view.promised_bytes), " promised, ",
      FormatSize(view.reserve_bytes), " in reserve",
      Is(reason, "full") ? ", past its full threshold" : "", ")");
}

std::string JoinNamed(const std::vector<std::string>& parts) {
  if (parts.size() <= kMaxNamed) {
    return absl::StrJoin(parts, ", ");
  }
  return absl::StrCat(
      absl::StrJoin(parts.begin(),
                    parts.begin() + static_cast<std::ptrdiff_t>(kMaxNamed),
                    ", "),
      " and ", parts.size() - kMaxNamed, " more");
}

std::string WhatFor(const PlacementRequest& request, int64_t needed) {
  return request.size_bytes.has_value()
             ? FormatSize(needed)
             : absl::StrCat("an image of unknown size (", FormatSize(needed),
                            " are needed to begin)");
}

}  // namespace

Reservation::Reservation(Reservation&& other) noexcept
    : registry_(std::exchange(other.registry_, nullptr)),
      mount_uid_(other.mount_uid_),
      bytes_(other.bytes_),
      id_(std::exchange(other.id_, 0)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    if (registry_ != nullptr) {
      registry_->Release(id_);
    }
    registry_ = std::exchange(other.registry_, nullptr);
    mount_uid_ = other.mount_uid_;
    bytes_ = other.bytes_;
    id_ = std::exchange(other.id_, 0);
  }
  return *this;
}

Reservation::~Reservation() {
  if (registry_ != nullptr) {
    registry_->Release(id_);
  }
}

void Reservation::HandOver(int64_t command_number) {
  if (registry_ != nullptr) {
    registry_->HandOver(id_, command_number);
    registry_ = nullptr;
  }
}

absl::StatusOr<MountRegistry::Placed> MountRegistry::Reserve(
    const PlacementRequest& request) {
  MutexLock lock(&mu_);
  RefreshLocked();
  const Choice choice = Choose(request, views_, rows_, spaces_,
                               options_.placement, ids_, kMaxVerdicts);
  for (const Candidate& candidate : choice.best) {
    ShowLocked(static_cast<size_t>(candidate.index));
  }
  for (const auto& [index, reason] : choice.refused) {
    ShowLocked(static_cast<size_t>(index));
  }
  PlacementResult result =
      Describe(request, choice, views_, options_.placement, /*want=*/1);
  if (result.ranked.empty()) {
    return NowhereLocked(request, result);
  }
  const size_t i = static_cast<size_t>(result.ranked.front());
  Entry& entry = entries_[i];
  Promise promise;
  promise.id = next_reservation_++;
  promise.bytes = NeededBytes(request, options_.placement);
  entry.promises.push_back(promise);
  promises_.emplace(promise.id, i);
  PromisedLocked(i, promise.bytes, 1);

  Placed placed;
  placed.reservation.registry_ = this;
  placed.reservation.mount_uid_ = views_[i].uid;
  placed.reservation.bytes_ = promise.bytes;
  placed.reservation.id_ = promise.id;
  placed.mount_name = views_[i].name;
  placed.decision = std::move(result.decision);
  placed.decision.set_decide_time_us(clock_->NowMicros());
  return placed;
}

absl::Status MountRegistry::NowhereLocked(const PlacementRequest& request,
                                          const PlacementResult& result) const {
  const int64_t needed = NeededBytes(request, options_.placement);
  ShowAllLocked();
  std::vector<size_t> order(views_.size());
  for (size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
  }
  std::sort(order.begin(), order.end(), [this](size_t a, size_t b) {
    mu_.AssertHeld();
    return views_[a].name < views_[b].name;
  });
  std::vector<std::string> all;
  std::vector<std::string> leftovers;
  std::vector<std::string> missing;
  int64_t largest = 0;
  for (const size_t i : order) {
    const MountView& view = views_[i];
    const char* const reason = Refusal(request, view, options_.placement);
    if (reason == nullptr) {
      continue;
    }
    all.push_back(WhyNot(view, reason));
    if (Is(reason, "leftover")) {
      leftovers.push_back(view.name);
    }
    const bool absent = Is(reason, "health") || Is(reason, "not_ready");
    // What was last heard of its space tells whether it would have helped.
    if ((absent || Is(reason, "refused")) &&
        (!entries_[i].info.has_space || (view.available_bytes >= needed &&
                                         !IsFull(view, options_.placement)))) {
      missing.push_back(WhyNot(view, reason));
    }
    if (Is(reason, "space") || Is(reason, "full")) {
      largest = std::max(largest, view.available_bytes);
    }
  }
  const std::string what = WhatFor(request, needed);
  if (result.only_leftovers) {
    return MakeError(
        absl::StatusCode::kUnavailable, reason::kLeftoverPending,
        absl::StrCat("no mount can take ", what,
                     " at this moment: ", JoinNamed(leftovers),
                     " would, and still holds a file of an earlier upload of "
                     "this image, which is being removed"),
        {{"mounts", JoinNamed(leftovers)}});
  }
  if (!missing.empty() || views_.empty()) {
    return MakeError(
        absl::StatusCode::kUnavailable, reason::kMountsMissing,
        views_.empty()
            ? absl::StrCat("no mount has room for ", what,
                           ": no mount has registered yet")
            : absl::StrCat("no mount has room for ", what,
                           " now, but some that might are not there: ",
                           JoinNamed(missing)),
        {{"mounts", JoinNamed(missing)}});
  }
  return MakeError(
      absl::StatusCode::kResourceExhausted, reason::kNoSpaceInCluster,
      absl::StrCat("no mount has room for ", what, ": ", JoinNamed(all)),
      {{"needed_bytes", absl::StrCat(needed)},
       {"largest_available_bytes", absl::StrCat(largest)},
       {"mounts_considered", absl::StrCat(views_.size())}});
}

void MountRegistry::Release(int64_t reservation_id) {
  MutexLock lock(&mu_);
  const auto it = promises_.find(reservation_id);
  if (it == promises_.end()) {
    return;  // its mount was retired
  }
  const size_t i = it->second;
  DropPromisesLocked(
      i, [&](const Promise& promise) { return promise.id == reservation_id; });
}

void MountRegistry::HandOver(int64_t reservation_id, int64_t command_number) {
  MutexLock lock(&mu_);
  const auto it = promises_.find(reservation_id);
  if (it == promises_.end()) {
    return;
  }
  const size_t i = it->second;
  Entry& entry = entries_[i];
  // A snapshot may have been faster than this call.
  const bool done = entry.space_session == entry.session &&
                    entry.info.space.command_number() >= command_number;
  if (done) {
    DropPromisesLocked(i, [&](const Promise& promise) {
      return promise.id == reservation_id;
    });
    return;
  }
  for (Promise& promise : entry.promises) {
    if (promise.id == reservation_id) {
      promise.command_number = command_number;
      promise.session = entry.session;
    }
  }
}

}  // namespace predella::server
