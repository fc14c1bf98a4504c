#include "agent/options.h"

#include <grp.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/errors.h"
#include "common/resource_name.h"
#include "common/status_macros.h"
#include "common/units.h"

namespace predella::agent {
namespace {

absl::Status Wrong(absl::string_view option, absl::string_view why) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   absl::StrCat("--", option, ": ", why),
                   {{"option", std::string(option)}});
}

absl::StatusOr<uint32_t> ParseMode(const std::string& text) {
  if (text.empty() || text.size() > 4 ||
      text.find_first_not_of("01234567") != std::string::npos) {
    return Wrong("file-mode",
                 absl::StrCat("'", text, "' is not an octal mode like 0640"));
  }
  return static_cast<uint32_t>(std::stoul(text, nullptr, 8));
}

absl::StatusOr<uint32_t> ParseGroup(const std::string& text) {
  uint32_t gid = 0;
  if (absl::SimpleAtoi(text, &gid)) {
    return gid;
  }
  const struct group* found = getgrnam(text.c_str());
  if (found == nullptr) {
    return Wrong("file-group", absl::StrCat("there is no group '", text, "'"));
  }
  return found->gr_gid;
}

}  // namespace

void AgentOptions::AddTo(Config* config) {
  config->Add("name", &name, "Name of the mount, as `mount init` gave it");
  config->Add("path", &path, "Directory to serve");
  config->Add("priority", &priority, "Lower is preferred for new images");
  config->Add("coordinator", &coordinator,
              "Address of the coordinator (HOST:PORT or unix:/path)");
  config->Add("listen", &listen,
              "Address to serve chunks on (HOST:PORT or unix:/path)");
  config->Add("health-listen", &health_listen,
              "Address for health checks alone");
  config->Add("advertise", &advertise,
              "Address clients shall use; default: the listen addresses");
  config->Add("reserve", &reserve,
              "Size to keep free; default: min(max(1 %, 1 GiB), 5 %)");
  config->Add("file-mode", &file_mode, "Octal mode of image files");
  config->Add("file-group", &file_group,
              "Group of image files; default: the directory's");
  config->Add("space-group", &space_group,
              "Mounts with the same word share one space");
  config->Add("failure-domain", &failure_domain,
              "What fails together with this mount; default: it alone");
  config->Add("disk-threads", &disk_threads, "Threads for the mount");
  config->Add("scrub-rate", &scrub_rate,
              "Size a second that a scrub reads, unless it is told another");
  config->Add("insecure-plaintext-on-network", &insecure_plaintext_on_network,
              "Allow unencrypted traffic on addresses of the network");
  config->Add("require-mountpoint", &require_mountpoint,
              "Serve the directory only while something is mounted on it");
  config->Add("thin", &thin, "Leave holes in new images where 64 KiB are zero");
  config->AddDuration("slow-above", &slow_above,
                      "SLOW when 95 of 100 probes take longer for a minute; "
                      "3s suits a network file system");
  config->AddDuration("drain-timeout", &drain_timeout,
                      "How long open streams may go on after SIGTERM");
  config->Add("parent-watch-fd", &parent_watch_fd,
              "Exit when this inherited pipe reaches its end");
  config->Add("die-with-parent", &die_with_parent,
              "Exit when the process that started this one ends");
}

absl::Status AgentOptions::Validate() {
  if (path.empty() || path[0] != '/') {
    return Wrong("path", "an absolute directory is needed");
  }
  RETURN_IF_ERROR(Annotate(ValidateMountName(name), "--name"));
  if (coordinator.empty()) {
    return Wrong("coordinator", "at least one address is needed");
  }
  if (listen.empty()) {
    return Wrong("listen", "at least one address is needed");
  }
  if (priority < 0) {
    return Wrong("priority", "a number from 0 on");
  }
  if (disk_threads < 1 || disk_threads > 256) {
    return Wrong("disk-threads", "between 1 and 256");
  }
  if (slow_above <= absl::ZeroDuration() || slow_above >= absl::Seconds(8)) {
    return Wrong("slow-above", "more than 0s and less than 8s, when it hangs");
  }
  if (!reserve.empty()) {
    absl::StatusOr<int64_t> bytes = ParseSize(reserve);
    RETURN_IF_ERROR(Annotate(bytes.status(), "--reserve"));
    reserve_bytes = *bytes;
  }
  absl::StatusOr<int64_t> rate = ParseSize(scrub_rate);
  RETURN_IF_ERROR(Annotate(rate.status(), "--scrub-rate"));
  if (*rate <= 0) {
    return Wrong("scrub-rate", "more than 0");
  }
  scrub_bytes_per_second = *rate;
  ASSIGN_OR_RETURN(file_mode_bits, ParseMode(file_mode));
  if (!file_group.empty()) {
    ASSIGN_OR_RETURN(file_group_id, ParseGroup(file_group));
  }
  for (const std::string& text : coordinator) {
    ASSIGN_OR_RETURN(const Address address, ParseAddress(text));
    RETURN_IF_ERROR(
        CheckPlaintextAllowed(address, insecure_plaintext_on_network));
  }
  for (const std::string& text : listen) {
    ASSIGN_OR_RETURN(const Address address, ParseAddress(text));
    RETURN_IF_ERROR(
        CheckPlaintextAllowed(address, insecure_plaintext_on_network));
    listen_addresses.push_back(address);
  }
  for (const std::string& text : advertise) {
    RETURN_IF_ERROR(ParseAddress(text).status());
  }
  for (const std::string& text : health_listen) {
    ASSIGN_OR_RETURN(const Address address, ParseAddress(text));
    health_addresses.push_back(address);
  }
  return absl::OkStatus();
}

}  // namespace predella::agent
