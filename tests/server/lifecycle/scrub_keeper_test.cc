// Scrubs as the coordinator keeps them: passes, findings, and what is required.
#include "server/lifecycle/scrub_keeper.h"

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/server/lifecycle/lifecycle_fixture.h"

namespace predella::server {
namespace {

using control::v1::CopyFaults;
using storage::v1::CopyFault;
using testing::FakeAgent;

class ScrubKeeperTest : public testing::LifecycleFixture {
 protected:
  v1::Mount Mount(const std::string& name) {
    v1::GetMountRequest request;
    request.set_name("mounts/" + name);
    const auto mount = lifecycle_->mounts().Get(request);
    EXPECT_OK(mount);
    return mount.ok() ? *mount : v1::Mount();
  }
  absl::Status Scrub(const std::string& name, bool restart = false,
                     int64_t rate = 0) {
    v1::ScrubMountRequest request;
    request.set_name("mounts/" + name);
    request.set_restart(restart);
    request.set_bytes_per_second(rate);
    const absl::Status status = lifecycle_->mounts().Scrub(request).status();
    Settle();
    return status;
  }
  absl::Status Pause(const std::string& name) {
    v1::PauseScrubRequest request;
    request.set_name("mounts/" + name);
    const absl::Status status =
        lifecycle_->mounts().PauseScrub(request).status();
    Settle();
    return status;
  }
  // What the agent was asked last, and how often it was asked.
  control::v1::StartScrub Asked(FakeAgent* agent, int* count = nullptr) {
    control::v1::StartScrub last;
    int n = 0;
    for (const control::v1::Command& command : agent->commands()) {
      if (command.has_start_scrub()) {
        last = command.start_scrub();
        ++n;
      }
    }
    if (count != nullptr) {
      *count = n;
    }
    return last;
  }
  int TimesAsked(FakeAgent* agent) {
    int count = 0;
    Asked(agent, &count);
    return count;
  }
  // Images 1..count on the mount, in the order of their ids.
  std::vector<Uuid> Fill(FakeAgent* agent, int count) {
    std::set<Uuid> images;
    for (int i = 0; i < count; ++i) {
      const Uuid image = ids_.NextUuid();
      Upload(agent, image, ids_.NextUuid());
      images.insert(image);
    }
    return {images.begin(), images.end()};
  }
  void Find(FakeAgent* agent, const Uuid& image, CopyFault fault,
            std::optional<storage::v1::Generation> of = std::nullopt) {
    CopyFaults faults;
    control::v1::CopyFinding* const finding = faults.add_findings();
    finding->set_image_id(image.bytes());
    const auto row = index_->GetImage(image);
    ASSERT_OK(row);
    if (of.has_value()) {
      *finding->mutable_generation() = *of;
    } else if (row->has_value()) {
      *finding->mutable_generation() = (*row)->generation();
    }
    finding->set_fault(fault);
    finding->set_detail("the block at 0 is wrong");
    agent->ReportFindings(faults);
    Settle();
  }
  void Progress(FakeAgent* agent, const Uuid& last, int64_t images, bool done) {
    control::v1::ScrubProgress progress;
    progress.set_scrub_id(Asked(agent).scrub_id());
    progress.set_last_image_id(last.bytes());
    progress.set_images(images);
    progress.set_bytes(4096 * images);
    progress.set_done(done);
    agent->Behave([&](FakeAgent::Behaviour* b) { b->scrub = progress; });
    agent->Beat();
    Settle();
  }
  void Health(FakeAgent* agent, v1::Health health) {
    agent->Behave([&](FakeAgent::Behaviour* b) {
      b->health = health;
      b->health_detail = health == v1::HEALTH_ONLINE ? "" : "read: EIO";
    });
    agent->Beat();
    Settle();
    Tick();
  }
  // The agent's process starts again.
  void Reconnect(FakeAgent* agent) {
    agent->Behave([](FakeAgent::Behaviour* b) { b->scrub.reset(); });
    agent->Lose();
    Settle();
    Connect(agent);
    agent->Beat();
    Settle();
    clock_.Advance(absl::Seconds(11));
    agent->Beat();
    Tick();
  }
  std::optional<storage::v1::FaultRow> FaultOf(FakeAgent* agent,
                                               const Uuid& image) {
    const auto row = index_->GetImage(image);
    return row.ok() && row->has_value() ? index_->FaultOf(**row, agent->uid())
                                        : std::nullopt;
  }
  int Events(absl::string_view kind) {
    int count = 0;
    EXPECT_OK(index_->ScanEvents([&](const storage::v1::EventRow& row) {
      count += row.kind() == kind ? 1 : 0;
    }));
    return count;
  }
  bool TakesImages() {
    const Uuid upload = ids_.NextUuid();
    const auto started = Start(ids_.NextUuid(), upload, 4096);
    return started.ok();
  }
};

TEST_F(ScrubKeeperTest, APassFromItsStartToItsEnd) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 4);
  EXPECT_FALSE(Mount("store-1").has_scrub());
  ASSERT_OK(Scrub("store-1", false, 1000));
  EXPECT_EQ(Asked(agent).bytes_per_second(), 1000);
  EXPECT_EQ(Asked(agent).after_image_id(), "");
  EXPECT_EQ(Mount("store-1").scrub().state(), v1::SCRUB_STATE_RUNNING);
  // Asked for again, it goes on.
  ASSERT_OK(Scrub("store-1"));
  EXPECT_EQ(TimesAsked(agent), 1);

