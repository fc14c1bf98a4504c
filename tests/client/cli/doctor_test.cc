// What the doctor finds, against a mock connection.
#include "client/cli/doctor.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/exit_code.h"
#include "client/cli/local_mount.h"
#include "client/mocks/mock_connection.h"
#include "common/units.h"

namespace predella::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::NiceMock;
using ::testing::Not;
using ::testing::Return;

class DoctorTest : public ::testing::Test {
 protected:
  DoctorTest() {
    cluster_.set_coordinator_version(PREDELLA_VERSION);
    v1::Mount* mount = mounts_.add_mounts();
    mount->set_name("mounts/m-01");
    mount->set_health(v1::HEALTH_ONLINE);
    mount->set_admin_state(v1::ADMIN_STATE_ACTIVE);
    mount->set_size_bytes(kTiB);
    mount->set_available_inodes(1'000'000);
    mount->set_trusted(true);
    mount->set_host("here");
    mount->set_path("/m-01");
    mount->add_addresses("unix:/a");
    mount->mutable_heartbeat_time()->set_seconds(1'000'000);
    decision_.set_winner("mounts/m-01");
    options_.host = "here";
    options_.now = absl::FromUnixSeconds(1'000'001);
    options_.reach = [this](const std::string&) { return reach_; };
    options_.look = [this](const std::string&) { return local_; };
    local_.directory = true;
    local_.label = LocalMount::Labelled::kYes;
  }
  v1::Mount* mount() { return mounts_.mutable_mounts(0); }
  // The exit code; what was said is in said_.
  int Check() {
    auto connection = std::make_shared<NiceMock<MockConnection>>();
    ON_CALL(*connection, GetCluster).WillByDefault(Return(cluster_));
    ON_CALL(*connection, ListMounts).WillByDefault(Return(mounts_));
    ON_CALL(*connection, ExplainPlacement).WillByDefault(Return(decision_));
    if (expect_) {
      expect_(connection.get());
    }
    Client client(std::move(connection));
    std::ostringstream out;
    Findings found(&out);
    Diagnose(&client, options_, &found);
    const int code = found.Sum();
    said_ = out.str();
    return code;
  }

  v1::Cluster cluster_;
  v1::ListMountsResponse mounts_;
  v1::PlacementDecision decision_;
  DoctorOptions options_;
  absl::Status reach_;
  LocalMount local_;
  std::function<void(MockConnection*)> expect_;
  std::string said_;
};

TEST_F(DoctorTest, AllIsWell) {
  EXPECT_EQ(Check(), kExitDone);
  EXPECT_EQ(said_, "OK    coordinator " PREDELLA_VERSION
                   " answers, epoch 0\n"
                   "OK    the clock agrees with the coordinator's\n"
                   "OK    m-01: ONLINE\n"
                   "OK    m-01: /m-01 is labelled and writable\n"
                   "OK    m-01: agent answers at unix:/a\n"
                   "OK    a new image would go to m-01\n"
                   "all is well\n");
}

TEST_F(DoctorTest, AnAgentOutOfReach) {
  reach_ = absl::UnavailableError("no connection");
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, AllOf(HasSubstr("FAIL  m-01: its agent cannot be reached "
                                     "from here: unix:/a (no connection)"),
                           HasSubstr("1 failed, 0 to watch\n")));
}

TEST_F(DoctorTest, WhatThisHostSeesOfTheDirectory) {
  local_.label = LocalMount::Labelled::kNo;
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, HasSubstr("FAIL  m-01: /m-01 bears no label"));
  local_.directory = false;
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, HasSubstr("/m-01 is not a directory"));
  local_.answered = false;
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, AllOf(HasSubstr("/m-01 does not answer"),
                           Not(HasSubstr("process"))));
  local_.left = 4711;
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, HasSubstr("process 4711, which looked there, hangs"));
  local_ = LocalMount();
  local_.error = EIO;
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, AllOf(HasSubstr("/m-01 cannot be looked at: Input/output"),
                           Not(HasSubstr("not a directory"))));
  local_.error = ENOENT;
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, HasSubstr("/m-01 is not a directory"));
  local_ = {true, true, LocalMount::Labelled::kYes, true};
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, HasSubstr("is mounted read-only"));
  local_ = {true, true, LocalMount::Labelled::kHidden, false};
  EXPECT_EQ(Check(), kExitDone);
  EXPECT_THAT(said_, Not(HasSubstr("label")));
  // The same path elsewhere is another directory.
  local_.answered = false;
  mount()->set_host("there");
  EXPECT_EQ(Check(), kExitDone);
}

TEST_F(DoctorTest, SpaceInodesTrustAndVersion) {
  mount()->set_used_percent(93);
  mount()->set_available_inodes(12);
  mount()->set_trusted(false);
  mount()->set_agent_version("0.0.9");
  EXPECT_EQ(Check(), kExitDone);
  EXPECT_THAT(said_, AllOf(HasSubstr("WARN  m-01: 93% used"),
                           HasSubstr("WARN  m-01: only 12 inodes are free"),
                           HasSubstr("WARN  m-01: what it knows was not yet"),
                           HasSubstr("WARN  m-01: agent 0.0.9"),
                           HasSubstr("0 failed, 4 to watch\n")));
  cluster_.set_recovering(true);
  mount()->set_available_inodes(-1);  // counts none
  EXPECT_EQ(Check(), kExitDone);
  EXPECT_THAT(said_, AllOf(HasSubstr("m-01: the index is older than what"),
                           Not(HasSubstr("inodes"))));
}

