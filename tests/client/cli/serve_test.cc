// The parts of `predella serve` that need no process.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/serve/datadirs.h"
#include "client/cli/serve/directory_check.h"
#include "client/cli/serve/glance_conf.h"
#include "client/cli/serve/plan.h"
#include "client/cli/serve/readiness.h"
#include "client/cli/serve/serve_state.h"
#include "client/cli/serve/supervisor.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_ids.h"
#include "tests/testing/matchers.h"

namespace predella::cli {
namespace {

using ::predella::testing::FakeClock;
using ::predella::testing::FakeIds;
using ::predella::testing::IsOkAndHolds;
using ::predella::testing::StatusIs;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Optional;
using ::testing::Pair;

TEST(DatadirsTest, GlancesOwnForm) {
  ASSERT_OK_AND_ASSIGN(
      const std::vector<Datadir> dirs,
      ParseDatadirs(
          "/var/glance/store-1:100, fast=/mnt//x/./y/ : 2 ,/c:d/e:3"));
  ASSERT_EQ(dirs.size(), 3u);
  EXPECT_EQ(dirs[0].name, "store-1");
  EXPECT_EQ(dirs[0].priority, 100);
  EXPECT_EQ(dirs[1].name, "fast");
  EXPECT_EQ(dirs[1].path, "/mnt/x/y");
  EXPECT_EQ(dirs[1].priority, 2);
  EXPECT_EQ(dirs[2].path, "/c:d/e");
}

TEST(DatadirsTest, NoPriorityAnywhereMeansEqual) {
  ASSERT_OK_AND_ASSIGN(const std::vector<Datadir> dirs, ParseDatadirs("/a,/b"));
  EXPECT_EQ(dirs[0].priority, kEqualPriority);
  EXPECT_EQ(dirs[1].priority, kEqualPriority);
}

TEST(DatadirsTest, EveryMistakeHasItsSentence) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no directories are given"},
      {" , ", "no directories are given"},
      {"store:1", "must begin with a slash"},
      {"/a:high", "the priority \"high\" is not a number"},
      {"/a:", "is not a number"},
      {"/a:-1", "is not a number"},
      {"/a:99999999999999999999", "from 0 to 2147483647"},
      {"=/a:1", "there is no name before the ="},
      {"/a:1,/b", "the priority is missing on /b but given on /a"},
      {"/a:1,/a/:2", "/a is given twice"},
      {"/a:1,/a/b:2", "/a/b lies inside /a"},
      {"/x/s:1,/y/s:2",
       "would both be named \"s\"; give one another name: "
       "NAME=/y/s"},
      {"/a/my dir:1", "give it one: NAME=/a/my dir:1"},
      {"bad name=/a:1", "is not a mount name"},
      {"/:1", "cannot be the name"},
  };
  for (const auto& [text, sentence] : cases) {
    EXPECT_THAT(
        ParseDatadirs(text),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(sentence)))
        << text;
  }
  // A common beginning of the names is not the same place.
  EXPECT_OK(ParseDatadirs("/a/b:1,/a/bc:2"));
}

TEST(GlanceConfTest, ReadsOslosIni) {
  EXPECT_THAT(FindDatadirs("# multifilesystem_store_datadir = /no:1\n"
                           "[DEFAULT]\nenabled_backends = disks:file\n"
                           "[glance_store]\n"
                           "stores = file\n"
                           "multifilesystem_store_datadir = /a:100,\n"
                           "    /b:200,\n"
                           "; a comment between\n"
                           "\t/c:300\n"
                           "other = 1\n",
                           "f"),
              IsOkAndHolds("/a:100,/b:200,/c:300"));
  EXPECT_THAT(
      FindDatadirs("[disks]\nmultifilesystem_store_datadir : '/a:1'\n", "f"),
      IsOkAndHolds("/a:1"));
  EXPECT_THAT(FindDatadirs("[a]\nmultifilesystem_store_datadir=/a:1\n"
                           "multifilesystem_store_datadir=/b:1\n",
                           "f"),
              IsOkAndHolds("/a:1,/b:1"));
}

