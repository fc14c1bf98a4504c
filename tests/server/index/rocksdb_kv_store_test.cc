// What only a real store can meet: locks, full disks, failing syncs.
#include "server/index/rocksdb_kv_store.h"

#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rocksdb/env.h"
#include "rocksdb/file_system.h"

#include "common/errors.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;
using testing::IsOkAndHolds;
using ::testing::Optional;
using testing::StatusIs;

KvTransaction PutTxn(const std::string& key, const std::string& value) {
  KvTransaction txn;
  txn.puts.emplace_back(key, value);
  return txn;
}

class TempDirectory {
 public:
  TempDirectory() {
    std::string name = ::testing::TempDir() + "predella-rocks-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A write-ahead log whose syncs fail on demand; counts those that do not.
struct LogFaults {
  std::atomic<bool> fail{false};
  std::atomic<bool> full{false};
  std::atomic<int> syncs{0};
};

class FaultyLog final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FaultyLog(std::unique_ptr<rocksdb::FSWritableFile>&& file, LogFaults* faults)
      : FSWritableFileOwnerWrapper(std::move(file)), faults_(faults) {}

  rocksdb::IOStatus Sync(const rocksdb::IOOptions& options,
                         rocksdb::IODebugContext* context) override {
    return Count(FSWritableFileOwnerWrapper::Sync(options, context));
  }
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options,
                          rocksdb::IODebugContext* context) override {
    return Count(FSWritableFileOwnerWrapper::Fsync(options, context));
  }

 private:
  rocksdb::IOStatus Count(rocksdb::IOStatus status) {
    if (faults_->fail) {
      return faults_->full ? rocksdb::IOStatus::NoSpace("no space for a test")
                           : rocksdb::IOStatus::IOError("a fault for a test");
    }
    ++faults_->syncs;
    return status;
  }
  LogFaults* const faults_;
};

class FaultyFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  FaultyFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base,
                   LogFaults* faults)
      : FileSystemWrapper(base), faults_(faults) {}
  const char* Name() const override { return "FaultyFileSystem"; }
  rocksdb::IOStatus NewWritableFile(
      const std::string& name, const rocksdb::FileOptions& options,
      std::unique_ptr<rocksdb::FSWritableFile>* file,
      rocksdb::IODebugContext* context) override {
    rocksdb::IOStatus status =
        FileSystemWrapper::NewWritableFile(name, options, file, context);
    if (status.ok() && name.size() > 4 &&
        name.compare(name.size() - 4, 4, ".log") == 0) {
      *file = std::make_unique<FaultyLog>(std::move(*file), faults_);
    }
    return status;
  }

 private:
  LogFaults* const faults_;
};

class FaultyLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    env_ = rocksdb::NewCompositeEnv(std::make_shared<FaultyFileSystem>(
        rocksdb::FileSystem::Default(), &faults_));
    Open();
  }
  void Open() {
    store_.reset();
    RocksDbOptions options;
    options.env = env_.get();
    ASSERT_OK_AND_ASSIGN(
        store_, RocksDbKvStore::Open(directory_.path() + "/index", options));
  }

  TempDirectory directory_;
  LogFaults faults_;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<KvStore> store_;
};

