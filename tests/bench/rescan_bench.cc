// What a rescan of one mount costs the coordinator and the wire: the whole
// listing against its digest.
//
//   rescan_bench [--benchmark_filter=...]
//
// PREDELLA_BENCH_IMAGES is how many images lie on the mount (100,000). The
// index is RocksDB under $TMPDIR; the agent's look at its directory, which is
// the same for both, is not in it.
#include <stdlib.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "benchmark/benchmark.h"
#include "common/executor.h"
#include "common/ids.h"
#include "common/listing_digest.h"
#include "common/logging.h"
#include "server/index/mem_epoch_file.h"
#include "server/index/rocksdb_kv_store.h"
#include "server/lifecycle/lifecycle.h"
#include "tests/testing/fake_clock.h"

namespace predella::server {
namespace {

constexpr int kEntriesPerPart = 1000;

int64_t Images() {
  int64_t images = 100'000;
  if (const char* const text = std::getenv("PREDELLA_BENCH_IMAGES");
      text != nullptr) {
    (void)absl::SimpleAtoi(text, &images);
  }
  return images;
}

void Check(const absl::Status& status) {
  if (!status.ok()) {
    LogError("bench", {{"status", status.ToString()}});
    std::abort();
  }
}

class Mount {
 public:
  static Mount& Get() {
    static auto* const mount = new Mount();
    return *mount;
  }

  std::unique_ptr<ListingAudit> Begin() {
    return ListingAudit::Begin(deps_, &lifecycle_->uploads(),
                               &lifecycle_->tombstones(), uid_, "m", 0)
        .value();
  }
  const std::vector<control::v1::InventoryPart>& parts() const {
    return parts_;
  }
  const control::v1::ListingDigest& digest() const { return digest_; }
  void RemoveFiles() const {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

 private:
  Mount() {
    const char* const base = std::getenv("TMPDIR");
    std::string name =
        absl::StrCat(base == nullptr ? "/tmp" : base, "/rescan-XXXXXX");
    directory_ = mkdtemp(name.data());
    kv_ = RocksDbKvStore::Open(directory_ + "/index").value();
    index_ = PlacementIndex::Open(kv_.get(), &file_, &clock_, RandomIds(), {})
                 .value();
    Fill(Images());
    registry_ = std::make_unique<MountRegistry>(&clock_, RandomIds(),
                                                RegistryOptions());
    deps_.index = index_.get();
    deps_.registry = registry_.get();
    deps_.clock = &clock_;
    deps_.ids = RandomIds();
    deps_.pool = &pool_;
    lifecycle_ = Lifecycle::Create(deps_, PlacementOptions()).value();
  }

  void Fill(int64_t images) {
    constexpr int64_t kBatch = 100;
    ListingSum sum;
    for (int64_t done = 0; done < images;) {
      IndexTxn txn = index_->Begin();
      for (int64_t i = 0; i < kBatch && done < images; ++i, ++done) {
        storage::v1::ImageRow row;
        row.set_image_id(RandomIds()->NextUuid().bytes());
        *row.mutable_generation() = txn.pair().ToProto();
        row.set_location_key(std::string(16, 'k'));
        row.set_size_bytes(int64_t{1} << 30);
        row.set_crc32c(0x1234abcd);
        auto* const hash = row.add_hashes();
        hash->set_algorithm("sha512");
        hash->set_value(std::string(64, 'h'));
        row.add_copies()->set_mount_uid(uid_.bytes());
        row.set_upload_id(RandomIds()->NextUuid().bytes());
        row.mutable_decision()->set_winner("m");
        row.mutable_decision()->set_rule("more space: 80 GiB against 20 GiB");
        txn.PutImage(row);
        sum.Add(Shown(row));
      }
      Check(index_->Commit(std::move(txn)));
    }
    digest_ = sum.ToProto();
  }

  // As an agent lists it; kept for the listing.
  control::v1::InventoryEntry Shown(const storage::v1::ImageRow& row) {
    if (parts_.empty() || parts_.back().entries_size() == kEntriesPerPart) {
      parts_.emplace_back().set_mount_uid(uid_.bytes());
    }
    control::v1::InventoryEntry* const entry = parts_.back().add_entries();
    entry->set_image_id(row.image_id());
    entry->set_named(true);
    entry->set_size_bytes(row.size_bytes());
    storage::v1::ReplicaRecord* const record = entry->mutable_record();
    record->set_image_id(row.image_id());
    *record->mutable_generation() = row.generation();
    record->set_upload_id(row.upload_id());
    record->set_location_key(row.location_key());
    record->set_size_bytes(row.size_bytes());
    record->set_crc32c(row.crc32c());
    *record->mutable_hashes() = row.hashes();
    record->set_create_time_us(1);
    record->set_publish_time_us(1);
    *record->mutable_decision() = row.decision();
    return *entry;
  }

  testing::FakeClock clock_;
  MemEpochFile file_;
  ThreadPool pool_{"bench", 2};
  std::string directory_;
  const Uuid uid_ = RandomIds()->NextUuid();
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<PlacementIndex> index_;
  std::unique_ptr<MountRegistry> registry_;
  LifecycleDeps deps_;
  std::unique_ptr<Lifecycle> lifecycle_;
  std::vector<control::v1::InventoryPart> parts_;
  control::v1::ListingDigest digest_;
};

void BM_Listing(benchmark::State& state) {
  Mount& mount = Mount::Get();
  std::vector<std::string> wire;
  size_t bytes = 0;
  for (const control::v1::InventoryPart& part : mount.parts()) {
    wire.push_back(part.SerializeAsString());
    bytes += wire.back().size();
  }
  while (state.KeepRunning()) {
    const auto audit = mount.Begin();
    for (const std::string& text : wire) {
      control::v1::InventoryPart part;
      part.ParseFromString(text);
      Check(audit->Take(part));
    }
    if (audit->Finish().value().missing != 0) {
      state.SkipWithError("images are missing");
    }
  }
  state.counters["wire_bytes"] = static_cast<double>(bytes);
}
BENCHMARK(BM_Listing)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();

void BM_Digest(benchmark::State& state) {
  Mount& mount = Mount::Get();
  const ListingBasis basis;
  while (state.KeepRunning()) {
    const auto audit = mount.Begin();
    if (!audit->TakeDigest(basis, mount.digest()).value() ||
        audit->Finish().value().missing != 0) {
      state.SkipWithError("the digest is another");
    }
  }
  state.counters["wire_bytes"] =
      static_cast<double>(mount.digest().ByteSizeLong());
}
BENCHMARK(BM_Digest)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime();

// The agent's part that a listing does not have.
void BM_Sum(benchmark::State& state) {
  const Mount& mount = Mount::Get();
  while (state.KeepRunning()) {
    ListingSum sum;
    for (const control::v1::InventoryPart& part : mount.parts()) {
      for (const control::v1::InventoryEntry& entry : part.entries()) {
        sum.Add(entry);
      }
    }
    benchmark::DoNotOptimize(sum.ToProto());
  }
}
BENCHMARK(BM_Sum)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace predella::server

int main(int argc, char** argv) {
  predella::SetLogLevel("error");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  predella::server::Mount::Get();  // filled before anything is timed
  benchmark::RunSpecifiedBenchmarks();
  predella::server::Mount::Get().RemoveFiles();
  return 0;
}