TEST(GlanceConfTest, Mistakes) {
  EXPECT_THAT(
      FindDatadirs("[glance_store]\nx=1\n", "f.conf"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("f.conf")));
  EXPECT_THAT(
      FindDatadirs("[a]\nmultifilesystem_store_datadir=/a:1\n"
                   "[b]\nmultifilesystem_store_datadir=/b:1\n",
                   "f"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("[a] and [b]")));
  EXPECT_THAT(
      FindDatadirs("[a]\nmultifilesystem_store_datadir=$state_path/a:1\n", "f"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("write the")));
}

DirectoryFacts Good(const std::string& path, uint64_t device, uint64_t inode) {
  DirectoryFacts facts;
  facts.exists = facts.directory = facts.writable = true;
  facts.real_path = path;
  facts.device = device;
  facts.inode = inode;
  return facts;
}

TEST(DirectoryCheckTest, EveryMistakeHasItsSentence) {
  const std::vector<Datadir> dirs = {{"a", "/a", 1}, {"b", "/b", 2}};
  const auto judge = [&](const DirectoryFacts& second) {
    return JudgeDirectories(dirs, {Good("/a", 1, 1), second}, {});
  };
  DirectoryFacts facts;
  facts.error = ENOENT;
  EXPECT_THAT(judge(facts), StatusIs(absl::StatusCode::kFailedPrecondition,
                                     HasSubstr("/b does not exist; mount it")));
  // What does not answer well is not what does not exist.
  facts.error = ESTALE;
  EXPECT_THAT(judge(facts), StatusIs(absl::StatusCode::kFailedPrecondition,
                                     AllOf(HasSubstr("/b cannot be looked at: "
                                                     "Stale file handle"),
                                           Not(HasSubstr("exist")))));
  facts.exists = true;
  EXPECT_THAT(judge(facts), StatusIs(absl::StatusCode::kFailedPrecondition,
                                     HasSubstr("/b is not a directory")));
  facts.directory = true;
  facts.error = EACCES;
  EXPECT_THAT(judge(facts), StatusIs(absl::StatusCode::kFailedPrecondition,
                                     AllOf(HasSubstr("/b is not writable"),
                                           HasSubstr("Permission denied"))));
  facts.read_only = true;
  EXPECT_THAT(judge(facts)->warnings,
              ElementsAre(HasSubstr("/b is mounted read-only")));
  EXPECT_THAT(judge(Good("/a", 1, 1)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("are the same directory")));
  EXPECT_THAT(judge(Good("/a/deep", 1, 9)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("/b lies inside /a")));
  EXPECT_THAT(judge(Good("/b", 2, 9))->warnings, IsEmpty());
  EXPECT_THAT(judge(Good("/b", 1, 9))->warnings,
              ElementsAre(HasSubstr("on one file system")));
  // One sentence for any number of them.
  EXPECT_THAT(JudgeDirectories(
                  {{"a", "/a", 1}, {"b", "/b", 2}, {"c", "/c", 3}},
                  {Good("/a", 1, 1), Good("/b", 1, 2), Good("/c", 1, 3)}, {})
                  ->warnings,
              ElementsAre(HasSubstr("/a, /b, /c are on one file system")));
  facts.answered = false;
  EXPECT_THAT(judge(facts)->warnings, ElementsAre(HasSubstr("HUNG")));
}

