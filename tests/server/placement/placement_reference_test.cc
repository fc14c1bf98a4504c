// The fast decision against one written down as the design says it: every
// constraint asked of every mount, all that remain sorted.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/resource_name.h"
#include "common/units.h"
#include "server/placement/mount_registry.h"
#include "server/placement/placement_policy.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

using ::testing::ElementsAreArray;
using Spread = PlacementOptions::Spread;

bool Past(const MountView& view, double percent) {
  return view.size_bytes > 0 &&
         100.0 * static_cast<double>(view.used_bytes) >=
             percent * static_cast<double>(view.size_bytes);
}

double Lowered(double percent, bool was, const PlacementOptions& options) {
  return was ? percent - options.hysteresis_percent : percent;
}

std::string ReasonAgainst(const PlacementRequest& request,
                          const MountView& view,
                          const PlacementOptions& options) {
  std::string excluded;
  for (const auto& one : request.excluded) {
    if (excluded.empty() && one.mount_uid == view.uid) {
      excluded = one.reason;
    }
  }
  const auto& domains = request.used_failure_domains;
  const bool domain_used = std::find(domains.begin(), domains.end(),
                                     view.failure_domain) != domains.end();
  const std::vector<std::pair<std::string, bool>> constraints = {
      {"admin_state", view.admin_state != storage::v1::ADMIN_STATE_ACTIVE},
      {"health",
       view.health != v1::HEALTH_ONLINE && view.health != v1::HEALTH_SLOW},
      {"not_ready", !view.ready},
      {excluded, !excluded.empty() && excluded != "leftover"},
      {"failure_domain", domain_used},
      {"full",
       Past(view, Lowered(options.full_percent, view.was_full, options))},
      {"space", view.available_bytes <
                    request.size_bytes.value_or(options.unknown_size_bytes)},
      {"inodes", view.available_inodes < options.needed_inodes},
      {"leftover", excluded == "leftover"},
  };
  for (const auto& [name, refuses] : constraints) {
    if (refuses) {
      return name;
    }
  }
  return "";
}

struct Reference {
  std::vector<int> ranked;
  std::map<std::string, int> counts;
  std::vector<std::pair<std::string, std::string>> verdicts;
};

Reference Decide(const PlacementRequest& request,
                 const std::vector<MountView>& mounts,
                 const PlacementOptions& options, uint64_t seed) {
  Reference out;
  std::vector<std::tuple<bool, bool, int, double, int64_t, std::string, int>>
      order;
  std::vector<std::pair<std::string, std::string>> refused;
  for (size_t i = 0; i < mounts.size(); ++i) {
    const MountView& view = mounts[i];
    const std::string reason = ReasonAgainst(request, view, options);
    if (!reason.empty()) {
      ++out.counts[reason];
      refused.emplace_back(view.name, reason);
      continue;
    }
    double score = static_cast<double>(view.available_bytes);
    if (options.spread == Spread::kWeighted) {
      // splitmix64
      uint64_t z = seed += 0x9e3779b97f4a7c15;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
      z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
      z ^= z >> 31;
      const double u = (static_cast<double>(z >> 11) + 1) * 0x1p-53;
      score = std::log(u) /
              static_cast<double>(std::max<int64_t>(view.available_bytes, 1));
    }
    order.emplace_back(
        view.health == v1::HEALTH_SLOW,
        Past(view,
             Lowered(options.near_full_percent, view.was_near_full, options)),
        options.highest_priority_first ? -view.priority : view.priority, -score,
        view.image_bytes, view.name, static_cast<int>(i));
  }
  std::sort(order.begin(), order.end());
  for (const auto& one : order) {
    const int index = std::get<6>(one);
    out.verdicts.emplace_back(mounts[static_cast<size_t>(index)].name,
                              out.ranked.empty() ? "chosen" : "ranked");
    out.ranked.push_back(index);
  }
  out.verdicts.insert(out.verdicts.end(), refused.begin(), refused.end());
  return out;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int64_t Below(int64_t most) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(most));
  }
  bool OneIn(int64_t n) { return Below(n) == 0; }

 private:
  std::mt19937_64 engine_;
};

