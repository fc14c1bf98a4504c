#include "client/cli/endpoint.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/errors.h"

namespace predella::cli {
namespace {

std::string ReadPointer(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return std::string(absl::StripAsciiWhitespace(line));
}

// Whether somebody listens on a Unix socket; a closed door is not an empty
// house.
enum class Door { kOpen, kClosed, kNobody };
Door Knock(const std::string& endpoint) {
  const std::string path = endpoint.substr(endpoint.find(':') + 1);
  sockaddr_un address{};
  if (endpoint.rfind("unix:", 0) != 0 ||
      path.size() >= sizeof(address.sun_path)) {
    return Door::kNobody;
  }
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return Door::kNobody;
  }
  const bool open = connect(fd, reinterpret_cast<const sockaddr*>(&address),
                            sizeof(address)) == 0;
  const bool closed = !open && (errno == EACCES || errno == EPERM);
  close(fd);
  return open ? Door::kOpen : closed ? Door::kClosed : Door::kNobody;
}

}  // namespace

std::string RealEnvironment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

std::vector<std::string> PointerFiles(const Environment& environment) {
  std::vector<std::string> files = {"/run/predella/endpoint"};
  if (const std::string runtime = environment("XDG_RUNTIME_DIR");
      !runtime.empty()) {
    files.push_back(runtime + "/predella/endpoint");
  }
  if (const std::string home = environment("HOME"); !home.empty()) {
    files.push_back(home + "/.local/state/predella/endpoint");
  }
  return files;
}

absl::StatusOr<std::string> FindEndpoint(
    const std::string& flag, const Environment& environment,
    const std::vector<std::string>& files) {
  if (!flag.empty()) {
    return flag;
  }
  if (const std::string given = environment("PREDELLA_ENDPOINT");
      !given.empty()) {
    return given;
  }
  std::string closed;
  for (const std::string& file : files) {
    const std::string endpoint = ReadPointer(file);
    if (endpoint.empty()) {
      continue;
    }
    // Another user's serve is passed over for one of ours.
    if (Knock(endpoint) != Door::kClosed) {
      return endpoint;
    }
    closed = closed.empty() ? endpoint : closed;
  }
  if (!closed.empty()) {
    return closed;
  }
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kNotReady,
      absl::StrCat("no coordinator is known: give --endpoint, set "
                   "PREDELLA_ENDPOINT, or start predella serve (looked for ",
                   absl::StrJoin(files, ", "), ")"));
}

absl::StatusOr<std::string> WritePointerFile(
    const std::vector<std::string>& files, const std::string& endpoint) {
  for (const std::string& file : files) {
    const std::string other = ReadPointer(file);
    const Door door =
        other.empty() || other == endpoint ? Door::kNobody : Knock(other);
    if (door == Door::kClosed) {
      continue;  // another user's, whose clients find it there
    }
    if (door == Door::kOpen) {
      return absl::FailedPreconditionError(
          absl::StrCat(file, " names another serve that runs, ", other,
                       ": it stays; reach this one by --endpoint ", endpoint));
    }
    const std::filesystem::path directory =
        std::filesystem::path(file).parent_path();
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    if (error || access(directory.c_str(), W_OK) != 0) {
      continue;
    }
    const std::string temporary = absl::StrCat(file, ".", getpid());
    std::ofstream out(temporary, std::ios::trunc);
    out << endpoint << "\n";
    out.close();
    if (!out.good()) {
      std::filesystem::remove(temporary, error);
      continue;
    }
    std::filesystem::rename(temporary, file, error);
    if (!error) {
      return file;
    }
    std::filesystem::remove(temporary, error);
  }
  return absl::PermissionDeniedError(
      absl::StrCat("none of ", absl::StrJoin(files, ", "), " can be written"));
}

void RemovePointerFile(const std::string& file, const std::string& endpoint) {
  if (!file.empty() && ReadPointer(file) == endpoint) {
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
  }
}

}  // namespace predella::cli
