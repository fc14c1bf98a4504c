#include "client/cli/serve/serve_state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"

#include "client/cli/serve/directory_check.h"
#include "common/errors.h"
#include <yaml-cpp/yaml.h>

namespace predella::cli {
namespace {

absl::Status FileError(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

}  // namespace

int ServeState::OffsetOf(const std::string& name) {
  const auto found = port_offsets.find(name);
  if (found != port_offsets.end()) {
    return found->second;
  }
  std::set<int> taken;
  for (const auto& [other, offset] : port_offsets) {
    taken.insert(offset);
  }
  int offset = 0;
  while (taken.count(offset) > 0) {
    ++offset;
  }
  port_offsets[name] = offset;
  return offset;
}

// Names and uids are of sets that need no escapes.
std::string ServeState::ToJson() const {
  std::string json =
      "{\n  \"cluster_uid\": \"" + cluster_uid + "\",\n  \"port_offsets\": {";
  const char* separator = "\n";
  for (const auto& [name, offset] : port_offsets) {
    absl::StrAppend(&json, separator, "    \"", name, "\": ", offset);
    separator = ",\n";
  }
  absl::StrAppend(&json, port_offsets.empty() ? "}" : "\n  }",
                  ",\n  \"mount_uids\": {");
  separator = "\n";
  for (const auto& [name, uid] : mount_uids) {
    absl::StrAppend(&json, separator, "    \"", name, "\": \"", uid, "\"");
    separator = ",\n";
  }
  json += mount_uids.empty() ? "}\n}\n" : "\n  }\n}\n";
  return json;
}

absl::StatusOr<ServeState> ServeState::FromJson(const std::string& json) {
  ServeState state;
  try {  // JSON is YAML
    const YAML::Node root = YAML::Load(json);
    state.cluster_uid = root["cluster_uid"].as<std::string>("");
    for (const auto& entry : root["port_offsets"]) {
      state.port_offsets[entry.first.as<std::string>()] =
          entry.second.as<int>();
    }
    for (const auto& entry : root["mount_uids"]) {
      state.mount_uids[entry.first.as<std::string>()] =
          entry.second.as<std::string>();
    }
  } catch (const YAML::Exception& error) {
    return absl::DataLossError(
        absl::StrCat("serve.json cannot be read: ", error.what()));
  }
  return state;
}

absl::StatusOr<ServeState> ReadServeState(const std::string& state_dir) {
  std::ifstream file(state_dir + "/serve.json");
  if (!file.is_open()) {
    return ServeState();
  }
  std::stringstream text;
  text << file.rdbuf();
  return ServeState::FromJson(text.str());
}

absl::Status WriteServeState(const std::string& state_dir,
                             const ServeState& state) {
  const std::string path = state_dir + "/serve.json";
  const std::string temporary = path + ".new";
  const int fd =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) {
    return FileError("cannot create " + temporary);
  }
  const std::string json = state.ToJson();
  const bool written = write(fd, json.data(), json.size()) ==
                           static_cast<ssize_t>(json.size()) &&
                       fsync(fd) == 0;
  const bool closed = close(fd) == 0;
  if (!written || !closed ||
      std::rename(temporary.c_str(), path.c_str()) != 0) {
    return FileError("cannot write " + path);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ServeLock>> ServeLock::Take(
    const std::string& state_dir) {
  const std::string path = state_dir + "/serve.lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    return FileError("cannot open " + path);
  }
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    close(fd);
    return absl::FailedPreconditionError(absl::StrCat(
        "another predella serve (process ", LockHolder(path).value_or(0),
        ") runs with the state "
        "directory ",
        state_dir));
  }
  return std::unique_ptr<ServeLock>(new ServeLock(fd));
}

ServeLock::~ServeLock() { close(fd_); }

std::string DefaultStateDir() {
  const char* home = std::getenv("HOME");
  if (geteuid() == 0 || home == nullptr || *home == '\0') {
    return "/var/lib/predella";
  }
  return absl::StrCat(home, "/.local/state/predella");
}

}  // namespace predella::cli
