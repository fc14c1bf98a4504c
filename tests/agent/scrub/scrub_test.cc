// Scrubs of a mount: what they find, how fast, and in which order they tell.
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "agent/store/layout.h"
#include "common/digest.h"
#include "common/errors.h"
#include "tests/agent/control/core_fixture.h"
#include "tests/agent/store/store_world.h"

namespace predella::agent {
namespace {

using storage::v1::CopyFault;
using ::testing::AllOf;
using ::testing::HasSubstr;

class ScrubTest : public CoreTest {
 protected:
  // Image `seed` in generation (3, seed), with a true sha256.
  std::string Put(uint64_t seed, int64_t size, absl::string_view hash_of = "") {
    const std::string bytes = Pattern(size, static_cast<uint32_t>(seed));
    absl::StatusOr<std::unique_ptr<ImageStore>> store =
        ImageStore::Open(&mem, &clock, &ids, StoreOptions());
    EXPECT_OK(store);
    auto staged = (*store)->OpenStaged(Spec(seed));
    EXPECT_OK(staged);
    EXPECT_OK(AppendAll(staged->get(), bytes));
    CommitRequest request;
    request.size_bytes = size;
    storage::v1::Hash& hash = request.hashes.emplace_back();
    hash.set_algorithm("sha256");
    const auto digest = Digest::Make("sha256");
    digest->Update(hash_of.empty() ? absl::string_view(bytes) : hash_of);
    hash.set_value(digest->Finish());
    storage::v1::Hash& odd = request.hashes.emplace_back();
    odd.set_algorithm("of-another-age");
    odd.set_value("0123");
    EXPECT_OK((*staged)->Publish(request));
    return bytes;
  }
  static UploadSpec Spec(uint64_t seed) {
    return SpecOf(seed, seed, static_cast<int64_t>(seed));
  }
  static std::string Path(uint64_t seed) {
    return layout::ImagePath(TestId(seed));
  }
  static std::string Record(uint64_t seed) {
    return layout::RecordPath(TestId(seed));
  }

