#include "server/placement/mount_registry.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/units.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::HasReason;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::Not;
using testing::StatusIs;

Uuid Uid(int number) {
  std::string uid(16, '\0');
  uid[15] = static_cast<char>(number);
  return Uuid::FromBytesOrNone(uid);
}

PlacementRequest Size(int64_t bytes) {
  PlacementRequest request;
  request.size_bytes = bytes;
  return request;
}

control::v1::Space MakeSpace(int64_t size, int64_t available,
                             int64_t command = 0) {
  control::v1::Space space;
  space.set_size_bytes(size);
  space.set_available_bytes(available);
  space.set_free_bytes(available);
  space.set_available_inodes(100'000);
  space.set_size_inodes(200'000);
  space.set_command_number(command);
  return space;
}

class MountRegistryTest : public ::testing::Test {
 protected:
  MountRegistryTest() : registry_(&clock_, &ids_, RegistryOptions()) {}

  storage::v1::MountRow Row(int number) {
    storage::v1::MountRow row;
    row.set_mount_uid(Uid(number).bytes());
    row.set_mount_name(absl::StrCat("store-", number));
    row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
    return row;
  }
  control::v1::Hello Hello(int number, int priority = 100) {
    control::v1::Hello hello;
    hello.set_mount_name(absl::StrCat("store-", number));
    hello.set_priority(priority);
    return hello;
  }
  control::v1::MountReport Report(const control::v1::Space& space) {
    control::v1::MountReport report;
    *report.mutable_space() = space;
    report.mutable_health()->set_health(v1::HEALTH_ONLINE);
    return report;
  }
  // A mount that is there and attached in session `session`.
  void Bring(int number, const control::v1::Space& space, int64_t session = 1,
             const std::string& space_group = "") {
    registry_.SetRow(Row(number));
    control::v1::Hello hello = Hello(number);
    hello.set_space_group(space_group);
    registry_.SessionOpened(Uid(number), session, hello);
    registry_.Reported(Uid(number), session, Report(space));
    registry_.Attached(Uid(number), session, /*trusted=*/true);
  }
  void Beat(int number, const control::v1::Space& space, int64_t session = 1,
            v1::Health health = v1::HEALTH_ONLINE) {
    control::v1::Heartbeat heartbeat;
    *heartbeat.mutable_space() = space;
    heartbeat.mutable_health()->set_health(health);
    registry_.Heard(Uid(number), session, heartbeat);
  }
  int64_t Available(int number) {
    return registry_.Find(Uid(number))->view.available_bytes;
  }
  v1::Health HealthOf(int number) {
    return registry_.Find(Uid(number))->health;
  }

  testing::FakeClock clock_;
  testing::FakeIds ids_;
  MountRegistry registry_;
};

// --- health by time

TEST_F(MountRegistryTest, AMountNeverHeardIsUnknownThenUnreachable) {
  registry_.SetRow(Row(1));
  EXPECT_EQ(HealthOf(1), v1::HEALTH_UNKNOWN);
  clock_.Advance(absl::Seconds(29));
  EXPECT_EQ(HealthOf(1), v1::HEALTH_UNKNOWN);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(HealthOf(1), v1::HEALTH_UNREACHABLE);
  EXPECT_THAT(registry_.Find(Uid(1))->health_detail,
              HasSubstr("has not been heard since the coordinator started "
                        "30 s ago"));
  EXPECT_THAT(registry_.Missing(), ElementsAre("store-1"));
}

TEST_F(MountRegistryTest, ABrokenSessionStopsPlacementAtOnceAndHealthLater) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  EXPECT_EQ(HealthOf(1), v1::HEALTH_ONLINE);
  EXPECT_OK(registry_.Reserve(Size(kGiB)));
  registry_.SessionClosed(Uid(1), 1);
  EXPECT_EQ(HealthOf(1), v1::HEALTH_ONLINE);
  const auto placed = registry_.Reserve(Size(kGiB));
  EXPECT_THAT(placed, HasReason(reason::kMountsMissing));
  EXPECT_THAT(placed, StatusIs(absl::StatusCode::kUnavailable,
                               HasSubstr("store-1 is not ready")));
  clock_.Advance(absl::Milliseconds(14'999));
  EXPECT_EQ(HealthOf(1), v1::HEALTH_ONLINE);
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_EQ(HealthOf(1), v1::HEALTH_UNREACHABLE);
}

TEST_F(MountRegistryTest, ASilentSessionIsUnreachableUntilItIsHeard) {
  const auto space = MakeSpace(100 * kGiB, 50 * kGiB);
  Bring(1, space);
  clock_.Advance(absl::Seconds(14));
  Beat(1, space);
  clock_.Advance(absl::Seconds(14));
  EXPECT_OK(registry_.Reserve(Size(kGiB)));
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(registry_.Reserve(Size(kGiB)), HasReason(reason::kMountsMissing));
  EXPECT_EQ(HealthOf(1), v1::HEALTH_UNREACHABLE);
  Beat(1, space);
  EXPECT_EQ(HealthOf(1), v1::HEALTH_ONLINE);
  EXPECT_OK(registry_.Reserve(Size(kGiB)));
}

TEST_F(MountRegistryTest, WallTimeDoesNotMoveHealth) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  clock_.JumpWall(absl::Hours(5));
  EXPECT_EQ(HealthOf(1), v1::HEALTH_ONLINE);
  clock_.JumpWall(-absl::Hours(50));
  EXPECT_EQ(HealthOf(1), v1::HEALTH_ONLINE);
}

TEST_F(MountRegistryTest, ReportedHealthIsTaken) {
  const auto space = MakeSpace(100 * kGiB, 50 * kGiB);
  Bring(1, space);
  Beat(1, space, 1, v1::HEALTH_HUNG);
  EXPECT_EQ(HealthOf(1), v1::HEALTH_HUNG);
  EXPECT_THAT(
      registry_.Reserve(Size(kGiB)),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("store-1 is HUNG")));
  // A mount that hangs before its disk answered for the first time.
  registry_.SetRow(Row(2));
  registry_.SessionOpened(Uid(2), 7, Hello(2));
  control::v1::Heartbeat heartbeat;
  heartbeat.mutable_health()->set_health(v1::HEALTH_HUNG);
  registry_.Heard(Uid(2), 7, heartbeat);
  EXPECT_EQ(HealthOf(2), v1::HEALTH_HUNG);
  EXPECT_FALSE(registry_.Find(Uid(2))->has_space);
}

TEST_F(MountRegistryTest, MaintenanceExcusesUntilItsEnd) {
  storage::v1::MountRow row = Row(1);
  row.set_admin_state(storage::v1::ADMIN_STATE_MAINTENANCE);
  row.set_maintenance_until_us(
      absl::ToUnixMicros(clock_.Now() + absl::Hours(1)));
  registry_.SetRow(row);
  EXPECT_THAT(registry_.Missing(), IsEmpty());
  EXPECT_TRUE(registry_.AllSettled());
  clock_.Advance(absl::Hours(1));
  EXPECT_THAT(registry_.Missing(), ElementsAre("store-1"));
  EXPECT_FALSE(registry_.AllSettled());
  EXPECT_EQ(registry_.Find(Uid(1))->view.admin_state,
            storage::v1::ADMIN_STATE_ACTIVE);
  // As it stands in the index: what a change of it requires.
  EXPECT_EQ(registry_.Find(Uid(1))->row.admin_state(),
            storage::v1::ADMIN_STATE_MAINTENANCE);
}

TEST_F(MountRegistryTest, MissingAndSettledFollowTheSessions) {
  registry_.SetRow(Row(2));
  storage::v1::MountRow unconfirmed = Row(3);
  unconfirmed.set_unconfirmed(true);
  registry_.SetRow(unconfirmed);
  Bring(1, MakeSpace(kGiB, kGiB));
  EXPECT_THAT(registry_.Missing(), ElementsAre("store-2", "store-3"));
  storage::v1::MountRow retired = Row(3);
  retired.set_admin_state(storage::v1::ADMIN_STATE_RETIRED);
  registry_.SetRow(retired);
  registry_.SessionOpened(Uid(2), 4, Hello(2));
  EXPECT_THAT(registry_.Missing(), ElementsAre("store-2"));
  registry_.Attached(Uid(2), 4, /*trusted=*/false);
  EXPECT_THAT(registry_.Missing(), IsEmpty());
  EXPECT_FALSE(registry_.AllSettled());
  registry_.SetTrusted(Uid(2), true);
  EXPECT_TRUE(registry_.AllSettled());
  registry_.SessionClosed(Uid(2), 4);
  EXPECT_FALSE(registry_.AllSettled());
  EXPECT_THAT(registry_.Missing(), IsEmpty()) << "it registered once";
}

TEST_F(MountRegistryTest, OnlyTheNewestSessionIsHeard) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB), 1);
  registry_.SessionOpened(Uid(1), 2, Hello(1));
  Beat(1, MakeSpace(100 * kGiB, 10 * kGiB), 1);
  registry_.Attached(Uid(1), 1, true);
  registry_.SessionClosed(Uid(1), 1);
  const auto info = registry_.Find(Uid(1));
  EXPECT_TRUE(info->session_open);
  EXPECT_FALSE(info->attached);
  EXPECT_EQ(info->space.available_bytes(), 50 * kGiB);
  // The old snapshot does not make the new session ready.
  registry_.Attached(Uid(1), 2, true);
  EXPECT_THAT(registry_.Reserve(Size(kGiB)), HasReason(reason::kMountsMissing));
  Beat(1, MakeSpace(100 * kGiB, 40 * kGiB), 2);
  EXPECT_OK(registry_.Reserve(Size(kGiB)));
}