TEST(DirectoryCheckTest, WhatIsWrongWithAKnownMountIsAWarning) {
  const std::vector<Datadir> dirs = {{"a", "/a", 1}, {"b", "/b", 2}};
  const auto judge = [&](const DirectoryFacts& first) {
    return JudgeDirectories(dirs, {first, Good("/b", 1, 2)}, {"a"});
  };
  DirectoryFacts facts;
  facts.error = EIO;
  ASSERT_OK_AND_ASSIGN(DirectoryReport report, judge(facts));
  EXPECT_THAT(report.away, ElementsAre("a"));
  EXPECT_THAT(report.warnings,
              ElementsAre(AllOf(HasSubstr("/a cannot be looked at: "
                                          "Input/output error"),
                                HasSubstr("mount a was served from it"))));
  facts.error = ENOENT;
  EXPECT_THAT(judge(facts)->warnings,
              ElementsAre(HasSubstr("/a does not exist; mount a")));
  facts.exists = true;  // a file now
  EXPECT_THAT(judge(facts)->away, ElementsAre("a"));
  // Its label can be read.
  facts.directory = true;
  facts.error = EACCES;
  facts.device = 7;
  ASSERT_OK_AND_ASSIGN(report, judge(facts));
  EXPECT_THAT(report.away, IsEmpty());
  EXPECT_THAT(report.warnings, ElementsAre(HasSubstr("/a is not writable")));
  // What cannot be is refused all the same.
  EXPECT_FALSE(judge(Good("/b", 1, 2)).ok());
  facts.answered = false;
  EXPECT_THAT(judge(facts)->away, ElementsAre("a"));
  // One that is known excuses no other.
  EXPECT_FALSE(
      JudgeDirectories(dirs, {Good("/a", 1, 1), DirectoryFacts()}, {"a"}).ok());
  // All of them are away.
  EXPECT_THAT(
      JudgeDirectories(dirs, {DirectoryFacts(), DirectoryFacts()}, {"a", "b"})
          ->away,
      ElementsAre("a", "b"));
}

TEST(DirectoryCheckTest, DirectoriesAreLookedAt) {
  const std::string top = ::testing::TempDir() + "directory_check";
  std::filesystem::create_directories(top);
  DirectoryFacts facts = LookAtDirectory(top + "/none", absl::Seconds(30));
  EXPECT_TRUE(facts.answered && !facts.exists);
  EXPECT_EQ(facts.error, ENOENT);
  std::filesystem::remove(top + "/link");
  std::filesystem::create_directory_symlink(top, top + "/link");
  facts = LookAtDirectory(top + "/link", absl::Seconds(30));
  EXPECT_TRUE(facts.exists && facts.directory && facts.writable);
  EXPECT_EQ(facts.real_path, std::filesystem::canonical(top).string());
  EXPECT_NE(facts.inode, 0u);

  const std::string lock = top + "/lock";
  EXPECT_EQ(LockHolder(top + "/none"), std::nullopt);
  const int fd = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  EXPECT_EQ(LockHolder(lock), std::nullopt);
  ASSERT_EQ(flock(fd, LOCK_EX | LOCK_NB), 0)
      << "the look that found it free has not kept it";
  EXPECT_THAT(LockHolder(lock), Optional(AnyOf(getpid(), 0)));
  close(fd);
}

TEST(DirectoryCheckTest, TwoOfOneLabelAreRefused) {
  const Label label{"a", "uid", ""};
  EXPECT_THAT(CheckLabels({{{"a", "/a", 1}, label}, {{"b", "/b", 1}, label}},
                          "/state", "", false),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("/a and /b both bear the label of mount a")));
  // Two that were not seen are not one.
  EXPECT_OK(CheckLabels({{{"a", "/a", 1}, Label{"a", "", ""}},
                         {{"b", "/b", 1}, Label{"b", "", ""}}},
                        "/state", "", false));
}

TEST(DirectoryCheckTest, LabelsOfOtherClustersAreRefused) {
  const auto check = [](const std::string& name, const std::string& cluster,
                        const std::string& known, bool index) {
    return CheckLabels({{{"a", "/a", 1}, Label{name, "uid", cluster}}},
                       "/state", known, index);
  };
  EXPECT_OK(check("a", "", "", false));
  EXPECT_OK(check("a", "c1", "c1", true));
  EXPECT_OK(check("a", "c1", "", true));
  EXPECT_THAT(check("a", "c1", "", false),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("start with the --state-dir that belongs")));
  EXPECT_THAT(check("a", "c1", "c2", true),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is the state directory of c2")));
  EXPECT_THAT(check("z", "", "", false),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("write z=/a:1")));
  EXPECT_THAT(CheckLabels({{{"a", "/a", 1}, Label{"a", "u", "c1"}},
                           {{"b", "/b", 1}, Label{"b", "v", "c2"}}},
                          "/state", "", true),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("one serve is one cluster")));
}

