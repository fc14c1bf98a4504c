#include "server/coordinator_flags.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "common/status_macros.h"
#include "server/state_dir.h"

namespace predella::server {
namespace {

absl::Status NotOneOf(absl::string_view flag, const std::string& value,
                      absl::string_view values) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is \"", value, "\": it has to be ", values));
}

}  // namespace

absl::StatusOr<Config::Outcome> ParseCoordinatorFlags(int argc,
                                                      const char* const* argv,
                                                      CoordinatorFlags* flags) {
  CoordinatorOptions& options = flags->options;
  PlacementOptions& placement = options.registry.placement;
  options.state_dir = DefaultStateDir();
  options.lifecycle.version = PREDELLA_VERSION;
  options.listen = {"127.0.0.1:7400"};
  std::string spread = "most-available";
  std::string priority_order = "lowest-first";
  int epoch_above = 0;

  Config config("predella-coordinator",
                "Knows where images lie: index, placement, uploads, deletes.",
                "/etc/predella/coordinator.yaml");
  config.Add("state-dir", &options.state_dir,
             "Directory of the index and the epoch; one coordinator at a time");
  config.DescribeDefault(
      "state-dir", "/var/lib/predella for root, else ~/.local/state/predella");
  config.Add("listen", &options.listen,
             "Address to serve on, unix:/PATH or HOST:PORT; repeatable");
  config.Add("health-listen", &options.health_listen,
             "Address for health checks alone, in plaintext; repeatable");
  config.Add("epoch-above", &epoch_above,
             "Begin an epoch above this one: for a state directory that is an "
             "older copy, when STALE_EPOCH says so");
  config.Add("spread", &spread,
             "Among mounts of one priority: most-available takes the one with "
             "most space, weighted draws at random by space");
  config.Add("priority-order", &priority_order,
             "Which priority is preferred: lowest-first, or highest-first as "
             "filesystem_store_datadirs has it");
  config.Add("near-full", &placement.near_full_percent,
             "Per cent in use above which a mount is taken last");
  config.AddDuration("upload-ttl", &options.lifecycle.upload_ttl,
                     "An upload without a sign of life for this long ends");
  config.AddDuration("outcome-ttl", &options.lifecycle.outcome_ttl,
                     "How long an ended upload answers for itself");
  config.AddDuration("scrub-interval", &options.lifecycle.scrub_interval,
                     "How often each mount is read cold and checked; 0s: only "
                     "when it is asked for, or showed errors");
  config.AddDuration("rescan-interval", &options.lifecycle.rescan_interval,
                     "How long after its last listing each mount is listed "
                     "again and compared, 10s to 24h; 0s: only at starts");
  config.AddDuration("unreachable-after", &options.registry.unreachable_after,
                     "An agent silent for this long is UNREACHABLE");
  config.Add("backup-dir", &options.backup_dir,
             "Directory for copies of the index");
  config.DescribeDefault("backup-dir", "backups in the state directory");
  config.AddDuration("backup-interval", &options.backup_interval,
                     "How often the index is copied there; 0s: only when "
                     "predella index backup asks");
  config.Add("backup-keep", &options.backup_keep,
             "How many copies are kept; the oldest goes when a newer one is "
             "whole");
  config.Add("insecure-plaintext-on-network",
             &options.insecure_plaintext_on_network,
             "Allow addresses that are not loopback without TLS");
  config.Add("parent-watch-fd", &flags->parent_watch_fd,
             "Stop when this descriptor reads end of file; for a supervisor");
  config.Add("die-with-parent", &flags->die_with_parent,
             "Stop when the parent process ends; for a supervisor");
  ASSIGN_OR_RETURN(const Config::Outcome outcome, config.Parse(argc, argv));
  if (!outcome.run) {
    return outcome;
  }
  if (spread == "weighted") {
    placement.spread = PlacementOptions::Spread::kWeighted;
  } else if (spread != "most-available") {
    return NotOneOf("spread", spread, "most-available or weighted");
  }
  if (priority_order == "highest-first") {
    placement.highest_priority_first = true;
  } else if (priority_order != "lowest-first") {
    return NotOneOf("priority-order", priority_order,
                    "lowest-first or highest-first");
  }
  // Also what is no number at all.
  if (!(placement.near_full_percent > 0 &&
        placement.near_full_percent <= 100)) {
    return NotOneOf("near-full", absl::StrCat(placement.near_full_percent),
                    "a percentage above 0 and up to 100");
  }
  if (epoch_above < 0) {
    return NotOneOf("epoch-above", absl::StrCat(epoch_above),
                    "a number from 0 on");
  }
  options.above_epoch = epoch_above;
  if (options.lifecycle.scrub_interval < absl::ZeroDuration()) {
    return NotOneOf("scrub-interval",
                    absl::FormatDuration(options.lifecycle.scrub_interval),
                    "0s or longer");
  }
  const absl::Duration rescan = options.lifecycle.rescan_interval;
  if (rescan != absl::ZeroDuration() &&
      (rescan < absl::Seconds(10) || rescan > absl::Hours(24))) {
    return NotOneOf("rescan-interval", absl::FormatDuration(rescan),
                    "0s, or from 10s to 24h");
  }
  const std::pair<const char*, absl::Duration> durations[] = {
      {"upload-ttl", options.lifecycle.upload_ttl},
      {"outcome-ttl", options.lifecycle.outcome_ttl},
      {"unreachable-after", options.registry.unreachable_after}};
  for (const auto& [flag, value] : durations) {
    if (value <= absl::ZeroDuration()) {
      return NotOneOf(flag, absl::FormatDuration(value), "longer than 0s");
    }
  }
  return outcome;
}

}  // namespace predella::server
