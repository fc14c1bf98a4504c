#include "server/placement/placement_policy.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/units.h"
#include "tests/testing/fake_ids.h"

namespace predella::server {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

// A healthy mount of 100 GiB with `available` GiB to give.
MountView Mount(int number, int64_t available = 50, int priority = 100) {
  MountView view;
  std::string uid(16, '\0');
  uid[15] = static_cast<char>(number);
  uid[14] = static_cast<char>(number / 256);
  view.uid = Uuid::FromBytesOrNone(uid);
  view.name = absl::StrCat("store-", number);
  view.health = v1::HEALTH_ONLINE;
  view.ready = true;
  view.priority = priority;
  view.size_bytes = 100 * kGiB;
  view.available_bytes = available * kGiB;
  view.used_bytes = view.size_bytes - view.available_bytes;
  view.available_inodes = 1000;
  view.failure_domain = view.name;
  return view;
}

PlacementRequest OfSize(int64_t bytes) {
  PlacementRequest request;
  request.size_bytes = bytes;
  return request;
}

class PlacementPolicyTest : public ::testing::Test {
 protected:
  std::string Winner(const PlacementRequest& request,
                     const std::vector<MountView>& mounts) {
    result_ = Place(request, mounts, options_, &ids_);
    return result_.decision.winner();
  }