TEST(DirectoryCheckTest, LabelsParse) {
  ASSERT_OK_AND_ASSIGN(
      const Label label,
      ParseLabel(
          "{\"name\":\"a\",\"mount_uid\":\"u\",\"cluster_uid\":\"\"}\n"));
  EXPECT_EQ(label.name, "a");
  EXPECT_EQ(label.mount_uid, "u");
  EXPECT_FALSE(ParseLabel("{}").ok());
  EXPECT_FALSE(ParseLabel("[").ok());
}

TEST(ServeStateTest, OffsetsStayAndFillGaps) {
  ServeState state;
  EXPECT_EQ(state.OffsetOf("b"), 0);
  EXPECT_EQ(state.OffsetOf("a"), 1);
  EXPECT_EQ(state.OffsetOf("b"), 0);
  state.port_offsets.erase("b");
  EXPECT_EQ(state.OffsetOf("c"), 0);
  state.cluster_uid = "uid";
  state.mount_uids["a"] = "mount-uid";
  ASSERT_OK_AND_ASSIGN(const ServeState back,
                       ServeState::FromJson(state.ToJson()));
  EXPECT_EQ(back.port_offsets, state.port_offsets);
  EXPECT_EQ(back.cluster_uid, "uid");
  EXPECT_EQ(back.mount_uids, state.mount_uids);
  EXPECT_OK(ServeState::FromJson(ServeState().ToJson()));
  EXPECT_FALSE(ServeState::FromJson("{").ok());
}

void SetOption(std::vector<PassedOption>* options, const std::string& name,
               const std::string& value) {
  for (PassedOption& option : *options) {
    if (option.name == name) {
      option.value = value;
      return;
    }
  }
  FAIL() << "there is no option " << name;
}

TEST(PlanTest, CommandLines) {
  ServeOptions options;
  options.state_dir = "/s";
  options.listen = {"127.0.0.1:7400"};
  options.reserve = {"b=1GiB"};
  SetOption(&options.coordinator, "near-full", "85");
  SetOption(&options.coordinator, "rescan-interval", "30s");
  SetOption(&options.coordinator, "scrub-interval", "24h");
  SetOption(&options.coordinator, "backup-dir", "/backups");
  SetOption(&options.agents, "file-mode", "0600");
  SetOption(&options.agents, "slow-above", "3s");
  SetOption(&options.agents, "drain-timeout", "2m");
  options.require_mountpoint = true;
  options.thin = true;
  ServeState state;
  ASSERT_OK_AND_ASSIGN(const Plan plan,
                       MakePlan(options, {{"a", "/a", 1}, {"b", "/b", 2}},
                                "coordinator", "agent", "host", &state));
  EXPECT_EQ(plan.endpoint, "unix:/s/run/coordinator.sock");
  EXPECT_THAT(plan.children[0].argv, Contains("--near-full=85"));
  EXPECT_THAT(plan.children[0].argv, Contains("--rescan-interval=30s"));
  EXPECT_THAT(plan.children[0].argv, Contains("--scrub-interval=24h"));
  EXPECT_THAT(plan.children[0].argv, Contains("--backup-dir=/backups"));
  EXPECT_EQ(plan.drain, absl::Minutes(2));
  EXPECT_TRUE(plan.children[0].stops_last);
  EXPECT_THAT(
      plan.children[2].argv,
      ElementsAre(
          "agent", "--name=b", "--path=/b", "--priority=2",
          "--coordinator=unix:/s/run/coordinator.sock",
          "--listen=unix:/s/run/agent-b.sock", "--listen=127.0.0.1:7411",
          "--advertise=unix:/s/run/agent-b.sock", "--advertise=127.0.0.1:7411",
          "--reserve=1073741824", "--file-mode=0600", "--slow-above=3s",
          "--drain-timeout=2m", "--require-mountpoint", "--thin",
          "--die-with-parent", "--parent-watch-fd=3"));
}