TEST_F(MountRegistryTest, FindsAndListsByName) {
  for (const int number : {3, 1, 2}) {
    registry_.SetRow(Row(number));
  }
  std::vector<std::string> names;
  for (const MountInfo& info : registry_.List()) {
    names.push_back(info.view.name);
  }
  EXPECT_THAT(names, ElementsAre("store-1", "store-2", "store-3"));
  EXPECT_EQ(registry_.FindByName("store-2")->view.uid, Uid(2));
  EXPECT_FALSE(registry_.FindByName("store-9").has_value());
  EXPECT_FALSE(registry_.Find(Uid(9)).has_value());
}

// --- promises

TEST_F(MountRegistryTest, APromiseLastsExactlyUntilTheLedgerShowsIt) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  EXPECT_EQ(Available(1), 50 * kGiB);
  {
    ASSERT_OK_AND_ASSIGN(auto placed, registry_.Reserve(Size(10 * kGiB)));
    EXPECT_TRUE(placed.reservation.held());
    EXPECT_EQ(placed.reservation.bytes(), 10 * kGiB);
    EXPECT_EQ(Available(1), 40 * kGiB);
  }
  EXPECT_EQ(Available(1), 50 * kGiB);  // given back

  ASSERT_OK_AND_ASSIGN(auto placed, registry_.Reserve(Size(10 * kGiB)));
  placed.reservation.HandOver(5);
  EXPECT_FALSE(placed.reservation.held());
  placed.reservation = Reservation();
  EXPECT_EQ(Available(1), 40 * kGiB);  // whatever happens to the object
  Beat(1, MakeSpace(100 * kGiB, 50 * kGiB, 4));
  EXPECT_EQ(Available(1), 40 * kGiB);  // a snapshot from before the command
  auto space = MakeSpace(100 * kGiB, 50 * kGiB, 5);
  space.set_promised_bytes(10 * kGiB);
  registry_.SpaceSeen(Uid(1), 1, space);
  EXPECT_EQ(Available(1), 40 * kGiB);  // counted once, by the ledger
  space = MakeSpace(100 * kGiB, 43 * kGiB, 5);
  space.set_promised_bytes(3 * kGiB);
  Beat(1, space);
  EXPECT_EQ(Available(1), 40 * kGiB);
}