TEST_F(FaultyLogTest, AFailedSyncEndsAllCommitsAndReadsGoOn) {
  ASSERT_OK(store_->Commit(PutTxn("a", "1")));
  faults_.fail = true;
  const absl::Status failed = store_->Commit(PutTxn("b", "1"));
  EXPECT_THAT(failed, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(failed, HasReason(reason::kIndexUnavailable));
  // Never tried again in the hope that it works now.
  faults_.fail = false;
  EXPECT_THAT(store_->Commit(PutTxn("c", "1")),
              HasReason(reason::kIndexUnavailable));
  EXPECT_THAT(store_->write_error(), HasSubstr("a fault for a test"));
  EXPECT_THAT(store_->Get("a"), IsOkAndHolds(Optional(std::string("1"))));

  Open();
  EXPECT_EQ(store_->write_error(), "");
  EXPECT_THAT(store_->Get("a"), IsOkAndHolds(Optional(std::string("1"))));
  EXPECT_THAT(store_->Get("c"), IsOkAndHolds(std::nullopt));
  EXPECT_OK(store_->Commit(PutTxn("c", "1")));
}

TEST_F(FaultyLogTest, AFullDiskIsSaidAsSuch) {
  faults_.full = true;
  faults_.fail = true;
  EXPECT_THAT(store_->Commit(PutTxn("a", "1")),
              HasReason(reason::kIndexReadOnly));
  EXPECT_THAT(store_->Commit(PutTxn("a", "1")),
              HasReason(reason::kIndexReadOnly));
  faults_.fail = false;
}

TEST_F(FaultyLogTest, ConcurrentCommitsShareSyncs) {
  constexpr int kThreads = 16;
  constexpr int kEach = 50;
  const int before = faults_.syncs;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        ASSERT_OK(store_->Commit(PutTxn(absl::StrCat(t, "/", i), "x")));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const int syncs = faults_.syncs - before;
  EXPECT_GT(syncs, 0);
  EXPECT_LT(syncs, kThreads * kEach * 3 / 4);
  Open();
  for (int t = 0; t < kThreads; ++t) {
    for (int i = 0; i < kEach; ++i) {
      EXPECT_THAT(store_->Get(absl::StrCat(t, "/", i)),
                  IsOkAndHolds(Optional(std::string("x"))));
    }
  }
}

TEST(RocksDbKvStoreTest, ASecondCoordinatorIsRefused) {
  TempDirectory directory;
  const std::string path = directory.path() + "/index";
  ASSERT_OK_AND_ASSIGN(const auto first, RocksDbKvStore::Open(path));
  const auto second = RocksDbKvStore::Open(path);
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("another coordinator holds")));
}

TEST(RocksDbKvStoreTest, SaysWhatIsWrongWithThePlace) {
  TempDirectory directory;
  EXPECT_THAT(RocksDbKvStore::Open(directory.path() + "/no/index"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("does not exist")));
  std::ofstream(directory.path() + "/file") << "x";
  EXPECT_THAT(
      RocksDbKvStore::Open(directory.path() + "/file/index"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("directory")));
  EXPECT_THAT(RocksDbKvStore::Open(directory.path() + "/file"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("it is not a directory")));
}

// Damage in the middle of the log must not pass for its end.
TEST(RocksDbKvStoreTest, AFlippedBitInTheLogIsRefused) {
  TempDirectory directory;
  const std::string path = directory.path() + "/index";
  {
    ASSERT_OK_AND_ASSIGN(const auto store, RocksDbKvStore::Open(path));
    for (int i = 0; i < 500; ++i) {
      ASSERT_OK(
          store->Commit(PutTxn(absl::StrCat("key", i), std::string(100, 'v'))));
    }
  }
  std::string log;
  for (const auto& file : std::filesystem::directory_iterator(path)) {
    if (file.path().extension() == ".log" &&
        std::filesystem::file_size(file.path()) > 0) {
      log = file.path().string();
    }
  }
  ASSERT_NE(log, "");
  {
    std::fstream file(log, std::ios::in | std::ios::out | std::ios::binary);
    const auto middle =
        static_cast<std::streamoff>(std::filesystem::file_size(log) / 3);
    file.seekg(middle);
    char byte = 0;
    file.get(byte);
    file.seekp(middle);
    file.put(static_cast<char>(byte ^ 0x10));
  }
  EXPECT_THAT(RocksDbKvStore::Open(path),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("never repaired automatically")));
}