TEST(PlanTest, Mistakes) {
  ServeState state;
  const auto plan = [&](const ServeOptions& options) {
    return MakePlan(options, {{"a", "/a", 1}}, "c", "a", "h", &state).status();
  };
  ServeOptions options;
  options.state_dir = "/" + std::string(90, 's');
  EXPECT_THAT(plan(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("more than the kernel")));
  for (const char* const inside : {"/a", "/a/s"}) {
    options.state_dir = inside;
    EXPECT_THAT(plan(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("is for images")));
  }
  options.state_dir = "/s";
  options.listen = {"0.0.0.0:7400"};
  EXPECT_FALSE(plan(options).ok());
  options.listen = {"127.0.0.1:7400"};
  options.health_listen = {"127.0.0.1:8400"};
  state = ServeState();
  ASSERT_OK_AND_ASSIGN(const Plan health, MakePlan(options, {{"a", "/a", 1}},
                                                   "c", "a", "h", &state));
  EXPECT_THAT(health.children[0].argv,
              Contains("--health-listen=127.0.0.1:8400"));
  EXPECT_THAT(health.children[1].argv,
              Contains("--health-listen=127.0.0.1:8410"));
  // Two children never share a port.
  options.health_listen = {"0.0.0.0:7410"};
  EXPECT_THAT(plan(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("further apart")));
  options.health_listen = {"unix:/s/health"};
  EXPECT_THAT(plan(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("write HOST:PORT")));
  options.health_listen = {};
  options.listen = {"127.0.0.1:65530"};
  EXPECT_THAT(plan(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("65540, and 65535 is")));
  options.listen = {"127.0.0.1:0"};
  EXPECT_THAT(plan(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("name a port")));
  options.listen = {};
  options.reserve = {"z=1GiB"};
  EXPECT_THAT(plan(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("no directory named \"z\"")));
}

// That they are away was seen before anything was started.
TEST(ReadinessTest, MountsThatAreAwayHoldUpTheOthersForThreeSeconds) {
  v1::ListMountsResponse mounts;
  v1::Mount* a = mounts.add_mounts();
  a->set_name("mounts/a");
  a->set_admin_state(v1::ADMIN_STATE_ACTIVE);
  a->set_health(v1::HEALTH_ONLINE);
  a->set_trusted(true);
  const absl::Duration start = absl::Hours(5);
  Readiness readiness({"a", "b"}, {"b"});
  EXPECT_FALSE(readiness.Update(mounts, start).has_value());
  EXPECT_FALSE(readiness.Update(mounts, start + absl::Seconds(2)).has_value());
  const auto ready = readiness.Update(mounts, start + absl::Seconds(3));
  ASSERT_TRUE(ready.has_value());
  ASSERT_EQ(ready->apart.size(), 1);
  EXPECT_EQ(ready->apart[0].name, "b");
  // The others have their time.
  a->set_trusted(false);
  EXPECT_FALSE(readiness.Update(mounts, start + absl::Seconds(9)).has_value());
}

