// The contract of KvStore, over every store that keeps it.
#include "server/index/kv_store.h"

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "rocksdb/env.h"

#include "common/errors.h"
#include "server/index/mem_kv_store.h"
#include "server/index/rocksdb_kv_store.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::IsOkAndHolds;
using ::testing::Optional;
using testing::StatusIs;

// Where a store lives, and how it is opened again.
class Home {
 public:
  virtual ~Home() = default;
  virtual void Reopen(std::unique_ptr<KvStore>* store) = 0;
};

class MemHome final : public Home {
 public:
  void Reopen(std::unique_ptr<KvStore>* store) override {
    MemKvStore::Rows rows;
    if (*store != nullptr) {
      rows = static_cast<MemKvStore*>(store->get())->Contents();
    }
    *store = std::make_unique<MemKvStore>(std::move(rows));
  }
};

class RocksHome final : public Home {
 public:
  explicit RocksHome(bool in_memory) {
    if (in_memory) {
      env_.reset(rocksdb::NewMemEnv(rocksdb::Env::Default()));
      path_ = "/index";
      return;
    }
    std::string name = ::testing::TempDir() + "predella-index-XXXXXX";
    directory_ = mkdtemp(name.data());
    path_ = directory_ + "/index";
  }
  ~RocksHome() override {
    if (!directory_.empty()) {
      std::error_code ignored;
      std::filesystem::remove_all(directory_, ignored);
    }
  }
  void Reopen(std::unique_ptr<KvStore>* store) override {
    store->reset();
    RocksDbOptions options;
    options.env = env_.get();
    ASSERT_OK_AND_ASSIGN(*store, RocksDbKvStore::Open(path_, options));
  }

 private:
  std::unique_ptr<rocksdb::Env> env_;
  std::string directory_;
  std::string path_;
};

struct Store {
  const char* name;
  std::function<std::unique_ptr<Home>()> make;
};

class KvStoreTest : public ::testing::TestWithParam<Store> {
 protected:
  void SetUp() override {
    home_ = GetParam().make();
    home_->Reopen(&store_);
    ASSERT_NE(store_, nullptr);
  }
  void Reopen() { home_->Reopen(&store_); }

  absl::Status Put(const std::string& key, const std::string& value) {
    KvTransaction txn;
    txn.puts.emplace_back(key, value);
    return store_->Commit(std::move(txn));
  }
  std::vector<std::string> Keys(absl::string_view prefix,
                                absl::string_view after = "",
                                int64_t limit = 0) {
    std::vector<std::string> keys;
    EXPECT_OK(store_->Scan(prefix, after, limit,
                           [&](absl::string_view key, absl::string_view) {
                             keys.emplace_back(key);
                             return true;
                           }));
    return keys;
  }

  std::unique_ptr<Home> home_;
  std::unique_ptr<KvStore> store_;
};

TEST_P(KvStoreTest, GetSaysWhetherAKeyIsThere) {
  ASSERT_OK(Put("a", std::string("\0b", 2)));
  EXPECT_THAT(store_->Get("a"), IsOkAndHolds(Optional(std::string("\0b", 2))));
  EXPECT_THAT(store_->Get("b"), IsOkAndHolds(std::nullopt));
  EXPECT_EQ(store_->write_error(), "");
}

TEST_P(KvStoreTest, DeletesComeBeforePuts) {
  ASSERT_OK(Put("a", "old"));
  KvTransaction txn;
  txn.deletes = {"a"};
  txn.puts = {{"a", "new"}};
  ASSERT_OK(store_->Commit(std::move(txn)));
  EXPECT_THAT(store_->Get("a"), IsOkAndHolds(Optional(std::string("new"))));
}

