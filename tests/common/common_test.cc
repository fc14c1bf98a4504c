// The small parts of common/: units, errors, capabilities, executors.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/backoff.h"
#include "common/capability.h"
#include "common/errors.h"
#include "common/executor.h"
#include "common/mutex.h"
#include "common/rpc_status.h"
#include "common/units.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/manual_executor.h"
#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::predella::testing::FakeIds;
using ::predella::testing::HasReason;
using ::predella::testing::IsOkAndHolds;
using ::predella::testing::ManualExecutor;
using ::predella::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Pair;

TEST(UnitsTest, Sizes) {
  const std::vector<std::pair<std::string, int64_t>> cases = {
      {"0", 0},
      {"4096", 4096},
      {"64KiB", 64 * kKiB},
      {"64k", 64 * kKiB},
      {"1.5GiB", 3 * kGiB / 2},
      {"20G", 20 * kGiB},
      {"10GB", 10'000'000'000},
      {" 2 TiB ", 2 * kTiB},
      {"9223372036854775807", INT64_MAX}};
  for (const auto& [text, want] : cases) {
    EXPECT_THAT(ParseSize(text), IsOkAndHolds(want)) << text;
  }
  for (const char* text :
       {"", "-1", "1.5", "GiB", "1XB", "1e3", "9223372036854775808", "8EiB",
        "8388608TiB", "1 2"}) {
    EXPECT_THAT(ParseSize(text), StatusIs(absl::StatusCode::kInvalidArgument))
        << text;
  }
}

TEST(UnitsTest, SizesForPeople) {
  EXPECT_EQ(FormatSize(0), "0 B");
  EXPECT_EQ(FormatSize(512), "512 B");
  EXPECT_EQ(FormatSize(3 * kGiB / 2), "1.5 GiB");
  EXPECT_EQ(FormatSize(20 * kGiB), "20 GiB");
  EXPECT_EQ(FormatSize(kMiB - 1), "1.0 MiB");
  EXPECT_EQ(FormatSize(-kKiB), "-1 KiB");
}

TEST(UnitsTest, Durations) {
  EXPECT_THAT(ParseDuration("2m30s"), IsOkAndHolds(absl::Seconds(150)));
  EXPECT_THAT(ParseDuration("100ms"), IsOkAndHolds(absl::Milliseconds(100)));
  for (const char* text : {"", "15", "-1s", "1d", "soon"}) {
    EXPECT_THAT(ParseDuration(text),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << text;
  }
}

TEST(ErrorsTest, PayloadSurvivesAnnotationAndTheWire) {
  const absl::Status error = Annotate(
      MakeError(absl::StatusCode::kResourceExhausted, reason::kMountFull,
                "store-1 has 3 MiB left", {{"available_bytes", "3145728"}}),
      "upload failed");
  EXPECT_THAT(error, AllOf(StatusIs(absl::StatusCode::kResourceExhausted,
                                    "upload failed: store-1 has 3 MiB left"),
                           HasReason(reason::kMountFull)));
  const absl::Status back = FromRpcStatus(ToRpcStatus(error));
  EXPECT_EQ(back, error);
  EXPECT_TRUE(::predella::HasReason(back, reason::kMountFull));
  EXPECT_THAT(MetadataOf(back),
              ElementsAre(Pair("available_bytes", "3145728")));
}

TEST(ErrorsTest, StatusWithoutReason) {
  EXPECT_EQ(ReasonOf(absl::InternalError("x")), "");
  EXPECT_EQ(ReasonOf(absl::OkStatus()), "");
  EXPECT_OK(Annotate(absl::OkStatus(), "context"));
  EXPECT_OK(FromRpcStatus(ToRpcStatus(absl::OkStatus())));
}

class CapabilityTest : public ::testing::Test {
 protected:
  CapabilityTest() {
    wanted_.operation = Capability::Operation::kWrite;
    wanted_.image_id = ids_.NextUuid();
    wanted_.generation = {3, 9, 0xabcdef01};
    wanted_.upload_id = ids_.NextUuid();
    wanted_.mount_uid = ids_.NextUuid();
    wanted_.expire_time_us = 1000;
    key_ = DeriveMountKey(cluster_key_, wanted_.mount_uid);
    token_ = SignCapability(wanted_, key_);
  }
  FakeIds ids_;
  const std::string cluster_key_ = std::string(32, 'k');
  Capability wanted_;
  std::string key_;
  std::string token_;
};

TEST_F(CapabilityTest, GoodUntilItRunsOut) {
  EXPECT_OK(CheckCapability(token_, wanted_, key_, 1000));
  EXPECT_THAT(
      CheckCapability(token_, wanted_, key_, 1001),
      AllOf(StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("ran out")),
            HasReason(reason::kCapabilityInvalid)));
}

TEST_F(CapabilityTest, EveryFlippedBitIsRefused) {
  for (size_t i = 0; i < token_.size() * 8; ++i) {
    std::string forged = token_;
    forged[i / 8] = static_cast<char>(forged[i / 8] ^ (1 << (i % 8)));
    EXPECT_THAT(CheckCapability(forged, wanted_, key_, 0),
                HasReason(reason::kCapabilityInvalid))
        << i;
  }
  EXPECT_THAT(CheckCapability("", wanted_, key_, 0),
              HasReason(reason::kCapabilityInvalid));
  EXPECT_THAT(CheckCapability(token_ + "x", wanted_, key_, 0),
              HasReason(reason::kCapabilityInvalid));
}

TEST_F(CapabilityTest, BoundToEverythingItNames) {
  Capability other = wanted_;
  other.operation = Capability::Operation::kRead;
  EXPECT_FALSE(CheckCapability(token_, other, key_, 0).ok());
  other = wanted_;
  other.image_id = ids_.NextUuid();
  EXPECT_FALSE(CheckCapability(token_, other, key_, 0).ok());
  other = wanted_;
  other.generation.nonce = 1;
  EXPECT_FALSE(CheckCapability(token_, other, key_, 0).ok());
  other = wanted_;
  other.upload_id = ids_.NextUuid();
  EXPECT_FALSE(CheckCapability(token_, other, key_, 0).ok());
  other = wanted_;
  other.mount_uid = ids_.NextUuid();
  EXPECT_FALSE(CheckCapability(token_, other, key_, 0).ok());
}

TEST_F(CapabilityTest, AnotherMountsKeyDoesNotFit) {
  const std::string other = DeriveMountKey(cluster_key_, ids_.NextUuid());
  EXPECT_EQ(other.size(), 32u);
  EXPECT_NE(other, key_);
  EXPECT_THAT(CheckCapability(token_, wanted_, other, 0),
              HasReason(reason::kCapabilityInvalid));
}

TEST(ThreadPoolTest, FinishesWhatWasPosted) {
  std::atomic<int> ran = 0;
  ThreadPool pool("test", 4);
  for (int i = 0; i < 1000; ++i) {
    pool.Post([&] { ++ran; });
  }
  pool.Shutdown();
  EXPECT_EQ(ran, 1000);
  pool.Post([&] { ++ran; });  // dropped
  pool.Shutdown();
  EXPECT_EQ(ran, 1000);
}

TEST(StrandTest, OneAtATimeAndInOrder) {
  std::vector<int> order;  // unguarded on purpose: tsan checks the strand
  {
    ThreadPool pool("test", 4);
    Strand strand(&pool);
    for (int i = 0; i < 2000; ++i) {
      strand.Post([&order, i] { order.push_back(i); });
    }
  }
  ASSERT_EQ(order.size(), 2000u);
  for (int i = 0; i < 2000; ++i) {
    EXPECT_EQ(order[static_cast<size_t>(i)], i);
  }
}

TEST(StrandTest, TasksOutliveIt) {
  ManualExecutor executor;
  int ran = 0;
  {
    Strand strand(&executor);
    strand.Post([&] { ++ran; });
    strand.Post([&] { ++ran; });
  }
  EXPECT_EQ(ran, 0);
  executor.RunAll();
  EXPECT_EQ(ran, 2);
}

TEST(StrandTest, OthersGetTheirTurnBetweenItsTasks) {
  ManualExecutor executor;
  Strand busy(&executor);
  std::vector<std::string> order;
  busy.Post([&] { order.push_back("first"); });
  busy.Post([&] { order.push_back("second"); });
  executor.Post([&] { order.push_back("other"); });
  executor.RunAll();
  EXPECT_THAT(order, ElementsAre("first", "other", "second"));
}

TEST(BackoffTest, DoublesWithJitterUpToTheMost) {
  FakeIds ids;
  Backoff backoff(absl::Seconds(1), absl::Seconds(5), &ids);
  for (const int most : {1, 2, 4, 5, 5}) {
    EXPECT_THAT(backoff.Next(),
                AllOf(Ge(absl::Seconds(most) / 2), Le(absl::Seconds(most))));
  }
  backoff.Reset();
  EXPECT_LE(backoff.Next(), absl::Seconds(1));
}

}  // namespace
}  // namespace predella
