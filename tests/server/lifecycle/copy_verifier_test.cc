#include "server/lifecycle/copy_verifier.h"

#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/errors.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/matchers.h"

namespace predella::server {
namespace {

using ::predella::testing::HasReason;
using ::predella::testing::StatusIs;

// Keeps what it is told to send.
class HeldCommands final : public AgentCommands {
 public:
  absl::StatusOr<control::v1::CommandResult> Call(const Uuid&,
                                                  control::v1::Command,
                                                  absl::Duration,
                                                  const Sent&) override {
    return absl::UnimplementedError("not used");
  }
  void CallAsync(const Uuid&, control::v1::Command command,
                 Done done) override {
    commands.push_back(std::move(command));
    waiting.push_back(std::move(done));
  }
  int64_t AttachedSession(const Uuid&) override { return 1; }
  void LetGo(const Uuid&, const absl::Status&) override {}

  std::vector<control::v1::Command> commands;
  std::vector<Done> waiting;
};

TEST(CopyVerifierTest, WhoAsksAgainHearsWhatCameOfIt) {
  HeldCommands commands;
  testing::FakeClock clock;
  CopyVerifier verifier(&commands, &clock);
  const Uuid mount = *Uuid::Parse("11111111-1111-4111-8111-111111111111");
  const Uuid image = *Uuid::Parse("22222222-2222-4222-8222-222222222222");
  const Generation generation{3, 7, 0xab};
  const auto ask = [&] {
    return verifier.Verify(mount, image, generation, absl::ZeroDuration());
  };
  EXPECT_THAT(ask(), HasReason(reason::kCommitConflict));
  EXPECT_THAT(ask(), StatusIs(absl::StatusCode::kAborted));
  ASSERT_EQ(commands.commands.size(), 1u) << "it is read once";
  EXPECT_EQ(
      Generation::FromProto(commands.commands[0].check_copy().generation()),
      generation);
  commands.waiting[0](absl::DataLossError("a flipped bit"));
  EXPECT_THAT(ask(), StatusIs(absl::StatusCode::kDataLoss));
  // Told once: whoever asks then wants to know anew.
  EXPECT_THAT(ask(), StatusIs(absl::StatusCode::kAborted));
  ASSERT_EQ(commands.commands.size(), 2u);
  commands.waiting[1](control::v1::CommandResult());
  EXPECT_OK(ask());
  // What was found long ago is no answer.
  EXPECT_THAT(ask(), StatusIs(absl::StatusCode::kAborted));
  ASSERT_EQ(commands.commands.size(), 3u);
  commands.waiting[2](control::v1::CommandResult());
  clock.Advance(CopyVerifier::kKept + absl::Seconds(1));
  EXPECT_THAT(ask(), StatusIs(absl::StatusCode::kAborted));
  EXPECT_EQ(commands.commands.size(), 4u);
}

}  // namespace
}  // namespace predella::server