TEST_P(KvStoreTest, AConditionThatFailsKeepsEverythingOut) {
  struct Case {
    KvCondition condition;
    bool holds;
  };
  ASSERT_OK(Put("a", "1"));
  const std::vector<Case> cases = {
      {{"a", "1"}, true},           {{"a", "2"}, false},
      {{"a", std::nullopt}, false}, {{"b", std::nullopt}, true},
      {{"b", "1"}, false},          {{"b", ""}, false},
  };
  for (const Case& c : cases) {
    KvTransaction txn;
    txn.conditions = {{"x", std::nullopt}, c.condition};
    txn.puts = {{"y", "1"}, {"z", "1"}};
    const absl::Status status = store_->Commit(std::move(txn));
    if (c.holds) {
      EXPECT_OK(status);
      EXPECT_THAT(Keys("y"), ElementsAre("y"));
      KvTransaction clear;
      clear.deletes = {"y", "z"};
      ASSERT_OK(store_->Commit(std::move(clear)));
    } else {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted));
      EXPECT_THAT(status, testing::HasReason(reason::kCommitConflict));
      EXPECT_THAT(Keys("y"), IsEmpty());
      EXPECT_THAT(Keys("z"), IsEmpty());
    }
  }
}

TEST_P(KvStoreTest, ScanKeepsToItsBounds) {
  for (const char* key : {"a", "b/", "b/1", "b/2", "b/3", "b0", "c"}) {
    ASSERT_OK(Put(key, "x"));
  }
  EXPECT_THAT(Keys("b/"), ElementsAre("b/", "b/1", "b/2", "b/3"));
  EXPECT_THAT(Keys("b/", "b/1"), ElementsAre("b/2", "b/3"));
  EXPECT_THAT(Keys("b/", "b/15"), ElementsAre("b/2", "b/3"));
  EXPECT_THAT(Keys("b/", "", 2), ElementsAre("b/", "b/1"));
  EXPECT_THAT(Keys("b/", "a"), ElementsAre("b/", "b/1", "b/2", "b/3"));
  EXPECT_THAT(Keys("b/", "b/3"), IsEmpty());
  EXPECT_THAT(Keys("d"), IsEmpty());
  EXPECT_THAT(Keys("", "b0"), ElementsAre("c"));
  EXPECT_THAT(Keys(std::string("\xff\xff")), IsEmpty());
}

TEST_P(KvStoreTest, ScanBackIsScanTurnedRound) {
  KvTransaction fill;
  for (const char* key : {"a", "b/", "b/1", "b/2", "b/3", "b0", "c"}) {
    fill.puts.emplace_back(key, key);
  }
  ASSERT_OK(store_->Commit(fill));
  const auto back = [&](const char* prefix, const char* before, int64_t limit) {
    std::vector<std::string> keys;
    EXPECT_OK(store_->ScanBack(prefix, before, limit,
                               [&](absl::string_view key, absl::string_view) {
                                 keys.emplace_back(key);
                                 return key != "b/";
                               }));
    return keys;
  };
  EXPECT_THAT(back("b/", "", 0), ElementsAre("b/3", "b/2", "b/1", "b/"));
  EXPECT_THAT(back("b/", "b/3", 0), ElementsAre("b/2", "b/1", "b/"));
  EXPECT_THAT(back("b/", "b/25", 1), ElementsAre("b/2"));
  EXPECT_THAT(back("b/", "b/", 0), IsEmpty());
  EXPECT_THAT(back("x/", "", 0), IsEmpty());
}

TEST_P(KvStoreTest, ScanEndsWhenTheRowSaysSoAndMayUseTheStore) {
  ASSERT_OK(Put("a", "1"));
  ASSERT_OK(Put("b", "2"));
  int seen = 0;
  EXPECT_OK(store_->Scan(
      "", "", 0, [&](absl::string_view key, absl::string_view value) {
        ++seen;
        EXPECT_THAT(store_->Get(key),
                    IsOkAndHolds(Optional(std::string(value))));
        return false;
      }));
  EXPECT_EQ(seen, 1);
}

