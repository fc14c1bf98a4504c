#include "client/cli/doctor.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "common/ids.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

constexpr double kNearFullPercent = 90;
// Each image takes two inodes: its bytes and its record.
constexpr int64_t kFewInodes = 10'000;
// Capabilities live ten minutes; agents beat every two seconds.
constexpr absl::Duration kClockTolerance = absl::Seconds(30);
constexpr int64_t kTestBytes = 1 << 20;

void CheckSpace(const v1::Mount& mount, Findings* found) {
  const std::string name = Bare(mount.name());
  if (mount.used_percent() >= kNearFullPercent) {
    found->Warn(absl::StrCat(name, ": ", static_cast<int>(mount.used_percent()),
                             "% used, ", ShortSize(mount.available_bytes()),
                             " available"),
                "add a mount, or delete images that nobody needs");
  }
  if (mount.size_bytes() > 0 && mount.available_inodes() >= 0 &&
      mount.available_inodes() < kFewInodes) {
    found->Warn(absl::StrCat(name, ": only ", mount.available_inodes(),
                             " inodes are free"),
                "each image takes two; remove other files from that file "
                "system, or make it with more inodes");
  }
}

void CheckReach(const v1::Mount& mount, const Reach& reach, Findings* found) {
  const std::string name = Bare(mount.name());
  std::vector<std::string> errors;
  for (const std::string& address : mount.addresses()) {
    const absl::Status status = reach(address);
    if (status.ok()) {
      found->Ok(absl::StrCat(name, ": agent answers at ", address));
      return;
    }
    errors.push_back(absl::StrCat(address, " (", status.message(), ")"));
  }
  found->Fail(
      absl::StrCat(
          name, ": its agent cannot be reached from here: ",
          errors.empty() ? "it has no address" : absl::StrJoin(errors, ", ")),
      "see that the agent runs and that --advertise names an address that "
      "this host can dial");
}

void CheckLocal(const v1::Mount& mount, const LocalMount& local,
                Findings* found) {
  const std::string what = absl::StrCat(Bare(mount.name()), ": ", mount.path());
  if (!local.answered) {
    found->Fail(
        absl::StrCat(what, " does not answer",
                     local.left == 0
                         ? std::string()
                         : absl::StrCat("; process ", local.left,
                                        ", which looked there, hangs with it "
                                        "and ends when it answers")),
        "its disk or its server hangs; see dmesg");
  } else if (local.error != 0 && local.error != ENOENT) {
    found->Fail(absl::StrCat(what, " cannot be looked at: ",
                             std::generic_category().message(local.error)),
                "see dmesg; its agent takes it back by itself");
  } else if (!local.directory) {
    found->Fail(absl::StrCat(what, " is not a directory"),
                "mount it again; its agent takes it back by itself");
  } else if (local.label == LocalMount::Labelled::kNo) {
    found->Fail(absl::StrCat(what, " bears no label"),
                "what bears it is not mounted there: mount it; never label "
                "the directory below it");
  } else if (local.read_only) {
    found->Fail(absl::StrCat(what, " is mounted read-only"),
                "see dmesg for the error that made it so; check the file "
                "system, then remount it");
  } else if (local.label == LocalMount::Labelled::kYes) {
    found->Ok(absl::StrCat(what, " is labelled and writable"));
  }
}

void CheckHealth(const v1::Mount& mount, Findings* found) {
  const std::string what = absl::StrCat(
      Bare(mount.name()), ": ", Short(mount.health()),
      mount.health_detail().empty() ? "" : ", ", mount.health_detail());
  switch (mount.health()) {
    case v1::HEALTH_ONLINE:
      found->Ok(what);
      break;
    case v1::HEALTH_SLOW:
    case v1::HEALTH_READ_ONLY:
    case v1::HEALTH_SUSPECT:
      found->Warn(what,
                  absl::StrCat("predella mount stat ", Bare(mount.name())));
      break;
    default:
      found->Fail(
          what,
          mount.path().empty()
              ? "see that its directory is mounted and its agent runs"
              : absl::StrCat("see that ", mount.path(), " on ", mount.host(),
                             " is mounted and its agent runs"));
      break;
  }
}