TEST_F(MountRegistryTest, ASnapshotMayBeFasterThanTheHandOver) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  ASSERT_OK_AND_ASSIGN(auto placed, registry_.Reserve(Size(10 * kGiB)));
  auto space = MakeSpace(100 * kGiB, 50 * kGiB, 3);
  space.set_promised_bytes(10 * kGiB);
  registry_.SpaceSeen(Uid(1), 1, space);
  EXPECT_EQ(Available(1), 30 * kGiB);
  placed.reservation.HandOver(3);
  EXPECT_EQ(Available(1), 40 * kGiB);
}

TEST_F(MountRegistryTest, APromiseOfAnEarlierSessionEndsAfterAttaching) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  ASSERT_OK_AND_ASSIGN(auto placed, registry_.Reserve(Size(10 * kGiB)));
  placed.reservation.HandOver(9);
  registry_.SessionClosed(Uid(1), 1);
  registry_.SessionOpened(Uid(1), 2, Hello(1));
  registry_.Reported(Uid(1), 2, Report(MakeSpace(100 * kGiB, 50 * kGiB)));
  EXPECT_EQ(Available(1), 40 * kGiB);  // its uploads are not yet named
  registry_.Attached(Uid(1), 2, true);
  EXPECT_EQ(Available(1), 40 * kGiB);
  auto space = MakeSpace(100 * kGiB, 50 * kGiB, 0);
  space.set_promised_bytes(10 * kGiB);
  Beat(1, space, 2);
  EXPECT_EQ(Available(1), 40 * kGiB);
}

