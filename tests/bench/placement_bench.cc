// Placement decisions a second.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "benchmark/benchmark.h"
#include "common/clock.h"
#include "common/ids.h"
#include "server/placement/mount_registry.h"
#include "server/placement/placement_policy.h"

namespace predella::server {
namespace {

constexpr int64_t kGib = int64_t{1} << 30;

Uuid Uid(int number) {
  std::string uid(16, '\x01');
  uid[14] = static_cast<char>(number / 256);
  uid[15] = static_cast<char>(number % 256);
  return Uuid::FromBytesOrNone(uid);
}

control::v1::Space SpaceOf(int number) {
  control::v1::Space space;
  space.set_size_bytes(1000 * kGib);
  space.set_available_bytes((300 + number * 7919 % 600) * kGib);
  space.set_available_inodes(1'000'000);
  space.set_size_inodes(2'000'000);
  return space;
}

void Fill(MountRegistry* registry, int mounts, bool one_group) {
  for (int i = 0; i < mounts; ++i) {
    storage::v1::MountRow row;
    row.set_mount_uid(Uid(i).bytes());
    row.set_mount_name(absl::StrCat("store-", i));
    row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
    registry->SetRow(row);
    control::v1::Hello hello;
    hello.set_priority(i % 3 * 100);
    if (one_group) {
      hello.set_space_group("all");
    }
    registry->SessionOpened(Uid(i), 1, hello);
    control::v1::MountReport report;
    *report.mutable_space() = SpaceOf(i);
    // One in ten takes nothing.
    report.mutable_health()->set_health(i % 10 == 9 ? v1::HEALTH_READ_ONLY
                                                    : v1::HEALTH_ONLINE);
    registry->Reported(Uid(i), 1, report);
    registry->Attached(Uid(i), 1, true);
  }
}

// A decision with its promise, given back at once.
void BM_Reserve(benchmark::State& state) {
  RegistryOptions options;
  options.unreachable_after = absl::Hours(1);
  if (state.range(1) == 2) {
    options.placement.spread = PlacementOptions::Spread::kWeighted;
  }
  MountRegistry registry(RealClock(), RandomIds(), options);
  Fill(&registry, static_cast<int>(state.range(0)), state.range(1) == 1);
  PlacementRequest request;
  request.size_bytes = 20 * kGib;
  while (state.KeepRunning()) {
    auto placed = registry.Reserve(request);
    if (!placed.ok()) {
      state.SkipWithError("nowhere");
      break;
    }
    benchmark::DoNotOptimize(placed);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Reserve)
    ->ArgNames({"mounts", "kind"})  // 0: alone, 1: one space, 2: weighted
    ->Args({3, 0})
    ->Args({100, 0})
    ->Args({1000, 0})
    ->Args({1000, 1})
    ->Args({1000, 2});

void BM_Heartbeat(benchmark::State& state) {
  MountRegistry registry(RealClock(), RandomIds(), RegistryOptions());
  Fill(&registry, 1000, /*one_group=*/false);
  control::v1::Heartbeat heartbeat;
  *heartbeat.mutable_space() = SpaceOf(1);
  heartbeat.mutable_health()->set_health(v1::HEALTH_ONLINE);
  int i = 0;
  while (state.KeepRunning()) {
    registry.Heard(Uid(i++ % 1000), 1, heartbeat);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Heartbeat);

}  // namespace
}  // namespace predella::server

BENCHMARK_MAIN();