  Find(agent, images[1], storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_EQ(Mount("store-1").scrub().fault_count(), 1);
  Progress(agent, images[2], 3, false);
  EXPECT_EQ(Mount("store-1").scrub().image_count(), 3);
  EXPECT_EQ(Mount("store-1").scrub().fault_count(), 1);
  ASSERT_TRUE(FaultOf(agent, images[1]).has_value());
  EXPECT_EQ(FaultOf(agent, images[1])->fault(),
            storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_EQ(index_->fault_count(agent->uid()), 1);

  clock_.Advance(absl::Minutes(5));
  agent->Beat();
  Progress(agent, images[3], 4, true);
  const v1::Scrub scrub = Mount("store-1").scrub();
  EXPECT_EQ(scrub.state(), v1::SCRUB_STATE_DONE);
  EXPECT_EQ(scrub.image_count(), 4);
  EXPECT_EQ(scrub.bytes(), 4 * 4096);
  EXPECT_EQ(scrub.fault_count(), 1);
  EXPECT_GT(scrub.complete_time().seconds(), scrub.create_time().seconds());
  EXPECT_EQ(Events("scrub_started"), 1);
  EXPECT_EQ(Events("scrub_completed"), 1);
  EXPECT_EQ(Events("copy_damaged"), 1);
}

// A scrub reads what is there: an earlier generation that somebody put back is
// whole, and an image without a file is not met. The pass ends with a listing.
TEST_F(ScrubKeeperTest, APassNamesWhatIsNotTheImage) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 4);
  ASSERT_OK(Scrub("store-1"));
  const FakeAgent::File right = *agent->file(images[1]);
  FakeAgent::File older = right;
  Generation generation = Generation::FromProto(right.generation);
  --generation.n;
  older.generation = generation.ToProto();
  older.upload_id = ids_.NextUuid().bytes();
  agent->Put(images[1], older);
  // Until the mount was listed the pass is not over.
  agent->Behave([](FakeAgent::Behaviour* b) {
    b->refuse_listing = absl::UnavailableError("not now");
  });
  Progress(agent, images[3], 4, true);
  Tick();
  EXPECT_EQ(Mount("store-1").scrub().state(), v1::SCRUB_STATE_RUNNING);
  EXPECT_THAT(Mount("store-1").scrub().detail(),
              ::testing::HasSubstr("listing of the mount: not now"));
  agent->Behave(
      [](FakeAgent::Behaviour* b) { b->refuse_listing = absl::OkStatus(); });
  clock_.Advance(absl::Seconds(5));  // whoever waits waits no minute
  agent->Beat();
  Settle();
  Tick();
  v1::Scrub scrub = Mount("store-1").scrub();
  EXPECT_EQ(scrub.state(), v1::SCRUB_STATE_DONE);
  EXPECT_EQ(scrub.fault_count(), 1);
  ASSERT_TRUE(FaultOf(agent, images[1]).has_value());
  EXPECT_EQ(FaultOf(agent, images[1])->fault(),
            storage::v1::COPY_FAULT_MISSING);
  EXPECT_EQ(Events("copy_missing"), 1);
  EXPECT_EQ(Events("scrub_completed"), 1);
  // Put back, the next pass says so.
  agent->Put(images[1], right);
  ASSERT_OK(Scrub("store-1"));
  Progress(agent, images[3], 4, true);
  scrub = Mount("store-1").scrub();
  EXPECT_EQ(scrub.state(), v1::SCRUB_STATE_DONE);
  EXPECT_EQ(scrub.fault_count(), 0);
}

