#include "client/cli/doctor.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "client/cli/context.h"
#include "client/cli/endpoint.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"
#include "common/rpc/server_runner.h"
#include "common/status_macros.h"

namespace predella::cli {
namespace {

constexpr double kNearFullPercent = 90;
constexpr std::chrono::seconds kReachTimeout(3);

class Findings {
 public:
  explicit Findings(std::ostream* out) : out_(out) {}
  void Ok(const std::string& what) { Line("OK  ", what, ""); }
  void Warn(const std::string& what, const std::string& next) {
    Line("WARN", what, next);
  }
  void Fail(const std::string& what, const std::string& next) {
    failed_ = true;
    Line("FAIL", what, next);
  }
  bool failed() const { return failed_; }

 private:
  void Line(const std::string& mark, const std::string& what,
            const std::string& next) {
    *out_ << mark << "  " << what << "\n";
    if (!next.empty()) {
      *out_ << "      next: " << next << "\n";
    }
  }
  std::ostream* const out_;
  bool failed_ = false;
};

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

void CheckMount(const v1::Mount& mount, const v1::Cluster& cluster,
                const Reach& reach, Findings* found) {
  const std::string name = Bare(mount.name());
  if (mount.admin_state() == v1::ADMIN_STATE_RETIRED) {
    return;
  }
  switch (mount.health()) {
    case v1::HEALTH_ONLINE:
      found->Ok(absl::StrCat(name, ": ONLINE"));
      break;
    case v1::HEALTH_SLOW:
    case v1::HEALTH_READ_ONLY:
    case v1::HEALTH_SUSPECT:
      found->Warn(absl::StrCat(name, ": ", Short(mount.health()), " ",
                               mount.health_detail()),
                  absl::StrCat("predella mount stat ", name));
      break;
    default:
      found->Fail(absl::StrCat(name, ": ", Short(mount.health()), " ",
                               mount.health_detail()),
                  absl::StrCat("see that ", mount.path(), " on ", mount.host(),
                               " is mounted and its agent runs"));
      break;
  }
  if (mount.health() != v1::HEALTH_UNKNOWN &&
      mount.health() != v1::HEALTH_UNREACHABLE) {
    CheckReach(mount, reach, found);
  }
  if (mount.used_percent() >= kNearFullPercent) {
    found->Warn(absl::StrCat(name, ": ", static_cast<int>(mount.used_percent()),
                             "% used, ", ShortSize(mount.available_bytes()),
                             " available"),
                "add a mount, or delete images that nobody needs");
  }
  if (!mount.agent_version().empty() &&
      mount.agent_version() != cluster.coordinator_version()) {
    found->Warn(absl::StrCat(name, ": agent ", mount.agent_version(),
                             ", coordinator ", cluster.coordinator_version()),
                "bring both to the same version");
  }
}

// Anything that an agent answers will do: it is there.
absl::Status ReachByChannel(const std::string& address) {
  const auto channel = DialChannel(address);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() +
                                 kReachTimeout)) {
    return absl::UnavailableError("no connection within 3 s");
  }
  return absl::OkStatus();
}

}  // namespace

int Diagnose(Client* client, const Reach& reach, std::ostream* out) {
  Findings found(out);
  const absl::StatusOr<v1::Cluster> cluster = client->GetCluster();
  if (!cluster.ok()) {
    found.Fail(absl::StrCat("the coordinator does not answer: ",
                            cluster.status().message()),
               "see that predella serve or predella-coordinator runs and that "
               "the endpoint is right");
    return kExitUnhealthy;
  }
  found.Ok(absl::StrCat("coordinator ", cluster->coordinator_version(),
                        " answers, epoch ", cluster->epoch()));
  if (cluster->coordinator_version() != PREDELLA_VERSION) {
    found.Warn(
        absl::StrCat("this is predella ", PREDELLA_VERSION,
                     ", the coordinator is ", cluster->coordinator_version()),
        "bring both to the same version");
  }
  const absl::StatusOr<v1::ListMountsResponse> mounts = client->ListMounts();
  if (!mounts.ok()) {
    found.Fail(
        absl::StrCat("mounts cannot be listed: ", mounts.status().message()),
        "predella cluster status");
    return kExitUnhealthy;
  }
  if (mounts->mounts().empty()) {
    found.Fail("no mount has ever registered",
               "predella mount init PATH, then start an agent on it");
  }
  for (const v1::Mount& mount : mounts->mounts()) {
    CheckMount(mount, *cluster, reach, &found);
  }
  for (const v1::HealthCheck& check : cluster->checks()) {
    if (check.severity() == v1::CLUSTER_HEALTH_ERROR) {
      found.Fail(absl::StrCat(check.code(), ": ", check.detail()),
                 check.next_step());
    } else {
      found.Warn(absl::StrCat(check.code(), ": ", check.detail()),
                 check.next_step());
    }
  }
  return found.failed() ? kExitUnhealthy : kExitDone;
}

void AddDoctorCommand(CLI::App* app, Context* context) {
  CLI::App* doctor = app->add_subcommand(
      "doctor", "Check everything between this host and its images.");
  doctor->callback([context] {
    context->run = [context]() -> absl::StatusOr<int> {
      const auto endpoint = FindEndpoint(context->endpoint, RealEnvironment,
                                         PointerFiles(RealEnvironment));
      if (!endpoint.ok()) {
        Findings found(context->out);
        found.Fail(std::string(endpoint.status().message()),
                   "predella serve --help");
        return kExitUnhealthy;
      }
      *context->out << "OK    endpoint " << *endpoint << "\n";
      ASSIGN_OR_RETURN(Client client, context->Connect());
      return Diagnose(&client, ReachByChannel, context->out);
    };
  });
}

}  // namespace predella::cli
