// What an agent is told on its command line, in its environment or file.
#ifndef PREDELLA_AGENT_OPTIONS_H_
#define PREDELLA_AGENT_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/config/config.h"
#include "common/rpc/listen.h"

namespace predella::agent {

struct AgentOptions {
  std::string name;
  std::string path;
  int priority = 100;
  std::vector<std::string> coordinator;
  std::vector<std::string> listen;
  std::vector<std::string> health_listen;
  std::vector<std::string> advertise;
  std::string reserve;  // empty: the default of the file system's size
  std::string file_mode = "0640";
  std::string file_group;
  std::string space_group;
  std::string failure_domain;
  int disk_threads = 8;
  std::string scrub_rate = "64MiB";  // a second
  bool insecure_plaintext_on_network = false;
  bool require_mountpoint = false;
  bool thin = false;
  absl::Duration slow_above = absl::Seconds(1);
  absl::Duration drain_timeout = absl::Seconds(30);
  // For a supervisor: exit when this pipe reaches its end, or with it.
  int parent_watch_fd = -1;
  bool die_with_parent = false;

  // Filled by Validate.
  uint32_t file_mode_bits = 0640;
  std::optional<uint32_t> file_group_id;
  std::optional<int64_t> reserve_bytes;
  int64_t scrub_bytes_per_second = 0;
  std::vector<Address> listen_addresses;
  std::vector<Address> health_addresses;

  // Declares every option; this must outlive config->Parse.
  void AddTo(Config* config);
  // Checks and fills the derived part. INVALID_ARGUMENT says which option and
  // what it may be.
  absl::Status Validate();
};

}  // namespace predella::agent

#endif  // PREDELLA_AGENT_OPTIONS_H_