TEST_F(ScrubKeeperTest, ItGoesOnBehindTheCursorAfterEveryRestart) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 6);
  ASSERT_OK(Scrub("store-1"));
  Find(agent, images[0], storage::v1::COPY_FAULT_DAMAGED);
  Progress(agent, images[1], 2, false);
  // The agent dies: what it was told last stands.
  Reconnect(agent);
  EXPECT_EQ(TimesAsked(agent), 2);
  EXPECT_EQ(Asked(agent).after_image_id(), images[1].bytes());
  clock_.Advance(absl::Seconds(70));
  Progress(agent, images[3], 2, false);
  EXPECT_EQ(Mount("store-1").scrub().image_count(), 4);
  Find(agent, images[4], storage::v1::COPY_FAULT_DAMAGED);

  // The coordinator dies: what it wrote last stands, and a finding behind the
  // cursor is found again and counted once.
  Restart();
  EXPECT_EQ(Mount("store-1").scrub().state(), v1::SCRUB_STATE_RUNNING);
  EXPECT_EQ(Mount("store-1").scrub().image_count(), 4);
  Reconnect(agent);
  EXPECT_EQ(Asked(agent).after_image_id(), images[3].bytes());
  Find(agent, images[4], storage::v1::COPY_FAULT_DAMAGED);
  Progress(agent, images[5], 2, true);
  EXPECT_EQ(Mount("store-1").scrub().image_count(), 6);
  EXPECT_EQ(Mount("store-1").scrub().fault_count(), 2);
  EXPECT_EQ(Events("copy_damaged"), 2);
}

TEST_F(ScrubKeeperTest, ProgressNeverPassesAFindingThatWasNotWritten) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 4);
  ASSERT_OK(Scrub("store-1"));
  Progress(agent, images[0], 1, false);
  kv_->FailCommit(1, MemKvStore::Fault::kBeforeApplying, /*disk_full=*/true);
  Find(agent, images[1], storage::v1::COPY_FAULT_DAMAGED);
  kv_->ClearFaults();
  Progress(agent, images[3], 4, true);
  EXPECT_FALSE(FaultOf(agent, images[1]).has_value());
  EXPECT_EQ(Mount("store-1").scrub().state(), v1::SCRUB_STATE_RUNNING);
  EXPECT_EQ(Mount("store-1").scrub().image_count(), 1);
}

TEST_F(ScrubKeeperTest, AnAgentThatLostItsPartIsAskedAgain) {
  FakeAgent* const agent = AddConnected("store-1");
  Fill(agent, 2);
  ASSERT_OK(Scrub("store-1"));
  agent->Beat();
  Settle();
  clock_.Advance(absl::Seconds(11));
  agent->Beat();
  Tick();
  EXPECT_EQ(TimesAsked(agent), 2);
}

TEST_F(ScrubKeeperTest, PausedUntilItIsAskedForAgain) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 4);
  EXPECT_FALSE(Pause("store-1").ok());
  ASSERT_OK(Scrub("store-1"));
  Progress(agent, images[1], 2, false);
  ASSERT_OK(Pause("store-1"));
  EXPECT_TRUE(agent->commands().back().has_stop_scrub());
  Progress(agent, images[3], 4, true);  // what was on its way
  EXPECT_EQ(Mount("store-1").scrub().state(), v1::SCRUB_STATE_PAUSED);
  Restart();
  Reconnect(agent);
  EXPECT_EQ(TimesAsked(agent), 1);
  EXPECT_EQ(Mount("store-1").scrub().state(), v1::SCRUB_STATE_PAUSED);
  ASSERT_OK(Scrub("store-1"));
  EXPECT_EQ(Asked(agent).after_image_id(), images[1].bytes());
  ASSERT_OK(Scrub("store-1", /*restart=*/true));
  EXPECT_EQ(Asked(agent).after_image_id(), "");
  EXPECT_EQ(Mount("store-1").scrub().image_count(), 0);
}

