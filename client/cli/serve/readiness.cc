#include "client/cli/serve/readiness.h"

#include "absl/strings/str_cat.h"

#include "client/cli/output.h"

namespace predella::cli {
namespace {

bool Settled(const v1::Mount& mount) {
  return mount.admin_state() != v1::ADMIN_STATE_ACTIVE ||
         (mount.trusted() && (mount.health() == v1::HEALTH_ONLINE ||
                              mount.health() == v1::HEALTH_SLOW));
}

}  // namespace

std::optional<Readiness::Report> Readiness::Update(
    const v1::ListMountsResponse& mounts, absl::Duration now) {
  if (!first_answer_.has_value()) {
    first_answer_ = now;
  }
  Report report;
  for (const std::string& name : names_) {
    const v1::Mount* mount = nullptr;
    for (const v1::Mount& candidate : mounts.mounts()) {
      if (Bare(candidate.name()) == name) {
        mount = &candidate;
      }
    }
    if (mount == nullptr) {
      report.absent.push_back(absl::StrCat(name, " (not registered)"));
    } else if (!Settled(*mount)) {
      report.absent.push_back(
          absl::StrCat(name, " (", Short(mount->health()),
                       mount->health_detail().empty() ? "" : ": ",
                       mount->health_detail(), ")"));
    }
  }
  if (!report.absent.empty() && now - *first_answer_ < kWait) {
    return std::nullopt;
  }
  return report;
}

}  // namespace predella::cli