TEST_F(MountRegistryTest, AReservationMovesWithoutGivingBackTwice) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  ASSERT_OK_AND_ASSIGN(auto a, registry_.Reserve(Size(10 * kGiB)));
  ASSERT_OK_AND_ASSIGN(auto b, registry_.Reserve(Size(5 * kGiB)));
  EXPECT_EQ(Available(1), 35 * kGiB);
  a.reservation = std::move(b.reservation);
  EXPECT_EQ(Available(1), 45 * kGiB);
  Reservation c(std::move(a.reservation));
  EXPECT_EQ(c.bytes(), 5 * kGiB);
  c = Reservation();
  EXPECT_EQ(Available(1), 50 * kGiB);
}

TEST_F(MountRegistryTest, PromisesTakeInodesToo) {
  auto space = MakeSpace(100 * kGiB, 50 * kGiB);
  space.set_available_inodes(7);
  Bring(1, space);
  ASSERT_OK_AND_ASSIGN(const auto a, registry_.Reserve(Size(kMiB)));
  ASSERT_OK_AND_ASSIGN(const auto b, registry_.Reserve(Size(kMiB)));
  EXPECT_THAT(registry_.Reserve(Size(kMiB)),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("store-1 has 1 inodes left")));
}

TEST_F(MountRegistryTest, FileSystemWithoutInodesHasNoLimitOfThem) {
  auto space = MakeSpace(100 * kGiB, 50 * kGiB);
  space.set_available_inodes(0);
  space.set_size_inodes(0);  // btrfs
  Bring(1, space);
  EXPECT_THAT(registry_.Reserve(Size(kMiB)), IsOk());
}

TEST_F(MountRegistryTest, SpaceOfBeforeTheLastAnswerChangesNothing) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  auto now = MakeSpace(100 * kGiB, 50 * kGiB, /*command=*/7);
  now.set_promised_bytes(10 * kGiB);
  registry_.SpaceSeen(Uid(1), 1, now);
  EXPECT_EQ(Available(1), 40 * kGiB);
  Beat(1, MakeSpace(100 * kGiB, 50 * kGiB, /*command=*/6));
  EXPECT_EQ(Available(1), 40 * kGiB);
}

TEST_F(MountRegistryTest, ReserveIsKeptFree) {
  auto space = MakeSpace(100 * kGiB, 50 * kGiB);
  space.set_reserve_bytes(5 * kGiB);
  Bring(1, space);
  EXPECT_OK(registry_.Reserve(Size(45 * kGiB)));
  EXPECT_THAT(registry_.Reserve(Size(45 * kGiB + 1)),
              HasReason(reason::kNoSpaceInCluster));
}

// --- mounts that share one space