TEST(ReadinessTest, WaitsForMountsButNotForEver) {
  Readiness readiness({"a", "b"});
  v1::ListMountsResponse mounts;
  v1::Mount* a = mounts.add_mounts();
  a->set_name("mounts/a");
  a->set_admin_state(v1::ADMIN_STATE_ACTIVE);
  a->set_health(v1::HEALTH_ONLINE);
  a->set_trusted(true);
  const absl::Duration start = absl::Hours(5);
  EXPECT_FALSE(readiness.Update(mounts, start).has_value());
  EXPECT_FALSE(readiness.Update(mounts, start + absl::Seconds(9)).has_value());
  const auto late = readiness.Update(mounts, start + absl::Seconds(10));
  ASSERT_EQ(late->apart.size(), 1);
  EXPECT_EQ(late->apart[0].word, "ABSENT");
  EXPECT_EQ(late->apart[0].name, "b");
  EXPECT_EQ(late->apart[0].why, "not registered");
  v1::Mount* b = mounts.add_mounts();
  *b = *a;
  b->set_name("mounts/b");
  EXPECT_THAT(readiness.Update(mounts, start)->apart, IsEmpty());
  // ONLINE by its last heartbeat, but without a session that was answered.
  mounts.mutable_mounts(1)->set_trusted(false);
  EXPECT_FALSE(readiness.Update(mounts, start).has_value());
  const auto untrusted = readiness.Update(mounts, start + absl::Seconds(10));
  ASSERT_TRUE(untrusted.has_value());
  ASSERT_EQ(untrusted->apart.size(), 1);
  EXPECT_EQ(untrusted->apart[0].word, "UNTRUSTED");
  EXPECT_EQ(untrusted->apart[0].name, "b");
  // Nobody waits for what an operator took out, but it is named.
  mounts.mutable_mounts(1)->set_admin_state(v1::ADMIN_STATE_CORDONED);
  mounts.mutable_mounts(1)->set_health(v1::HEALTH_UNREACHABLE);
  const auto cordoned = readiness.Update(mounts, start);
  ASSERT_TRUE(cordoned.has_value());
  ASSERT_EQ(cordoned->apart.size(), 1);
  EXPECT_EQ(cordoned->apart[0].word, "CORDONED");
  EXPECT_EQ(cordoned->apart[0].why, "UNREACHABLE");
  mounts.mutable_mounts(1)->set_admin_state(v1::ADMIN_STATE_RETIRED);
  EXPECT_EQ(readiness.Update(mounts, start)->apart[0].word, "RETIRED");
  EXPECT_EQ(readiness.Update(mounts, start)->apart[0].why, "");
}

// Processes that do what the test says.
class FakeRunner final : public ProcessRunner {
 public:
  absl::StatusOr<int64_t> Start(const std::vector<std::string>& argv) override {
    if (fail_start) {
      return absl::NotFoundError("no such program");
    }
    running[argv[0]] = ++last_pid;
    ++starts[argv[0]];
    return last_pid;
  }
  std::vector<ChildExit> Reap() override { return std::exchange(exits, {}); }
  void Signal(int64_t pid, int signal) override {
    signals.emplace_back(pid, signal);
  }
  bool Hollow(int64_t pid) override { return hollow.count(pid) > 0; }
  void Exit(const std::string& name, int code, int signal = 0) {
    exits.push_back({running[name], code, signal});
  }

  bool fail_start = false;
  int64_t last_pid = 0;
  std::map<std::string, int64_t> running;
  std::map<std::string, int> starts;
  std::vector<ChildExit> exits;
  std::vector<std::pair<int64_t, int>> signals;
  std::set<int64_t> hollow;
};

class SupervisorTest : public ::testing::Test {
 protected:
  const absl::Duration stop_for_ = Supervisor::kDrain + Supervisor::kPastDrain;
  FakeRunner runner_;
  FakeClock clock_;
  FakeIds ids_;
  Supervisor supervisor_{
      {{"coordinator", {"c"}, true}, {"agent a", {"a"}, false}},
      &runner_,
      &clock_,
      &ids_};
};

TEST_F(SupervisorTest, RestartsWithBackoffThatResets) {
  supervisor_.Tick();
  EXPECT_EQ(runner_.starts["a"], 1);
  runner_.Exit("a", 1);
  supervisor_.Tick();
  EXPECT_EQ(supervisor_.LastEnd("agent a"), "exited with code 1");
  EXPECT_EQ(supervisor_.LastEnd("coordinator"), "");
  clock_.Advance(absl::Seconds(61));
  supervisor_.Tick();
  EXPECT_EQ(supervisor_.LastEnd("agent a"), "exited with code 1")
      << "it may well end again";
  clock_.Advance(absl::Seconds(60));
  EXPECT_EQ(supervisor_.LastEnd("agent a"), "") << "it runs";
  runner_.starts["a"] = 1;
  absl::Duration most = absl::Milliseconds(500);
  for (int i = 2; i < 10; ++i) {
    runner_.Exit("a", 0, SIGKILL);
    supervisor_.Tick();
    clock_.Advance(most / 2 - absl::Milliseconds(1));
    supervisor_.Tick();
    EXPECT_EQ(runner_.starts["a"], i - 1) << "too early";
    clock_.Advance(most / 2 + absl::Milliseconds(1));
    supervisor_.Tick();
    EXPECT_EQ(runner_.starts["a"], i);
    most = std::min(most * 2, absl::Seconds(30));
  }
  EXPECT_EQ(runner_.starts["c"], 1);
  clock_.Advance(absl::Seconds(60));
  runner_.Exit("a", 1);
  supervisor_.Tick();
  clock_.Advance(absl::Milliseconds(500));
  supervisor_.Tick();
  EXPECT_EQ(runner_.starts["a"], 10);
}