TEST_P(KvStoreTest, WhatWasCommittedIsThereAfterReopening) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_OK(Put(absl::StrCat("k", i), absl::StrCat(i)));
  }
  KvTransaction txn;
  txn.deletes = {"k7"};
  ASSERT_OK(store_->Commit(std::move(txn)));
  Reopen();
  ASSERT_NE(store_, nullptr);
  EXPECT_EQ(Keys("k").size(), 99);
  EXPECT_THAT(store_->Get("k7"), IsOkAndHolds(std::nullopt));
  EXPECT_THAT(store_->Get("k99"), IsOkAndHolds(Optional(std::string("99"))));
}

TEST_P(KvStoreTest, OfConcurrentClaimsOfOneKeyExactlyOneWins) {
  constexpr int kThreads = 16;
  constexpr int kRounds = 40;
  for (int round = 0; round < kRounds; ++round) {
    const std::string key = absl::StrCat("claim", round);
    std::atomic<int> won = 0;
    std::atomic<int> winner = -1;
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        KvTransaction txn;
        txn.conditions = {{key, std::nullopt}};
        txn.puts = {{key, absl::StrCat(t)}};
        const absl::Status status = store_->Commit(std::move(txn));
        if (status.ok()) {
          ++won;
          winner = t;
        } else {
          EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted));
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    EXPECT_EQ(won, 1);
    EXPECT_THAT(store_->Get(key),
                IsOkAndHolds(Optional(absl::StrCat(winner.load()))));
  }
}

TEST_P(KvStoreTest, IncrementsUnderConditionsLoseNothing) {
  constexpr int kThreads = 16;
  constexpr int kEach = 20;
  ASSERT_OK(Put("n", "0"));
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int done = 0; done < kEach;) {
        const auto now = store_->Get("n");
        ASSERT_OK(now);
        KvTransaction txn;
        txn.conditions = {{"n", **now}};
        txn.puts = {{"n", absl::StrCat(std::stoi(**now) + 1)},
                    {absl::StrCat("log/", **now), absl::StrCat(t)}};
        const absl::Status status = store_->Commit(std::move(txn));
        if (status.ok()) {
          ++done;
        } else {
          ASSERT_THAT(status, StatusIs(absl::StatusCode::kAborted));
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  Reopen();
  EXPECT_THAT(store_->Get("n"),
              IsOkAndHolds(Optional(absl::StrCat(kThreads * kEach))));
  EXPECT_EQ(Keys("log/").size(), kThreads * kEach);
}

INSTANTIATE_TEST_SUITE_P(
    Stores, KvStoreTest,
    ::testing::Values(Store{"Memory",
                            [] { return std::make_unique<MemHome>(); }},
                      Store{"RocksInMemory",
                            [] { return std::make_unique<RocksHome>(true); }},
                      Store{"RocksOnDisk",
                            [] { return std::make_unique<RocksHome>(false); }}),
    [](const auto& param_info) { return param_info.param.name; });

TEST(MemKvStoreTest, AFaultLeavesTheOutcomeUnknown) {
  for (const bool applied : {false, true}) {
    MemKvStore store;
    store.FailCommit(2, applied ? MemKvStore::Fault::kAfterApplying
                                : MemKvStore::Fault::kBeforeApplying);
    KvTransaction first;
    first.puts = {{"a", "1"}};
    ASSERT_OK(store.Commit(first));
    KvTransaction second;
    second.puts = {{"b", "1"}};
    EXPECT_THAT(store.Commit(second),
                testing::HasReason(reason::kIndexUnavailable));
    EXPECT_EQ(store.Contents().count("b"), applied ? 1U : 0U);
    EXPECT_THAT(store.Commit(first), StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_NE(store.write_error(), "");
    EXPECT_THAT(store.Get("a"), IsOkAndHolds(Optional(std::string("1"))));
    store.ClearFaults();
    EXPECT_OK(store.Commit(second));
    EXPECT_EQ(store.write_error(), "");
  }
}

}  // namespace
}  // namespace predella::server