TEST(RocksDbKvStoreTest, RefusesCommitsWhileTheReserveIsTouched) {
  TempDirectory directory;
  testing::FakeClock clock;
  int64_t free = int64_t{1} << 30;
  RocksDbOptions options;
  options.clock = &clock;
  options.free_bytes = [&] { return std::make_optional(free); };
  ASSERT_OK_AND_ASSIGN(
      const auto store,
      RocksDbKvStore::Open(directory.path() + "/index", options));
  ASSERT_OK(store->Commit(PutTxn("a", "1")));
  free = int64_t{10} << 20;
  // The number is up to a second old.
  ASSERT_OK(store->Commit(PutTxn("b", "1")));
  clock.Advance(absl::Seconds(1));
  EXPECT_THAT(store->Commit(PutTxn("c", "1")),
              HasReason(reason::kIndexReadOnly));
  EXPECT_THAT(store->write_error(), HasSubstr("10 MiB are free"));
  EXPECT_THAT(store->Get("b"), IsOkAndHolds(Optional(std::string("1"))));
  EXPECT_THAT(store->Get("c"), IsOkAndHolds(std::nullopt));
  free = int64_t{1} << 30;
  clock.Advance(absl::Seconds(1));
  EXPECT_EQ(store->write_error(), "");
  EXPECT_OK(store->Commit(PutTxn("c", "1")));
}

TEST(RocksDbKvStoreTest, OpensForReadingOnAFullDisk) {
  TempDirectory directory;
  const std::string path = directory.path() + "/index";
  {
    ASSERT_OK_AND_ASSIGN(const auto store, RocksDbKvStore::Open(path));
    ASSERT_OK(store->Commit(PutTxn("a", "1")));
  }
  RocksDbOptions full;
  full.free_bytes = [] { return std::make_optional(int64_t{1} << 20); };
  {
    ASSERT_OK_AND_ASSIGN(const auto store, RocksDbKvStore::Open(path, full));
    EXPECT_THAT(store->Get("a"), IsOkAndHolds(Optional(std::string("1"))));
    EXPECT_THAT(store->write_error(), HasSubstr("for reading only"));
    EXPECT_THAT(store->Commit(PutTxn("b", "1")),
                HasReason(reason::kIndexReadOnly));
    // Still nobody else may write it.
    EXPECT_THAT(RocksDbKvStore::Open(path),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("another coordinator holds")));
  }
  ASSERT_OK_AND_ASSIGN(const auto store, RocksDbKvStore::Open(path));
  EXPECT_OK(store->Commit(PutTxn("b", "1")));
}

// RocksDB itself takes a manifest that was cut for a torn end, and opens
// without the tables that it named there.
class ManifestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = top_.path() + "/index";
    for (int i = 0; i < 3; ++i) {  // rows of every start become a table
      auto store = RocksDbKvStore::Open(path_);
      ASSERT_OK(store);
      ASSERT_OK((*store)->Commit(PutTxn(absl::StrCat("key ", i), "value")));
    }
    std::ifstream(path_ + "/CURRENT") >> manifest_;
    manifest_ = path_ + "/" + manifest_;
  }
  absl::Status Open() { return RocksDbKvStore::Open(path_).status(); }

  TempDirectory top_;
  std::string path_;
  std::string manifest_;
};

TEST_F(ManifestTest, OneThatWasCutAnywhereIsRefused) {
  const auto size = std::filesystem::file_size(manifest_);
  for (uintmax_t left = size - 1; left > 0;
       left -= std::min<uintmax_t>(left, 7)) {
    std::filesystem::resize_file(manifest_, left);
    EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss,
                                 HasSubstr("put the newest copy")))
        << left << " of " << size;
  }
}

TEST_F(ManifestTest, AnotherByteIsRefused) {
  std::fstream file(manifest_, std::ios::in | std::ios::out);
  const auto size = std::filesystem::file_size(manifest_);
  for (uintmax_t at = 0; at < size; at += 11) {
    file.seekg(static_cast<std::streamoff>(at));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 1));
    file.flush();
    EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss)) << at;
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte));
    file.flush();
  }
  EXPECT_OK(Open());
}

TEST_F(ManifestTest, ACopyWithoutTheNoteOpens) {
  std::filesystem::remove(path_ + "/PREDELLA_MANIFEST");
  EXPECT_OK(Open());
  EXPECT_TRUE(std::filesystem::exists(path_ + "/PREDELLA_MANIFEST"));
}

}  // namespace
}  // namespace predella::server