void CheckMount(const v1::Mount& mount, const v1::Cluster& cluster,
                const DoctorOptions& options, Findings* found) {
  const std::string name = Bare(mount.name());
  switch (mount.admin_state()) {
    case v1::ADMIN_STATE_RETIRED:
      return;
    case v1::ADMIN_STATE_MAINTENANCE:
      found->Warn(
          absl::StrCat(name, ": excused until ",
                       Moment(mount.maintenance_until_time())),
          absl::StrCat("predella mount uncordon ", name, " when it is back"));
      return;
    case v1::ADMIN_STATE_CORDONED:
      found->Warn(absl::StrCat(name, ": is cordoned, takes no new images"),
                  absl::StrCat("predella mount uncordon ", name,
                               " when it shall take images again"));
      break;
    default:
      break;
  }
  CheckHealth(mount, found);
  if (!options.host.empty() && mount.host() == options.host) {
    CheckLocal(mount, options.look(mount.path()), found);
  }
  if (mount.health() != v1::HEALTH_UNKNOWN &&
      mount.health() != v1::HEALTH_UNREACHABLE) {
    CheckReach(mount, options.reach, found);
    if (!mount.trusted()) {
      found->Warn(
          absl::StrCat(name,
                       cluster.recovering()
                           ? ": the index is older than what mounts know "
                             "(RECOVERING), so nothing is removed from it"
                           : ": what it knows was not yet compared with the "
                             "index, so nothing is removed from it"),
          "predella cluster status says what is waited for");
    }
  }
  CheckSpace(mount, found);
  if (!mount.agent_version().empty() &&
      mount.agent_version() != cluster.coordinator_version()) {
    found->Warn(absl::StrCat(name, ": agent ", mount.agent_version(),
                             ", coordinator ", cluster.coordinator_version()),
                "bring both to the same version");
  }
}

// The newest heartbeat was stamped by the coordinator a moment ago.
void CheckClock(const v1::ListMountsResponse& mounts,
                const DoctorOptions& options, Findings* found) {
  absl::Time newest = absl::InfinitePast();
  for (const v1::Mount& mount : mounts.mounts()) {
    if (mount.health() == v1::HEALTH_ONLINE && mount.has_heartbeat_time()) {
      newest = std::max(newest, ToTime(mount.heartbeat_time()));
    }
  }
  if (newest == absl::InfinitePast()) {
    return;
  }
  const absl::Duration off = options.now - newest;
  if (absl::AbsDuration(off) <= kClockTolerance) {
    found->Ok("the clock agrees with the coordinator's");
    return;
  }
  found->Warn(absl::StrCat("the clock of this host is ",
                           absl::ToInt64Seconds(absl::AbsDuration(off)), " s ",
                           off > absl::ZeroDuration() ? "ahead of" : "behind",
                           " the coordinator's"),
              "let both follow NTP; permits to read live for ten minutes");
}

void CheckPlacement(Client* client, Findings* found) {
  const absl::StatusOr<v1::PlacementDecision> decision =
      client->ExplainPlacement(std::nullopt);
  if (!decision.ok()) {
    found->Warn(absl::StrCat("placement cannot be asked: ",
                             decision.status().message()),
                "predella placement explain");
  } else if (decision->winner().empty()) {
    found->Fail("no mount takes a new image",
                "predella placement explain shows the verdict on every mount");
  } else {
    found->Ok(
        absl::StrCat("a new image would go to ", Bare(decision->winner())));
  }
}

absl::StatusOr<std::string> StoreAndCompare(Client* client,
                                            const std::string& id) {
  std::string data(static_cast<size_t>(kTestBytes), 'p');
  UploadOptions upload;
  upload.image = id;
  upload.size_bytes = kTestBytes;
  ASSIGN_OR_RETURN(auto writer, client->StartUpload(upload));
  RETURN_IF_ERROR(writer->Write(data));
  ASSIGN_OR_RETURN(const v1::Image image, writer->Commit());
  ReadOptions read;
  read.image = id;
  ASSIGN_OR_RETURN(auto reader, client->ReadImage(read));
  std::string got;
  while (true) {
    ASSIGN_OR_RETURN(const absl::string_view part, reader->Read());
    if (part.empty()) {
      break;
    }
    got.append(part.data(), part.size());
  }
  if (got != data) {
    return absl::DataLossError(
        absl::StrCat("other bytes came back than were stored: ", got.size(),
                     " of them, ", data.size(), " were written"));
  }
  return image.copies().empty() ? "its mount" : Bare(image.copies(0).mount());
}