TEST_F(MountRegistryTest, MountsOfOneGroupShareTheirSpace) {
  auto first = MakeSpace(100 * kGiB, 50 * kGiB);
  first.set_reserve_bytes(kGiB);
  first.set_promised_bytes(2 * kGiB);
  auto second = MakeSpace(100 * kGiB, 48 * kGiB);
  second.set_reserve_bytes(3 * kGiB);
  second.set_promised_bytes(4 * kGiB);
  Bring(1, first, 1, "san");
  Bring(2, second, 1, "san");
  Bring(3, MakeSpace(100 * kGiB, 10 * kGiB));
  // min(50, 48) - max(1, 3) - (2 + 4)
  EXPECT_EQ(Available(1), 39 * kGiB);
  EXPECT_EQ(Available(2), 39 * kGiB);
  EXPECT_EQ(Available(3), 10 * kGiB);
  EXPECT_GE(registry_.Find(Uid(1))->view.space_group, 0);
  EXPECT_EQ(registry_.Find(Uid(3))->view.space_group, -1);

  // A promise on one counts on both; the next goes to the one with less of
  // ours, though their space is the same.
  ASSERT_OK_AND_ASSIGN(const auto a, registry_.Reserve(Size(10 * kGiB)));
  EXPECT_EQ(a.mount_name, "store-1");
  EXPECT_EQ(Available(2), 29 * kGiB);
  ASSERT_OK_AND_ASSIGN(const auto b, registry_.Reserve(Size(10 * kGiB)));
  EXPECT_EQ(b.mount_name, "store-2");
  EXPECT_EQ(Available(1), 19 * kGiB);
  EXPECT_THAT(registry_.Reserve(Size(20 * kGiB)),
              HasReason(reason::kNoSpaceInCluster));
  registry_.SetImageBytes(Uid(1), 90 * kGiB);
  ASSERT_OK_AND_ASSIGN(const auto c, registry_.Reserve(Size(kGiB)));
  EXPECT_EQ(c.mount_name, "store-2");
}

TEST_F(MountRegistryTest, OneDeviceOfOneHostIsOneSpace) {
  for (int number = 1; number <= 3; ++number) {
    registry_.SetRow(Row(number));
    registry_.SessionOpened(Uid(number), 1, Hello(number));
    auto report = Report(MakeSpace(100 * kGiB, 50 * kGiB));
    report.set_device(64);
    report.set_boot_id(number == 3 ? "boot-b" : "boot-a");
    registry_.Reported(Uid(number), 1, report);
    registry_.Attached(Uid(number), 1, true);
  }
  EXPECT_EQ(registry_.Find(Uid(1))->view.space_group,
            registry_.Find(Uid(2))->view.space_group);
  EXPECT_EQ(registry_.Find(Uid(3))->view.space_group, -1);
  // Mounted anew on a device of its own: it leaves the group.
  registry_.SessionOpened(Uid(2), 2, Hello(2));
  auto report = Report(MakeSpace(100 * kGiB, 50 * kGiB));
  report.set_device(65);
  report.set_boot_id("boot-a");
  registry_.Reported(Uid(2), 2, report);
  EXPECT_EQ(registry_.Find(Uid(1))->view.space_group, -1);
  EXPECT_EQ(registry_.Find(Uid(2))->view.space_group, -1);
}

// --- errors

TEST_F(MountRegistryTest, NoSpaceSaysTheNumbers) {
  Bring(1, MakeSpace(100 * kGiB, 12 * kGiB));
  Bring(2, MakeSpace(200 * kGiB, 0));
  storage::v1::MountRow cordoned = Row(3);
  cordoned.set_admin_state(storage::v1::ADMIN_STATE_CORDONED);
  registry_.SetRow(cordoned);
  const auto placed = registry_.Reserve(Size(4 * kTiB));
  EXPECT_THAT(placed, HasReason(reason::kNoSpaceInCluster));
  EXPECT_THAT(
      placed,
      StatusIs(absl::StatusCode::kResourceExhausted,
               AllOf(HasSubstr("no mount has room for 4 TiB: store-1 has "
                               "12 GiB available of 100 GiB"),
                     HasSubstr("store-2 has 0 B available of 200 GiB"),
                     HasSubstr("past its full threshold"),
                     HasSubstr("store-3 is CORDONED"))));
  const ErrorMetadata metadata = MetadataOf(placed.status());
  EXPECT_EQ(metadata.at("needed_bytes"), absl::StrCat(4 * kTiB));
  EXPECT_EQ(metadata.at("largest_available_bytes"), absl::StrCat(12 * kGiB));
}