  testing::FakeIds ids_;
  PlacementOptions options_;
  PlacementResult result_;
};

TEST_F(PlacementPolicyTest, HardConstraintsHaveNames) {
  struct Case {
    const char* reason;
    std::function<void(MountView*)> change;
  };
  const std::vector<Case> cases = {
      {"admin_state",
       [](MountView* m) {
         m->admin_state = storage::v1::ADMIN_STATE_CORDONED;
       }},
      {"admin_state",
       [](MountView* m) { m->admin_state = storage::v1::ADMIN_STATE_RETIRED; }},
      {"health", [](MountView* m) { m->health = v1::HEALTH_READ_ONLY; }},
      {"health", [](MountView* m) { m->health = v1::HEALTH_UNKNOWN; }},
      {"health", [](MountView* m) { m->health = v1::HEALTH_SUSPECT; }},
      {"not_ready", [](MountView* m) { m->ready = false; }},
      // Without a snapshot nothing is known of its space: never "full".
      {"not_ready",
       [](MountView* m) {
         m->ready = false;
         m->available_bytes = 0;
         m->size_bytes = 0;
       }},
      {"space", [](MountView* m) { m->available_bytes = kGiB - 1; }},
      {"space", [](MountView* m) { m->available_bytes = -5 * kGiB; }},
      {"inodes", [](MountView* m) { m->available_inodes = 2; }},
      {"full", [](MountView* m) { m->used_bytes = 98 * kGiB; }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.reason);
    std::vector<MountView> mounts = {Mount(1), Mount(2, 10)};
    c.change(&mounts[0]);
    EXPECT_EQ(Winner(OfSize(kGiB), mounts), "store-2");
    EXPECT_THAT(result_.decision.refused_by_reason(),
                UnorderedElementsAre(Pair(c.reason, 1)));
    EXPECT_EQ(result_.decision.considered(), 2);
    ASSERT_EQ(result_.decision.verdicts_size(), 2);
    EXPECT_EQ(result_.decision.verdicts(0).reason(), "chosen");
    EXPECT_EQ(result_.decision.verdicts(1).reason(), c.reason);

    EXPECT_EQ(Winner(OfSize(kGiB), {mounts[0]}), "");
    EXPECT_THAT(result_.ranked, IsEmpty());
  }
}

TEST_F(PlacementPolicyTest, ExclusionsBearTheReasonGiven) {
  for (const char* reason :
       {"holds_copy", "leftover", "filled_up", "refused"}) {
    PlacementRequest request = OfSize(kGiB);
    request.excluded = {{Mount(1).uid, reason}};
    EXPECT_EQ(Winner(request, {Mount(1), Mount(2, 10)}), "store-2");
    EXPECT_THAT(result_.decision.refused_by_reason(),
                UnorderedElementsAre(Pair(reason, 1)));
    EXPECT_EQ(Winner(request, {Mount(1)}), "");
    EXPECT_EQ(result_.only_leftovers, std::string(reason) == "leftover");
  }
}

TEST_F(PlacementPolicyTest, ALeftoverOnAMountThatIsTooSmallIsNotInTheWay) {
  PlacementRequest request = OfSize(60 * kGiB);
  request.excluded = {{Mount(1).uid, "leftover"}};
  EXPECT_EQ(Winner(request, {Mount(1)}), "");
  EXPECT_FALSE(result_.only_leftovers);
  EXPECT_THAT(result_.decision.refused_by_reason(),
              UnorderedElementsAre(Pair("space", 1)));
}

TEST_F(PlacementPolicyTest, TheNextCopyGoesToAnotherFailureDomain) {
  PlacementRequest request = OfSize(kGiB);
  request.used_failure_domains = {"rack-1"};
  std::vector<MountView> mounts = {Mount(1), Mount(2, 10)};
  mounts[0].failure_domain = "rack-1";
  EXPECT_EQ(Winner(request, mounts), "store-2");
  EXPECT_THAT(result_.decision.refused_by_reason(),
              UnorderedElementsAre(Pair("failure_domain", 1)));
}

TEST_F(PlacementPolicyTest, OrderIsAsDesigned) {
  struct Case {
    const char* what;
    std::vector<MountView> mounts;
    std::string winner;
    std::string rule;
  };
  const auto near_full = [](MountView view) {
    view.used_bytes = 92 * kGiB;
    return view;
  };
  const auto slow = [](MountView view) {
    view.health = v1::HEALTH_SLOW;
    return view;
  };
  const auto holds = [](MountView view, int64_t gib) {
    view.image_bytes = gib * kGiB;
    return view;
  };
  const std::vector<Case> cases = {
      {"lower number first",
       {Mount(1, 80, 200), Mount(2, 20, 100)},
       "store-2",
       "the lower priority number is preferred: 100 before 200"},
      {"most available inside one priority",
       {Mount(1, 20), Mount(2, 80)},
       "store-2",
       "same priority; more space is available: 80 GiB against 20 GiB"},
      {"past near_full comes after a worse priority",
       {near_full(Mount(1, 8, 100)), Mount(2, 20, 300)},
       "store-2",
       "store-1 is 92.0 % full, past the near-full threshold of 90 %, and "
       "comes after all others"},
      {"slow comes after near_full",
       {slow(Mount(1, 80, 100)), near_full(Mount(2, 8, 300))},
       "store-2",
       "store-1 is SLOW, which is taken only when nothing else is left"},
      {"a tie goes to fewer bytes of ours",
       {holds(Mount(1), 5), holds(Mount(2), 3)},
       "store-2",
       "same priority and available space; fewer bytes of images are on it: "
       "3 GiB against 5 GiB"},
      {"then the name",
       {Mount(2), Mount(1)},
       "store-1",
       "equal in priority, available space and bytes of images; the name "
       "decides"},
      {"slow if there is nothing else",
       {slow(Mount(1))},
       "store-1",
       "store-1 is the only mount that can take it"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    EXPECT_EQ(Winner(OfSize(kGiB), c.mounts), c.winner);
    EXPECT_EQ(result_.decision.rule(), c.rule);
  }
}

TEST_F(PlacementPolicyTest, HighestFirstTurnsThePrioritiesRound) {
  options_.highest_priority_first = true;
  EXPECT_EQ(Winner(OfSize(kGiB), {Mount(1, 80, 100), Mount(2, 20, 200)}),
            "store-2");
  EXPECT_EQ(result_.decision.rule(),
            "the higher priority number is preferred: 200 before 100");
}

TEST_F(PlacementPolicyTest, ThresholdsHaveHysteresis) {
  MountView view = Mount(1, 11);
  view.used_bytes = 89 * kGiB;
  EXPECT_FALSE(IsNearFull(view, options_));
  view.was_near_full = true;
  EXPECT_TRUE(IsNearFull(view, options_));
  view.used_bytes = 87 * kGiB;
  EXPECT_FALSE(IsNearFull(view, options_));
  view.used_bytes = 97 * kGiB;
  EXPECT_FALSE(IsFull(view, options_));
  view.was_full = true;
  EXPECT_TRUE(IsFull(view, options_));
}

TEST_F(PlacementPolicyTest, UnknownSizeNeedsAnAmountToBegin) {
  std::vector<MountView> mounts = {Mount(1)};
  mounts[0].available_bytes = options_.unknown_size_bytes - 1;
  EXPECT_EQ(Winner({}, mounts), "");
  mounts[0].available_bytes = options_.unknown_size_bytes;
  EXPECT_EQ(Winner({}, mounts), "store-1");
  EXPECT_EQ(result_.decision.verdicts(0).needed_bytes(),
            options_.unknown_size_bytes);
}

TEST_F(PlacementPolicyTest, KeepsEightVerdictsBestFirst) {
  std::vector<MountView> mounts;
  for (int i = 1; i <= 30; ++i) {
    mounts.push_back(Mount(i, 10 + i));
  }
  EXPECT_EQ(Winner(OfSize(kGiB), mounts), "store-30");
  EXPECT_EQ(result_.decision.runner_up(), "store-29");
  ASSERT_EQ(result_.decision.verdicts_size(), 8);
  EXPECT_EQ(result_.decision.verdicts(7).mount_name(), "store-23");
  EXPECT_EQ(result_.decision.verdicts(7).reason(), "ranked");
  EXPECT_THAT(result_.ranked, ElementsAre(29, 28, 27, 26));
}

TEST_F(PlacementPolicyTest, ExplainNamesEveryMountInSentences) {
  std::vector<MountView> mounts = {Mount(4, 2), Mount(3, 20), Mount(2, 50),
                                   Mount(1),    Mount(5),     Mount(6)};
  mounts[0].reserve_bytes = kGiB;
  mounts[0].promised_bytes = 3 * kGiB;
  mounts[0].used_bytes = 95 * kGiB;
  mounts[3].health = v1::HEALTH_READ_ONLY;
  mounts[4].admin_state = storage::v1::ADMIN_STATE_CORDONED;
  mounts[5].used_bytes = 99 * kGiB;
  const v1::PlacementDecision decision =
      ExplainPlacement(OfSize(10 * kGiB), mounts, options_);
  EXPECT_EQ(decision.winner(), "mounts/store-2");
  EXPECT_EQ(decision.runner_up(), "mounts/store-3");
  ASSERT_EQ(decision.verdicts_size(), 6);
  const std::vector<std::vector<std::string>> want = {
      {"mounts/store-2", "chosen",
       "has 50 GiB available, 10 GiB are needed; priority 100, 50.0 % of "
       "100 GiB in use"},
      {"mounts/store-3", "ranked",
       "has 20 GiB available, 10 GiB are needed; priority 100, 80.0 % of "
       "100 GiB in use"},
      {"mounts/store-1", "health",
       "is READ_ONLY; only ONLINE mounts take new images"},
      {"mounts/store-4", "space",
       "has 2 GiB available, 10 GiB are needed (1 GiB are kept in reserve, "
       "3 GiB are promised)"},
      {"mounts/store-5", "admin_state",
       "is CORDONED: an operator keeps new images away from it"},
      {"mounts/store-6", "full",
       "is full: 99.0 % of 100 GiB are in use or promised; no image is begun "
       "from 98 % on until less than 96 % are"},
  };
  for (int i = 0; i < 6; ++i) {
    const auto& verdict = decision.verdicts(i);
    EXPECT_THAT((std::vector<std::string>{verdict.mount(), verdict.verdict(),
                                          verdict.detail()}),
                ::testing::ElementsAreArray(want[static_cast<size_t>(i)]));
  }
  EXPECT_EQ(decision.refused_by_reason().at("space"), 1);
}

TEST_F(PlacementPolicyTest, AStoredDecisionIsShownInTheSameWords) {
  EXPECT_EQ(Winner(OfSize(10 * kGiB), {Mount(1), Mount(2, 4)}), "store-1");
  result_.decision.set_decide_time_us(1'800'000'000'250'000);
  const v1::PlacementDecision api = ToApi(result_.decision);
  EXPECT_EQ(api.winner(), "mounts/store-1");
  EXPECT_EQ(api.runner_up(), "");
  EXPECT_EQ(api.considered(), 2);
  EXPECT_EQ(api.decide_time().seconds(), 1'800'000'000);
  EXPECT_EQ(api.decide_time().nanos(), 250'000'000);
  ASSERT_EQ(api.verdicts_size(), 2);
  EXPECT_EQ(api.verdicts(1).detail(),
            "had too little space: 4 GiB available, 10 GiB were needed");
}

TEST_F(PlacementPolicyTest, WeightedSpreadDrawsByAvailableSpace) {
  options_.spread = PlacementOptions::Spread::kWeighted;
  const std::vector<MountView> mounts = {Mount(1, 20), Mount(2, 30),
                                         Mount(3, 50), Mount(4, 90, 200)};
  std::map<std::string, int> wins;
  constexpr int kDraws = 20'000;
  for (int i = 0; i < kDraws; ++i) {
    ++wins[Winner(OfSize(kGiB), mounts)];
  }
  // Only inside the best priority; shares within four standard deviations.
  EXPECT_EQ(wins["store-4"], 0);
  EXPECT_NEAR(wins["store-1"], kDraws * 0.2, 230);
  EXPECT_NEAR(wins["store-2"], kDraws * 0.3, 260);
  EXPECT_NEAR(wins["store-3"], kDraws * 0.5, 290);
  EXPECT_THAT(result_.decision.rule(),
              HasSubstr("drawn at random, weighted by available space"));
}

// Whatever the mounts look like: nobody refused is chosen, nobody chosen is
// promised more than it has, and nobody better was passed over.
TEST_F(PlacementPolicyTest, HoldsForTenThousandRandomSnapshots) {
  std::mt19937 random(20260101);
  const auto draw = [&](int64_t most) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(most));
  };
  for (int round = 0; round < 10'000; ++round) {
    std::vector<MountView> mounts;
    const int64_t count = 1 + draw(12);
    for (int i = 0; i < count; ++i) {
      MountView view = Mount(i, draw(100), static_cast<int>(draw(3)) * 100);
      view.health = draw(4) == 0 ? static_cast<v1::Health>(1 + draw(9))
                                 : v1::HEALTH_ONLINE;
      view.admin_state =
          static_cast<storage::v1::AdminState>(draw(5) == 0 ? 1 + draw(4) : 1);
      view.ready = draw(8) != 0;
      view.available_inodes = draw(8) == 0 ? draw(4) : 100;
      view.image_bytes = draw(3) * kGiB;
      mounts.push_back(view);
    }
    PlacementRequest request;
    if (draw(4) != 0) {
      request.size_bytes = draw(60) * kGiB;
    }
    if (draw(3) == 0) {
      request.excluded = {{mounts[0].uid, "filled_up"}};
    }
    options_.spread = draw(2) == 0 ? PlacementOptions::Spread::kWeighted
                                   : PlacementOptions::Spread::kMostAvailable;
    const PlacementResult result =
        Place(request, mounts, options_, &ids_, static_cast<int>(count));
    const int64_t needed = NeededBytes(request, options_);
    int accepted = 0;
    for (const MountView& view : mounts) {
      accepted += Refusal(request, view, options_) == nullptr ? 1 : 0;
    }
    ASSERT_EQ(static_cast<int>(result.ranked.size()), accepted);
    for (size_t r = 0; r < result.ranked.size(); ++r) {
      const MountView& view = mounts[static_cast<size_t>(result.ranked[r])];
      ASSERT_EQ(Refusal(request, view, options_), nullptr);
      ASSERT_GE(view.available_bytes, needed);
      ASSERT_EQ(view.admin_state, storage::v1::ADMIN_STATE_ACTIVE);
      if (r == 0) {
        ASSERT_EQ(result.decision.winner(), view.name);
        continue;
      }
      const MountView& before =
          mounts[static_cast<size_t>(result.ranked[r - 1])];
      const auto rank = [&](const MountView& v) {
        return std::make_pair((v.health == v1::HEALTH_SLOW ? 2 : 0) +
                                  (IsNearFull(v, options_) ? 1 : 0),
                              v.priority);
      };
      ASSERT_LE(rank(before), rank(view));
      if (options_.spread == PlacementOptions::Spread::kMostAvailable &&
          rank(before) == rank(view)) {
        ASSERT_GE(before.available_bytes, view.available_bytes);
      }
    }
  }
}

}  // namespace
}  // namespace predella::server