TEST_F(SupervisorTest, ProgramThatCannotBeStartedIsTriedAgain) {
  runner_.fail_start = true;
  supervisor_.Tick();
  runner_.fail_start = false;
  supervisor_.Tick();
  EXPECT_EQ(runner_.starts["a"], 0);
  clock_.Advance(absl::Milliseconds(500));
  supervisor_.Tick();
  EXPECT_EQ(runner_.starts["a"], 1);
}

TEST_F(SupervisorTest, ConfigurationErrorStopsEverything) {
  supervisor_.Tick();
  runner_.Exit("a", kExitConfiguration);
  supervisor_.Tick();
  EXPECT_THAT(runner_.signals,
              ElementsAre(std::pair(runner_.running["c"], SIGTERM)));
  EXPECT_FALSE(supervisor_.stopped());
  runner_.Exit("c", 0);
  supervisor_.Tick();
  EXPECT_TRUE(supervisor_.stopped());
  EXPECT_THAT(supervisor_.status(), StatusIs(absl::StatusCode::kInvalidArgument,
                                             HasSubstr("agent a cannot run")));
}

TEST_F(SupervisorTest, ACoordinatorThatNeverServesIsGivenUp) {
  supervisor_.Tick();
  for (int i = 1; i < Supervisor::kMostVainStarts; ++i) {
    runner_.Exit("c", 1);
    supervisor_.Tick();
    clock_.Advance(absl::Seconds(30));
    supervisor_.Tick();
  }
  EXPECT_OK(supervisor_.status());
  runner_.Exit("c", 1);
  supervisor_.Tick();
  EXPECT_THAT(supervisor_.status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("coordinator ended 5 times before")));
}

TEST_F(SupervisorTest, ACoordinatorThatHasServedIsStartedForEver) {
  supervisor_.Tick();
  supervisor_.MarkReady();
  for (int i = 0; i < 3 * Supervisor::kMostVainStarts; ++i) {
    runner_.Exit("c", 1);
    supervisor_.Tick();
    clock_.Advance(absl::Seconds(30));
    supervisor_.Tick();
  }
  EXPECT_OK(supervisor_.status());
}

TEST_F(SupervisorTest, CoordinatorStopsAfterTheAgents) {
  supervisor_.Tick();
  supervisor_.RequestStop();
  EXPECT_THAT(runner_.signals,
              ElementsAre(std::pair(runner_.running["a"], SIGTERM)));
  runner_.Exit("a", 0);
  supervisor_.Tick();
  EXPECT_THAT(runner_.signals,
              Contains(std::pair(runner_.running["c"], SIGTERM)));
  runner_.Exit("c", 0);
  supervisor_.Tick();
  EXPECT_TRUE(supervisor_.stopped());
  EXPECT_OK(supervisor_.status());
  EXPECT_EQ(runner_.starts["a"], 1);
}

TEST_F(SupervisorTest, WhatDoesNotStopIsKilled) {
  supervisor_.Tick();
  supervisor_.RequestStop();
  clock_.Advance(stop_for_ - absl::Milliseconds(1));
  supervisor_.Tick();
  EXPECT_THAT(runner_.signals, Not(Contains(Pair(::testing::_, SIGKILL))));
  clock_.Advance(absl::Milliseconds(1));
  supervisor_.Tick();
  EXPECT_THAT(runner_.signals,
              Contains(std::pair(runner_.running["a"], SIGKILL)));
  EXPECT_THAT(runner_.signals,
              Not(Contains(std::pair(runner_.running["c"], SIGTERM))));
}