TEST_F(ScrubKeeperTest, AFindingCountsForItsGenerationAlone) {
  FakeAgent* const agent = AddConnected("store-1");
  FakeAgent* const other = AddConnected("store-2", 200);
  const std::vector<Uuid> images = Fill(agent, 3);
  storage::v1::Generation older = (*index_->GetImage(images[0]))->generation();
  older.set_n(older.n() - 1);
  Find(agent, images[0], storage::v1::COPY_FAULT_DAMAGED, older);
  Find(other, images[0], storage::v1::COPY_FAULT_DAMAGED);
  ASSERT_OK(Delete(images[1]));
  Find(agent, images[1], storage::v1::COPY_FAULT_MISSING);
  EXPECT_EQ(index_->fault_count(agent->uid()), 0);
  EXPECT_EQ(index_->fault_count(other->uid()), 0);
  EXPECT_EQ(Events("copy_damaged") + Events("copy_missing"), 0);
  // Said again, it is no news.
  Find(agent, images[2], storage::v1::COPY_FAULT_MISSING);
  Find(agent, images[2], storage::v1::COPY_FAULT_MISSING);
  EXPECT_EQ(Events("copy_missing"), 1);
  Find(agent, images[2], storage::v1::COPY_FAULT_UNSPECIFIED);
  EXPECT_EQ(index_->fault_count(agent->uid()), 0);
  EXPECT_EQ(Events("copy_whole_again"), 1);
}

// The next listing that sees a file would end it otherwise.
TEST_F(ScrubKeeperTest, ADamagedCopyIsNotMissingWhereItMayNotBeRead) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 2);
  Find(agent, images[0], storage::v1::COPY_FAULT_DAMAGED);
  Find(agent, images[0], storage::v1::COPY_FAULT_MISSING);
  EXPECT_EQ(FaultOf(agent, images[0])->fault(),
            storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_EQ(Events("copy_missing"), 0);
  Find(agent, images[1], storage::v1::COPY_FAULT_MISSING);
  Find(agent, images[1], storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_EQ(FaultOf(agent, images[1])->fault(),
            storage::v1::COPY_FAULT_DAMAGED);
}

TEST_F(ScrubKeeperTest, WhatAPassDidNotSeeIsLookedAt) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 3);
  Find(agent, images[0], storage::v1::COPY_FAULT_DAMAGED);
  Find(agent, images[1], storage::v1::COPY_FAULT_DAMAGED);
  clock_.Advance(absl::Seconds(5));
  agent->Beat();
  ASSERT_OK(Scrub("store-1"));
  Find(agent, images[1], storage::v1::COPY_FAULT_DAMAGED);
  Progress(agent, images[2], 3, true);
  for (int i = 0; i < 4; ++i) {
    Tick();
  }
  std::vector<std::string> checked;
  for (const control::v1::Command& command : agent->commands()) {
    if (command.has_check_copy()) {
      checked.push_back(command.check_copy().image_id());
    }
  }
  EXPECT_EQ(checked, std::vector<std::string>{images[0].bytes()});
}

TEST_F(ScrubKeeperTest, AMountThatShowedErrorsNeedsAWholePass) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 3);
  ASSERT_TRUE(TakesImages());
  Health(agent, v1::HEALTH_SUSPECT);
  Health(agent, v1::HEALTH_SUSPECT);
  EXPECT_EQ(Events("scrub_required"), 1);
  EXPECT_TRUE(Mount("store-1").scrub().required());
  EXPECT_EQ(TimesAsked(agent), 0);  // not while it shows them
  clock_.Advance(absl::Seconds(3));
  Health(agent, v1::HEALTH_ONLINE);
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_SUSPECT);
  EXPECT_NE(Mount("store-1").health_detail().find("EIO"), std::string::npos);
  EXPECT_NE(Mount("store-1").health_detail().find("scrub"), std::string::npos);
  EXPECT_FALSE(TakesImages());
  EXPECT_EQ(TimesAsked(agent), 1);

  // Survives both.
  Restart();
  Reconnect(agent);
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_SUSPECT);
  EXPECT_FALSE(TakesImages());
  EXPECT_EQ(TimesAsked(agent), 2);
  Find(agent, images[2], storage::v1::COPY_FAULT_DAMAGED);
  Progress(agent, images[2], 3, true);
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_ONLINE);
  EXPECT_FALSE(Mount("store-1").scrub().required());
  EXPECT_TRUE(TakesImages());
  EXPECT_EQ(Events("scrub_requirement_met"), 1);
  EXPECT_EQ(index_->fault_count(agent->uid()), 1);
  // And stays so.
  for (int i = 0; i < 5; ++i) {
    agent->Beat();
    Tick();
  }
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_ONLINE);
  EXPECT_EQ(Events("scrub_required"), 1);
}