MountView RandomMount(int number, Random* random) {
  MountView view;
  std::string uid(16, '\0');
  uid[14] = static_cast<char>(number / 256);
  uid[15] = static_cast<char>(number % 256);
  view.uid = Uuid::FromBytesOrNone(uid);
  view.name = absl::StrCat("store-", number);
  view.health = random->OneIn(4) ? static_cast<v1::Health>(1 + random->Below(9))
                                 : v1::HEALTH_ONLINE;
  view.admin_state = static_cast<storage::v1::AdminState>(
      random->OneIn(5) ? 1 + random->Below(4) : 1);
  view.ready = !random->OneIn(8);
  view.priority = static_cast<int>(random->Below(3)) * 100;
  view.size_bytes = random->OneIn(20) ? 0 : 100 * kGiB;
  // Few values, so that there are ties.
  view.available_bytes = (random->Below(24) * 5 - 10) * kGiB;
  view.used_bytes = view.size_bytes - view.available_bytes;
  view.available_inodes = random->OneIn(8) ? random->Below(5) : 100;
  view.image_bytes = random->Below(3) * kGiB;
  view.was_near_full = random->OneIn(2);
  view.was_full = random->OneIn(3);
  view.failure_domain = absl::StrCat("rack-", random->Below(4));
  return view;
}

PlacementRequest RandomRequest(const std::vector<MountView>& mounts,
                               Random* random) {
  constexpr const char* kReasons[] = {"holds_copy", "leftover", "filled_up",
                                      "refused"};
  PlacementRequest request;
  if (!random->OneIn(4)) {
    request.size_bytes = random->Below(60) * kGiB;
  }
  while (random->OneIn(2)) {
    const auto i =
        static_cast<size_t>(random->Below(static_cast<int64_t>(mounts.size())));
    request.excluded.push_back({mounts[i].uid, kReasons[random->Below(4)]});
  }
  if (random->OneIn(4)) {
    request.used_failure_domains = {absl::StrCat("rack-", random->Below(4))};
  }
  return request;
}

void ExpectSame(const Reference& expected, const PlacementResult& result,
                const std::vector<MountView>& mounts) {
  ASSERT_THAT(result.ranked, ElementsAreArray(expected.ranked));
  const storage::v1::Decision& decision = result.decision;
  const auto name_of = [&](size_t rank) {
    return expected.ranked.size() <= rank
               ? ""
               : mounts[static_cast<size_t>(expected.ranked[rank])].name;
  };
  ASSERT_EQ(decision.winner(), name_of(0));
  ASSERT_EQ(decision.runner_up(), name_of(1));
  ASSERT_EQ(result.only_leftovers, expected.counts.count("leftover") != 0);
  ASSERT_EQ(decision.refused_by_reason_size(), expected.counts.size());
  for (const auto& [reason, count] : expected.counts) {
    ASSERT_EQ(decision.refused_by_reason().at(reason), count) << reason;
  }
  const size_t shown = std::min<size_t>(8, expected.verdicts.size());
  ASSERT_EQ(decision.verdicts_size(), shown);
  for (size_t v = 0; v < shown; ++v) {
    const auto& verdict = decision.verdicts(static_cast<int>(v));
    ASSERT_EQ(verdict.mount_name(), expected.verdicts[v].first);
    ASSERT_EQ(verdict.reason(), expected.verdicts[v].second);
  }
}