  void StartScrub(const Uuid& after = Uuid(), int64_t rate = 0) {
    control::v1::Command command;
    command.mutable_start_scrub()->set_scrub_id("pass-1");
    command.mutable_start_scrub()->set_after_image_id(
        after.none() ? "" : after.bytes());
    command.mutable_start_scrub()->set_bytes_per_second(rate);
    Command(std::move(command));
  }
  // Lets time pass until the scrub has ended; false when it did not.
  bool Finish(absl::Duration within = absl::Minutes(1)) {
    for (absl::Duration t; t < within; t += absl::Milliseconds(250)) {
      Tick();
      if (Progress().done()) {
        return true;
      }
    }
    return false;
  }
  control::v1::ScrubProgress Progress() {
    const control::v1::AgentMessage* beat =
        Last([](const control::v1::AgentMessage& m) {
          return m.has_heartbeat() && m.heartbeat().has_scrub();
        });
    return beat == nullptr ? control::v1::ScrubProgress()
                           : beat->heartbeat().scrub();
  }
  // By image; two of one image fail the test.
  std::map<Uuid, control::v1::CopyFinding> Findings() {
    std::map<Uuid, control::v1::CopyFinding> out;
    for (const control::v1::AgentMessage& message : link->sent) {
      for (const auto& finding : message.copy_faults().findings()) {
        const Uuid id = Uuid::FromBytesOrNone(finding.image_id());
        EXPECT_TRUE(out.emplace(id, finding).second) << id.ToString();
      }
    }
    return out;
  }
  v1::Health Health() { return core.View().health; }
};

TEST_F(ScrubTest, EveryKindOfDamageIsFoundAndNothingElse) {
  std::vector<std::string> bytes(20);
  for (uint64_t n = 1; n <= 14; ++n) {
    bytes[n] = Put(
        n, n == 4 ? 0 : 3 * kBlockBytes - 100 + 10 * static_cast<int64_t>(n));
  }
  Put(15, 5000, "other bytes");
  // 4: empty, 5: small, 1..4 and 14 stay whole.
  ASSERT_OK(mem.FlipByte(Path(5), 2 * kBlockBytes + 5));
  ASSERT_OK(mem.PutFile(Path(6), bytes[6].substr(0, kBlockBytes)));
  ASSERT_OK(mem.PutFile(Path(7), bytes[7] + "x"));
  ASSERT_OK(mem.PutFile(Path(8), bytes[9]));
  ASSERT_OK(mem.PutFile(Path(9), bytes[8]));
  ASSERT_OK(mem.FlipByte(Record(10), 100));
  ASSERT_OK(mem.FlipByte(Record(11), 4096 + 6));
  ASSERT_OK(mem.Unlink(Path(12)));
  ASSERT_OK(mem.Unlink(Record(13)));
  Register();
  StartScrub();
  EXPECT_FALSE(Result()->has_error());
  ASSERT_TRUE(Finish());

  const auto found = Findings();
  EXPECT_EQ(found.size(), 10);
  for (const uint64_t n : {5, 6, 7, 8, 9, 10, 11, 13, 15}) {
    ASSERT_TRUE(found.contains(TestId(n))) << n;
    EXPECT_EQ(found.at(TestId(n)).fault(), storage::v1::COPY_FAULT_DAMAGED)
        << n;
    EXPECT_FALSE(found.at(TestId(n)).detail().empty());
    if (n != 10 && n != 13) {
      EXPECT_EQ(Generation::FromProto(found.at(TestId(n)).generation()),
                Spec(n).generation);
    } else {
      EXPECT_FALSE(found.at(TestId(n)).has_generation());
    }
  }
  ASSERT_TRUE(found.contains(TestId(12)));
  EXPECT_EQ(found.at(TestId(12)).fault(), storage::v1::COPY_FAULT_MISSING);
  EXPECT_EQ(Progress().images(), 15);
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
}

TEST_F(ScrubTest, ItReadsTheDiskAndNotTheCache) {
  Put(1, kBlockBytes + 100);
  Put(2, 5000);
  ASSERT_OK(mem.RotByte(Path(1), kBlockBytes + 7));
  ASSERT_OK(mem.RotByte(Record(2), 50));
  // What a read that asks the cache says.
  fs.Skip("drop_cache");
  Register();
  StartScrub();
  ASSERT_TRUE(Finish());
  EXPECT_TRUE(Findings().empty());

  fs.Reset();
  Register();
  StartScrub();
  ASSERT_TRUE(Finish());
  EXPECT_EQ(Findings().size(), 2);
}

TEST_F(ScrubTest, FindingsGoBeforeTheProgressThatCoversThem) {
  for (uint64_t n = 1; n <= 12; ++n) {
    Put(n, kBlockBytes);
    ASSERT_OK(mem.FlipByte(Path(n), 3));
  }
  Register();
  StartScrub(Uuid(), kBlockBytes);
  ASSERT_TRUE(Finish());
  std::set<Uuid> told;
  int beats = 0;
  for (const control::v1::AgentMessage& message : link->sent) {
    for (const auto& finding : message.copy_faults().findings()) {
      told.insert(Uuid::FromBytesOrNone(finding.image_id()));
    }
    if (message.heartbeat().has_scrub()) {
      ++beats;
      const Uuid last =
          Uuid::FromBytesOrNone(message.heartbeat().scrub().last_image_id());
      for (uint64_t n = 1; n <= 12; ++n) {
        EXPECT_TRUE(last.none() || last < TestId(n) ||
                    told.contains(TestId(n)));
      }
    }
  }
  EXPECT_EQ(told.size(), 12);
  EXPECT_GT(beats, 3);
}

TEST_F(ScrubTest, TheRateIsKeptAndOthersGoFirst) {
  Put(1, 40 * kBlockBytes);
  Register();
  StartScrub(Uuid(), 2 * kBlockBytes);
  int64_t before = Progress().bytes();
  for (int i = 0; i < 10; ++i) {
    clock.Advance(absl::Seconds(1));
    core.Tick();
    // One block a task, behind what came meanwhile.
    EXPECT_LE(disk.size(), 4U);
    bool ran = false;
    disk.Post([&] { ran = true; });
    while (!ran) {
      ASSERT_TRUE(disk.RunOne());
    }
    Tick();
  }
  Tick(absl::Seconds(2));
  const int64_t read = Progress().bytes() - before;
  EXPECT_GE(read, 10 * kBlockBytes);
  EXPECT_LE(read, 2 * 15 * kBlockBytes + kBlockBytes);
  EXPECT_FALSE(Progress().done());
}

TEST_F(ScrubTest, ItGoesOnBehindAnImage) {
  std::vector<Uuid> order;
  for (uint64_t n = 1; n <= 6; ++n) {
    Put(n, 5000);
    ASSERT_OK(mem.FlipByte(Path(n), 3));
    order.push_back(TestId(n));
  }
  std::sort(order.begin(), order.end());
  Register();
  StartScrub(order[3]);
  ASSERT_TRUE(Finish());
  const auto found = Findings();
  EXPECT_EQ(found.size(), 2);
  EXPECT_TRUE(found.contains(order[4]));
  EXPECT_TRUE(found.contains(order[5]));
  EXPECT_EQ(Progress().images(), 2);
  EXPECT_EQ(Progress().last_image_id(), order[5].bytes());
}

TEST_F(ScrubTest, AReadThatFailsTwiceIsAFinding) {
  Put(1, 2 * kBlockBytes);
  Put(2, 5000);
  Register();
  testing::Fault fault;
  fault.op = "pread";
  fault.path = Path(1);
  fault.forever = true;
  fault.status = MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed,
                           "read: EIO");
  fs.Inject(fault);
  StartScrub();
  Tick(absl::Seconds(1));
  Tick(absl::Seconds(1));
  EXPECT_TRUE(Findings().empty());
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  ASSERT_TRUE(Finish());
  const auto found = Findings();
  ASSERT_EQ(found.size(), 1);
  EXPECT_EQ(found.at(TestId(1)).fault(), storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_NE(found.at(TestId(1)).detail().find("EIO"), std::string::npos);
  for (int i = 0; i < 100; ++i) {
    Tick();
  }
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  // The next pass finds what is known, which says nothing new of the mount.
  link->sent.clear();
  StartScrub();
  ASSERT_TRUE(Finish());
  EXPECT_EQ(Findings().size(), 1);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(ScrubTest, DamageMakesTheMountSuspectOnce) {
  for (const uint64_t n : {1, 2, 3}) {
    Put(n, 2 * kBlockBytes);
  }
  ASSERT_OK(mem.FlipByte(Path(2), 5));
  Register();
  StartScrub();
  while (Findings().empty()) {
    Tick();
  }
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  EXPECT_THAT(core.View().detail, HasSubstr(TestId(2).ToString()));
  ASSERT_TRUE(Finish());
  for (int i = 0; i < 100; ++i) {
    Tick();
  }
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  // Nobody repairs it: no news for the next pass, nor for a look at it alone.
  for (const bool alone : {false, true}) {
    link->sent.clear();
    if (alone) {
      control::v1::Command command;
      command.mutable_check_copy()->set_image_id(TestId(2).bytes());
      *command.mutable_check_copy()->mutable_generation() =
          Spec(2).generation.ToProto();
      Command(std::move(command));
      Tick(absl::Seconds(1));
      Tick(absl::Seconds(1));
    } else {
      StartScrub();
      ASSERT_TRUE(Finish());
    }
    EXPECT_EQ(Findings().size(), 1);
    EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  }
}

// The coordinator knows the copy, and asks an agent that started again.
TEST_F(ScrubTest, OneCopyThatIsKnownToBeDamagedSaysNothingOfTheMount) {
  Put(1, 5000);
  ASSERT_OK(mem.FlipByte(Path(1), 5));
  Register();
  control::v1::Command command;
  command.mutable_check_copy()->set_image_id(TestId(1).bytes());
  *command.mutable_check_copy()->mutable_generation() =
      Spec(1).generation.ToProto();
  Command(std::move(command));
  Tick(absl::Seconds(1));
  Tick(absl::Seconds(1));
  EXPECT_EQ(Findings().size(), 1);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(ScrubTest, WhatNoDiskDidIsNoDamageToTheMount) {
  for (const uint64_t n : {1, 2}) {
    Put(n, 5000);
  }
  Put(3, 5000, "other bytes");
  ASSERT_OK(mem.Unlink(Path(1)));
  ASSERT_OK(mem.Unlink(Record(2)));
  Register();
  StartScrub();
  ASSERT_TRUE(Finish());
  EXPECT_EQ(Findings().size(), 3);
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(ScrubTest, AMountThatFailsIsNoFinding) {
  Put(1, 5000);
  Put(2, 5000);
  Register();
  testing::Fault fault;
  fault.forever = true;
  fault.status = MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed,
                           "everything: EIO");
  fs.Inject(fault);
  StartScrub();
  for (int i = 0; i < 120; ++i) {
    Tick();
  }
  EXPECT_TRUE(Findings().empty());
  EXPECT_FALSE(Progress().done());
  EXPECT_FALSE(Progress().detail().empty());
  fs.Reset();
  ASSERT_TRUE(Finish());
  EXPECT_TRUE(Findings().empty());
  EXPECT_EQ(Progress().images(), 2);
}

TEST_F(ScrubTest, AnImageRemovedMeanwhileIsNoFinding) {
  Put(1, 4 * kBlockBytes);
  Register();
  StartScrub(Uuid(), kBlockBytes);
  Tick(absl::Seconds(1));
  Tick(absl::Seconds(1));
  ASSERT_OK(mem.FlipByte(Path(1), 4 * kBlockBytes - 1));
  control::v1::Command command;
  command.mutable_remove()->set_image_id(TestId(1).bytes());
  *command.mutable_remove()->mutable_generation() =
      Spec(1).generation.ToProto();
  Command(std::move(command));
  ASSERT_FALSE(mem.Exists(Path(1)));
  ASSERT_FALSE(Progress().done());
  ASSERT_TRUE(Finish());
  EXPECT_TRUE(Findings().empty());
}

TEST_F(ScrubTest, OneCopyIsChecked) {
  Put(1, 5000);
  Put(2, 5000);
  ASSERT_OK(mem.FlipByte(Path(2), 3));
  Register();
  for (const uint64_t n : {1, 2, 3}) {
    control::v1::Command command;
    command.mutable_check_copy()->set_image_id(TestId(n).bytes());
    *command.mutable_check_copy()->mutable_generation() =
        Spec(n).generation.ToProto();
    Command(std::move(command));
    Tick(absl::Seconds(1));
    Tick(absl::Seconds(1));
    ASSERT_NE(Result(), nullptr);
    EXPECT_EQ(Result()->number(), number);
    const absl::StatusCode code = n == 1   ? absl::StatusCode::kOk
                                  : n == 2 ? absl::StatusCode::kDataLoss
                                           : absl::StatusCode::kNotFound;
    EXPECT_EQ(Result()->error().code(), static_cast<int>(code)) << n;
  }
  const auto found = Findings();
  EXPECT_EQ(found.at(TestId(1)).fault(), storage::v1::COPY_FAULT_UNSPECIFIED);
  EXPECT_EQ(found.at(TestId(2)).fault(), storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_EQ(found.at(TestId(3)).fault(), storage::v1::COPY_FAULT_MISSING);
}

TEST_F(ScrubTest, ItEndsWithItsSessionAndWhenItIsTold) {
  Put(1, 8 * kBlockBytes);
  Register();
  StartScrub(Uuid(), kBlockBytes);
  Tick(absl::Seconds(2));
  EXPECT_EQ(Progress().scrub_id(), "pass-1");
  control::v1::Command command;
  command.mutable_stop_scrub()->set_scrub_id("pass-1");
  Command(std::move(command));
  link->sent.clear();
  Tick(absl::Seconds(2));
  EXPECT_EQ(Progress().scrub_id(), "");

  StartScrub();
  core.OnDisconnected(session);
  Register();
  Tick(absl::Seconds(2));
  Tick(absl::Seconds(2));
  EXPECT_EQ(Progress().scrub_id(), "");
}

TEST_F(ScrubTest, AReadThatFindsDamageTellsIt) {
  Put(1, 5000);
  Register();
  const ReadGrant grant{opened.lock(), TestId(1), Spec(1).generation};
  core.ReadDone(grant, 0,
                MakeError(absl::StatusCode::kDataLoss, reason::kReplicaMissing,
                          "not here"));
  EXPECT_EQ(Findings().at(TestId(1)).fault(), storage::v1::COPY_FAULT_MISSING);
  // Removed, perhaps: the coordinator knows.
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  const ReadGrant other{opened.lock(), TestId(2), Spec(2).generation};
  core.ReadDone(other, 0,
                MakeError(absl::StatusCode::kDataLoss,
                          reason::kChecksumMismatch, "bad block"));
  EXPECT_EQ(Findings().at(TestId(2)).fault(), storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_EQ(Findings().at(TestId(2)).detail(), "bad block");
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  for (int i = 0; i < 100; ++i) {
    Tick();
  }
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  core.ReadDone(other, 0,
                MakeError(absl::StatusCode::kDataLoss,
                          reason::kChecksumMismatch, "bad block"));
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

// A listing ends it once it may be read again, and no scrub is needed.
TEST_F(ScrubTest, WhatMayNotBeReadIsMissingAndNotDamaged) {
  Put(1, 5000);
  Put(2, 5000);
  {
    const auto file = mem.Open(Path(2), OpenMode::kReadWrite);
    ASSERT_OK(file.status());
    ASSERT_OK((*file)->SetOwnership(0, std::nullopt));
  }
  Register();
  const ReadGrant grant{opened.lock(), TestId(1), Spec(1).generation};
  core.ReadDone(grant, 0,
                MakeError(absl::StatusCode::kDataLoss, reason::kMountPermission,
                          "not for you (EACCES)"));
  EXPECT_EQ(Findings().at(TestId(1)).fault(), storage::v1::COPY_FAULT_MISSING);
  EXPECT_EQ(Findings().at(TestId(1)).detail(), "not for you (EACCES)");
  link->sent.clear();
  StartScrub();
  ASSERT_TRUE(Finish());
  const auto found = Findings();
  ASSERT_TRUE(found.contains(TestId(2)));
  EXPECT_EQ(found.at(TestId(2)).fault(), storage::v1::COPY_FAULT_MISSING);
  EXPECT_THAT(found.at(TestId(2)).detail(), ::testing::HasSubstr("EACCES"));
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

// An older version was put back by hand in place of the image.
TEST_F(ScrubTest, AReadThatFindsAnotherGenerationTellsBoth) {
  Put(1, 5000);
  Register();
  Generation newer = Spec(1).generation;
  newer.n += 1;
  const std::shared_ptr<ImageStore> store = opened.lock();
  core.ReadDone(ReadGrant{store, TestId(1), newer}, 0,
                store->OpenImage(TestId(1), newer).status());
  const control::v1::CopyFinding found = Findings().at(TestId(1));
  EXPECT_EQ(found.fault(), storage::v1::COPY_FAULT_MISSING);
  EXPECT_EQ(Generation::FromProto(found.generation()), newer);
  EXPECT_THAT(found.detail(), AllOf(HasSubstr(newer.ToString()),
                                    HasSubstr(Spec(1).generation.ToString())));
}

class ReadErrorTest : public ScrubTest {
 protected:
  // Reads of that path, or of everything, fail from here on.
  void FailReads(const std::string& path = "") {
    testing::Fault fault;
    fault.op = "pread";
    fault.path = path;
    fault.forever = true;
    fault.status = Eio();
    fs.Inject(fault);
  }
  static absl::Status Eio() {
    return MakeError(absl::StatusCode::kUnavailable, reason::kMountFailed,
                     "read: EIO", {{"errno", "EIO"}});
  }
  // As a client that reads the second block.
  void ReadFails(uint64_t seed) {
    core.ReadDone({opened.lock(), TestId(seed), Spec(seed).generation},
                  kBlockBytes + 5, Eio());
  }
};

TEST_F(ReadErrorTest, ABadSectorNamesItsImageAndKeepsNoMountSuspect) {
  Put(1, 2 * kBlockBytes);
  Register();
  FailReads(Path(1));
  ReadFails(1);
  EXPECT_EQ(Health(), v1::HEALTH_SUSPECT);
  for (int i = 0; i < 10; ++i) {  // a probe comes within 2 s
    Tick();
    ReadFails(1);
  }
  const auto found = Findings();
  ASSERT_TRUE(found.contains(TestId(1)));
  EXPECT_EQ(found.at(TestId(1)).fault(), storage::v1::COPY_FAULT_DAMAGED);
  EXPECT_EQ(Generation::FromProto(found.at(TestId(1)).generation()),
            Spec(1).generation);
  EXPECT_THAT(found.at(TestId(1)).detail(), HasSubstr("EIO"));
  for (int i = 0; i < 100; ++i) {
    Tick();
    ReadFails(1);
  }
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
  EXPECT_EQ(Findings().size(), 1);
  // The disk found another place for it: a scrub takes the finding back.
  fs.Reset();
  link->sent.clear();
  StartScrub();
  ASSERT_TRUE(Finish());
  ASSERT_EQ(Findings().size(), 1);
  EXPECT_EQ(Findings().at(TestId(1)).fault(),
            storage::v1::COPY_FAULT_UNSPECIFIED);
}

TEST_F(ReadErrorTest, ABlockThatIsReadTheNextTimeIsNoFinding) {
  Put(1, 2 * kBlockBytes);
  Register();
  ReadFails(1);
  for (int i = 0; i < 100; ++i) {
    Tick();
  }
  EXPECT_TRUE(Findings().empty());
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST_F(ReadErrorTest, ADiskThatFailsNamesNoImage) {
  for (uint64_t n = 1; n <= 3; ++n) {
    Put(n, 2 * kBlockBytes);
  }
  Register();
  FailReads();
  for (int i = 0; i < 100; ++i) {
    for (uint64_t n = 1; n <= 3; ++n) {
      ReadFails(n);
    }
    Tick();
  }
  EXPECT_EQ(Health(), v1::HEALTH_FAILED);
  EXPECT_TRUE(Findings().empty());
  fs.Reset();
  for (int i = 0; i < 100; ++i) {
    Tick();
  }
  EXPECT_TRUE(Findings().empty());
  EXPECT_EQ(Health(), v1::HEALTH_ONLINE);
}

TEST(DigestTest, OfGlancesAlgorithms) {
  const auto digest = Digest::Make("sha256");
  ASSERT_NE(digest, nullptr);
  digest->Update("a");
  digest->Update("bc");
  const std::string sum = digest->Finish();
  EXPECT_EQ(sum.size(), 32);
  EXPECT_EQ(static_cast<unsigned char>(sum[0]), 0xba);
  EXPECT_EQ(static_cast<unsigned char>(sum[31]), 0xad);
  ASSERT_NE(Digest::Make("sha512"), nullptr);
  EXPECT_EQ(Digest::Make("sha512")->size(), 64);
  EXPECT_EQ(Digest::Make("no-such"), nullptr);
}

}  // namespace
}  // namespace predella::agent