// As when a call to its mount hangs in the kernel.
TEST_F(SupervisorTest, WhatSigkillDoesNotEndIsLeftBehindAndNamed) {
  supervisor_.Tick();
  supervisor_.RequestStop();
  clock_.Advance(stop_for_);
  supervisor_.Tick();
  clock_.Advance(Supervisor::kLetGo - absl::Milliseconds(1));
  supervisor_.Tick();
  EXPECT_THAT(runner_.signals,
              Not(Contains(std::pair(runner_.running["c"], SIGTERM))));
  clock_.Advance(absl::Milliseconds(1));
  supervisor_.Tick();
  EXPECT_THAT(runner_.signals,
              Contains(std::pair(runner_.running["c"], SIGTERM)));
  EXPECT_FALSE(supervisor_.stopped());
  runner_.Exit("c", 0);
  supervisor_.Tick();
  EXPECT_TRUE(supervisor_.stopped());
  EXPECT_THAT(supervisor_.status(),
              StatusIs(absl::StatusCode::kInternal,
                       HasSubstr(absl::StrCat("left behind: agent a (pid ",
                                              runner_.running["a"], ")"))));
}

TEST_F(SupervisorTest, WhatIsGoneButForItsStuckThreadsIsNotWaitedForLong) {
  supervisor_.Tick();
  supervisor_.RequestStop();
  supervisor_.Tick();
  runner_.hollow.insert(runner_.running["a"]);
  supervisor_.Tick();
  clock_.Advance(Supervisor::kLetGo);
  supervisor_.Tick();
  EXPECT_THAT(runner_.signals,
              Contains(std::pair(runner_.running["c"], SIGTERM)));
  EXPECT_THAT(runner_.signals, Not(Contains(Pair(::testing::_, SIGKILL))));
  runner_.Exit("c", 0);
  supervisor_.Tick();
  EXPECT_TRUE(supervisor_.stopped());
  EXPECT_FALSE(supervisor_.status().ok());
}

TEST_F(SupervisorTest, ACoordinatorThatHangsIsLeftBehindToo) {
  supervisor_.Tick();
  supervisor_.RequestStop();
  runner_.Exit("a", 0);
  supervisor_.Tick();
  clock_.Advance(stop_for_);
  supervisor_.Tick();
  EXPECT_THAT(runner_.signals,
              Contains(std::pair(runner_.running["c"], SIGKILL)));
  EXPECT_FALSE(supervisor_.stopped());
  clock_.Advance(Supervisor::kLetGo);
  supervisor_.Tick();
  EXPECT_TRUE(supervisor_.stopped());
  EXPECT_THAT(supervisor_.status(), StatusIs(absl::StatusCode::kInternal,
                                             HasSubstr("coordinator (pid")));
}

TEST_F(SupervisorTest, AskedTwiceItKillsAtOnce) {
  supervisor_.Tick();
  supervisor_.RequestStop();
  supervisor_.RequestStop();
  EXPECT_THAT(runner_.signals,
              Contains(std::pair(runner_.running["a"], SIGKILL)));
  runner_.Exit("a", 0, SIGKILL);
  supervisor_.Tick();
  EXPECT_THAT(runner_.signals,
              Contains(std::pair(runner_.running["c"], SIGKILL)));
}

TEST_F(SupervisorTest, ALongDrainIsWaitedFor) {
  Supervisor supervisor({{"agent a", {"a"}, false}}, &runner_, &clock_, &ids_,
                        absl::Minutes(2));
  supervisor.Tick();
  supervisor.RequestStop();
  clock_.Advance(absl::Minutes(2));
  supervisor.Tick();
  EXPECT_THAT(runner_.signals, Not(Contains(Pair(::testing::_, SIGKILL))));
  clock_.Advance(Supervisor::kPastDrain);
  supervisor.Tick();
  EXPECT_THAT(runner_.signals,
              Contains(std::pair(runner_.running["a"], SIGKILL)));
}

}  // namespace
}  // namespace predella::cli
