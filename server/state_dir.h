// The coordinator's state directory: one process at a time works in it.
#ifndef PREDELLA_SERVER_STATE_DIR_H_
#define PREDELLA_SERVER_STATE_DIR_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace predella::server {

// /var/lib/predella for root, else ~/.local/state/predella.
std::string DefaultStateDir();

// Makes the directory and those above it that are missing.
absl::Status MakeDirectories(const std::string& path);

// fsync of a directory: renames in it are durable.
absl::Status SyncDirectory(const std::string& path);

// fsync of all files in a directory, and of itself.
absl::Status SyncFiles(const std::string& path);

// flock on <state-dir>/lock for as long as it lives; our pid is in the file.
class StateLock {
 public:
  // FAILED_PRECONDITION when another process holds it: names its pid.
  static absl::StatusOr<std::unique_ptr<StateLock>> Take(
      const std::string& state_dir);
  ~StateLock();
  StateLock(const StateLock&) = delete;
  StateLock& operator=(const StateLock&) = delete;

 private:
  explicit StateLock(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace predella::server

#endif  // PREDELLA_SERVER_STATE_DIR_H_