TEST(PlacementReferenceTest, AgreesOverRandomClusters) {
  Random random(20261128);
  for (int round = 0; round < 4'000; ++round) {
    SCOPED_TRACE(round);
    std::vector<MountView> mounts;
    const int64_t count = 1 + random.Below(random.OneIn(8) ? 300 : 20);
    mounts.reserve(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      mounts.push_back(RandomMount(i, &random));
    }
    const PlacementRequest request = RandomRequest(mounts, &random);
    PlacementOptions options;
    options.highest_priority_first = random.OneIn(3);
    options.spread =
        random.OneIn(3) ? Spread::kWeighted : Spread::kMostAvailable;
    testing::FakeIds ids(static_cast<uint64_t>(round));
    const uint64_t seed =
        testing::FakeIds(static_cast<uint64_t>(round)).NextUint64();
    Reference expected = Decide(request, mounts, options, seed);
    const PlacementResult all =
        Place(request, mounts, options, &ids, static_cast<int>(mounts.size()));
    ExpectSame(expected, all, mounts);
    // The short one, which drops most on its way, decides alike.
    testing::FakeIds again(static_cast<uint64_t>(round));
    const PlacementResult brief = Place(request, mounts, options, &again, 1);
    expected.ranked.resize(std::min<size_t>(1, expected.ranked.size()));
    ASSERT_THAT(brief.ranked, ElementsAreArray(expected.ranked));
    ASSERT_EQ(brief.decision.SerializeAsString().size(),
              all.decision.SerializeAsString().size());
    if (options.spread == Spread::kWeighted) {
      continue;
    }
    const v1::PlacementDecision explained =
        ExplainPlacement(request, mounts, options);
    ASSERT_EQ(explained.winner(), all.decision.winner().empty()
                                      ? ""
                                      : MountName(all.decision.winner()));
    ASSERT_EQ(explained.rule(), all.decision.rule());
    ASSERT_EQ(explained.verdicts_size(), mounts.size());
  }
}

// A registry under random events: what Reserve picks is what its views say,
// and what it carries from promise to promise is what it would sum up anew.
class RegistryRun {
 public:
  explicit RegistryRun(uint32_t seed)
      : random_(seed), registry_(&clock_, &ids_, RegistryOptions()) {
    for (int i = 0; i < kMounts; ++i) {
      storage::v1::MountRow row;
      row.set_mount_uid(Uid(i).bytes());
      row.set_mount_name(absl::StrCat("store-", 10 + i));
      row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
      rows_.push_back(row);
      registry_.SetRow(row);
      Open(i);
    }
  }

  void Step() {
    const int i = static_cast<int>(random_.Below(kMounts));
    const size_t at = static_cast<size_t>(i);
    switch (random_.Below(12)) {
      case 0:
        Open(i);
        break;
      case 1:
        registry_.SessionClosed(Uid(i), sessions_[at]);
        break;
      case 2:
        rows_[at].set_admin_state(static_cast<storage::v1::AdminState>(
            random_.OneIn(2) ? 1 : 1 + random_.Below(4)));
        registry_.SetRow(rows_[at]);
        break;
      case 3:
        registry_.SetImageBytes(Uid(i), random_.Below(3) * kGiB);
        break;
      case 4:
      case 5: {
        control::v1::Heartbeat heartbeat;
        *heartbeat.mutable_space() = SpaceOf();
        registry_.Heard(Uid(i), sessions_[at], heartbeat);
        break;
      }
      case 6:
      case 7:
        if (!held_.empty()) {
          const size_t which = static_cast<size_t>(
              random_.Below(static_cast<int64_t>(held_.size())));
          if (random_.OneIn(2)) {
            held_[which].HandOver(++commands_);
          }
          held_[which] = std::move(held_.back());
          held_.pop_back();
        }
        break;
      case 8:
        clock_.Advance(absl::Seconds(random_.Below(4)));
        break;
      default:
        Reserve();
    }
  }

  // Numbers of every view; `anew` has each group summed up first.
  std::vector<std::string> Shown(bool anew) {
    if (anew) {
      for (const storage::v1::MountRow& row : rows_) {
        registry_.SetRow(row);
      }
    }
    std::vector<std::string> shown;
    for (const MountInfo& info : registry_.List()) {
      const MountView& view = info.view;
      shown.push_back(absl::StrCat(view.name, " ", view.available_bytes, " ",
                                   view.used_bytes, " ", view.promised_bytes,
                                   " ", view.available_inodes, " ",
                                   view.image_bytes));
    }
    return shown;
  }
  int decided() const { return decided_; }

