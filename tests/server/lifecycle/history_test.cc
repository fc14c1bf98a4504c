// Random histories of uploads and deletes, with mounts that come and go,
// messages that are late or lost, clocks that jump, a coordinator that is
// killed, and an index that goes back in time, against a model of what clients
// were told (reliability.md G23).
//
// PREDELLA_HISTORIES is how many (60), PREDELLA_HISTORY_SEED the first seed.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "common/ids.h"
#include "common/logging.h"
#include "common/resource_name.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"
#include "tests/testing/environment.h"
#include "tests/testing/matchers.h"

namespace predella::testing {
namespace {

constexpr int kSteps = 40;

// What may be true of one image: the upload that brought it, or "" for absent.
struct Truth {
  std::set<std::string> allowed = {""};
  // What an acknowledged delete took: never seen again.
  std::set<std::string> deleted;

  bool certain() const { return allowed.size() == 1 && *allowed.begin() != ""; }
};

class HistoryTest : public LifecycleFixture {
 protected:
  void Run(uint64_t seed) {
    trace_.clear();
    Say(absl::StrCat("seed ", seed));
    rng_.seed(seed);
    options_.command_timeout = absl::Milliseconds(60);
    options_.leftover_wait = absl::Milliseconds(20);
    options_.tombstone_copy_wait = absl::Milliseconds(80);
    Restart();
    for (const char* name : {"a", "b", "c"}) {
      AddConnected(name, 1 + static_cast<int>(agents_.size() % 2));
    }
    Tick();
    for (int step = 0; step < kSteps && !HasFailure(); ++step) {
      Step();
      CheckFiles();
    }
    if (!HasFailure()) {
      Quiesce();
      CheckQuiet();
      CheckDigests();
    }
    for (const auto& [kind, count] : counts_) {
      totals_[kind] += count;
    }
    if (HasFailure()) {
      ADD_FAILURE() << trace_;
    }
  }

  // Everybody is there, and all that is under way has ended.
  void Quiesce() {
    while (!held_.empty()) {
      Release();
    }
    for (const auto& agent : agents_) {
      if (away_.contains(agent.get())) {
        Return(agent.get());
      }
    }
    for (int i = 0; i < 6; ++i) {
      clock_.Advance(options_.upload_ttl);
      BeatAll();
      Tick();
    }
  }

  std::map<std::string, int> totals_;

 private:
  void Say(const std::string& what) { absl::StrAppend(&trace_, what, "\n"); }
  uint64_t Below(uint64_t n) { return rng_() % n; }

  void Step() {
    // Some are late for many steps, most for a few.
    if (!held_.empty() && Below(4) == 0) {
      Release();
    }
    const uint64_t act = Below(100);
    if (act < 40) {
      Put();
    } else if (act < 55) {
      Remove();
    } else if (act < 62) {
      Look();
    } else if (act < 70) {
      Leave();
    } else if (act < 80) {
      if (!away_.empty()) {
        Return(*std::next(away_.begin(),
                          static_cast<int64_t>(Below(away_.size()))));
      }
    } else if (act < 84) {
      Kill();
    } else if (act < 87) {
      saved_ = kv_->Contents();
      earliest_ = latest_ = clock_.Now();
      Say("a copy of the index");
    } else if (act < 90) {
      GoBack();
    } else if (act < 92) {
      JumpClock();
    } else if (act < 97) {
      Hold();
    } else {
      clock_.Advance(absl::Minutes(static_cast<int64_t>(Below(3000))));
      BeatAll();
      Say("time goes on");
    }
    earliest_ = std::min(earliest_, clock_.Now());
    latest_ = std::max(latest_, clock_.Now());
    Tick();
  }

  Uuid SomeImage() {
    // Few ids: deleted ones are stored again.
    if (images_.size() < 12 && (images_.empty() || Below(3) > 0)) {
      images_.push_back(ids_.NextUuid());
    }
    return images_[Below(images_.size())];
  }

  FakeAgent* AgentOf(const std::string& mount) {
    for (const auto& agent : agents_) {
      if (MountName(agent->name()) == mount) {
        return agent.get();
      }
    }
    return nullptr;
  }