TEST_F(ScrubKeeperTest, ARequirementThatWasNotSettledAtOnceIsSettledLater) {
  for (const bool restart : {false, true}) {
    SCOPED_TRACE(restart);
    const std::string name = restart ? "store-2" : "store-1";
    FakeAgent* const agent = AddConnected(name);
    const std::vector<Uuid> images = Fill(agent, 1);
    Health(agent, v1::HEALTH_SUSPECT);
    clock_.Advance(absl::Seconds(3));
    Health(agent, v1::HEALTH_ONLINE);
    ASSERT_EQ(TimesAsked(agent), 1);
    // The pass is done, and what it was for is not written any more.
    kv_->FailCommit(2, MemKvStore::Fault::kBeforeApplying, /*disk_full=*/true);
    Progress(agent, images[0], 1, true);
    kv_->ClearFaults();
    ASSERT_EQ(Mount(name).scrub().state(), v1::SCRUB_STATE_DONE);
    ASSERT_TRUE(Mount(name).scrub().required());
    if (restart) {
      Restart();
      Reconnect(agent);
    }
    agent->Beat();
    Tick();
    EXPECT_FALSE(Mount(name).scrub().required());
    EXPECT_EQ(Mount(name).health(), v1::HEALTH_ONLINE);
  }
}

TEST_F(ScrubKeeperTest, AClockThatWasSetBackMakesNoEndlessScrubs) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 1);
  Health(agent, v1::HEALTH_SUSPECT);
  clock_.JumpWall(-absl::Hours(5));
  clock_.Advance(absl::Seconds(3));
  Health(agent, v1::HEALTH_ONLINE);
  ASSERT_EQ(TimesAsked(agent), 1);
  Progress(agent, images[0], 1, true);
  EXPECT_FALSE(Mount("store-1").scrub().required());
  // And an error that comes after it is not called older than it.
  clock_.JumpWall(-absl::Hours(5));
  Health(agent, v1::HEALTH_SUSPECT);
  clock_.Advance(absl::Seconds(3));
  Health(agent, v1::HEALTH_ONLINE);
  EXPECT_TRUE(Mount("store-1").scrub().required());
  EXPECT_EQ(TimesAsked(agent), 2);
  Progress(agent, images[0], 1, true);
  EXPECT_FALSE(Mount("store-1").scrub().required());
}

TEST_F(ScrubKeeperTest, APassThatBeganBeforeTheErrorsIsNotEnough) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 3);
  ASSERT_OK(Scrub("store-1"));
  Progress(agent, images[0], 1, false);
  clock_.Advance(absl::Seconds(3));
  Health(agent, v1::HEALTH_FAILED);
  Health(agent, v1::HEALTH_ONLINE);
  Progress(agent, images[2], 3, true);
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_SUSPECT);
  clock_.Advance(absl::Seconds(3));
  agent->Beat();
  Tick();
  EXPECT_EQ(TimesAsked(agent), 2);
  EXPECT_EQ(Asked(agent).after_image_id(), "");
  Progress(agent, images[2], 3, true);
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_ONLINE);
}

// Damage that a pass itself found is met by its own end: no pass for ever on
// a mount whose copies nobody repairs.
TEST_F(ScrubKeeperTest, APassCoversTheDamageThatItFound) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 4);
  ASSERT_OK(Scrub("store-1"));
  Progress(agent, images[0], 1, false);
  clock_.Advance(absl::Seconds(3));
  Find(agent, images[1], storage::v1::COPY_FAULT_DAMAGED);
  Health(agent, v1::HEALTH_SUSPECT);
  Progress(agent, images[1], 2, false);
  Health(agent, v1::HEALTH_ONLINE);
  // Until it has finished, whatever the probes say.
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_SUSPECT);
  EXPECT_FALSE(TakesImages());
  Find(agent, images[2], storage::v1::COPY_FAULT_DAMAGED);
  Health(agent, v1::HEALTH_SUSPECT);
  Health(agent, v1::HEALTH_ONLINE);
  EXPECT_EQ(Events("scrub_required"), 1);
  Progress(agent, images[3], 4, true);
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_ONLINE);
  EXPECT_TRUE(TakesImages());
  for (int i = 0; i < 20; ++i) {
    clock_.Advance(absl::Seconds(3));
    agent->Beat();
    Tick();
  }
  EXPECT_EQ(TimesAsked(agent), 1);
  EXPECT_EQ(Events("scrub_requirement_met"), 1);
}