 private:
  static constexpr int kMounts = 12;

  static Uuid Uid(int number) {
    return Uuid::FromBytesOrNone(
        std::string(16, static_cast<char>(number + 1)));
  }
  control::v1::Space SpaceOf() {
    control::v1::Space space;
    space.set_size_bytes(100 * kGiB);
    space.set_available_bytes(random_.Below(20) * 5 * kGiB);
    space.set_promised_bytes(random_.Below(3) * kGiB);
    space.set_reserve_bytes(random_.Below(3) * kGiB);
    space.set_available_inodes(random_.OneIn(5) ? 12 : 1000);
    space.set_size_inodes(2000);
    space.set_command_number(commands_);
    return space;
  }
  void Open(int i) {
    sessions_.resize(kMounts);
    int64_t& session = sessions_[static_cast<size_t>(i)];
    ++session;
    control::v1::Hello hello;
    hello.set_priority(static_cast<int32_t>(random_.Below(2)) * 100);
    if (random_.OneIn(2)) {
      hello.set_space_group(random_.OneIn(2) ? "a" : "b");
    }
    registry_.SessionOpened(Uid(i), session, hello);
    control::v1::MountReport report;
    *report.mutable_space() = SpaceOf();
    report.mutable_health()->set_health(random_.OneIn(6) ? v1::HEALTH_SLOW
                                                         : v1::HEALTH_ONLINE);
    registry_.Reported(Uid(i), session, report);
    if (!random_.OneIn(6)) {
      registry_.Attached(Uid(i), session, true);
    }
  }
  void Reserve() {
    PlacementRequest request;
    request.size_bytes = random_.Below(30) * kGiB;
    std::vector<MountView> views;
    for (const MountInfo& info : registry_.List()) {
      views.push_back(info.view);
    }
    const Reference expected =
        Decide(request, views, PlacementOptions(), /*seed=*/0);
    const std::string explained = registry_.Explain(request).winner();
    auto placed = registry_.Reserve(request);
    ASSERT_EQ(placed.ok(), !expected.ranked.empty());
    if (!placed.ok()) {
      ASSERT_EQ(explained, "");
      return;
    }
    const MountView& winner =
        views[static_cast<size_t>(expected.ranked.front())];
    ASSERT_EQ(placed->mount_name, winner.name);
    ASSERT_EQ(explained, MountName(winner.name));
    ASSERT_EQ(placed->decision.verdicts(0).available_bytes(),
              winner.available_bytes);
    ASSERT_EQ(placed->decision.refused_by_reason_size(),
              expected.counts.size());
    held_.push_back(std::move(placed->reservation));
    ++decided_;
  }

  Random random_;
  testing::FakeClock clock_;
  testing::FakeIds ids_;
  MountRegistry registry_;
  std::vector<storage::v1::MountRow> rows_;
  std::vector<int64_t> sessions_;
  std::vector<Reservation> held_;
  int64_t commands_ = 0;
  int decided_ = 0;
};

TEST(PlacementReferenceTest, ARegistryDecidesByWhatItShows) {
  int decided = 0;
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    RegistryRun run(seed);
    for (int step = 0; step < 200; ++step) {
      run.Step();
      if (::testing::Test::HasFatalFailure()) {
        return;
      }
      if (step % 10 != 9) {
        continue;  // summing up would hide what was carried wrong
      }
      const std::vector<std::string> carried = run.Shown(/*anew=*/false);
      ASSERT_THAT(run.Shown(/*anew=*/true), ElementsAreArray(carried));
    }
    decided += run.decided();
  }
  EXPECT_GT(decided, 500);  // not all of them were refused
}

}  // namespace
}  // namespace predella::server