TEST_F(MountRegistryTest, AnErrorNamesAtMostEightMounts) {
  for (int number = 1; number <= 12; ++number) {
    Bring(number, MakeSpace(100 * kGiB, 50 * kGiB));
  }
  EXPECT_THAT(registry_.Reserve(Size(kTiB)),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("store-5"), HasSubstr("and 4 more"),
                             Not(HasSubstr("store-9")))));
}

TEST_F(MountRegistryTest, AMissingMountThatMightHaveRoomIsNotAFullCluster) {
  EXPECT_THAT(registry_.Reserve(Size(kGiB)),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("no mount has registered yet")));
  Bring(1, MakeSpace(100 * kGiB, 12 * kGiB));
  registry_.SetRow(Row(2));
  EXPECT_THAT(registry_.Reserve(Size(50 * kGiB)),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("store-2 is UNKNOWN")));
  // One that is known to be too small would not have helped.
  Bring(2, MakeSpace(100 * kGiB, 20 * kGiB));
  registry_.SessionClosed(Uid(2), 1);
  EXPECT_THAT(registry_.Reserve(Size(50 * kGiB)),
              HasReason(reason::kNoSpaceInCluster));
  EXPECT_OK(registry_.Reserve(Size(10 * kGiB)));
  EXPECT_THAT(registry_.Reserve(Size(15 * kGiB)),
              HasReason(reason::kMountsMissing));
}

TEST_F(MountRegistryTest, OnlyLeftoversAreWaitedFor) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  Bring(2, MakeSpace(100 * kGiB, kGiB));
  PlacementRequest request = Size(10 * kGiB);
  request.excluded = {{Uid(1), "leftover"}};
  const auto placed = registry_.Reserve(request);
  EXPECT_THAT(placed, HasReason(reason::kLeftoverPending));
  EXPECT_THAT(placed,
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("store-1")));
}

TEST_F(MountRegistryTest, AMountThatFilledUpCountsAsFull) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  PlacementRequest request = Size(10 * kGiB);
  request.excluded = {{Uid(1), "filled_up"}};
  EXPECT_THAT(registry_.Reserve(request), HasReason(reason::kNoSpaceInCluster));
  request.excluded = {{Uid(1), "refused"}};
  EXPECT_THAT(registry_.Reserve(request), HasReason(reason::kMountsMissing));
  // One without the room would not have helped.
  Beat(1, MakeSpace(100 * kGiB, 5 * kGiB));
  EXPECT_THAT(registry_.Reserve(request), HasReason(reason::kNoSpaceInCluster));
}

TEST_F(MountRegistryTest, ExplainPromisesNothing) {
  Bring(1, MakeSpace(100 * kGiB, 50 * kGiB));
  const auto decision = registry_.Explain(Size(10 * kGiB));
  EXPECT_EQ(decision.winner(), "mounts/store-1");
  EXPECT_EQ(Available(1), 50 * kGiB);
}

TEST_F(MountRegistryTest, NearFullIsLeftOnlyWellBelowTheThreshold) {
  Bring(1, MakeSpace(100 * kGiB, 9 * kGiB));
  Bring(2, MakeSpace(100 * kGiB, 11 * kGiB));
  const auto winner = [&] {
    auto placed = registry_.Reserve(Size(0));
    return placed.ok() ? placed->mount_name : placed.status().ToString();
  };
  EXPECT_EQ(winner(), "store-2");
  Beat(1, MakeSpace(100 * kGiB, int64_t{115} * kGiB / 10));
  EXPECT_EQ(winner(), "store-2");
  Beat(1, MakeSpace(100 * kGiB, 13 * kGiB));
  EXPECT_EQ(winner(), "store-1");
}

}  // namespace
}  // namespace predella::server