TEST_F(ScrubKeeperTest, APassWhoseLastImageIsDamagedIsNotDoneAgain) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 2);
  ASSERT_OK(Scrub("store-1"));
  Find(agent, images[1], storage::v1::COPY_FAULT_DAMAGED);
  Progress(agent, images[1], 2, true);
  // For as long as clean probes take.
  for (int i = 0; i < 6; ++i) {
    Health(agent, v1::HEALTH_SUSPECT);
    clock_.Advance(absl::Seconds(2));
  }
  Health(agent, v1::HEALTH_ONLINE);
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_ONLINE);
  EXPECT_EQ(TimesAsked(agent), 1);
  EXPECT_EQ(Events("scrub_required"), 0);
  // Damage that is seen later is another matter.
  clock_.Advance(absl::Seconds(10));
  Health(agent, v1::HEALTH_SUSPECT);
  EXPECT_EQ(Events("scrub_required"), 1);
  EXPECT_TRUE(Mount("store-1").scrub().required());
}

TEST_F(ScrubKeeperTest, AnErrorDuringAPassThatFoundDamageNeedsAnother) {
  FakeAgent* const agent = AddConnected("store-1");
  const std::vector<Uuid> images = Fill(agent, 3);
  ASSERT_OK(Scrub("store-1"));
  Progress(agent, images[0], 1, false);
  Find(agent, images[1], storage::v1::COPY_FAULT_DAMAGED);
  Health(agent, v1::HEALTH_SUSPECT);
  // It never looked well in between.
  agent->Behave([](FakeAgent::Behaviour* b) { b->health_error = "EIO"; });
  Health(agent, v1::HEALTH_SUSPECT);
  EXPECT_EQ(Events("scrub_required"), 2);
  agent->Behave([](FakeAgent::Behaviour* b) { b->health_error = ""; });
  Health(agent, v1::HEALTH_ONLINE);
  Progress(agent, images[2], 3, true);
  EXPECT_EQ(Mount("store-1").health(), v1::HEALTH_SUSPECT);
  agent->Beat();
  Tick();
  EXPECT_EQ(TimesAsked(agent), 2);
}

TEST_F(ScrubKeeperTest, EachMountIsDueOnceInAnInterval) {
  options_.scrub_interval = absl::Hours(24);
  Restart();
  FakeAgent* const first = AddAgent("store-1");
  FakeAgent* const second = AddAgent("store-2");
  for (FakeAgent* agent : {first, second}) {
    agent->Behave([](FakeAgent::Behaviour* b) { b->host = "one"; });
    Connect(agent);
  }
  Tick();
  EXPECT_EQ(TimesAsked(first) + TimesAsked(second), 0);
  clock_.Advance(absl::Hours(25));
  first->Beat();
  second->Beat();
  Tick();
  Tick();
  // One of a host at a time.
  ASSERT_EQ(TimesAsked(first) + TimesAsked(second), 1);
  FakeAgent* const runs = TimesAsked(first) == 1 ? first : second;
  FakeAgent* const waits = runs == first ? second : first;
  Progress(runs, Uuid(), 0, true);
  Tick();
  EXPECT_EQ(TimesAsked(waits), 1);
  EXPECT_EQ(TimesAsked(runs), 1);
  Progress(waits, Uuid(), 0, true);
  Tick();
  EXPECT_EQ(TimesAsked(first) + TimesAsked(second), 2);
}

TEST_F(ScrubKeeperTest, NeverByItselfWithoutAnInterval) {
  options_.scrub_interval = absl::ZeroDuration();
  Restart();
  FakeAgent* const agent = AddConnected("store-1");
  clock_.Advance(absl::Hours(24 * 365));
  agent->Beat();
  Tick();
  EXPECT_EQ(TimesAsked(agent), 0);
}

}  // namespace
}  // namespace predella::server
