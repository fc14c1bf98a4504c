#include "client/cli/serve/readiness.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "client/cli/output.h"

namespace predella::cli {
namespace {

bool Serves(const v1::Mount& mount) {
  return mount.trusted() && (mount.health() == v1::HEALTH_ONLINE ||
                             mount.health() == v1::HEALTH_SLOW);
}

std::string Health(const v1::Mount& mount) {
  if (!mount.trusted() && (mount.health() == v1::HEALTH_ONLINE ||
                           mount.health() == v1::HEALTH_SLOW)) {
    return absl::StrCat(Short(mount.health()),
                        ", but not trusted: predella cluster status says why");
  }
  return absl::StrCat(Short(mount.health()),
                      mount.health_detail().empty() ? "" : ": ",
                      mount.health_detail());
}

}  // namespace

std::optional<Readiness::Report> Readiness::Update(
    const v1::ListMountsResponse& mounts, absl::Duration now) {
  if (!first_answer_.has_value()) {
    first_answer_ = now;
  }
  Report report;
  bool waits = false;
  for (const std::string& name : names_) {
    const bool in_time =
        now - *first_answer_ < (away_.count(name) > 0 ? kWaitAway : kWait);
    const v1::Mount* mount = nullptr;
    for (const v1::Mount& candidate : mounts.mounts()) {
      if (Bare(candidate.name()) == name) {
        mount = &candidate;
      }
    }
    if (mount == nullptr) {
      report.apart.push_back({"ABSENT", name, "not registered"});
      waits = waits || in_time;
    } else if (mount->admin_state() != v1::ADMIN_STATE_ACTIVE) {
      const bool given_up = mount->admin_state() == v1::ADMIN_STATE_RETIRED;
      report.apart.push_back(
          {Short(mount->admin_state()), name,
           given_up || Serves(*mount) ? "" : Health(*mount)});
    } else if (!Serves(*mount)) {
      report.apart.push_back(
          {mount->health() == v1::HEALTH_ONLINE ? "UNTRUSTED" : "ABSENT", name,
           Health(*mount)});
      waits = waits || in_time;
    }
  }
  return waits ? std::nullopt : std::optional<Report>(std::move(report));
}

}  // namespace predella::cli
