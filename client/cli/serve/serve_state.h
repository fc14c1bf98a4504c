// What serve keeps in its state directory, besides the coordinator's index.
#ifndef PREDELLA_CLIENT_CLI_SERVE_SERVE_STATE_H_
#define PREDELLA_CLIENT_CLI_SERVE_SERVE_STATE_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace predella::cli {

// serve.json: which port offset a mount has, for ever, which identity was
// last served under its name, and the cluster.
struct ServeState {
  std::map<std::string, int> port_offsets;        // by name of mount
  std::map<std::string, std::string> mount_uids;  // by name of mount
  std::string cluster_uid;

  // The offset of `name`; a new name gets the lowest that is free.
  int OffsetOf(const std::string& name);
  std::string ToJson() const;
  static absl::StatusOr<ServeState> FromJson(const std::string& json);
};

// An empty state when there is no file.
absl::StatusOr<ServeState> ReadServeState(const std::string& state_dir);
// By rename, synced.
absl::Status WriteServeState(const std::string& state_dir,
                             const ServeState& state);

// <state-dir>/serve.lock, held for as long as this lives.
class ServeLock {
 public:
  // FAILED_PRECONDITION names the process that holds it.
  static absl::StatusOr<std::unique_ptr<ServeLock>> Take(
      const std::string& state_dir);
  ~ServeLock();
  ServeLock(const ServeLock&) = delete;
  ServeLock& operator=(const ServeLock&) = delete;

 private:
  explicit ServeLock(int fd) : fd_(fd) {}
  const int fd_;
};

// /var/lib/predella for root, else ~/.local/state/predella.
std::string DefaultStateDir();

}  // namespace predella::cli

#endif  // PREDELLA_CLIENT_CLI_SERVE_SERVE_STATE_H_