void WriteTest(Client* client, Findings* found) {
  const std::string id = RandomIds()->NextUuid().ToString();
  const absl::StatusOr<std::string> mount = StoreAndCompare(client, id);
  const absl::Status removed =
      client->DeleteImage(id, "", /*allow_missing=*/true);
  if (!mount.ok()) {
    found->Fail(
        absl::StrCat("a small image could not be stored and read back: ",
                     mount.status().message()),
        "predella placement explain, predella mount ls");
  } else if (!removed.ok()) {
    found->Fail(absl::StrCat("the test image ", id, " on ", *mount,
                             " could not be deleted: ", removed.message()),
                absl::StrCat("predella image rm ", id));
  } else {
    found->Ok(absl::StrCat("a small image was stored on ", *mount,
                           ", read back and deleted"));
  }
}

}  // namespace

void Findings::Warn(const std::string& what, const std::string& next) {
  ++warnings_;
  Line("WARN", what, next);
}

void Findings::Fail(const std::string& what, const std::string& next) {
  ++failures_;
  Line("FAIL", what, next);
}

void Findings::Line(const std::string& mark, const std::string& what,
                    const std::string& next) {
  *out_ << mark << "  " << what << "\n";
  if (!next.empty()) {
    *out_ << "      next: " << next << "\n";
  }
}

int Findings::Sum() {
  if (failures_ == 0 && warnings_ == 0) {
    *out_ << "all is well\n";
  } else {
    *out_ << failures_ << " failed, " << warnings_ << " to watch\n";
  }
  return failures_ > 0 ? kExitUnhealthy : kExitDone;
}

bool CheckEndpoint(const std::string& endpoint, Findings* found) {
  constexpr absl::string_view kUnix = "unix:";
  if (!absl::StartsWith(endpoint, kUnix)) {
    found->Ok(absl::StrCat("endpoint ", endpoint));
    return true;
  }
  const std::string path = endpoint.substr(kUnix.size());
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    found->Fail(
        absl::StrCat("the socket ", path, ": ", std::strerror(errno)),
        errno == EACCES
            ? absl::StrCat("the user of this process (uid ", geteuid(),
                           ") may not look there: use another user, or open "
                           "the directory for this one")
            : std::string("start predella serve or predella-coordinator, or "
                          "name the right one with --endpoint"));
    return false;
  }
  if (!S_ISSOCK(info.st_mode)) {
    found->Fail(absl::StrCat(path, " is not a socket"),
                "name the coordinator's with --endpoint");
    return false;
  }
  if (access(path.c_str(), W_OK) != 0) {
    found->Fail(absl::StrCat("the socket ", path,
                             " may not be used by the user of this process "
                             "(uid ",
                             geteuid(), ")"),
                "use the user or the group of its daemon");
    return false;
  }
  found->Ok(absl::StrCat("endpoint ", endpoint));
  return true;
}

void Diagnose(Client* client, const DoctorOptions& options, Findings* found) {
  const absl::StatusOr<v1::Cluster> cluster = client->GetCluster();
  if (!cluster.ok()) {
    found->Fail(absl::StrCat("the coordinator does not answer: ",
                             cluster.status().message()),
                "see that predella serve or predella-coordinator runs and that "
                "the endpoint is right");
    return;
  }
  found->Ok(absl::StrCat("coordinator ", cluster->coordinator_version(),
                         " answers, epoch ", cluster->epoch()));
  if (cluster->coordinator_version() != PREDELLA_VERSION) {
    found->Warn(
        absl::StrCat("this is predella ", PREDELLA_VERSION,
                     ", the coordinator is ", cluster->coordinator_version()),
        "bring both to the same version");
  }
  const absl::StatusOr<v1::ListMountsResponse> mounts = client->ListMounts();
  if (!mounts.ok()) {
    found->Fail(
        absl::StrCat("mounts cannot be listed: ", mounts.status().message()),
        "predella cluster status");
    return;
  }
  CheckClock(*mounts, options, found);
  if (mounts->mounts().empty()) {
    found->Fail("no mount has ever registered",
                "predella mount init PATH, then start an agent on it");
  }
  for (const v1::Mount& mount : mounts->mounts()) {
    CheckMount(mount, *cluster, options, found);
  }
  for (const v1::HealthCheck& check : cluster->checks()) {
    if (check.severity() == v1::CLUSTER_HEALTH_ERROR) {
      found->Fail(absl::StrCat(check.code(), ": ", check.detail()),
                  check.next_step());
    } else {
      found->Warn(absl::StrCat(check.code(), ": ", check.detail()),
                  check.next_step());
    }
  }
  CheckPlacement(client, found);
  if (options.write_test) {
    WriteTest(client, found);
  }
}

}  // namespace predella::cli