  void Put() {
    const Uuid image = SomeImage();
    Truth& truth = truth_[image];
    // Ids that may be there are left alone: two clients' uploads of one id
    // across a rollback are a CONFLICT, which is not what is tested here.
    if (truth.allowed != std::set<std::string>{""}) {
      return;
    }
    const Uuid upload = ids_.NextUuid();
    const auto started = Start(image, upload, 4096);
    Say(absl::StrCat("put ", image.ToString(), " by ", upload.ToString(), ": ",
                     started.status().ToString()));
    if (!started.ok()) {
      ++counts_["puts refused"];
      return;
    }
    FakeAgent* const agent = AgentOf(started->target().mount());
    ASSERT_NE(agent, nullptr);
    truth.allowed.insert(upload.bytes());
    const uint64_t trouble = Below(10);
    if (trouble == 0) {
      return;  // its client dies
    }
    if (!agent->Write(upload, 4096, false)) {
      return;
    }
    if (trouble == 1) {
      agent->Lose();
      away_.insert(agent);
      held_.erase(agent);
      Say(absl::StrCat("its mount leaves: ", agent->name()));
    } else if (trouble == 2) {
      Kill();
    }
    agent->Publish(upload);
    Settle();
    const auto ack = agent->ack(upload);
    if (ack.has_value() &&
        ack->outcome() == storage::v1::UPLOAD_OUTCOME_COMMITTED) {
      Say("acknowledged");
      ++counts_["puts"];
      truth.allowed = {upload.bytes()};
    }
  }

  void Remove() {
    if (images_.empty()) {
      return;
    }
    const Uuid image = images_[Below(images_.size())];
    Truth& truth = truth_[image];
    const bool certain = truth.certain();
    const absl::Status status = Delete(image);
    Say(absl::StrCat("delete ", image.ToString(), ": ", status.ToString()));
    if (status.ok()) {
      ++counts_["deletes"];
      for (const std::string& upload : truth.allowed) {
        if (!upload.empty()) {
          truth.deleted.insert(upload);
        }
      }
      truth.allowed = {""};
    } else if (absl::IsNotFound(status)) {
      EXPECT_FALSE(certain) << "NOT_FOUND for " << image.ToString();
    } else {
      truth.allowed.insert("");
    }
  }

  void Look() {
    for (const Uuid& image : images_) {
      CheckOne(image, /*quiet=*/false);
    }
  }

  void CheckOne(const Uuid& image, bool quiet) {
    const Truth& truth = truth_[image];
    const auto got = lifecycle_->images().Get(image);
    if (got.ok()) {
      const auto upload = ParseUploadName(got->upload());
      ASSERT_OK(upload);
      // After a rollback a deleted image shows until the mount with the copy
      // of its tombstone is back.
      const bool phantom = old_copy_ && !HasFile(image, upload->bytes());
      if (!phantom && (quiet || !gone_back_)) {
        EXPECT_TRUE(truth.allowed.contains(upload->bytes()))
            << image.ToString() << " is of upload " << upload->ToString();
      }
    } else if (absl::IsNotFound(got.status())) {
      EXPECT_TRUE(truth.allowed.contains(""))
          << image.ToString() << ": " << got.status();
    } else {
      EXPECT_FALSE(quiet) << image.ToString() << ": " << got.status();
    }
  }

  // No file of an image that is certainly there was unlinked.
  void CheckFiles() {
    for (const auto& [image, truth] : truth_) {
      if (truth.certain()) {
        EXPECT_TRUE(HasFile(image, *truth.allowed.begin()))
            << "the file of " << image.ToString() << " is gone";
      }
    }
  }
  bool HasFile(const Uuid& image, const std::string& upload) {
    for (const auto& agent : agents_) {
      const auto file = agent->file(image);
      if (file.has_value() && file->upload_id == upload) {
        return true;
      }
    }
    return false;
  }

  void CheckQuiet() {
    EXPECT_FALSE(lifecycle_->trust().recovering());
    for (const auto& [image, truth] : truth_) {
      CheckOne(image, /*quiet=*/true);
      for (const std::string& upload : truth.deleted) {
        EXPECT_FALSE(HasFile(image, upload))
            << "a file of " << image.ToString() << " outlived its delete";
      }
    }
  }

  // Nobody has touched a directory: the index alone tells what lies there.
  void CheckDigests() {
    const auto before = lifecycle_->inventory().digests();
    clock_.Advance(options_.rescan_interval);
    BeatAll();
    for (size_t i = 0; i < agents_.size(); ++i) {
      Tick();
    }
    const auto after = lifecycle_->inventory().digests();
    EXPECT_EQ(after.same - before.same, static_cast<int64_t>(agents_.size()));
    EXPECT_EQ(after.other, before.other);
    counts_["digests as expected"] += static_cast<int>(after.same);
    counts_["other digests"] += static_cast<int>(after.other);
  }

