// The index with a million images: put, get, list a mount, start.
//
//   index_bench [--benchmark_filter=...]
//
// PREDELLA_BENCH_IMAGES sets another number of images.
#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "benchmark/benchmark.h"
#include "common/clock.h"
#include "common/ids.h"
#include "server/index/index_keys.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/placement_index.h"
#include "server/index/rocksdb_kv_store.h"

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

Uuid ImageId(int64_t number) {
  // Spread over the key space as random UUIDs are.
  uint64_t x = static_cast<uint64_t>(number) * 0x9e3779b97f4a7c15;
  std::string bytes;
  for (int i = 0; i < 16; ++i) {
    bytes.push_back(static_cast<char>(x >> 56));
    x = x * 0xbf58476d1ce4e5b9 + 1;
  }
  return Uuid::FromBytesOrNone(bytes);
}

Uuid MountUid(int64_t number) {
  std::string bytes(16, '\x42');
  bytes[15] = static_cast<char>(number % 10);
  return Uuid::FromBytesOrNone(bytes);
}

storage::v1::ImageRow Row(int64_t number, const Generation& generation) {
  storage::v1::ImageRow row;
  row.set_image_id(ImageId(number).bytes());
  *row.mutable_generation() = generation.ToProto();
  row.set_location_key(std::string(16, 'k'));
  row.set_size_bytes(int64_t{1} << 30);
  auto* const hash = row.add_hashes();
  hash->set_algorithm("sha512");
  hash->set_value(std::string(64, 'h'));
  row.add_copies()->set_mount_uid(MountUid(number).bytes());
  row.set_upload_id(std::string(16, 'u'));
  auto* const decision = row.mutable_decision();
  decision->set_winner("store-1");
  decision->set_runner_up("store-2");
  decision->set_rule(
      "same priority; more space is available: 80 GiB against "
      "20 GiB");
  for (int i = 0; i < 3; ++i) {
    auto* const verdict = decision->add_verdicts();
    verdict->set_mount_name(absl::StrCat("store-", i));
    verdict->set_reason("ranked");
    verdict->set_available_bytes(int64_t{80} << 30);
  }
  return row;
}

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0;
  int64_t resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

// One index on disk for all benchmarks, filled once.
class Index {
 public:
  static Index& Get() {
    static Index* const index = new Index();
    return *index;
  }
  PlacementIndex* operator->() { return index_.get(); }

  void Open() {
    index_.reset();
    kv_.reset();
    auto kv = RocksDbKvStore::Open(directory_ + "/index");
    kv_ = std::move(kv).value();
    auto index =
        PlacementIndex::Open(kv_.get(), &file_, RealClock(), RandomIds(), {});
    index_ = std::move(index).value();
  }
  void RemoveFiles() {
    index_.reset();
    kv_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

 private:
  Index() {
    const char* const base = std::getenv("TMPDIR");
    std::string name =
        absl::StrCat(base == nullptr ? "/tmp" : base, "/index-bench-XXXXXX");
    directory_ = mkdtemp(name.data());
    Open();
    constexpr int64_t kBatch = 100;
    for (int64_t first = 0; first < Images(); first += kBatch) {
      IndexTxn txn = index_->Begin();
      for (int64_t i = first; i < std::min(first + kBatch, Images()); ++i) {
        txn.RequireNoImage(ImageId(i));
        txn.PutImage(Row(i, txn.pair()));
      }
      if (const absl::Status status = index_->Commit(std::move(txn));
          !status.ok()) {
        std::abort();
      }
    }
  }

  std::string directory_;
  MemEpochFile file_;
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<PlacementIndex> index_;
};

void BM_Get(benchmark::State& state) {
  Index& index = Index::Get();
  int64_t i = 0;
  while (state.KeepRunning()) {
    i = (i + 7919) % Images();
    auto row = index->GetImage(ImageId(i));
    if (!row.ok() || !row->has_value()) {
      state.SkipWithError("an image is missing");
      break;
    }
    benchmark::DoNotOptimize(row);
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["rss_mib"] =
      static_cast<double>(ResidentBytes()) / (1024 * 1024);
}
BENCHMARK(BM_Get)->Threads(1)->Threads(2);

void BM_PutAndDelete(benchmark::State& state) {
  Index& index = Index::Get();
  int64_t i = Images() + (int64_t{state.thread_index()} << 32);
  while (state.KeepRunning()) {
    ++i;
    IndexTxn put = index->Begin();
    put.RequireNoImage(ImageId(i));
    const storage::v1::ImageRow row = Row(i, put.pair());
    put.PutImage(row);
    absl::Status status = index->Commit(std::move(put));
    IndexTxn gone = index->Begin();
    gone.DeleteImage(row);
    status.Update(index->Commit(std::move(gone)));
    if (!status.ok()) {
      state.SkipWithError("a commit failed");
      break;
    }
  }
  state.SetItemsProcessed(2 * state.iterations());
}
BENCHMARK(BM_PutAndDelete)->Threads(1)->Threads(16)->UseRealTime();

void BM_ListMountPage(benchmark::State& state) {
  Index& index = Index::Get();
  Uuid after;
  while (state.KeepRunning()) {
    auto ids = index->ListMountImages(MountUid(3), after, 1000);
    if (!ids.ok()) {
      state.SkipWithError("a scan failed");
      break;
    }
    after = ids->size() < 1000 ? Uuid() : ids->back();
  }
  state.SetItemsProcessed(1000 * state.iterations());
}
BENCHMARK(BM_ListMountPage);

void BM_Start(benchmark::State& state) {
  Index& index = Index::Get();
  while (state.KeepRunning()) {
    index.Open();
  }
  state.counters["images"] = static_cast<double>(index->totals().count);
  state.counters["rss_mib"] =
      static_cast<double>(ResidentBytes()) / (1024 * 1024);
}
BENCHMARK(BM_Start)->Unit(benchmark::kMillisecond)->Iterations(3);

}  // namespace
}  // namespace predella::server

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  benchmark::RunSpecifiedBenchmarks();
  predella::server::Index::Get().RemoveFiles();
  return 0;
}
