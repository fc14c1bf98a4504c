// A failed mount with a million images, and a tenth as many on another: how
// soon the answers come.
//
//   degraded_bench [--benchmark_filter=...]
//
// PREDELLA_BENCH_IMAGES sets another number of images.
#include <stdlib.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "benchmark/benchmark.h"
#include "common/executor.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/rocksdb_kv_store.h"
#include "server/lifecycle/lifecycle.h"
#include "tests/testing/fake_clock.h"

namespace predella::server {
namespace {

int64_t Images() {
  int64_t images = 1'000'000;
  if (const char* const text = std::getenv("PREDELLA_BENCH_IMAGES");
      text != nullptr) {
    (void)absl::SimpleAtoi(text, &images);
  }
  return images;
}

void Check(const absl::Status& status) {
  if (!status.ok()) {
    std::abort();
  }
}

// A coordinator's lifecycle without agents: half a minute after its start both
// mounts are UNREACHABLE.
class Coordinator {
 public:
  static Coordinator& Get() {
    static Coordinator* const coordinator = new Coordinator();
    return *coordinator;
  }

  PlacementIndex& index() { return *index_; }
  ImageCatalog& images() { return lifecycle_->images(); }
  MountAdmin& mounts() { return lifecycle_->mounts(); }
  ClusterView& cluster() { return lifecycle_->cluster(); }
  void RemoveFiles() const {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

 private:
  Coordinator() {
    const char* const base = std::getenv("TMPDIR");
    std::string name =
        absl::StrCat(base == nullptr ? "/tmp" : base, "/degraded-XXXXXX");
    directory_ = mkdtemp(name.data());
    kv_ = RocksDbKvStore::Open(directory_ + "/index").value();
    index_ = PlacementIndex::Open(kv_.get(), &file_, &clock_, RandomIds(), {})
                 .value();
    const Uuid failed = PutMount("failed");
    const Uuid other = PutMount("other");
    Fill(failed, Images());
    Fill(other, Images() / 10);
    registry_ = std::make_unique<MountRegistry>(&clock_, RandomIds(),
                                                RegistryOptions());
    LifecycleDeps deps;
    deps.index = index_.get();
    deps.registry = registry_.get();
    deps.clock = &clock_;
    deps.ids = RandomIds();
    deps.pool = &pool_;
    lifecycle_ = Lifecycle::Create(deps, PlacementOptions()).value();
    clock_.Advance(absl::Minutes(1));
  }

  Uuid PutMount(const std::string& name) {
    storage::v1::MountRow row;
    const Uuid uid = RandomIds()->NextUuid();
    row.set_mount_uid(uid.bytes());
    row.set_mount_name(name);
    row.set_admin_state(storage::v1::ADMIN_STATE_ACTIVE);
    IndexTxn txn = index_->Begin();
    txn.PutMount(row);
    Check(index_->Commit(std::move(txn)));
    return uid;
  }

  void Fill(const Uuid& mount, int64_t images) {
    constexpr int64_t kBatch = 100;
    for (int64_t done = 0; done < images;) {
      IndexTxn txn = index_->Begin();
      for (int64_t i = 0; i < kBatch && done < images; ++i, ++done) {
        const Uuid id = RandomIds()->NextUuid();
        storage::v1::ImageRow row;
        row.set_image_id(id.bytes());
        *row.mutable_generation() = txn.pair().ToProto();
        row.set_location_key(std::string(16, 'k'));
        row.set_size_bytes(int64_t{1} << 30);
        auto* const hash = row.add_hashes();
        hash->set_algorithm("sha512");
        hash->set_value(std::string(64, 'h'));
        row.add_copies()->set_mount_uid(mount.bytes());
        row.set_upload_id(std::string(16, 'u'));
        row.mutable_decision()->set_winner("failed");
        row.mutable_decision()->set_rule("more space: 80 GiB against 20 GiB");
        txn.RequireNoImage(id);
        txn.PutImage(row);
      }
      Check(index_->Commit(std::move(txn)));
    }
  }

  std::string directory_;
  testing::FakeClock clock_;
  MemEpochFile file_;
  ThreadPool pool_{"bench", 4};
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<PlacementIndex> index_;
  std::unique_ptr<MountRegistry> registry_;
  std::unique_ptr<Lifecycle> lifecycle_;
};

v1::ListImagesRequest Degraded(int page_size, const std::string& mount) {
  v1::ListImagesRequest request;
  request.set_health(v1::IMAGE_HEALTH_DEGRADED);
  request.set_page_size(page_size);
  request.set_mount(mount);
  return request;
}

void BM_FirstPage(benchmark::State& state) {
  const auto request = Degraded(static_cast<int>(state.range(0)), "");
  while (state.KeepRunning()) {
    const auto page = Coordinator::Get().images().List(request);
    if (!page.ok() || page->images_size() != state.range(0)) {
      state.SkipWithError("not a full page");
      break;
    }
  }
}
BENCHMARK(BM_FirstPage)->Arg(50)->Arg(1000)->Unit(benchmark::kMillisecond);

void WholeList(const std::string& mount, int64_t want,
               benchmark::State& state) {
  while (state.KeepRunning()) {
    auto request = Degraded(1000, mount);
    int64_t listed = 0;
    do {
      const auto page = Coordinator::Get().images().List(request);
      Check(page.status());
      listed += page->images_size();
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    if (listed != want) {
      state.SkipWithError("the list is not whole");
      break;
    }
    state.SetItemsProcessed(state.items_processed() + listed);
  }
}

// The reference of the whole list: the same rows, read in order and looked at
// by nobody.
void BM_IndexScan(benchmark::State& state) {
  while (state.KeepRunning()) {
    int64_t seen = 0;
    Check(Coordinator::Get().index().ScanImages(
        Uuid(), [&seen](const storage::v1::ImageRow&) {
          ++seen;
          return true;
        }));
    state.SetItemsProcessed(state.items_processed() + seen);
  }
}
BENCHMARK(BM_IndexScan)->Unit(benchmark::kSecond)->Iterations(1);

// Nearly all images are degraded: the table is read in order.
void BM_WholeList(benchmark::State& state) {
  WholeList("failed", Images(), state);
}
BENCHMARK(BM_WholeList)->Unit(benchmark::kSecond)->Iterations(1);

// Few of all are: each is read by its id.
void BM_WholeListOfFew(benchmark::State& state) {
  WholeList("other", Images() / 10, state);
}
BENCHMARK(BM_WholeListOfFew)->Unit(benchmark::kSecond)->Iterations(1);

void BM_Impact(benchmark::State& state) {
  v1::ExplainImpactRequest request;
  request.add_names("failed");
  while (state.KeepRunning()) {
    const auto impact = Coordinator::Get().mounts().ExplainImpact(request);
    if (!impact.ok() || impact->only_copy_count() != Images()) {
      state.SkipWithError("another number");
      break;
    }
  }
}
BENCHMARK(BM_Impact)->Unit(benchmark::kMillisecond);

void BM_ClusterStatus(benchmark::State& state) {
  while (state.KeepRunning()) {
    const v1::Cluster cluster = Coordinator::Get().cluster().Get();
    if (cluster.health() != v1::CLUSTER_HEALTH_ERROR) {
      state.SkipWithError("the failed mount is not said");
      break;
    }
  }
}
BENCHMARK(BM_ClusterStatus)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace predella::server

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  predella::server::Coordinator::Get();  // filled before anything is timed
  benchmark::RunSpecifiedBenchmarks();
  predella::server::Coordinator::Get().RemoveFiles();
  return 0;
}