  void Leave() {
    FakeAgent* const agent = agents_[Below(agents_.size())].get();
    agent->Lose();
    Settle();
    away_.insert(agent);
    Say(absl::StrCat("mount leaves: ", agent->name(),
                     held_.erase(agent) > 0 ? ", messages are lost" : ""));
    ++counts_["mounts left"];
  }
  void Return(FakeAgent* agent) {
    away_.erase(agent);
    Connect(agent);
    Say(absl::StrCat("mount returns: ", agent->name()));
  }
  void Hold() {
    FakeAgent* const agent = agents_[Below(agents_.size())].get();
    if (away_.contains(agent) || held_.contains(agent)) {
      return;
    }
    const uint64_t which = Below(3);
    agent->Hold(which != 0, which != 1);
    held_.insert(agent);
    Say(absl::StrCat("messages are late ",
                     which == 0   ? "to "
                     : which == 1 ? "from "
                                  : "to and from ",
                     agent->name()));
    ++counts_["delays"];
  }
  void Release() {
    FakeAgent* const agent = *held_.begin();
    held_.erase(agent);
    agent->Release();
    Settle();
    Say(absl::StrCat("they arrive: ", agent->name()));
  }
  // By minutes, by days or by ten years; what was measured from boot goes on.
  void JumpClock() {
    const absl::Duration units[] = {absl::Minutes(1), absl::Hours(24),
                                    absl::Hours(24 * 365)};
    const absl::Duration by =
        units[Below(3)] * (static_cast<int64_t>(Below(21)) - 10);
    clock_.JumpWall(by);
    Say(absl::StrCat("the clock jumps by ", absl::FormatDuration(by)));
    ++counts_["clock jumps"];
  }
  void BeatAll() {
    for (const auto& agent : agents_) {
      if (!away_.contains(agent.get())) {
        agent->Beat();
      }
    }
    Settle();
  }
  // Mounts that were there come back one after the other, some not at once.
  void ComeBack() {
    for (const auto& agent : agents_) {
      if (!away_.contains(agent.get())) {
        if (Below(4) == 0) {
          away_.insert(agent.get());
        } else {
          Connect(agent.get());
        }
      }
    }
  }
  void Kill() {
    Say("the coordinator is killed");
    ++counts_["kills"];
    held_.clear();
    Restart();
    ComeBack();
  }
  void GoBack() {
    if (!saved_.has_value()) {
      return;
    }
    Say("the index goes back");
    held_.clear();
    ++counts_["rollbacks"];
    gone_back_ = true;
    // A tombstone was written, and is dropped, at some times in between.
    old_copy_ = old_copy_ || latest_ - earliest_ >= options_.tombstone_ttl;
    RestartFrom(*saved_);
    ComeBack();
  }

  std::mt19937_64 rng_;
  std::string trace_;
  std::map<Uuid, Truth> truth_;
  std::vector<Uuid> images_;
  std::set<FakeAgent*> away_;
  // Those with messages that are under way.
  std::set<FakeAgent*> held_;
  std::optional<server::MemKvStore::Rows> saved_;
  // Of the wall clock since the copy was made.
  absl::Time earliest_;
  absl::Time latest_;
  bool gone_back_ = false;
  // Some copy that it went back to was older than tombstones are kept: rows of
  // deleted images come back with it, their files do not.
  bool old_copy_ = false;
  std::map<std::string, int> counts_;
};

class OneHistory final : public HistoryTest {
 public:
  void TestBody() override {}
  using HistoryTest::Run;
  using HistoryTest::totals_;
};

TEST(HistoriesTest, WhatWasAcknowledgedHolds) {
  SetLogLevel("off");
  const int64_t histories = FromEnvironment("PREDELLA_HISTORIES", 60);
  const int64_t first =
      FromEnvironment("PREDELLA_HISTORY_SEED",
                      static_cast<int64_t>(RandomIds()->NextUint64() >> 32));
  std::map<std::string, int> totals;
  int64_t done = 0;
  for (; done < histories && !::testing::Test::HasFailure(); ++done) {
    SCOPED_TRACE(absl::StrCat("PREDELLA_HISTORY_SEED=", first + done,
                              " PREDELLA_HISTORIES=1"));
    OneHistory history;
    history.Run(static_cast<uint64_t>(first + done));
    for (const auto& [kind, count] : history.totals_) {
      totals[kind] += count;
    }
  }
  std::string line =
      absl::StrCat("PREDELLA_HISTORY_SEED=", first, ": ", done, " histories");
  for (const auto& [kind, count] : totals) {
    absl::StrAppend(&line, ", ", count, " ", kind);
  }
  std::printf("%s\ninjected faults: %d\n", line.c_str(),
              totals["mounts left"] + totals["kills"] + totals["rollbacks"] +
                  totals["delays"] + totals["clock jumps"]);
  for (const char* kind : {"puts", "deletes", "mounts left", "kills",
                           "rollbacks", "delays", "clock jumps"}) {
    // Of 60 histories with half a rollback each, one in a hundred has fewer
    // than 15.
    EXPECT_GE(totals[kind], done / (done < 200 ? 10 : 4)) << kind;
  }
}

}  // namespace
}  // namespace predella::testing