TEST_F(DoctorTest, TheClock) {
  options_.now += absl::Minutes(3);
  EXPECT_EQ(Check(), kExitDone);
  EXPECT_THAT(said_, HasSubstr("clock of this host is 181 s ahead of"));
  options_.now -= absl::Minutes(6);
  EXPECT_EQ(Check(), kExitDone);
  EXPECT_THAT(said_, HasSubstr("clock of this host is 179 s behind"));
  // A silent agent says nothing about the clock.
  mount()->set_health(v1::HEALTH_UNREACHABLE);
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, Not(HasSubstr("clock")));
}

TEST_F(DoctorTest, WhatAnOperatorWanted) {
  mount()->set_health(v1::HEALTH_ABSENT);
  mount()->set_admin_state(v1::ADMIN_STATE_MAINTENANCE);
  EXPECT_EQ(Check(), kExitDone);
  EXPECT_THAT(said_, HasSubstr("WARN  m-01: excused until"));
  mount()->set_admin_state(v1::ADMIN_STATE_RETIRED);
  EXPECT_EQ(Check(), kExitDone);
  EXPECT_THAT(said_, Not(HasSubstr("m-01: ")));
  mount()->set_admin_state(v1::ADMIN_STATE_CORDONED);
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, HasSubstr("WARN  m-01: is cordoned"));
}

TEST_F(DoctorTest, NoPlaceForANewImage) {
  decision_.clear_winner();
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, HasSubstr("FAIL  no mount takes a new image"));
}

TEST_F(DoctorTest, TheWriteTestDeletesWhatItStored) {
  options_.write_test = true;
  std::string stored;
  expect_ = [&stored](MockConnection* connection) {
    EXPECT_CALL(*connection, StartUpload)
        .WillOnce([&stored](const UploadOptions& upload)
                      -> absl::StatusOr<std::unique_ptr<ImageWriter>> {
          stored = upload.image;
          auto writer = std::make_unique<NiceMock<MockImageWriter>>();
          ON_CALL(*writer, Write).WillByDefault(Return(absl::OkStatus()));
          ON_CALL(*writer, Commit(::testing::_))
              .WillByDefault(Return(v1::Image()));
          return writer;
        });
    EXPECT_CALL(*connection, ReadImage)
        .WillOnce(Return(absl::DataLossError("damaged")));
    EXPECT_CALL(*connection, DeleteImage)
        .WillOnce([&stored](const v1::DeleteImageRequest& request) {
          EXPECT_EQ(request.name(), "images/" + stored);
          return absl::OkStatus();
        });
  };
  EXPECT_EQ(Check(), kExitUnhealthy);
  EXPECT_THAT(said_, HasSubstr("stored and read back: damaged"));
}

class EndpointCheckTest : public ::testing::Test {
 protected:
  ~EndpointCheckTest() override { std::filesystem::remove_all(top_); }
  bool Check(const std::string& endpoint) {
    out_.str("");
    Findings found(&out_);
    return CheckEndpoint(endpoint, &found);
  }
  const std::string top_ = [] {
    std::string name = ::testing::TempDir() + "doctor.XXXXXX";
    return std::string(mkdtemp(name.data()));
  }();
  std::ostringstream out_;
};

TEST_F(EndpointCheckTest, SocketsAreLookedAt) {
  EXPECT_TRUE(Check("127.0.0.1:7400"));
  EXPECT_FALSE(Check("unix:" + top_ + "/none"));
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("No such file"),
                                HasSubstr("next: start predella serve")));
  std::ofstream(top_ + "/file") << "x";
  EXPECT_FALSE(Check("unix:" + top_ + "/file"));
  EXPECT_THAT(out_.str(), HasSubstr("is not a socket"));
  ASSERT_EQ(mknod((top_ + "/s").c_str(), S_IFSOCK | 0600, 0), 0);
  EXPECT_TRUE(Check("unix:" + top_ + "/s"));
}

TEST_F(EndpointCheckTest, DirectoriesAreLookedAt) {
  const LocalMount none = LookAtMount(top_ + "/none", absl::Seconds(30));
  EXPECT_TRUE(none.answered && !none.directory);
  EXPECT_EQ(none.error, ENOENT);
  LocalMount seen = LookAtMount(top_, absl::Seconds(30));
  EXPECT_TRUE(seen.answered && seen.directory && !seen.read_only);
  EXPECT_EQ(seen.label, LocalMount::Labelled::kNo);
  std::filesystem::create_directory(top_ + "/.predella");
  std::ofstream(top_ + "/.predella/mount.id") << "x";
  seen = LookAtMount(top_, absl::Seconds(30));
  EXPECT_EQ(seen.label, LocalMount::Labelled::kYes);
}

}  // namespace
}  // namespace predella::cli
