#include "common/config/config.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/units.h"
#include "tests/testing/matchers.h"

namespace predella {
namespace {

using ::predella::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Options {
  std::string name = "default";
  bool init = false;
  int priority = 100;
  double near_full = 90;
  std::vector<std::string> listen;
  int64_t reserve = 64 * kMiB;
  absl::Duration drain = absl::Seconds(30);
};

class ConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ =
        ::testing::TempDir() + "config_test_" +
        ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override {
    for (const std::string& name : environment_) {
      unsetenv(name.c_str());
    }
    std::filesystem::remove_all(directory_);
  }

  void SetEnvironment(const std::string& name, const std::string& value) {
    setenv(name.c_str(), value.c_str(), 1);
    environment_.push_back(name);
  }
  std::string WriteFile(const std::string& text) {
    const std::string path = directory_ + "/c.yaml";
    std::ofstream(path) << text;
    return path;
  }
  absl::StatusOr<Config::Outcome> Parse(std::vector<std::string> arguments,
                                        const std::string& default_file = "") {
    Config config("predella-test", "A test.", default_file);
    config.Add("name", &options_.name, "Name.");
    config.Add("init", &options_.init, "Init.");
    config.Add("priority", &options_.priority, "Priority.");
    config.Add("near-full", &options_.near_full, "Percent.");
    config.Add("listen", &options_.listen, "Addresses.");
    config.AddSize("reserve", &options_.reserve, "Reserve.");
    config.AddDuration("drain", &options_.drain, "Drain.");
    std::vector<const char*> argv = {"predella-test"};
    for (const std::string& argument : arguments) {
      argv.push_back(argument.c_str());
    }
    return config.Parse(static_cast<int>(argv.size()), argv.data());
  }

