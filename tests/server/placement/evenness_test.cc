// What the product is for: equal directories fill evenly, and a burst neither
// overfills one nor all lands on it.
#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/units.h"
#include "server/placement/mount_registry.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

// Agents as placement meets them: a disk, a ledger, heartbeats now and then.
class Cluster {
 public:
  Cluster(int mounts, int64_t size)
      : size_(size), registry_(&clock_, &ids_, RegistryOptions()) {
    for (int i = 0; i < mounts; ++i) {
      disks_.push_back({size, 0, 0});
      storage::v1::MountRow row;
      row.set_mount_uid(Uid(i).bytes());
      row.set_mount_name(absl::StrCat("store-", i));
      row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
      registry_.SetRow(row);
      registry_.SessionOpened(Uid(i), 1, {});
      control::v1::MountReport report;
      *report.mutable_space() = SpaceOf(i);
      report.mutable_health()->set_health(v1::HEALTH_ONLINE);
      registry_.Reported(Uid(i), 1, report);
      registry_.Attached(Uid(i), 1, true);
    }
  }

  static Uuid Uid(int number) {
    std::string uid(16, '\x01');
    uid[15] = static_cast<char>(number);
    return Uuid::FromBytesOrNone(uid);
  }
  absl::StatusOr<MountRegistry::Placed> Reserve(int64_t size) {
    PlacementRequest request;
    request.size_bytes = size;
    return registry_.Reserve(request);
  }
  // The agent takes the promise into its ledger; its answer is not yet sent.
  int Prepare(MountRegistry::Placed* placed) {
    const int i = IndexOf(placed->reservation.mount_uid());
    disks_[static_cast<size_t>(i)].promised += placed->reservation.bytes();
    placed->reservation.HandOver(++disks_[static_cast<size_t>(i)].command);
    return i;
  }
  void Write(int i, int64_t bytes) {
    disks_[static_cast<size_t>(i)].promised -= bytes;
    disks_[static_cast<size_t>(i)].available -= bytes;
  }
  // Bytes that somebody else put there.
  void Fill(int i, int64_t bytes) {
    disks_[static_cast<size_t>(i)].available -= bytes;
  }
  void Heartbeat(int i) {
    control::v1::Heartbeat heartbeat;
    *heartbeat.mutable_space() = SpaceOf(i);
    registry_.Heard(Uid(i), 1, heartbeat);
  }
  std::vector<int64_t> Loads() const {
    std::vector<int64_t> loads;
    for (const Disk& disk : disks_) {
      loads.push_back(size_ - disk.available);
    }
    return loads;
  }
  int64_t Lowest() const {
    int64_t lowest = size_;
    for (const Disk& disk : disks_) {
      lowest = std::min(lowest, disk.available - disk.promised);
    }
    return lowest;
  }

 private:
  struct Disk {
    int64_t available;
    int64_t promised;
    int64_t command;
  };
  static int IndexOf(const Uuid& uid) {
    return static_cast<unsigned char>(uid.bytes()[15]);
  }
  control::v1::Space SpaceOf(int i) const {
    const Disk& disk = disks_[static_cast<size_t>(i)];
    control::v1::Space space;
    space.set_size_bytes(size_);
    space.set_available_bytes(disk.available);
    space.set_promised_bytes(disk.promised);
    space.set_available_inodes(1'000'000);
    space.set_size_inodes(2'000'000);
    space.set_command_number(disk.command);
    return space;
  }

  const int64_t size_;
  testing::FakeClock clock_;
  testing::FakeIds ids_;
  MountRegistry registry_;
  std::vector<Disk> disks_;
};

TEST(EvennessTest, ThreeHundredMixedFilesSpreadOverThreeEqualDirectories) {
  Cluster cluster(3, 1 * kTiB);
  std::mt19937 random(7);
  struct Running {
    int mount;
    int64_t bytes;
  };
  std::vector<Running> running;
  for (int file = 0; file < 300; ++file) {
    // From cloud images to Windows servers.
    const int64_t size = int64_t{1} << (25 + random() % 9);
    ASSERT_OK_AND_ASSIGN(auto placed, cluster.Reserve(size));
    running.push_back({cluster.Prepare(&placed), size});
    // Up to six at once; heartbeats come late and not for all.
    if (running.size() > 5 || file == 299) {
      const size_t done = file == 299 ? running.size() : 3;
      for (size_t i = 0; i < done; ++i) {
        cluster.Write(running[i].mount, running[i].bytes);
      }
      running.erase(running.begin(),
                    running.begin() + static_cast<std::ptrdiff_t>(done));
      cluster.Heartbeat(static_cast<int>(random() % 3));
    }
  }
  const std::vector<int64_t> loads = cluster.Loads();
  int64_t sum = 0;
  for (const int64_t load : loads) {
    sum += load;
  }
  const double mean = static_cast<double>(sum) / 3;
  const double most =
      static_cast<double>(*std::max_element(loads.begin(), loads.end()));
  EXPECT_LE(most / mean, 1.05);
}

TEST(EvennessTest, ABurstNeitherOverfillsNorLandsOnOne) {
  // 50 uploads of 2 GiB started together over 3 mounts with 30 GiB each: 45
  // fit.
  Cluster cluster(3, 30 * kGiB);
  constexpr int kUploads = 50;
  std::vector<absl::StatusOr<MountRegistry::Placed>> placed(kUploads);
  std::vector<std::thread> threads;
  threads.reserve(kUploads);
  for (int i = 0; i < kUploads; ++i) {
    threads.emplace_back(
        [&, i] { placed[static_cast<size_t>(i)] = cluster.Reserve(2 * kGiB); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::map<std::string, int> count;
  int refused = 0;
  for (auto& one : placed) {
    if (!one.ok()) {
      EXPECT_THAT(one, testing::HasReason(reason::kNoSpaceInCluster));
      ++refused;
      continue;
    }
    ++count[one->mount_name];
    cluster.Write(cluster.Prepare(&*one), 2 * kGiB);
  }
  EXPECT_GE(cluster.Lowest(), 0);
  EXPECT_EQ(count.size(), 3U);
  for (const auto& [name, uploads] : count) {
    EXPECT_EQ(uploads, 15) << name;
  }
  EXPECT_EQ(refused, 5);
}

TEST(EvennessTest, AnEmptyDirectoryCatchesUp) {
  Cluster cluster(3, kTiB);
  // Two were used before the third came.
  for (const int old : {0, 1}) {
    cluster.Fill(old, 100 * kGiB);
    cluster.Heartbeat(old);
  }
  for (int i = 0; i < 100; ++i) {
    ASSERT_OK_AND_ASSIGN(auto placed, cluster.Reserve(2 * kGiB));
    const int mount = cluster.Prepare(&placed);
    cluster.Write(mount, 2 * kGiB);
    cluster.Heartbeat(mount);
  }
  const std::vector<int64_t> loads = cluster.Loads();
  EXPECT_LE(*std::max_element(loads.begin(), loads.end()) -
                *std::min_element(loads.begin(), loads.end()),
            10 * kGiB);
}

}  // namespace
}  // namespace predella::server
