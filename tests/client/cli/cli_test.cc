// Commands against a mock connection, and what they print.
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "client/cli/context.h"
#include "client/cli/endpoint.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "client/cli/progress.h"
#include "client/mocks/mock_connection.h"
#include "common/errors.h"
#include "common/units.h"
#include "tests/client/cli/command_fixture.h"
#include "tests/testing/matchers.h"

namespace predella::cli {
namespace {

using ::predella::testing::IsOkAndHolds;
using ::predella::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::NiceMock;
using ::testing::Return;
using ::testing::ReturnRef;

constexpr char kImage[] = "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0";

v1::Mount Store(const std::string& name) {
  v1::Mount mount;
  mount.set_name("mounts/" + name);
  mount.set_health(v1::HEALTH_ONLINE);
  mount.set_admin_state(v1::ADMIN_STATE_ACTIVE);
  mount.set_size_bytes(73 * kTiB / 10);
  mount.set_allocated_bytes(51 * kTiB / 10);
  mount.set_reserve_bytes(40 * kGiB);
  mount.set_available_bytes(22 * kTiB / 10);
  mount.set_used_percent(70.2);
  mount.set_image_count(1204);
  return mount;
}

class CliTest : public CommandFixture {};

TEST_F(CliTest, MountTable) {
  v1::ListMountsResponse mounts;
  *mounts.add_mounts() = Store("m-01");
  v1::Mount* second = mounts.add_mounts();
  *second = Store("m-02");
  second->set_health(v1::HEALTH_READ_ONLY);
  second->set_admin_state(v1::ADMIN_STATE_CORDONED);
  second->set_health_detail("two of three probes failed");
  second->set_stuck_call_count(3);
  ON_CALL(*connection_, ListMounts).WillByDefault(Return(mounts));
  EXPECT_EQ(Run({"mount", "ls"}), 0);
  EXPECT_EQ(
      out_.str(),
      "NAME  HEALTH     ADMIN     SIZE  ALLOC  RSVD  FREE  CAP  IMAGES  AGE\n"
      "m-01  ONLINE     ACTIVE    7.3T  5.1T   40G   2.2T  70%  1204    -\n"
      "m-02  READ_ONLY  CORDONED  7.3T  5.1T   40G   2.2T  70%  1204    -\n"
      "m-02: two of three probes failed\n"
      "m-02: calls to its directory that did not come back within their "
      "limit: 3\n");
  EXPECT_EQ(Run({"mount", "ls", "-o", "wide"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("PRIO  STORED  HOST  PATH  HEARD  AGE"));
  EXPECT_EQ(Run({"mount", "ls", "-o", "json"}), 0);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("\"mounts\": ["),
                                HasSubstr("\"name\": \"mounts/m-01\""),
                                HasSubstr("\"imageCount\": \"1204\"")));
}

TEST(WaitingNoticeTest, IsSaidSeldom) {
  std::ostringstream err;
  WaitingNotice notice(&err, /*terminal=*/false);
  const absl::Status why = absl::UnavailableError("nobody answers");
  for (int second = 0; second < 40; ++second) {
    notice(why, absl::Seconds(second));
  }
  EXPECT_EQ(err.str(),
            "waiting for 3s: nobody answers\n"
            "waiting for 33s: nobody answers\n");
  // The next time it waits it says so again.
  notice(why, absl::Seconds(1));
  notice(absl::UnavailableError("another reason"), absl::Seconds(4));
  EXPECT_THAT(err.str(), HasSubstr("waiting for 4s: another reason\n"));
}

TEST(OutputTest, NoTextSteersTheTerminal) {
  v1::ListMountsResponse mounts;
  v1::Mount& mount = *mounts.add_mounts();
  mount.set_name("mounts/a");
  mount.set_host("h\x1b[31m");
  mount.set_health_detail("one\ntwo\x7f");
  mount.set_admin_reason("\x1b]0;x\x07");
  mount.set_stuck_call_count(2);
  std::ostringstream out;
  PrintMounts(mounts, /*wide=*/true, absl::Now(), &out);
  PrintMount(mount, absl::Now(), &out);
  PrintError(absl::InternalError("bad\x1b[2J"), "predella", &out);
  const std::string text = out.str();
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\x07'), std::string::npos);
  EXPECT_THAT(text, HasSubstr("a: one\\x0atwo\\x7f\n"));
  EXPECT_THAT(text, HasSubstr("bad\\x1b[2J"));
  EXPECT_THAT(text, ContainsRegex("stuck calls +2\n"));
}

TEST_F(CliTest, UploadTable) {
  v1::ListUploadsResponse first;
  v1::Upload* const upload = first.add_uploads();
  upload->set_name(std::string("uploads/") + kImage);
  upload->set_image("images/00000000-0000-4000-8000-000000000001");
  upload->mutable_target()->set_mount("mounts/m-01");
  upload->set_size_bytes(3 * kGiB);
  first.set_next_page_token("more");
  v1::ListUploadsResponse second;
  second.add_uploads()->set_name("uploads/of-unknown-size");
  EXPECT_CALL(*connection_, ListUploads)
      .WillOnce(Return(first))
      .WillOnce(Return(second));
  EXPECT_EQ(Run({"upload", "ls"}), 0);
  EXPECT_EQ(out_.str(),
            "ID                                    MOUNT  SIZE  AGE  QUIET\n"
            "7f4c2b1e-93d5-4a6f-8e01-5c9be2a4d7f0  m-01   3G    -    -\n"
            "of-unknown-size                       -      -     -    -\n");
}

TEST_F(CliTest, UploadAbortGoesOnAfterAnError) {
  EXPECT_CALL(*connection_, AbortUpload)
      .WillOnce(Return(MakeError(absl::StatusCode::kNotFound,
                                 reason::kUploadNotFound, "there is none")))
      .WillOnce(Return(v1::Upload()));
  EXPECT_EQ(Run({"upload", "abort", kImage, kImage}), kExitNotFound);
  EXPECT_THAT(err_.str(), HasSubstr("UPLOAD_NOT_FOUND"));
}

TEST_F(CliTest, ErrorsAreOneSentenceAndAHint) {
  ON_CALL(*connection_, GetImage)
      .WillByDefault(
          Return(MakeError(absl::StatusCode::kNotFound, reason::kImageNotFound,
                           "there is no image X")));
  EXPECT_EQ(Run({"image", "stat", kImage}), kExitNotFound);
  EXPECT_EQ(out_.str(), "");
  EXPECT_EQ(err_.str(),
            "error: there is no image X (IMAGE_NOT_FOUND)\n"
            "hint: predella image ls lists the images there are\n");
}

TEST_F(CliTest, UsageErrors) {
  EXPECT_EQ(Run({}), kExitUsage);
  EXPECT_EQ(Run({"image"}), kExitUsage);
  EXPECT_EQ(Run({"image", "stat"}), kExitUsage);
  EXPECT_EQ(Run({"mount", "ls", "-o", "xml"}), kExitUsage);
  EXPECT_EQ(Run({"image", "stat", "not-a-uuid"}), kExitUsage);
  EXPECT_EQ(Run({"mount", "maintenance", "a", "--for", "soon"}), kExitUsage);
}

TEST_F(CliTest, RemovalGoesOnAfterAnError) {
  EXPECT_CALL(*connection_, DeleteImage)
      .WillOnce(Return(absl::UnavailableError("away")))
      .WillOnce(Return(absl::OkStatus()));
  EXPECT_EQ(Run({"image", "rm", kImage, kImage}), kExitUnavailable);
  EXPECT_EQ(out_.str(), std::string("deleted ") + kImage + "\n");
}

TEST_F(CliTest, DryRunDeletesNothing) {
  v1::Image image;
  image.set_name(std::string("images/") + kImage);
  ON_CALL(*connection_, GetImage).WillByDefault(Return(image));
  EXPECT_CALL(*connection_, DeleteImage).Times(0);
  EXPECT_EQ(Run({"image", "rm", "--dry-run", kImage}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("would delete"));
}

TEST_F(CliTest, RetirementWantsYes) {
  EXPECT_CALL(*connection_, RetireMount).Times(0);
  EXPECT_EQ(Run({"mount", "retire", "m-01"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--dry-run"));
}

TEST_F(CliTest, RetirementPassesTheCountAndTheDigest) {
  EXPECT_CALL(*connection_, RetireMount)
      .WillOnce([](const v1::RetireMountRequest& request) {
        EXPECT_EQ(request.accept_lost_image_count(), 7);
        EXPECT_EQ(request.accept_lost_digest(), "0a1b");
        EXPECT_FALSE(request.validate_only());
        return Store("m-01");
      });
  EXPECT_EQ(
      Run({"mount", "retire", "m-01", "--accept-lost", "7:0a1b", "--yes"}), 0);
}

TEST_F(CliTest, UnhealthyClusterIsExitCodeSix) {
  v1::Cluster cluster;
  cluster.set_health(v1::CLUSTER_HEALTH_WARNING);
  v1::HealthCheck* check = cluster.add_checks();
  check->set_code("MOUNT_NEAR_FULL");
  check->set_severity(v1::CLUSTER_HEALTH_WARNING);
  check->set_detail("m-01 is at 93 %");
  check->set_next_step("add a mount");
  ON_CALL(*connection_, GetCluster).WillByDefault(Return(cluster));
  EXPECT_EQ(Run({"cluster", "status"}), kExitUnhealthy);
  EXPECT_THAT(out_.str(), HasSubstr("WARNING MOUNT_NEAR_FULL: m-01 is at 93 "
                                    "%\n  add a mount\n"));
  cluster.set_health(v1::CLUSTER_HEALTH_OK);
  ON_CALL(*connection_, GetCluster).WillByDefault(Return(cluster));
  EXPECT_EQ(Run({"cluster", "status", "-o", "json"}), 0);
}

TEST_F(CliTest, PutPrintsTheIdLast) {
  const std::string file = ::testing::TempDir() + "cli_put";
  std::ofstream(file) << "panel";
  EXPECT_CALL(*connection_, StartUpload)
      .WillOnce([](const UploadOptions& options)
                    -> absl::StatusOr<std::unique_ptr<ImageWriter>> {
        EXPECT_EQ(options.size_bytes, 5);
        auto writer = std::make_unique<NiceMock<MockImageWriter>>();
        auto written = std::make_shared<int64_t>(0);
        ON_CALL(*writer, Write).WillByDefault([written](absl::string_view d) {
          *written += static_cast<int64_t>(d.size());
          return absl::OkStatus();
        });
        ON_CALL(*writer, bytes_written).WillByDefault([written] {
          return *written;
        });
        v1::Image image;
        image.set_name(std::string("images/") + kImage);
        ON_CALL(*writer, Commit(::testing::_)).WillByDefault(Return(image));
        return writer;
      });
  EXPECT_EQ(Run({"image", "put", file.c_str(), "--id", kImage}), 0);
  EXPECT_EQ(out_.str(), std::string(kImage) + "\n");
}

// Its mount took the bytes, and said later that it had no room for them, or
// its agent died.
TEST_F(CliTest, AFileIsSentAgainWhenItsBytesAreGone) {
  const std::string file = ::testing::TempDir() + "cli_put_again";
  std::ofstream(file) << "panel";
  std::vector<std::string> came;
  const auto start = [&came](absl::string_view why) {
    return [&came, why](const UploadOptions& /*options*/)
               -> absl::StatusOr<std::unique_ptr<ImageWriter>> {
      auto writer = std::make_unique<NiceMock<MockImageWriter>>();
      std::string* const bytes = &came.emplace_back();
      ON_CALL(*writer, Write).WillByDefault([bytes](absl::string_view data) {
        absl::StrAppend(bytes, data);
        return absl::OkStatus();
      });
      ON_CALL(*writer, bytes_written).WillByDefault([bytes] {
        return static_cast<int64_t>(bytes->size());
      });
      v1::Image image;
      image.set_name(std::string("images/") + kImage);
      ON_CALL(*writer, Commit(::testing::_))
          .WillByDefault(
              [why, image](const auto&) -> absl::StatusOr<v1::Image> {
                if (!why.empty()) {
                  return MakeError(absl::StatusCode::kUnavailable, why,
                                   absl::StrCat("store-1: ", why));
                }
                return image;
              });
      return writer;
    };
  };
  came.reserve(3);
  EXPECT_CALL(*connection_, StartUpload)
      .WillOnce(start(reason::kMountFull))
      .WillOnce(start(reason::kAgentUnreachable))
      .WillOnce(start(""));
  EXPECT_EQ(Run({"image", "put", file.c_str(), "--id", kImage}), 0);
  EXPECT_THAT(came, ::testing::ElementsAre("panel", "panel", "panel"));
  EXPECT_THAT(err_.str(), AllOf(HasSubstr("again: store-1: MOUNT_FULL"),
                                HasSubstr("again: store-1: AGENT_UNREACH")));
}

TEST_F(CliTest, VersionAndCompletion) {
  EXPECT_EQ(Run({"version"}), 0);
  EXPECT_EQ(out_.str(), "predella " PREDELLA_VERSION "\n");
  EXPECT_EQ(Run({"completion", "bash"}), 0);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("complete -F _predella predella"),
                                HasSubstr("cordon"), HasSubstr("--size")));
}

TEST_F(CliTest, WrongCommandLinesAreNamed) {
  const auto said = [this](const std::vector<const char*>& arguments) {
    EXPECT_EQ(Run(arguments), kExitUsage);
    return err_.str();
  };
  EXPECT_THAT(said({"imag"}),
              HasSubstr("error: \"imag\" is not a command of predella: there "
                        "are image, upload, mount,"));
  EXPECT_THAT(said({"image", "putt", "f"}),
              HasSubstr("\"putt\" is not a command of predella image: there "
                        "are put, get, ls, stat, rm, choose, "
                        "explain\n"
                        "hint: predella image --help"));
  EXPECT_THAT(said({"mount"}), HasSubstr("predella mount wants a command: "));
  EXPECT_THAT(said({"version", "-o", "json"}),
              HasSubstr("predella version does not take \"-o json\"\n"
                        "hint: predella version --help"));
  EXPECT_THAT(said({"image", "stat"}),
              HasSubstr("predella image stat: ID is required"));
  EXPECT_THAT(said({"--endpoint", "unix:/x", "serve"}),
              HasSubstr("serve comes first"));
  EXPECT_THAT(said({"mount", "maintenance", "a", "--for", "0s"}),
              HasSubstr("longer than nothing"));
  EXPECT_THAT(said({"mount", "init", "/nonexistent/dir"}),
              HasSubstr("/nonexistent/dir: No such file or directory"));
}

TEST_F(CliTest, EveryCommandHasHelpWithAnExample) {
  for (const std::vector<const char*>& command :
       std::vector<std::vector<const char*>>{{"image", "put"},
                                             {"image", "get"},
                                             {"image", "ls"},
                                             {"image", "stat"},
                                             {"image", "rm"},
                                             {"image", "explain"},
                                             {"mount", "init"},
                                             {"mount", "ls"},
                                             {"mount", "stat"},
                                             {"mount", "cordon"},
                                             {"mount", "uncordon"},
                                             {"mount", "maintenance"},
                                             {"mount", "retire"},
                                             {"cluster", "status"},
                                             {"placement", "explain"},
                                             {"completion", "bash"},
                                             {"doctor"}}) {
    std::vector<const char*> arguments = command;
    arguments.push_back("--help");
    EXPECT_EQ(Run(arguments), 0);
    EXPECT_THAT(out_.str(),
                AllOf(HasSubstr("Example"),
                      HasSubstr(std::string("predella ") + command[0])))
        << command[0];
  }
  EXPECT_EQ(Run({"--help"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("Exit codes: 0 done"));
}

TEST_F(CliTest, AWrongIdDeletesNothing) {
  EXPECT_CALL(*connection_, DeleteImage).Times(0);
  EXPECT_EQ(Run({"image", "rm", kImage, "../../etc/passwd"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("../../etc/passwd"));
  EXPECT_CALL(*connection_, StartUpload).Times(0);
  EXPECT_EQ(Run({"image", "put", "/dev/null", "--id", "../x"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--id: "));
}

TEST_F(CliTest, AChoiceIsMadeOnlyWhenItIsMeant) {
  const std::string generation = "1-2-00000003";
  EXPECT_CALL(*connection_, ChooseImage).Times(0);
  EXPECT_EQ(Run({"image", "choose", kImage, generation.c_str()}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("removed for good"));
  v1::Image image;
  image.set_name(std::string("images/") + kImage);
  image.set_generation("9-9-00000009");
  v1::ImageConflict& other = *image.add_conflicts();
  other.set_generation(generation);
  other.set_mount("mounts/store-2");
  other.set_size_bytes(2 * kMiB);
  for (const bool dry_run : {true, false}) {
    EXPECT_CALL(*connection_, ChooseImage)
        .WillOnce([&](const v1::ChooseImageRequest& request) {
          EXPECT_EQ(request.name(), image.name());
          EXPECT_EQ(request.generation(), generation);
          EXPECT_EQ(request.validate_only(), dry_run);
          return MakeError(absl::StatusCode::kAborted, reason::kCommitConflict,
                           "still being read");
        })
        .WillOnce(Return(image));
    EXPECT_EQ(Run({"image", "choose", kImage, generation.c_str(),
                   dry_run ? "--dry-run" : "--yes"}),
              kExitDone);
  }
  EXPECT_THAT(out_.str(),
              HasSubstr("conflict    generation 1-2-00000003 on store-2, 2 "
                        "MiB, stored -\n"));
}

TEST_F(CliTest, ADeadCoordinatorIsNamed) {
  ON_CALL(*connection_, GetImage)
      .WillByDefault(Return(absl::UnavailableError("Connection refused")));
  EXPECT_EQ(Run({"--endpoint", "unix:/x/y", "image", "stat", kImage}),
            kExitUnavailable);
  EXPECT_EQ(err_.str(),
            "error: the coordinator at unix:/x/y does not answer: Connection "
            "refused\nhint: predella doctor says what can be reached from "
            "here\n");
}

TEST_F(CliTest, ImagesAreNotWrittenToATerminal) {
  terminal_ = true;
  EXPECT_CALL(*connection_, ReadImage).Times(0);
  EXPECT_EQ(Run({"image", "get", kImage}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("-o FILE"));
}

TEST_F(CliTest, LostOutputIsAnError) {
  ON_CALL(*connection_, ListMounts)
      .WillByDefault(Return(v1::ListMountsResponse()));
  out_.setstate(std::ios::badbit);
  EXPECT_EQ(Run({"mount", "ls"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("standard output could not be written"));
}

TEST_F(CliTest, GetReplacesTheFileOnlyByAWholeImage) {
  const std::string file = ::testing::TempDir() + "cli_get";
  std::ofstream(file) << "old";
  const auto reader_of = [](absl::Status end) {
    return [end](const ReadOptions&)
               -> absl::StatusOr<std::unique_ptr<ImageReader>> {
      auto reader = std::make_unique<NiceMock<MockImageReader>>();
      static const v1::Image* const image = [] {
        auto* made = new v1::Image;
        made->set_size_bytes(5);
        return made;
      }();
      ON_CALL(*reader, image).WillByDefault(ReturnRef(*image));
      EXPECT_CALL(*reader, Read)
          .WillOnce(Return(absl::string_view("panel")))
          .WillOnce([end]() -> absl::StatusOr<absl::string_view> {
            if (!end.ok()) {
              return end;
            }
            return absl::string_view();
          });
      return reader;
    };
  };
  const auto content = [&file] {
    std::ifstream stream(file);
    std::stringstream text;
    text << stream.rdbuf();
    return text.str();
  };
  EXPECT_CALL(*connection_, ReadImage)
      .WillOnce(reader_of(absl::DataLossError("damaged")))
      .WillOnce(reader_of(absl::OkStatus()));
  EXPECT_EQ(Run({"image", "get", kImage, "-o", file.c_str()}), kExitFailed);
  EXPECT_EQ(content(), "old");
  EXPECT_EQ(Run({"image", "get", kImage, "-o", file.c_str()}), kExitDone);
  EXPECT_EQ(content(), "panel");
}

TEST(ExitCodeTest, OfEveryCode) {
  const std::vector<std::pair<absl::StatusCode, int>> cases = {
      {absl::StatusCode::kOk, 0},
      {absl::StatusCode::kInvalidArgument, 2},
      {absl::StatusCode::kNotFound, 3},
      {absl::StatusCode::kUnavailable, 4},
      {absl::StatusCode::kDeadlineExceeded, 4},
      {absl::StatusCode::kAborted, 5},
      {absl::StatusCode::kAlreadyExists, 5},
      {absl::StatusCode::kFailedPrecondition, 5},
      {absl::StatusCode::kCancelled, 130},
      {absl::StatusCode::kDataLoss, 1},
      {absl::StatusCode::kResourceExhausted, 1},
      {absl::StatusCode::kInternal, 1}};
  for (const auto& [code, want] : cases) {
    EXPECT_EQ(ExitCodeOf(absl::Status(code, "x")), want) << code;
  }
}

TEST(EndpointTest, FlagThenEnvironmentThenFiles) {
  const std::string file = ::testing::TempDir() + "endpoint_test/endpoint";
  const Environment none = [](const std::string&) { return std::string(); };
  const Environment some = [](const std::string& name) {
    return name == "PREDELLA_ENDPOINT" ? std::string("unix:/env") : "";
  };
  EXPECT_THAT(FindEndpoint("", none, {file}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(file)));
  EXPECT_THAT(WritePointerFile({"/proc/none/endpoint", file}, "unix:/file"),
              IsOkAndHolds(file));
  EXPECT_THAT(FindEndpoint("", none, {file}), IsOkAndHolds("unix:/file"));
  EXPECT_THAT(FindEndpoint("", some, {file}), IsOkAndHolds("unix:/env"));
  EXPECT_THAT(FindEndpoint("unix:/flag", some, {file}),
              IsOkAndHolds("unix:/flag"));
  RemovePointerFile(file, "unix:/another");
  EXPECT_OK(FindEndpoint("", none, {file}));
  RemovePointerFile(file, "unix:/file");
  EXPECT_FALSE(FindEndpoint("", none, {file}).ok());
}

TEST(OutputTest, SizesForColumns) {
  EXPECT_EQ(ShortSize(0), "0");
  EXPECT_EQ(ShortSize(999), "999");
  EXPECT_EQ(ShortSize(kMiB), "1M");
  EXPECT_EQ(ShortSize(kMiB - 1), "1M");
  EXPECT_EQ(ShortSize(1500 * kGiB), "1.5T");
  EXPECT_EQ(ShortSize(400 * kGiB), "400G");
}

TEST(OutputTest, Ages) {
  google::protobuf::Timestamp time;
  EXPECT_EQ(Age(time, absl::Now()), "-");
  time.set_seconds(1000);
  const absl::Time start = absl::FromUnixSeconds(1000);
  EXPECT_EQ(Age(time, start + absl::Seconds(7)), "7s");
  EXPECT_EQ(Age(time, start + absl::Minutes(12)), "12m");
  EXPECT_EQ(Age(time, start + absl::Hours(5)), "5h");
  EXPECT_EQ(Age(time, start + absl::Hours(31 * 24)), "31d");
  EXPECT_EQ(Age(time, start - absl::Hours(1)), "0s");
}

TEST(ProgressTest, Lines) {
  EXPECT_EQ(ProgressLine(9 * kGiB, 20 * kGiB, absl::Seconds(90)),
            " 45%  9 GiB of 20 GiB  102 MiB/s  ETA 1m50s");
  EXPECT_EQ(ProgressLine(kMiB, std::nullopt, absl::Seconds(2)),
            "1 MiB  512 KiB/s");
  EXPECT_EQ(ProgressLine(0, 5, absl::ZeroDuration()),
            "  0%  0 B of 5 B  0 B/s");
  EXPECT_EQ(ShortDuration(absl::Seconds(7500)), "2h05m");
}

}  // namespace
}  // namespace predella::cli