  Options options_;
  std::string directory_;
  std::vector<std::string> environment_;
};

TEST_F(ConfigTest, DefaultsStay) {
  ASSERT_OK_AND_ASSIGN(const Config::Outcome outcome, Parse({}));
  EXPECT_TRUE(outcome.run);
  EXPECT_FALSE(outcome.check_only);
  EXPECT_EQ(options_.name, "default");
  EXPECT_EQ(options_.reserve, 64 * kMiB);
}

TEST_F(ConfigTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string file = WriteFile(
      "name: file\npriority: 1\nnear-full: 80\nreserve: 1GiB\ndrain: 5s\n"
      "listen: [unix:/f]\ninit: true\n");
  SetEnvironment("PREDELLA_PRIORITY", "2");
  SetEnvironment("PREDELLA_NEAR_FULL", "70");
  SetEnvironment("PREDELLA_LISTEN", "unix:/a,unix:/b");
  ASSERT_OK(Parse({"--config", file, "--near-full=60"}));
  EXPECT_EQ(options_.name, "file");
  EXPECT_EQ(options_.priority, 2);
  EXPECT_EQ(options_.near_full, 60);
  EXPECT_EQ(options_.reserve, kGiB);
  EXPECT_EQ(options_.drain, absl::Seconds(5));
  EXPECT_TRUE(options_.init);
  EXPECT_THAT(options_.listen, ElementsAre("unix:/a", "unix:/b"));
  // The whole list is replaced, not extended.
  ASSERT_OK(Parse({"--config", file, "--listen", "unix:/c", "--listen",
                   "127.0.0.1:1", "--no-init"}));
  EXPECT_THAT(options_.listen, ElementsAre("unix:/c", "127.0.0.1:1"));
  EXPECT_FALSE(options_.init);
}

TEST_F(ConfigTest, DefaultFileIsReadWhenItExists) {
  const std::string file = WriteFile("name: file\n");
  ASSERT_OK(Parse({}, file));
  EXPECT_EQ(options_.name, "file");
  options_ = {};
  ASSERT_OK(Parse({}, file + ".missing"));
  EXPECT_EQ(options_.name, "default");
}

TEST_F(ConfigTest, FileNamedByEnvironment) {
  SetEnvironment("PREDELLA_CONFIG", WriteFile("name: env-file\n"));
  ASSERT_OK(Parse({}));
  EXPECT_EQ(options_.name, "env-file");
}

TEST_F(ConfigTest, OnAndOffAreTrueAndFalse) {
  ASSERT_OK(Parse({"--config", WriteFile("init: on\n")}));
  EXPECT_TRUE(options_.init);
  ASSERT_OK(Parse({"--config", WriteFile("init: Off\n")}));
  EXPECT_FALSE(options_.init);
}

TEST_F(ConfigTest, WrongFilesAreRefusedWithTheirLine) {
  const std::map<std::string, std::string> cases = {
      {"name: a\nnmae: b\n", "c.yaml:2: unknown key \"nmae\""},
      {"priority: high\n", "priority (from "},
      {"priority: high\n", "\"high\" is not a whole number"},
      {"reserve: many\n", "\"many\" is not a size"},
      {"drain: soon\n", "\"soon\" is not a duration"},
      {"init: perhaps\n", "\"perhaps\" is not true or false"},
      {"name: [a, b]\n", "c.yaml:1: name wants one plain value"},
      {"listen: {a: b}\n", "listen wants a value or a list"},
      {"name: a\nname: b\n", "\"name\" is given twice"},
      {"- a\n", "expected lines of the form"},
      {"name: [a\n", "c.yaml:"},
  };
  for (const auto& [text, error] : cases) {
    EXPECT_THAT(Parse({"--config", WriteFile(text)}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(error)))
        << text;
  }
  EXPECT_THAT(Parse({"--config", directory_ + "/none"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("cannot be read")));
}

TEST_F(ConfigTest, ErrorSaysWhereTheValueCameFrom) {
  SetEnvironment("PREDELLA_PRIORITY", "x");
  EXPECT_THAT(Parse({}), StatusIs(absl::StatusCode::kInvalidArgument,
                                  HasSubstr("(from the environment)")));
  EXPECT_THAT(Parse({"--priority", "y"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("(from the environment)")));
  unsetenv("PREDELLA_PRIORITY");
  EXPECT_THAT(Parse({"--priority", "y"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("(from the command line)")));
}

TEST_F(ConfigTest, UsageErrorsPointToHelp) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{
           {"--nmae", "x"}, {"stray"}, {"--name"}, {"--name=a", "--name=b"}}) {
    EXPECT_THAT(Parse(arguments), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("predella-test --help")))
        << arguments[0];
  }
}

TEST_F(ConfigTest, PrintedConfigReadsBackTheSame) {
  ::testing::internal::CaptureStdout();
  ASSERT_OK_AND_ASSIGN(
      const Config::Outcome outcome,
      Parse({"--name=a: b #c", "--reserve=3MiB", "--drain=90s",
             "--listen=unix:/x", "--listen=[::1]:7400", "--print-config"}));
  const std::string printed = ::testing::internal::GetCapturedStdout();
  EXPECT_FALSE(outcome.run);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(printed, HasSubstr("# Reserve.\nreserve: 3MiB\n"));
  options_ = {};
  ASSERT_OK(Parse({"--config", WriteFile(printed)}));
  EXPECT_EQ(options_.name, "a: b #c");
  EXPECT_EQ(options_.reserve, 3 * kMiB);
  EXPECT_EQ(options_.drain, absl::Seconds(90));
  EXPECT_THAT(options_.listen, ElementsAre("unix:/x", "[::1]:7400"));
}

TEST_F(ConfigTest, HelpVersionAndCheck) {
  ::testing::internal::CaptureStdout();
  ASSERT_OK_AND_ASSIGN(Config::Outcome outcome, Parse({"--help"}));
  EXPECT_THAT(::testing::internal::GetCapturedStdout(),
              AllOf(HasSubstr("--near-full"), HasSubstr("64MiB")));
  EXPECT_FALSE(outcome.run);
  ::testing::internal::CaptureStdout();
  ASSERT_OK_AND_ASSIGN(outcome, Parse({"--version"}));
  EXPECT_EQ(::testing::internal::GetCapturedStdout(),
            "predella-test " PREDELLA_VERSION "\n");
  EXPECT_FALSE(outcome.run);
  ASSERT_OK_AND_ASSIGN(outcome, Parse({"--check-config"}));
  EXPECT_TRUE(outcome.run);
  EXPECT_TRUE(outcome.check_only);
}

}  // namespace
}  // namespace predella
